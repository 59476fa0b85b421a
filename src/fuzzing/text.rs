//! Guest text on its way to a person: in every escape, every cut and every error.

use bytes::Bytes;

use super::{Bounded, Input, within};
use crate::error::{Death, DeathCause, ModuleError, Phase, SubmitError, TaskError};
use crate::report::CommandOutput;
use proto::limits::SCHEMA_NAME_BYTES_MAX;
use proto::schema::{SchemaError, TypeSchema};
use proto::text::{Escaped, is_blank, truncated};
use proto::trap::{Frame, TrapCode};

/// Longer ones say nothing new, and take long.
const TEXT_BYTES_MAX: usize = 4096;

/// The input: where to cut, in which error to show, the text.
pub fn run(data: &[u8], bounded: Bounded) {
    let mut input = Input(data);
    let max = usize::from(input.u16()) % TEXT_BYTES_MAX;
    let choice = input.byte();
    let text = String::from_utf8_lossy(input.bytes(TEXT_BYTES_MAX));

    // The longest escape, \u{10ffff}, stands for a character of four bytes; \u{80} for one of two.
    let escaped = within(bounded, 16 * text.len() + 1024, || Escaped(&text).to_string());
    assert_harmless(&escaped);
    assert_eq!(escaped, Escaped(&escaped).to_string(), "to escape what is escaped changes nothing");
    if text.chars().all(is_shown) {
        assert_eq!(escaped, text, "what is harmless stays as it is");
    }

    // A growing string may have twice the room that it needs, and so may its copy with the words about the
    // rest.
    let cut = within(bounded, 4 * text.len() + 1024, || truncated(&text, max));
    let kept = cut.strip_suffix(" bytes cut)").and_then(|cut| cut.rsplit_once("… ("));
    match kept.filter(|_| text.len() > max) {
        None => assert_eq!(cut, text),
        Some((kept, bytes)) => {
            assert!(kept.len() <= max && max - kept.len() < 4 && text.starts_with(kept));
            assert_eq!(bytes.parse::<usize>(), Ok(text.len() - kept.len()));
        }
    }
    assert_harmless(&error(choice, &text));
}

/// The errors that carry what a guest, a worker or a compiler said, one for each choice.
fn error(choice: u8, text: &str) -> String {
    let text = || text.to_string();
    let death = Death::new(1, DeathCause::ProtocolViolation(text()), Phase::Running, text());
    let backtrace = || vec![Frame::new(Some(text()), 0, Some(1))];
    match choice % 22 {
        0 => {
            TaskError::Trap { code: TrapCode::Other, message: text(), backtrace: backtrace(), stderr: text() }
                .to_string()
        }
        1 => TaskError::Panic { message: text(), location: text(), backtrace: Vec::new() }.to_string(),
        2 => TaskError::Guest { message: text(), chain: vec![text()], data: None }.to_string(),
        3 => TaskError::InputDecode { message: text() }.to_string(),
        4 => TaskError::OutputDecode { message: text() }.to_string(),
        5 => TaskError::Abi { message: text() }.to_string(),
        6 => TaskError::Instantiate { message: text() }.to_string(),
        7 => TaskError::WorkerDied(death).to_string(),
        8 => ModuleError::Read { path: text().into(), message: text() }.to_string(),
        9 => ModuleError::Invalid { message: text() }.to_string(),
        10 => ModuleError::Unsupported { feature: text(), message: text() }.to_string(),
        11 => ModuleError::UnknownImports { imports: vec![text(), text()] }.to_string(),
        12 => ModuleError::Abi { message: text() }.to_string(),
        13 => {
            // A task that called `proc_exit`: its error shows what it wrote.
            let stdout = Bytes::from(text());
            let stderr = Bytes::from(text());
            TaskError::Exit { output: CommandOutput { exit_code: 1, stdout, stderr } }.to_string()
        }
        14 => ModuleError::CompilerDied { death, quarantined: false }.to_string(),
        15 => ModuleError::Compiler { message: text() }.to_string(),
        16 => ModuleError::UnknownTask { module: text(), name: text(), known: vec![text()] }.to_string(),
        17 => {
            let module = text();
            let task = text();
            let side = text();
            ModuleError::SchemaMismatch { module, task, side, declared: text(), asked: text() }.to_string()
        }
        18 => ModuleError::RawTask { module: text(), task: text() }.to_string(),
        19 => ModuleError::NotACommand { module: text(), known: vec![text()] }.to_string(),
        20 => SubmitError::Encode { task: text(), message: text() }.to_string(),
        _ => {
            let once = struct_with(&text(), 1);
            let twice = struct_with(&text(), 2);
            match &once {
                Ok(_) if text().len() <= SCHEMA_NAME_BYTES_MAX && !is_blank(&text()) => {
                    assert_eq!(twice, Err(SchemaError::RepeatedName { name: text() }));
                }
                Err(SchemaError::BlankName) if is_blank(&text()) => {}
                Err(SchemaError::NamesTooLong) if text().len() > SCHEMA_NAME_BYTES_MAX => {}
                other => panic!("{:?} as a name is {other:?}", text()),
            }
            [once, twice].map(|read| read.unwrap_or_else(|refused| refused.to_string())).concat()
        }
    }
}

