use super::*;
use crate::lines::{Table, Within};

/// See `fixtures/README.md`.
const FIXTURES: [&[u8]; 2] =
    [include_bytes!("../../../fixtures/places4.wasm"), include_bytes!("../../../fixtures/places5.wasm")];

/// The sections of a module: their ids, and where their contents stand.
fn sections(wasm: &[u8]) -> Vec<(u8, Range<usize>)> {
    let mut found = Vec::new();
    let mut rest = &wasm[8..];
    while let Some((id, behind)) = rest.split_first() {
        rest = behind;
        let len = take(&mut rest).expect("a length") as usize;
        let start = wasm.len() - rest.len();
        found.push((*id, start..start + len));
        rest = &rest[len..];
    }
    found
}

/// The custom sections with debug information, by name, and the code section's contents.
fn parts(wasm: &[u8]) -> (Vec<(String, Vec<u8>)>, Range<u32>) {
    let mut custom = Vec::new();
    let mut code = 0..0;
    for (id, range) in sections(wasm) {
        match id {
            0 => {
                let mut contents = &wasm[range];
                let len = take(&mut contents).expect("a length") as usize;
                let (name, contents) = contents.split_at(len);
                custom.push((String::from_utf8_lossy(name).into_owned(), contents.to_vec()));
            }
            10 => code = range.start as u32..range.end as u32,
            _ => {}
        }
    }
    custom.retain(|(name, _)| name.starts_with(".debug_"));
    (custom, code)
}

fn read_parts(custom: &[(String, Vec<u8>)], code: Range<u32>) -> (Extent, Vec<u8>) {
    let mut sections = DebugSections::default();
    custom.iter().for_each(|(name, contents)| sections.add(name, contents));
    let mut collected = Collected::default();
    let extent = read(&sections, code, &mut collected);
    (extent, collected.into_table())
}

/// All stacks of functions that stand anywhere in the code, each once.
fn stacks(table: &Table<'_>, code: Range<u32>) -> Vec<String> {
    let shown = |within: &Within<'_>| {
        let place = within.place.map_or("?".into(), |place| format!("{}:{}", place.file, place.line));
        format!("{} {place}", within.inlined.unwrap_or("-"))
    };
    let mut all: Vec<_> = code
        .map(|offset| table.at(offset.into()).iter().map(shown).collect::<Vec<_>>().join(" < "))
        .collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn places_and_inlined_functions_of_a_module_in_c_are_known_in_both_versions() {
    for wasm in FIXTURES {
        let (custom, code) = parts(wasm);
        let (extent, table) = read_parts(&custom, code.clone());
        assert_eq!(extent, Extent::All);
        let stacks = stacks(&Table::new(&table).expect("a table"), code);
        for expected in [
            "- src/places.c:3",
            "- src/places.c:23",
            "divide src/places.c:7 < twice src/places.c:11 < - src/places.c:17",
        ] {
            assert!(stacks.iter().any(|stack| stack == expected), "{expected}: {stacks:#?}");
        }
    }
}

#[test]
fn without_its_sections_nothing_is_known_and_a_damaged_one_costs_what_it_says() {
    let (custom, code) = parts(FIXTURES[0]);
    for missing in [".debug_info", ".debug_line"] {
        let mut sections = DebugSections::default();
        custom.iter().filter(|(name, _)| name != missing).for_each(|(name, bytes)| sections.add(name, bytes));
        assert!(sections.is_empty(), "{missing}");
    }
    for damaged in [".debug_abbrev", ".debug_info", ".debug_line"] {
        let mut custom = custom.clone();
        custom.iter_mut().filter(|(name, _)| name == damaged).for_each(|(_, bytes)| bytes.truncate(9));
        let (extent, _) = read_parts(&custom, code.clone());
        assert_eq!(extent, Extent::Damaged, "{damaged}");
    }
}

/// Units of twelve bytes that all share one line program, and entries without a byte for their attributes: what they cost
/// does not grow with how often they are named.
#[test]
fn a_few_bytes_cannot_stand_for_very_many() {
    let (mut custom, code) = parts(FIXTURES[0]);
    let info = custom.iter_mut().find(|(name, _)| name == ".debug_info").expect("a section");
    info.1 = info.1.repeat(20_000);
    let began = std::time::Instant::now();
    let (_, table) = read_parts(&custom, code.clone());
    // The first unit was read, whatever became of the rest.
    let table = Table::new(&table).expect("a table");
    assert!(stacks(&table, code).iter().any(|stack| stack.contains("src/places.c:17")));
    assert!(began.elapsed() < std::time::Duration::from_secs(60));

    // A unit with a line program, and in it as many entries of one byte as their abbreviation has flags, which take none.
    let (custom, code) = parts(FIXTURES[0]);
    let mut abbreviations = vec![1, 0x11, 1, 0x10, 0x17, 0, 0, 2, 0x2e, 0];
    (0..30_000).for_each(|_| abbreviations.extend([0x3f, 0x19]));
    abbreviations.extend([0, 0, 0]);
    let mut unit = vec![4, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
    unit.extend([2; 30_000]);
    let mut info = (unit.len() as u32).to_le_bytes().to_vec();
    info.extend(unit);
    let mut custom: Vec<_> = custom.into_iter().filter(|(name, _)| name == ".debug_line").collect();
    custom.extend([(".debug_abbrev".into(), abbreviations), (".debug_info".into(), info)]);
    assert_eq!(read_parts(&custom, code).0, Extent::TooMuch);
}

/// xorshift64: the same mutations everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

#[test]
fn whatever_the_information_says_it_is_read_within_its_bounds() {
    let mut random = Random(0x5eed);
    for round in 0..4000 {
        let (mut custom, code) = parts(FIXTURES[round % 2]);
        for _ in 0..1 + random.below(8) {
            let section = random.below(custom.len());
            let bytes = &mut custom[section].1;
            let place = random.below(bytes.len());
            match random.below(4) {
                0 if place < bytes.len() => bytes[place] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                1 if place < bytes.len() => bytes[place] ^= 1 << random.below(8),
                2 => bytes.insert(place, random.below(256) as u8),
                _ => bytes.truncate(place),
            }
        }
        let (_, table) = read_parts(&custom, code.clone());
        let table = Table::new(&table).expect("a table");
        code.for_each(|offset| assert!(!table.at(offset.into()).is_empty(), "round {round}"));
    }
}

#[test]
fn a_path_is_relative_to_the_folder_it_was_compiled_in_and_its_end_is_kept() {
    for (compiled_in, folder, file, expected) in [
        ("/guest", "/guest/src", "a.rs", "src/a.rs"),
        ("/guest/", "/guest", "a.rs", "a.rs"),
        ("/guest", "/guests", "a.rs", "/guests/a.rs"),
        ("/guest", "/guest", "/guest", "/guest"),
        ("/guest", "src", "a.rs", "src/a.rs"),
        ("/guest", ".", "./a.rs", "a.rs"),
        ("", "/x/", "a.rs", "/x/a.rs"),
        ("/guest", "/x", "/y/a.rs", "/y/a.rs"),
        ("C:\\guest", "C:\\guest\\src", "a.rs", "src\\a.rs"),
        ("", "", "", ""),
    ] {
        assert_eq!(path(compiled_in, folder, file), expected);
    }
    let long = path("", "", &format!("{}/a.rs", "ä".repeat(LINES_PATH_BYTES_MAX)));
    assert!(
        long.starts_with("…ä") && long.ends_with("/a.rs") && long.len() <= LINES_PATH_BYTES_MAX + 3,
        "{long}"
    );
}
