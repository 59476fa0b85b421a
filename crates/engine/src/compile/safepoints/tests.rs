use proptest::prelude::*;

use super::*;

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {text})")).expect("valid text")
}

fn inserted(wasm: &[u8], memories: MemoryKind) -> Instrumented {
    let instrumented = insert(wasm, memories).expect("is valid");
    let features = wasmparser::WasmFeatures::all();
    let mut validator = wasmparser::Validator::new_with_features(features);
    validator.validate_all(&instrumented.wasm).expect("stays valid");
    instrumented
}

/// Instructions of each function, and where they are.
fn operators(wasm: &[u8]) -> Vec<Vec<(String, u64)>> {
    let bodies = Parser::new(0).parse_all(wasm).filter_map(|payload| match payload.expect("parses") {
        Payload::CodeSectionEntry(body) => Some(body),
        _ => None,
    });
    let operators = |body: FunctionBody<'_>| {
        let operators = body.get_operators_reader().expect("parses").into_iter_with_offsets();
        operators
            .map(|operator| operator.expect("parses"))
            .map(|(operator, at)| (format!("{operator:?}"), at as u64))
            .collect()
    };
    bodies.map(operators).collect()
}

/// Where safepoints stand: for each function the instructions before which there is one, by their numbers in the
/// author's module.
fn places(text: &str) -> Vec<Vec<usize>> {
    let author = wasm(text);
    let instrumented = inserted(&author, MemoryKind::Own);
    let before = operators(&author);
    let after = operators(&instrumented.wasm);
    let places = before.iter().zip(&after).map(|(before, after)| {
        let mut places = Vec::new();
        let mut next = after.iter().peekable();
        for (number, (operator, at)) in before.iter().enumerate() {
            while next.peek().is_some_and(|(other, _)| other != operator) {
                // One is three instructions, which all are where the next one was.
                for part in ["Const", "Load8", "Drop"] {
                    let (added, place) = next.next().expect("is there");
                    assert!(added.contains(part), "{added}");
                    assert_eq!(instrumented.safepoints.insertions.original(*place), *at);
                }
                places.push(number);
            }
            let (_, place) = next.next().expect("is there");
            assert_eq!(instrumented.safepoints.insertions.original(*place), *at, "{operator}");
        }
        assert!(next.next().is_none());
        places
    });
    places.collect()
}

const NOWHERE: [usize; 0] = [];