/// Shows a struct of this name that has this many fields of the same name, read as a guest describes it.
fn struct_with(name: &str, fields: usize) -> Result<String, SchemaError> {
    let described = postcard::to_stdvec(&(name, 26u32, vec![(name, "", 1u8); fields])).expect("encodes");
    let (schema, rest) = TypeSchema::decode_guest(&described)?;
    assert!(rest.is_empty());
    Ok(format!("{schema} {schema:?}"))
}

/// Checks against the lists of Unicode 16: no category Cc but line feed and tab, no category Cf (which has
/// the bidirectional controls and tags), no `Default_Ignorable_Code_Point`, and no line or paragraph
/// separator.
pub fn assert_harmless(shown: &str) {
    if let Some(c) = shown.chars().find(|c| !is_shown(*c)) {
        panic!("{c:?} is shown in {shown:?}");
    }
}

fn is_shown(c: char) -> bool {
    const FORMAT: [(u32, u32); 19] = [
        (0xad, 0xad),
        (0x600, 0x605),
        (0x61c, 0x61c),
        (0x6dd, 0x6dd),
        (0x70f, 0x70f),
        (0x890, 0x891),
        (0x8e2, 0x8e2),
        (0x180e, 0x180e),
        (0x200b, 0x200f),
        (0x202a, 0x202e),
        (0x2060, 0x206f),
        (0xfeff, 0xfeff),
        (0xfff9, 0xfffb),
        (0x110bd, 0x110bd),
        (0x110cd, 0x110cd),
        (0x13430, 0x1343f),
        (0x1bca0, 0x1bca3),
        (0x1d173, 0x1d17a),
        (0xe0001, 0xe007f),
    ];
    const IGNORABLE: [(u32, u32); 9] = [
        (0x34f, 0x34f),
        (0x115f, 0x1160),
        (0x17b4, 0x17b5),
        (0x180b, 0x180f),
        (0x3164, 0x3164),
        (0xfe00, 0xfe0f),
        (0xffa0, 0xffa0),
        (0xfff0, 0xfff8),
        (0xe0000, 0xe0fff),
    ];
    match u32::from(c) {
        0x20..=0x7e => true,
        0x09 | 0x0a => true,
        0x00..=0x1f | 0x7f..=0x9f | 0x2028 | 0x2029 => false,
        code => !FORMAT.iter().chain(&IGNORABLE).any(|(first, last)| (*first..=*last).contains(&code)),
    }
}

/// Returns sequences that terminals obey, and some that are near to them.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "plain text",
        "a\u{1b}[31mred\u{202e}x\ny\r\u{9b}",
        "\u{1b}]0;title\u{7}\u{1b}]8;;http://example.org\u{1b}\\",
        "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{2066}\u{2069}\u{feff}",
        "ä… (6 bytes cut)",
        "\u{10ffff}\u{e0001}\u{180e}\u{200b}\u{fff9}",
    ];
    let seed = |index: usize| [&[(index * 3) as u8, 0, index as u8], texts[index % 6].as_bytes()].concat();
    (0..66).map(seed).collect()
}
