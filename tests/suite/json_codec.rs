//! Tasks whose types are written as text: their guests read and write JSON, and callers notice nothing of it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use proto::guest::section::text_record;
use wasmpool::error::ModuleError;
use wasmpool::module::{CallingConvention, Codec};
use wasmpool::{Module, Pool, Schema, TaskError, TaskOptions};

use crate::support::{self, PATIENCE, pool, wat};

/// What the guest of these tests returns, whatever it is given.
enum Returns<'a> {
    /// Its input, as it has read it.
    Input,
    /// The input as an error.
    InputAsError,
    /// An envelope.
    Envelope(&'a str),
}

/// A guest that keeps to the byte ABI, with exports of these names, and text of types in its section.
fn guest(types: &str, exports: &[&str], returns: &Returns<'_>) -> String {
    let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    let (status, data, envelope) = match returns {
        Returns::Input => (
            0,
            String::new(),
            "(i64.or (i64.const 0x3ff00000000) (i64.extend_i32_u (i32.add (local.get $len) (i32.const 1))))"
                .into(),
        ),
        Returns::InputAsError => (
            1,
            String::new(),
            "(i64.or (i64.const 0x3ff00000000) (i64.extend_i32_u (i32.add (local.get $len) (i32.const 1))))"
                .into(),
        ),
        Returns::Envelope(text) => (
            0,
            format!("(data (i32.const 0x10000) \"{}\")", escaped(text.as_bytes())),
            format!("(i64.const {})", (0x10000_i64 << 32) | text.len() as i64),
        ),
    };
    let names: String = exports.iter().map(|name| format!("(export \"{name}\")")).collect();
    format!(
        r#"(module
            (memory (export "memory") 8)
            (func (export "wasmpool_abi_v1"))
            (func (export "wasmpool_alloc") (param $len i32) (result i32)
                (drop (memory.grow (i32.shr_u (local.get $len) (i32.const 16))))
                (i32.const 0x400))
            (func {names} (param $at i32) (param $len i32) (result i64)
                (i32.store8 (i32.const 0x3ff) (i32.const {status}))
                {envelope})
            {data}
            (@custom "wasmpool.tasks" "{section}"))"#,
        section = escaped(&text_record(types)),
    )
}

fn echo(pool: &Pool, types: &str, exports: &[&str]) -> Module {
    wat(pool, &guest(types, exports, &Returns::Input))
}

fn run<I, O>(pool: &Pool, module: &Module, task: &str, input: &I) -> O
where
    I: Serialize + Schema,
    O: DeserializeOwned + Schema + Debug,
{
    let task = module.task::<I, O>(task).expect("has these types");
    pool.submit(&task, input).expect("submits").result_timeout(PATIENCE).expect("in time").expect("succeeds")
}

