use proptest::prelude::*;

use super::*;
use proto::description::Codec;
use proto::guest::section;
use wasm_encoder::{CustomSection, Section as _};

fn one(text: &str) -> String {
    let tasks = tasks(text).expect("describes a task");
    assert_eq!(tasks.len(), 1);
    tasks[0].signature()
}

#[test]
fn the_body_of_an_interface_is_enough() {
    let text = "
        /// Counts words.
        ///
        /// All of them.
        count-words: func(text: string, min-length: option<u32>) -> stats;
        record stats { words: u32, longest: option<string>, %type: kind }
        variant kind { empty, some(list<tuple<u8, char>>) }
        nothing: func();
    ";
    let tasks = tasks(text).expect("describes tasks");
    assert_eq!(tasks.iter().map(|task| &task.name).collect::<Vec<_>>(), ["count-words", "nothing"]);
    let [count, nothing] = &tasks[..] else { panic!("{} tasks", tasks.len()) };
    assert_eq!(count.signature(), "count-words(text: String, min-length: Option<u32>) -> stats");
    assert_eq!(
        count.output.show(count.output.root()),
        "stats { words: u32, longest: Option<String>, type: kind }"
    );
    assert_eq!(count.doc, "Counts words.\n\nAll of them.");
    assert_eq!((count.codec, count.params.len()), (Codec::Json, 2));
    assert_eq!(nothing.signature(), "nothing() -> ()");
}

#[test]
fn a_whole_file_says_what_is_exported() {
    let file = "
        package demo:words@1.2.0;
        interface counting { count: func(text: string) -> u32; }
        interface others { other: func(); }
        world guest { import others; export counting; export twice: func(n: u32) -> u64; }
    ";
    let names: Vec<_> = tasks(file).expect("describes tasks").into_iter().map(|task| task.name).collect();
    assert_eq!(names, ["twice", "count"]);
    assert_eq!(one("interface a { f: func(x: s8); }"), "f(x: i8) -> ()");
    assert_eq!(one("// package\n/* world /* nested */ */ f: func(x: s8);"), "f(x: i8) -> ()");
    assert_eq!(one("%world: func(x: f64) -> f32;"), "world(x: f64) -> f32");
}

#[test]
fn a_result_is_an_output_or_an_error() {
    let tasks = tasks(
        "f: func() -> result<f64, string>; g: func() -> result<f64>; h: func() -> result<_, e>; enum e { a, b }",
    );
    let signatures: Vec<_> = tasks.expect("describes tasks").iter().map(TaskDescription::signature).collect();
    assert_eq!(signatures, ["f() -> Result<f64, String>", "g() -> f64", "h() -> Result<(), e>"]);
}

#[test]
fn errors_name_the_place_in_the_authors_text() {
    let error = |text: &str| tasks(text).expect_err("is refused").to_string();
    assert_eq!(error("f: func(x: u33);"), "line 1, column 12: name `u33` does not exist");
    assert!(
        error("a: func();\n  f: func(x: u32;").starts_with("line 2, column 17: "),
        "{}",
        error("a: func();\n  f: func(x: u32;")
    );
    assert_eq!(error("f: func() -> u8\n\n"), "line 1, column 16: expected ';', found the end of the text");
    assert_eq!(error("f: func(); } interface q { g: func();"), "line 1, column 1: a `}` closes nothing");
    assert_eq!(error("record a { b: u8 }"), WitError::NoFunctions.to_string());
    assert!(error("resource r; f: func() -> r;").contains("a resource cannot be handed"));
    assert!(error("f: async func();").contains("asynchronous"));
    assert!(error("f: func(x: list<future<u8>>);").contains("a future cannot be handed"));
    let used = error("use other:package/types.{t}; f: func(x: t);");
    assert!(used.contains("package"), "{used}");
}

