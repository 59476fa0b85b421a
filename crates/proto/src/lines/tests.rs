use proptest::prelude::*;

use super::*;

fn at(file: u32, line: u32, column: u32) -> At {
    At { file, line, column }
}

fn row(offset: u32, at: At) -> Row {
    Row { offset, at }
}

fn shown(within: &[Within<'_>]) -> Vec<String> {
    let place = |place: Option<Place<'_>>| {
        place.map_or("?".into(), |Place { file, line, column }| format!("{file}:{line}:{column:?}"))
    };
    within.iter().map(|one| format!("{} {}", one.inlined.unwrap_or("-"), place(one.place))).collect()
}

/// `f`, in which `g` was inlined, in which `h` was inlined twice.
fn collected() -> Collected {
    let mut all = Collected::default();
    let file = all.file("a.c").expect("room");
    assert_eq!(all.file("a.c"), Ok(file));
    let other = all.file("b.c").expect("room");
    let [g, h] = ["g", "h"].map(|name| all.name(name).expect("room"));
    // Rows may come in any order.
    for one in [row(100, at(file, 1, 0)), row(140, At::default()), row(110, at(other, 7, 3))] {
        all.row(one).expect("room");
    }
    let outer = all.call(Call { inside: None, function: g, at: at(file, 2, 9) }).expect("room");
    let first = all.call(Call { inside: Some(outer), function: h, at: at(file, 3, 0) }).expect("room");
    let second = all.call(Call { inside: Some(outer), function: h, at: at(file, 4, 0) }).expect("room");
    for (start, end, depth, call) in
        [(112, 120, 1, second), (105, 130, 0, outer), (105, 108, 1, first), (108, 109, 1, first)]
    {
        all.inlined(Inlined { start, end, depth, call }).expect("room");
    }
    all
}

#[test]
fn a_place_is_found_with_the_functions_that_were_inlined_there() {
    let bytes = collected().into_table();
    let table = Table::new(&bytes).expect("a table");
    for (offset, expected) in [
        (99, &["- ?"][..]),
        (100, &["- a.c:1:None"]),
        (104, &["- a.c:1:None"]),
        (105, &["h a.c:1:None", "g a.c:3:None", "- a.c:2:Some(9)"]),
        (108, &["h a.c:1:None", "g a.c:3:None", "- a.c:2:Some(9)"]),
        (109, &["g a.c:1:None", "- a.c:2:Some(9)"]),
        (111, &["g b.c:7:Some(3)", "- a.c:2:Some(9)"]),
        (119, &["h b.c:7:Some(3)", "g a.c:4:None", "- a.c:2:Some(9)"]),
        (129, &["g b.c:7:Some(3)", "- a.c:2:Some(9)"]),
        (130, &["- b.c:7:Some(3)"]),
        (140, &["- ?"]),
        (u64::MAX, &["- ?"]),
    ] {
        assert_eq!(shown(&table.at(offset)), expected, "{offset}");
    }
}

#[test]
fn a_table_that_is_cut_off_or_empty_is_none() {
    let bytes = collected().into_table();
    for len in 0..bytes.len() {
        assert!(Table::new(&bytes[..len]).is_none(), "{len}");
    }
    let empty = Collected::default().into_table();
    assert_eq!(shown(&Table::new(&empty).expect("a table").at(7)), ["- ?"]);
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let mut all = Collected::default();
    let long = "x".repeat(LINES_TEXT_BYTES_MAX);
    assert_eq!(all.file(&long), Ok(0));
    assert_eq!(all.file("y"), Err(Full));
    assert_eq!(all.file(&long), Ok(0));
}

proptest! {
    /// Rows without inlined functions are found as a search through all of them finds them.
    #[test]
    fn every_row_is_found(
        rows in proptest::collection::vec((0..5000u32, 0..3u32, 1..500u32, 0..90u32), 0..400),
        offsets in proptest::collection::vec(0..5200u32, 50),
    ) {
        let mut all = Collected::default();
        for path in ["a", "b", "c"] {
            all.file(path).expect("room");
        }
        for (offset, file, line, column) in &rows {
            all.row(row(*offset, at(*file, *line, *column))).expect("room");
        }
        let bytes = all.into_table();
        let table = Table::new(&bytes).expect("a table");
        for wanted in offsets {
            // Of several at one offset the last one counts.
            let before = rows.iter().filter(|row| row.0 <= wanted);
            let last = before.enumerate().max_by_key(|(index, row)| (row.0, *index)).map(|(_, row)| row);
            let expected = last.map(|(_, file, line, column)| Place {
                file: ["a", "b", "c"][*file as usize],
                line: *line,
                column: (*column > 0).then_some(*column),
            });
            prop_assert_eq!(table.at(wanted.into())[0].place, expected);
        }
    }

    /// Ranges may be nested in any way, or in none, and a damaged table says anything: nothing panics, and no chain is
    /// endless.
    #[test]
    fn whatever_a_table_is_made_of_and_whatever_becomes_of_it_it_is_read(
        ranges in proptest::collection::vec((0..300u32, 0..300u32, 0..5u32, 0..9u32), 0..60),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        offsets in proptest::collection::vec(any::<u32>(), 20),
    ) {
        let mut all = Collected::default();
        let function = all.name("f").expect("room");
        for number in 0..9 {
            let inside = (number > 0).then_some(number / 2);
            all.call(Call { inside, function, at: at(0, number, 0) }).expect("room");
        }
        for (start, end, depth, call) in ranges {
            all.inlined(Inlined { start, end, depth, call }).expect("room");
        }
        let mut bytes = all.into_table();
        for (index, value) in damage {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Some(table) = Table::new(&bytes) {
            for offset in (0..300).chain(offsets) {
                let within = table.at(offset.into());
                prop_assert!(!within.is_empty() && within.len() <= crate::limits::BACKTRACE_FRAMES_MAX);
            }
        }
    }
}