#[test]
fn loops_poll_and_functions_that_call_others() {
    assert_eq!(places("(func)"), [NOWHERE]);
    assert_eq!(places("(func (loop) (loop (loop)))"), [[1, 3, 4]]);
    assert_eq!(places("(func $f (call $f))"), [[0]]);
    assert_eq!(places("(func $f (block (return_call $f)))"), [[0]]);
    assert_eq!(
        places("(type $t (func)) (table 1 funcref) (func (call_indirect (type $t) (i32.const 1)))"),
        [[0]]
    );
    assert_eq!(places("(func $f (loop) (call $f))"), [[0, 1]]);
    assert_eq!(places("(func $f (loop (block (nop))) (if (i32.const 1) (then (call $f))))"), [[0, 1]]);
    // A host's function does not call back.
    assert_eq!(places(r#"(import "wasmpool" "log" (func $log)) (func (call $log))"#), [NOWHERE]);
    let long = "(drop (i64.const 1234567890123456789)) ".repeat(SHORT_BODY_BYTES / 10);
    assert_eq!(places(&format!("(func {long})")), [[0]]);
    // In code that is never reached, too, since the validator has to accept it.
    assert_eq!(places("(func (unreachable) (loop (param i32) (result i32)) (drop))"), [[2]]);
}

#[test]
fn a_loop_has_none_if_each_turn_calls_a_function_that_polls_at_its_beginning() {
    assert_eq!(places("(func $g (call $g)) (func (loop $l (call $g) (br $l)))"), [vec![0], vec![]]);
    assert_eq!(places("(func $g) (func (loop $l (call $g) (br $l)))"), [vec![], vec![1]]);
    // The loop may turn without the call.
    let may_turn = "(func $g (call $g)) (func (loop $l (br_if $l (i32.const 1)) (call $g)))";
    assert_eq!(places(may_turn), [vec![0], vec![1]]);
    let may_turn = "(func $g (call $g)) (func (loop $l (if (i32.const 1) (then (call $g))) (br $l)))";
    assert_eq!(places(may_turn), [vec![0], vec![1]]);
    // A host's function does not poll, and has an index as well.
    let host = r#"(import "wasmpool" "log" (func $log))"#;
    assert_eq!(places(&format!("{host} (func $g (call $g)) (func (loop (call $log)))")), [vec![0], vec![1]]);
    let both = format!("{host} (func $g (call $g)) (func (loop (call $log) (call $g)))");
    assert_eq!(places(&both), [vec![0], vec![]]);
    // One that calls itself there polls at its beginning.
    assert_eq!(places("(func $f (loop (call $f)))"), [[0]]);
    assert_eq!(places("(func $f (loop (loop (call $f))))"), [[0, 1]]);
    assert_eq!(places("(func $f (loop (return_call $f)))"), [[1]]);
}

#[test]
fn the_page_is_that_with_the_first_data() {
    let page = |text: &str, memories| {
        let safepoints = inserted(&wasm(&format!("{text} (func (loop))")), memories).safepoints;
        safepoints.page_export.map(|_| safepoints.page_offset)
    };
    let own = |text: &str| page(text, MemoryKind::Own);
    let pooled = |text: &str| page(text, MemoryKind::Pooled);
    for text in [
        "(memory 1) (data (i32.const 5000) \"x\")",
        "(memory 1) (data (i32.const 8191) \"x\") (data (i32.const 0) \"y\")",
    ] {
        assert_eq!((own(text), pooled(text)), (Some(4096), Some(4096)), "{text}");
    }
    assert_eq!(
        own("(memory 1) (data (i32.const 9) \"\") (data \"y\") (data (i32.const 9000) \"x\")"),
        Some(8192)
    );
    assert_eq!(own("(memory i64 1) (data (i64.const 9000) \"x\")"), Some(8192));
    // There is no such page, or nobody has touched it: the worker's own, which has no name; or one of the engine's.
    for text in ["", "(memory 0)", "(memory 0) (data (i32.const 0) \"x\")"] {
        assert_eq!((own(text), pooled(text)), (None, Some(0)), "{text}");
    }
    for text in ["(memory 1)", "(memory 1) (global i32 (i32.const 0)) (data (offset global.get 0) \"x\")"] {
        assert_eq!((own(text), pooled(text)), (None, Some(0)), "{text}");
    }
    // Without a pool such a memory may move.
    assert_eq!(pooled("(memory i64 1) (data (i64.const 9000) \"x\")"), Some(0));
}

#[test]
fn what_is_added_takes_no_name_and_no_index() {
    let text = format!(
        "(memory (export \"{PAGE_EXPORT}\") 1) (data (i32.const 0) \"x\") (func $s (loop)) (start $s)
         (func (export \"{START_EXPORT}\")) (func (export \"{START_EXPORT}'\"))"
    );
    let Instrumented { wasm: added, safepoints, .. } = inserted(&wasm(&text), MemoryKind::Pooled);
    assert_eq!(safepoints.page_export, Some(format!("{PAGE_EXPORT}'")));
    assert_eq!(safepoints.start_export, Some(format!("{START_EXPORT}''")));
    let parts = Parts::read(&added).expect("parses");
    assert_eq!((parts.start, parts.memories, parts.exports.len()), (None, 1, 5));
    // Without an export section, and with nothing but functions.
    let Instrumented { wasm: added, safepoints, .. } =
        inserted(&wasm("(func $s) (start $s)"), MemoryKind::Pooled);
    assert_eq!(safepoints.start_export.as_deref(), Some(START_EXPORT));
    assert_eq!(Parts::read(&added).expect("parses").exports.len(), 2);
    let Instrumented { wasm: added, safepoints, .. } =
        inserted(&wasm("(func $s) (start $s)"), MemoryKind::Own);
    assert_eq!((safepoints.page_export, safepoints.start_export), (None, None));
    assert_eq!(Parts::read(&added).expect("parses").start, Some(0));
}

#[test]
fn no_two_safepoints_of_a_function_are_the_same() {
    let count = 2 * POLLING_PAGE_BYTES as usize + 7;
    let text = format!("(memory 1) (data (i32.const 0) \"x\") (func {})", "(loop)".repeat(count));
    let instrumented = inserted(&wasm(&text), MemoryKind::Own);
    let all = operators(&instrumented.wasm).remove(0);
    let loads: HashSet<_> =
        all.iter().filter(|(operator, _)| operator.contains("Load8")).map(|(load, _)| load).collect();
    // A function so long polls at its beginning as well.
    assert_eq!(loads.len(), count + 1);
}

proptest! {
    /// The lengths of functions and of their code are numbers of one, two or three bytes, which grow.
    #[test]
    fn places_are_told_whatever_lengths_grow(nops in proptest::collection::vec(0_usize..300, 1..6), large in 0_usize..3) {
        let large = "(nop) ".repeat(large * 8_170);
        let functions = nops.iter().map(|nops| format!("(func (loop {}) (loop))", "(nop) ".repeat(*nops)));
        let text = format!("{} (func (loop {large}))", functions.collect::<String>());
        places(&text);
    }
}

/// The engine allows memories with pages of one byte for the sake of the polling page.
#[test]
fn a_module_that_could_become_valid_by_what_is_added_says_so() {
    let hides = |text: &str, memories| insert(&wasm(text), memories).expect("parses").hides_faults;
    let data = "(memory 1) (data (i32.const 0) \"x\")";
    for memories in MemoryKind::ALL {
        assert!(!hides(&format!("{data} (func (loop))"), memories));
        assert!(hides("(func (loop))", memories), "it could name the memory that is added");
        assert!(hides("(memory 1) (memory 65536 65536 (pagesize 1)) (data (i32.const 0) \"x\")", memories));
        assert!(hides("(import \"a\" \"b\" (memory 0 1 (pagesize 1)))", memories));
        assert!(hides(&format!("{data} (func $s (param i32)) (start $s)"), memories));
    }
}
