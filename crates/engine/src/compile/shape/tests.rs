use std::time::{Duration, Instant};

use super::*;

fn encoded(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn exceeded(wasm: &[u8], limits: &CompileLimits) -> (CompileLimit, u64, u64, Option<u32>, Option<u64>) {
    match check(wasm, limits).expect_err("it must be refused") {
        CompileError::CompileLimit { kind, limit, seen, function, offset, .. } => {
            (kind, limit, seen, function, offset)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_bound_holds_at_its_number_and_refuses_one_more() {
    use CompileLimit as Kind;
    let repeated = |what: &str, times: usize| what.repeat(times);
    let nested = |open: &str, times: usize| format!("{}{}", open.repeat(times), ")".repeat(times));
    // Each case has what is counted, a module with so many of it, and whether they are one function's.
    let cases = [
        (Kind::Types, format!("(module {})", (0..7).map(|n| format!("(type (array (mut {})))", nested_type(n))).collect::<String>()), 7, false),
        (Kind::Types, "(module (rec (type (func)) (type (struct)) (type (array i8))) (type (struct (field i32))))".into(), 4, false),
        (Kind::Imports, format!("(module {})", repeated(r#"(import "a" "b" (func))"#, 5)), 5, false),
        (Kind::Functions, format!("(module {})", repeated("(func)", 9)), 9, false),
        (Kind::Memories, r#"(module (import "a" "m" (memory 1)) (memory 1) (memory 1) (table 1 funcref))"#.into(), 4, false),
        (Kind::Globals, r#"(module (import "a" "g" (global i32)) (global i32 i32.const 1) (tag))"#.into(), 3, false),
        (Kind::Exports, r#"(module (func (export "a") (export "b") (export "c")))"#.into(), 3, false),
        (Kind::Elements, "(module (func $f) (elem func $f) (elem func) (elem funcref (ref.func $f)))".into(), 3, false),
        (Kind::ElementItems, "(module (func $f) (elem func $f $f $f) (elem func) (elem funcref (ref.func $f)))".into(), 4, false),
        (Kind::DataSegments, format!("(module (memory 1) {})", repeated(r#"(data "x")"#, 6)), 6, false),
        (Kind::Locals, "(module (func (local i32 i32 i64) (local f32 i32)))".into(), 5, true),
        (Kind::Nesting, format!("(module (func {}))", nested("(block ", 6)), 6, true),
        (Kind::Nesting, "(module (func (block (loop)) (loop (block (loop)))))".into(), 3, true),
        (Kind::LoopNesting, format!("(module (func {}))", nested("(loop (block ", 4) + &")".repeat(4)), 4, true),
        (Kind::LoopNesting, "(module (func (loop) (loop (block)) (block (loop (loop)))))".into(), 2, true),
        (Kind::Blocks, "(module (func (block (br_if 0 (i32.const 1))) (loop) (if (i32.const 1) (then) (else)) (br_table 0 0 (i32.const 1))))".into(), 5, true),
        (Kind::BlockValues, "(module (func i32.const 1 (block (param i32) (result i32 i32)) (block (result f64) (f64.const 1)) drop drop drop))".into(), 4, true),
        (Kind::BranchTargets, "(module (func (br_table 0 0 0 (i32.const 1)) (br_table 0 (i32.const 1))))".into(), 4, true),
        (Kind::BranchTargets, "(module (func $f (block (try_table (catch_all 0) (catch_all 0) call $f (try_table (catch_all 1) call $f call $f)) call $f)))".into(), 3 + 2 + 3 + 3, true),
    ];
    for (kind, text, count, in_function) in cases {
        let wasm = encoded(&text);
        let limits = CompileLimits::trusted().with(kind, count);
        if let Err(error) = check(&wasm, &limits) {
            panic!("{text}: {error:?}");
        }
        let (named, limit, seen, function, offset) = exceeded(&wasm, &limits.with(kind, count - 1));
        assert_eq!((named, limit, function), (kind, count - 1, in_function.then_some(0)), "{text}");
        assert!(seen >= count, "{text}: {seen}");
        assert!(offset.is_some_and(|offset| offset < wasm.len() as u64), "{text}: {offset:?}");
    }
}

/// Types that are not the same, so that the text's encoder makes seven of them.
fn nested_type(n: usize) -> &'static str {
    ["i8", "i16", "i32", "i64", "f32", "f64", "v128"][n]
}

#[test]
fn bytes_are_counted_of_the_module_and_of_one_body() {
    let wasm = encoded("(module (func) (func nop nop nop))");
    let limits = |kind, max| CompileLimits::trusted().with(kind, max);
    assert!(check(&wasm, &limits(CompileLimit::WasmBytes, wasm.len() as u64)).is_ok());
    let (kind, _, seen, ..) = exceeded(&wasm, &limits(CompileLimit::WasmBytes, wasm.len() as u64 - 1));
    assert_eq!((kind, seen), (CompileLimit::WasmBytes, wasm.len() as u64));
    assert!(check(&wasm, &limits(CompileLimit::FunctionBytes, 5)).is_ok());
    let (kind, _, seen, function, _) = exceeded(&wasm, &limits(CompileLimit::FunctionBytes, 4));
    assert_eq!((kind, seen, function), (CompileLimit::FunctionBytes, 5, Some(1)));
}

#[test]
fn all_bounds_that_are_exceeded_are_told_at_once_with_what_the_module_needs() {
    let nested = |loops: usize| format!("(func {}{})", "(loop ".repeat(loops), ")".repeat(loops));
    let text = format!("(module {} (func (local i32 i32 i32)) {} {})", nested(3), nested(7), nested(5));
    let limits = CompileLimits::trusted().functions_max(3).loop_nesting_max(2).locals_max(1);
    let error = check(&encoded(&text), &limits).expect_err("is over three bounds");
    let CompileError::CompileLimit { kind, limit, seen, function, others, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!((kind, limit, seen, function), (CompileLimit::Functions, 3, 4, None));
    let needed =
        [ExceededLimit::new(CompileLimit::LoopNesting, 2, 7), ExceededLimit::new(CompileLimit::Locals, 1, 3)];
    assert_eq!(others, needed);
    // Set to those numbers, they let it through.
    let limits = limits.functions_max(4).loop_nesting_max(7).locals_max(3);
    assert!(check(&encoded(&text), &limits).is_ok());
    // The place is in the function that has the most.
    let (.., function, offset) = exceeded(&encoded(&text), &CompileLimits::trusted().loop_nesting_max(2));
    assert!(function == Some(2) && offset.is_some(), "{function:?} {offset:?}");
}

#[test]
fn blocks_inside_of_blocks_are_counted_up_to_a_number_that_costs_little() {
    let most = NESTING_COUNTED_MAX as usize;
    let nested = |levels: usize| {
        let mut body = wasm_encoder::Function::new([]);
        (0..levels).for_each(|_| {
            body.instructions().block(wasm_encoder::BlockType::Empty);
        });
        (0..=levels).for_each(|_| {
            body.instructions().end();
        });
        let mut types = wasm_encoder::TypeSection::new();
        types.ty().function([], []);
        let mut functions = wasm_encoder::FunctionSection::new();
        functions.function(0);
        let mut code = wasm_encoder::CodeSection::new();
        code.function(&body);
        let mut module = wasm_encoder::Module::new();
        module.section(&types).section(&functions).section(&code);
        module.finish()
    };
    let limits = |max| CompileLimits::trusted().nesting_max(max);
    for (levels, max, seen) in
        [(most, 10, most), (3 * most, 10, most + 1), (3 * most, 2 * most, 2 * most + 1)]
    {
        let (kind, _, counted, ..) = exceeded(&nested(levels), &limits(max as u64));
        assert_eq!((kind, counted), (CompileLimit::Nesting, seen as u64), "{levels} levels, {max} allowed");
    }
    assert!(check(&nested(2 * most), &limits(2 * most as u64)).is_ok());
}

#[test]
fn a_function_is_named_by_its_index_with_the_imported_ones_before_it() {
    let text = r#"(module (import "a" "b" (func)) (import "a" "c" (func)) (func) (func (loop (loop))))"#;
    let (_, _, _, function, _) = exceeded(&encoded(text), &CompileLimits::trusted().loop_nesting_max(1));
    assert_eq!(function, Some(3));
}

#[test]
fn targets_of_all_functions_are_counted_together() {
    let text = "(module (func (br_table 0 0 (i32.const 1))) (func (br_table 0 0 (i32.const 1))))";
    assert!(check(&encoded(text), &CompileLimits::trusted().branch_targets_max(2)).is_ok());
    let limits = CompileLimits::trusted().branch_targets_max(2).branch_targets_total_max(3);
    let (kind, _, seen, function, _) = exceeded(&encoded(text), &limits);
    assert_eq!((kind, seen, function), (CompileLimit::BranchTargetsTotal, 4, Some(1)));
}

#[test]
fn every_prefix_and_every_flipped_byte_of_a_module_ends_in_an_answer() {
    let wasm = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/prebuilt/c_histogram.wasm"));
    let wasm = wasm.expect("reads");
    assert!(check(&wasm, &CompileLimits::new()).is_ok());
    for len in 0..wasm.len() {
        let _ = check(&wasm[..len], &CompileLimits::new());
        for bit in 0..8 {
            let mut bad = wasm.clone();
            bad[len] ^= 1 << bit;
            let _ = check(&bad, &CompileLimits::new());
        }
    }
}

#[test]
fn all_that_is_prebuilt_is_far_from_every_default() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/prebuilt");
    let defaults = CompileLimits::new();
    let quarter = CompileLimit::ALL
        .into_iter()
        .fold(defaults.clone(), |limits, kind| limits.with(kind, defaults.get(kind) / 4));
    let mut modules = 0;
    for entry in std::fs::read_dir(dir).expect("reads") {
        let path = entry.expect("reads").path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            modules += 1;
            let checked = check(&std::fs::read(&path).expect("reads"), &quarter);
            checked.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        }
    }
    assert!(modules > 10);
}

#[test]
fn the_pass_is_linear() {
    let time = |bodies: usize| {
        let body = format!("(func {})", "(block (br_if 0 (i32.const 1)))".repeat(1000));
        let wasm = encoded(&format!("(module {})", body.repeat(bodies)));
        let fastest = |_| {
            let began = Instant::now();
            assert!(check(&wasm, &CompileLimits::new()).is_ok());
            began.elapsed()
        };
        (0..5).map(fastest).min().unwrap_or_default()
    };
    // The large module is sixteen times the small one, so a quadratic pass would take 256 times as long.
    let small = time(20);
    let large = time(320);
    assert!(large < small.max(Duration::from_micros(200)) * 100, "{small:?}, then {large:?}");
}

/// Pandoc has the most functions of the programs known (620,000, 58 MB), and yosys the most bytes (69 MB).
#[test]
fn the_largest_programs_known_are_within_the_defaults() {
    let mut types = wasm_encoder::TypeSection::new();
    types.ty().function([], []);
    let mut body = wasm_encoder::Function::new([]);
    (0..38).for_each(|_| {
        body.instructions().i32_const(1).drop();
    });
    body.instructions().end();
    let mut functions = wasm_encoder::FunctionSection::new();
    let mut code = wasm_encoder::CodeSection::new();
    (0..620_000).for_each(|_| {
        functions.function(0);
        code.function(&body);
    });
    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&functions).section(&code);
    let wasm = module.finish();
    assert!(wasm.len() > 69_000_000);
    check(&wasm, &CompileLimits::new()).expect("is within them");
}