#[test]
fn what_is_large_is_refused_before_it_is_parsed() {
    let error = |text: String| tasks(&text).expect_err("is refused");
    let deep = |levels: usize| format!("f: func(x: {}u8{});", "list<".repeat(levels), ">".repeat(levels));
    assert!(tasks(&deep(20)).is_ok());
    assert_eq!(error(deep(10_000)), WitError::TooDeep { line: 1 });
    assert!(matches!(error("a".repeat(1 << 20)), WitError::TooLong { .. }));
    // Each type is twice the one before.
    let mut types = String::from("type t0 = u8;");
    (0..40).for_each(|n| types.push_str(&format!("type t{} = tuple<t{n}, t{n}>;", n + 1)));
    assert!(error(format!("{types} f: func(x: t40);")).to_string().contains("larger than"));
    let many: String = (0..=TASKS_PER_MODULE_MAX).map(|n| format!("task{n}: func();")).collect();
    assert_eq!(error(many), WitError::TooManyFunctions { count: TASKS_PER_MODULE_MAX + 1 });
}

#[test]
fn an_export_is_found_in_the_case_of_its_language() {
    assert_eq!(export_names("count-all-words"), ["count-all-words", "count_all_words", "countAllWords"]);
    assert_eq!(export_names("count"), ["count", "count", "count"]);
}

proptest! {
    #[test]
    fn no_text_is_more_than_an_error(text in "(f|:|func|\\(|\\)|<|>|\\{|\\}|;|,|->|record|list|result|tuple|u8|world|package|/\\*|\\*/|//|\n| |%|@|\\.|é)*") {
        let _ = tasks(&text);
    }
}

/// A module with two functions and a custom section of its own between others.
fn module() -> Vec<u8> {
    let mut module = wasm_encoder::Module::new();
    module.section(&CustomSection { name: "first".into(), data: (&[1, 2, 3]).into() });
    let mut types = wasm_encoder::TypeSection::new();
    types.ty().function([], []);
    module.section(&types);
    let mut functions = wasm_encoder::FunctionSection::new();
    functions.function(0).function(0);
    module.section(&functions);
    let mut code = wasm_encoder::CodeSection::new();
    for _ in 0..2 {
        let mut body = wasm_encoder::Function::new([]);
        body.instructions().end();
        code.function(&body);
    }
    module.section(&code);
    module.section(&CustomSection { name: "last".into(), data: (&[4]).into() });
    module.finish()
}

fn sections(module: &[u8]) -> Vec<(String, Vec<u8>)> {
    let payloads = wasmparser::Parser::new(0).parse_all(module);
    let custom = payloads.filter_map(|payload| match payload.expect("is valid") {
        wasmparser::Payload::CustomSection(custom) => Some((custom.name().into(), custom.data().to_vec())),
        _ => None,
    });
    custom.collect()
}

#[test]
fn embedding_again_replaces_what_was_embedded_and_nothing_else() {
    let module = module();
    let once = embed(&module, "f: func();").expect("embeds");
    assert!(once.starts_with(&module), "all that was there stands as it was");
    let twice = embed(&once, "longer-name: func();").expect("embeds");
    assert_eq!(twice, embed(&module, "longer-name: func();").expect("embeds"));
    let text = section::records(&sections(&twice)[2].1).expect("is read").text;
    assert_eq!((&*text, sections(&twice).len()), ("longer-name: func();", 3));
    // Between other sections, too.
    let mut between = once.clone();
    CustomSection { name: "behind".into(), data: (&[9]).into() }.append_to(&mut between);
    let names: Vec<_> =
        sections(&embed(&between, "g: func();").expect("embeds")).into_iter().map(|of| of.0).collect();
    assert_eq!(names, ["first", "last", "behind", section::NAME]);
}

#[test]
fn types_are_not_put_where_they_cannot_be() {
    let mut described = module();
    CustomSection { name: section::NAME.into(), data: (&[1, 0, 0, 0, 1]).into() }.append_to(&mut described);
    assert!(matches!(embed(&described, "f: func();"), Err(EmbedError::Described)));
    assert!(matches!(embed(b"\0asm\x0d\0\x01\0", "f: func();"), Err(EmbedError::Component)));
    assert!(matches!(embed(b"text", "f: func();"), Err(EmbedError::Module(_))));
    assert!(matches!(embed(&module(), "f: func("), Err(EmbedError::Types(_))));
}