fn error<I, O>(pool: &Pool, module: &Module, task: &str, input: &I) -> TaskError
where
    I: Serialize + Schema,
    O: DeserializeOwned + Schema + Debug,
{
    let task = module.task::<I, O>(task).expect("has these types");
    support::error(&pool.submit(&task, input).expect("submits"))
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
#[serde(rename_all = "kebab-case")]
struct Page {
    title: String,
    line_count: Option<u32>,
    #[serde(rename = "type")]
    kind: Kind,
    access: Access,
    parts: Vec<(u8, char)>,
    raw: Vec<u8>,
    nested: Option<Option<f64>>,
    checked: Result<i64, ()>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Empty,
    WithText(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Access {
    read: bool,
    write: bool,
}

const PAGE: &str = "
    /// The page as it is.
    read-page: func(page: page) -> page;
    record page {
        title: string, line-count: option<u32>, %type: kind, access: access, parts: list<tuple<u8, char>>,
        raw: list<u8>, nested: option<option<f64>>, checked: result<s64>,
    }
    variant kind { empty, with-text(string) }
    flags access { read, write }
";

fn pages() -> impl Strategy<Value = Page> {
    let kind = prop_oneof![Just(Kind::Empty), any::<String>().prop_map(Kind::WithText)];
    let float =
        prop_oneof![any::<f64>().prop_filter("is equal to itself", |x| !x.is_nan()), Just(f64::INFINITY)];
    let first = (any::<String>(), any::<Option<u32>>(), kind, any::<(bool, bool)>());
    let second = (
        prop::collection::vec(any::<(u8, char)>(), 0..5),
        prop::collection::vec(any::<u8>(), 0..20),
        prop::option::of(prop::option::of(float)),
        prop_oneof![any::<i64>().prop_map(Ok), Just(Err(()))],
    );
    (first, second).prop_map(|((title, line_count, kind, (read, write)), (parts, raw, nested, checked))| {
        Page { title, line_count, kind, access: Access { read, write }, parts, raw, nested, checked }
    })
}

#[test]
fn any_value_goes_to_a_guest_as_json_and_comes_back_the_same() {
    let pool = pool(1);
    let module = echo(&pool, PAGE, &["read_page"]);
    let task = module.task::<Page, Page>("read-page").expect("has these types");
    let mut runner = proptest::test_runner::TestRunner::default();
    let outcome = runner.run(&pages(), |page| {
        let future = pool.submit(&task, &page).expect("submits");
        prop_assert_eq!(future.result_timeout(PATIENCE).expect("in time").expect("succeeds"), page);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_module_says_its_types_in_words() {
    let pool = pool(1);
    let module = echo(&pool, PAGE, &["read_page"]);
    let [task] = &module.description().tasks[..] else { panic!("{:?}", module.description().tasks) };
    assert_eq!((task.codec, task.convention), (Codec::Json, CallingConvention::Bytes));
    assert_eq!(
        (task.signature(), &*task.doc),
        ("read-page(page: page) -> page".into(), "The page as it is.")
    );
    let Err(mismatch) = module.task::<Page, String>("read-page") else { panic!("it returns a page") };
    assert!(matches!(mismatch, ModuleError::SchemaMismatch { .. }), "{mismatch}");
}

#[test]
fn arguments_are_an_array_unless_there_is_one() {
    let pool = pool(1);
    let types = "
        both: func(a: s8, b: string) -> tuple<s8, string>;
        one-only: func(a: list<f32>) -> list<f32>;
        no-arguments: func() -> option<u8>;
        nothing: func(x: option<u8>);
    ";
    let module = echo(&pool, types, &["both", "one_only", "noArguments", "nothing"]);
    let both = (-7_i8, "a \"b\" \u{1}\u{1F600}".to_string());
    assert_eq!(run::<_, (i8, String)>(&pool, &module, "both", &both), both);
    let floats = vec![0.1_f32, f32::INFINITY, -0.0, 1e-40];
    assert_eq!(run::<_, Vec<f32>>(&pool, &module, "one-only", &floats), floats);
    assert_eq!(run::<_, Option<u8>>(&pool, &module, "no-arguments", &()), None);
    run::<_, ()>(&pool, &module, "nothing", &None::<u8>);
    let words = error::<_, ()>(&pool, &module, "nothing", &Some(3_u8)).to_string();
    assert!(words.contains("at $: expected null, found 3"), "{words}");
}

#[test]
fn bytes_alone_are_not_json() {
    let pool = pool(1);
    let types = "bytes: func(x: list<u8>) -> list<u8>; text: func(x: list<u8>) -> string; back: func(x: string) -> list<u8>;";
    let module = echo(&pool, types, &["bytes", "text", "back"]);
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    assert_eq!(run::<_, Vec<u8>>(&pool, &module, "bytes", &bytes), bytes);
    assert_eq!(run::<_, Vec<u8>>(&pool, &module, "bytes", &Vec::<u8>::new()), b"");
    // The guest has made a string of JSON from the bytes, and bytes from one.
    assert_eq!(run::<_, String>(&pool, &module, "text", &b"\"a\\u0062\"".to_vec()), "ab");
    assert_eq!(run::<_, Vec<u8>>(&pool, &module, "back", &"ab".to_string()), b"\"ab\"");
}

#[test]
fn a_large_value_is_written_into_the_guests_memory_whole() {
    let pool = pool(1);
    let module = echo(&pool, "f: func(x: list<tuple<u64, string>>) -> list<tuple<u64, string>>;", &["f"]);
    let large: Vec<(u64, String)> = (0..100_000_u64).map(|n| (n * n, format!("row\t{n}"))).collect();
    assert_eq!(run::<_, Vec<(u64, String)>>(&pool, &module, "f", &large), large);
}

#[test]
fn an_output_that_does_not_fit_its_type_says_where() {
    let pool = pool(1);
    let types = "f: func() -> stats; record stats { words: u32, longest: option<string> }";
    let cases = [
        (
            "\0{\"words\": -1}",
            "the output is not a stats: at $.words: expected u32 (0 to 4294967295), found -1",
        ),
        ("\0{\"words\": 1, \"more\": 2}", "at $: unknown field `more`"),
        ("\0{\"words\": 1", "it is not JSON: EOF"),
        ("\0", "it is not JSON: EOF"),
        ("\0{\"words\": 1} 2", "it is not JSON: trailing characters"),
    ];
    for (envelope, words) in cases {
        let module = wat(&pool, &guest(types, &["f"], &Returns::Envelope(envelope)));
        let task = module.raw_task("f").expect("is a task");
        let error = support::error(&pool.submit(&task, &[][..]).expect("submits"));
        let TaskError::Abi { message } = &error else { panic!("{envelope:?}: {error}") };
        assert!(message.contains(words), "{message}");
    }
    let module = wat(&pool, &guest(types, &["f"], &Returns::Envelope("\0 {\"words\": 1} ")));
    #[derive(Debug, PartialEq, Deserialize, Schema)]
    struct Stats {
        words: u32,
        longest: Option<String>,
    }
    assert_eq!(run::<_, Stats>(&pool, &module, "f", &()), Stats { words: 1, longest: None });
}

#[test]
fn an_error_is_data_where_it_has_a_type_and_text_where_it_has_not() {
    let pool = pool(1);
    let types = "
        variant fault { empty, too-long(details) }
        record details { limit: u32 }
        of-type: func(x: fault) -> result<u8, fault>;
        as-text: func(x: string) -> result<u8, string>;
        without: func(x: string) -> result<u8>;
        other: func(x: string) -> result<u8, fault>;
    ";
    let exports = ["of-type", "as-text", "without", "other"];
    let module = wat(&pool, &guest(types, &exports, &Returns::InputAsError));
    #[derive(Debug, Serialize, Deserialize, Schema, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    enum Same {
        Empty,
        TooLong(Details),
    }
    #[derive(Debug, Serialize, Deserialize, Schema, PartialEq)]
    struct Details {
        limit: u32,
    }
    let own = |error: TaskError| match error {
        TaskError::Guest { message, data, .. } => (message, data),
        other => panic!("{other}"),
    };
    let (message, data) =
        own(error::<_, u8>(&pool, &module, "of-type", &Same::TooLong(Details { limit: 3 })));
    assert_eq!(message, "too-long({limit: 3})");
    assert_eq!(data.and_then(|data| data.get::<Same>()), Some(Same::TooLong(Details { limit: 3 })));
    let (message, data) = own(error::<_, u8>(&pool, &module, "as-text", &"no words".to_string()));
    assert_eq!(
        (&*message, data.and_then(|data| data.get::<String>())),
        ("no words", Some("no words".into()))
    );
    for task in ["without", "other"] {
        let (message, data) = own(error::<_, u8>(&pool, &module, task, &"no words".to_string()));
        assert_eq!((&*message, data), ("\"no words\"", None), "{task}");
    }
}

#[test]
fn the_limit_of_outputs_is_that_of_the_value_and_not_of_its_text() {
    let pool = pool(1);
    let module = echo(&pool, "f: func(x: list<f64>) -> list<f64>;", &["f"]);
    let task = module.task::<Vec<f64>, Vec<f64>>("f").expect("has these types");
    // Each takes eight bytes, and one or two as JSON; or 20 of text.
    for values in [vec![0.0; 1000], vec![-0.123_456_789_012_345_67; 1000]] {
        let options = |max: usize| TaskOptions::new().output_bytes_max(max);
        let future = pool.submit_with(&task, &values, options(8002)).expect("submits");
        assert_eq!(future.result_timeout(PATIENCE).expect("in time").expect("succeeds"), values);
        let future = pool.submit_with(&task, &values, options(8001)).expect("submits");
        let error = support::error(&future);
        assert!(matches!(error, TaskError::OutputTooLarge { limit: 8001, .. }), "{error}");
    }
}

#[test]
fn an_input_that_is_no_value_is_refused_before_the_guest_sees_it() {
    let pool = pool(1);
    let module = echo(&pool, "f: func(x: tuple<string, bool>);", &["f"]);
    let task = module.raw_task("f").expect("is a task");
    for bytes in [&[][..], &[1, b'a'], &[1, b'a', 7], &[1, 0xff, 1], &[1, b'a', 1, 0]] {
        let error = support::error(&pool.submit(&task, bytes).expect("submits"));
        assert!(matches!(error, TaskError::InputDecode { .. }), "{bytes:?}: {error}");
    }
    // The memory's limit is that of the text as well.
    let module = echo(&pool, "f: func(x: list<string>);", &["f"]);
    let task = module.task::<Vec<String>, ()>("f").expect("has these types");
    let strings = vec!["\u{1}".repeat(1000); 1000];
    let options = TaskOptions::new().memory_bytes_max(2 << 20);
    let error = support::error(&pool.submit_with(&task, &strings, options).expect("submits"));
    assert!(matches!(&error, TaskError::InputDecode { message } if message.contains("as JSON")), "{error}");
}

#[test]
fn types_that_do_not_go_with_the_module_are_refused_when_it_is_loaded() {
    let pool = pool(1);
    let many = format!("{}u8{}", "list<".repeat(500), ">".repeat(500));
    let cases: BTreeMap<&str, (String, &str)> = [
        (
            "no export",
            (
                "count-words: func();".into(),
                "no export (i32, i32) -> i64 is called `count-words`, `count_words` or `countWords`",
            ),
        ),
        ("no type", ("f: func(x: page);".into(), "line 1, column 12: name `page` does not exist")),
        ("no types", ("f func".into(), "line 1, column 3")),
        ("nothing", ("type a = u8;".into(), "has no function")),
        ("depth", (format!("f: func(x: {many});"), "nested deeper")),
    ]
    .into();
    for (case, (types, words)) in cases {
        let text = guest(&types, &["f"], &Returns::Input);
        let error = pool.load(&wat::parse_str(&text).expect("is text")).expect_err(case);
        assert!(matches!(error, ModuleError::Abi { .. }), "{case}: {error}");
        assert!(error.to_string().contains(words), "{case}: {error}");
    }
}
