//! WAVE becomes the same postcard as JSON that means the same, and what wasm-wave takes is taken.

mod random;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use wasm_wave::value::{Type, Value as WaveValue};

use self::random::{Sample, arguments};
use crate::encode::{EncodeError, encode_arguments};
use crate::wave::{Call, TEXT_BYTES_MAX, call, encode_wave};
use proto::description::{TaskDescription, samples};
use proto::schema::{Node, SchemaBuilder, TypeSchema, Variant};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, postcard_schema::Schema)]
struct Point {
    left_side: i32,
    top: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, postcard_schema::Schema)]
struct Rights {
    read: bool,
    write_all: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, postcard_schema::Schema)]
enum Shape {
    Empty,
    None,
    RoundOne(f64),
    Pair(u32, Option<char>),
    Named { name: String, size: i64 },
}

fn of<T: postcard_schema::Schema>(params: &[&str]) -> TaskDescription {
    samples::task("t", params, TypeSchema::of::<T>(), TypeSchema::of::<()>())
}

fn encoded(task: &TaskDescription, text: &str) -> Result<Vec<u8>, String> {
    encode_wave(task, text).map_err(|error| match error {
        EncodeError::Mismatch(mismatch) => mismatch.to_string(),
        EncodeError::Json(error) => panic!("WAVE is no JSON: {error}"),
    })
}

/// Checks that each text is the value.
fn are<T: Serialize + postcard_schema::Schema>(texts: &[&str], value: T) {
    let postcard = postcard::to_stdvec(&value).expect("serialises");
    for text in texts {
        assert_eq!(encoded(&of::<T>(&["value"]), text), Ok(postcard.clone()), "{text}");
    }
}

/// Checks what is said of texts that are no such value.
fn are_not<T: postcard_schema::Schema>(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(encoded(&of::<T>(&["value"]), text), Err((*expected).into()), "{text}");
    }
}

#[test]
fn a_call_is_a_name_with_parentheses() {
    for (text, name, arguments) in [
        ("add(3, 4)", "add", "3, 4"),
        (" f() ", "f", ""),
        ("demo:text/words#count(\"a b\")", "demo:text/words#count", "\"a b\""),
        (
            "ns:pkg/iface@1.0.0-rc.1+x#func-2((1, 2), \")\")",
            "ns:pkg/iface@1.0.0-rc.1+x#func-2",
            "(1, 2), \")\"",
        ),
        ("snake_case(1) + g(2)", "snake_case", "1) + g(2"),
    ] {
        assert_eq!(call(text), Some(Call { name, arguments }), "{text}");
    }
    for text in [
        "",
        "foo",
        "(1)",
        "foo(",
        "foo)",
        "foo(1",
        "foo(1) bar",
        "a b(1)",
        "#f(1)",
        "a#(1)",
        "./f(1)",
        "a:b#c#d(1)",
    ] {
        assert_eq!(call(text), None, "{text}");
    }
}

#[test]
fn numbers_are_in_the_range_of_their_type() {
    are(&["255", " 255 // the most\n", "255,", "255//"], 255_u8);
    are(&["-128"], -128_i8);
    are(&["0", "-0"], 0_u16);
    are(&["18446744073709551615"], u64::MAX);
    are(&["-9223372036854775808"], i64::MIN);
    are(&["340282366920938463463374607431768211455"], u128::MAX);
    are(&["-170141183460469231731687303715884105728"], i128::MIN);
    are_not::<u8>(&[
        ("256", "at $ (argument `value`): expected u8 (0 to 255), found `256` (byte 0 of the arguments)"),
        ("-1", "at $ (argument `value`): expected u8 (0 to 255), found `-1` (byte 0 of the arguments)"),
        (" 1.5", "at $ (argument `value`): expected u8 (0 to 255), found `1.5` (byte 1 of the arguments)"),
        ("true", "at $ (argument `value`): expected u8 (0 to 255), found `true` (byte 0 of the arguments)"),
    ]);
    are_not::<u128>(&[(
        "-1",
        "at $ (argument `value`): expected u128, found `-1` (byte 0 of the arguments)",
    )]);
}

#[test]
fn floats_are_numbers_or_words() {
    are(&["0.1", "1e-1"], 0.1_f32);
    are(&["3"], 3.0_f64);
    are(&["inf"], f32::INFINITY);
    are(&["-inf"], f64::NEG_INFINITY);
    are(&["nan", "NaN"], f64::NAN);
    are_not::<f32>(&[(
        "1e300",
        "at $ (argument `value`): expected f32 (a number, nan, inf or -inf), found `1e300` (byte 0 of the arguments)",
    )]);
    assert!(encoded(&of::<f64>(&["x"]), "1e999").is_err());
}

#[test]
fn text_has_escapes_and_may_have_several_lines() {
    are(&["\"a\\t\\u{e4}\\\"_X\"", "\"a\tä\\\"_X\""], "a\tä\"_X".to_string());
    are(&["\"\"\"\n  one\n   two\n  \"\"\""], "one\n two".to_string());
    are(&["'ä'", "'\\u{e4}'"], 'ä');
    are(&["'\\''"], '\'');
    are_not::<String>(&[
        (
            "bob",
            "at $ (argument `value`): expected a string such as \"x\", found `bob` (byte 0 of the arguments)",
        ),
        (
            "\"\\u{d800}\"",
            "at $ (argument `value`): this escape stands for no character: `\\u{d800}\"` (byte 1 of the arguments)",
        ),
    ]);
    assert!(encoded(&of::<char>(&["c"]), "'\\u{110000}'").is_err());
    assert!(encoded(&of::<char>(&["c"]), "\"x\"").is_err());
}

#[test]
fn bytes_are_a_list_of_numbers_or_a_string() {
    are(&["[65, 66]", "[65, 66,]", "\"AB\""], b"AB".to_vec());
    are(&["[]", "\"\""], Vec::<u8>::new());
    let raw = samples::task("t", &["bytes"], TypeSchema::raw_bytes(), TypeSchema::of::<()>());
    assert_eq!(encoded(&raw, "[65]"), Ok(vec![1, 65]));
    are_not::<Vec<u8>>(&[(
        "[65, 256]",
        "at $[1] (argument `value`): expected u8 (0 to 255), found `256` (byte 5 of the arguments)",
    )]);
}

#[test]
fn lists_and_tuples_nest() {
    are(&["[[1], []]"], vec![vec![1_u32], vec![]]);
    are(&["(1, (true, 'c'))"], (1_u8, (true, 'c')));
    are(&["[1, 2, 3]", "(1, 2, 3)"], [1_i16, 2, 3]);
    are_not::<(u8, u8)>(&[
        ("(1, 2, 3)", "at $ (argument `value`): expected 2 values, found 3 (byte 0 of the arguments)"),
        (
            "1",
            "at $ (argument `value`): expected a tuple of 2 values, in parentheses, found `1` (byte 0 of the arguments)",
        ),
    ]);
}

#[test]
fn an_option_may_be_its_content_unless_that_could_be_none_itself() {
    are(&["some(1)", "1", "Some(1)"], Some(1_u8));
    are(&["none", "None", ""], None::<u8>);
    are(&["some(some(1))", "some(1)"], Some(Some(1_u8)));
    are(&["some(none)"], Some(None::<u8>));
    are(&["some({})"], Some(()));
    are_not::<Option<Option<u8>>>(&[(
        "1",
        "at $ (argument `value`): expected none or some(…), found `1` (byte 0 of the arguments)",
    )]);
    are_not::<Option<u8>>(&[(
        "\"x\"",
        "at $ (argument `value`): expected u8 (0 to 255), found `\"x\"` (byte 0 of the arguments)",
    )]);
}

#[test]
fn a_result_is_ok_or_err() {
    are(&["ok(1)", "Ok(1)", "1"], Ok::<u8, String>(1));
    are(&["err(\"x\")"], Err::<u8, String>("x".into()));
    are(&["ok", "ok({})"], Ok::<(), String>(()));
    are(&["err"], Err::<u8, ()>(()));
    are(&["ok(none)"], Ok::<Option<u8>, ()>(None));
    let result = encoded(&of::<Result<u8, String>>(&["r"]), "ok");
    assert_eq!(
        result,
        Err("at $.Ok (argument `r`): expected a value of u8 in parentheses (byte 0 of the arguments)".into())
    );
    are_not::<Result<(), u8>>(&[(
        "1",
        "at $ (argument `value`): expected ok(…) or err(…), found `1` (byte 0 of the arguments)",
    )]);
}

#[test]
fn fields_may_come_in_any_order_and_options_may_be_left_out() {
    let point = Point { left_side: -1, top: None };
    are(
        &["{left-side: -1}", "{left_side: -1, top: none}", "{leftSide: -1}", "{%top: none, %left_side: -1,}"],
        point,
    );
    are(
        &["{LEFT-side: 300, top: 1}", "{top: some(1), left_side: 300}"],
        Point { left_side: 300, top: Some(1) },
    );
    are_not::<Point>(&[
        ("{:}", "at $ (argument `value`): missing field `left_side: i32` (byte 0 of the arguments)"),
        (
            "{left: 1}",
            "at $ (argument `value`): unknown field `left`; there is `left_side`, `top` (byte 1 of the arguments)",
        ),
        (
            "{top: 1, top: 2}",
            "at $ (argument `value`): the field `top` is there twice (byte 9 of the arguments)",
        ),
        (
            "{left_side: 1, top: 'x'}",
            "at $.top (argument `value`): expected u8 (0 to 255), found `'x'` (byte 20 of the arguments)",
        ),
        (
            "{top}",
            "at $ (argument `value`): expected a record for Point such as {name: value} (with `left_side`, `top`), \
             found `{top}` (byte 0 of the arguments)",
        ),
        (
            "{\"top\": 1}",
            "at $ (argument `value`): expected the name of a field, found `\"top\"` (byte 1 of the arguments)",
        ),
    ]);
}

#[test]
fn a_struct_of_bools_is_flags_and_a_record() {
    let rights = |read, write_all| Rights { read, write_all };
    are(&["{}", "{read: false, write-all: false}"], rights(false, false));
    are(&["{write-all}", "{write_all,}", "{write_all: true, read: false}"], rights(false, true));
    are(&["{write-all, read}"], rights(true, true));
    are_not::<Rights>(&[
        (
            "{read: true}",
            "at $ (argument `value`): missing field `write_all: bool` (byte 0 of the arguments)",
        ),
        (
            "{exec}",
            "at $ (argument `value`): unknown flag `exec`; there is `read`, `write_all` (byte 0 of the arguments)",
        ),
        ("{read, read}", "at $: duplicate flag (\"read\"): `read}` (byte 7 of the arguments)"),
    ]);
}

#[test]
fn a_variant_is_named_as_in_the_schema_or_in_kebab_case() {
    are(&["empty", "Empty", "%empty"], Shape::Empty);
    are(&["none", "%none", "None"], Shape::None);
    are(&["round-one(1)", "RoundOne(1.0)", "round_one(1e0)"], Shape::RoundOne(1.0));
    are(&["pair((1, 'x'))", "Pair((1, some('x')))"], Shape::Pair(1, Some('x')));
    are(&["named({name: \"n\", size: -2})"], Shape::Named { name: "n".into(), size: -2 });
    are_not::<Shape>(&[
        (
            "square",
            "at $ (argument `value`): expected a variant of Shape (`Empty`, `None`, `RoundOne`, `Pair`, `Named`), \
             found `square` (byte 0 of the arguments)",
        ),
        (
            "empty(1)",
            "at $.Empty (argument `value`): the variant has no content, found `1` (byte 6 of the arguments)",
        ),
        (
            "pair",
            "at $ (argument `value`): the variant `Pair` has several values: write case((…, …)) (byte 0 of the arguments)",
        ),
        (
            "named",
            "at $ (argument `value`): the variant `Named` has fields: write case({name: value}) (byte 0 of the arguments)",
        ),
        (
            "round-one",
            "at $.RoundOne (argument `value`): expected a value of f64 in parentheses (byte 0 of the arguments)",
        ),
    ]);
}

#[test]
fn names_that_differ_in_their_separators_alone_are_told_apart_as_they_are_written() {
    let mut builder = SchemaBuilder::default();
    let fields = ["a_b", "ab"].map(|name| (name.to_string(), builder.push(Node::U8).expect("is small")));
    builder.push(Node::Struct { name: "S".into(), fields: fields.into() }).expect("is small");
    let task = samples::task("t", &["s"], builder.finish().expect("is fine"), TypeSchema::of::<()>());
    assert_eq!(encoded(&task, "{ab: 1, a_b: 2}"), Ok(vec![2, 1]));
    assert!(encoded(&task, "{ab: 1, a-b: 2}").expect_err("means either").contains("unknown field `a-b`"));
}

#[test]
fn of_a_map_the_last_value_of_a_key_counts() {
    let map = |entries: &[(&str, u8)]| {
        entries.iter().map(|(key, of)| (key.to_string(), *of)).collect::<BTreeMap<_, _>>()
    };
    are(&["{\"a\": 3, \"b\": 2}", "{\"a\": 1, \"b\": 2, \"\\u{61}\": 3}"], map(&[("a", 3), ("b", 2)]));
    are(&["{}", "{:}"], map(&[]));
    are(
        &["{false: [], true: [1]}", "{false: [2], true: [1], false: []}"],
        BTreeMap::from([(false, vec![]), (true, vec![1_u16])]),
    );
    are(&["{-1: 'x', 300: 'y'}"], BTreeMap::from([(-1_i16, 'x'), (300, 'y')]));
    are_not::<BTreeMap<(u8, u8), u8>>(&[(
        "{}",
        "at $ (argument `value`): WAVE has no form for a map whose keys are (u8, u8): give the arguments as JSON \
         (byte 0 of the arguments)",
    )]);
    are_not::<BTreeMap<String, u8>>(&[
        (
            "{\"a b\": 256}",
            "at $[\"a b\"] (argument `value`): expected u8 (0 to 255), found `256` (byte 8 of the arguments)",
        ),
        (
            "{a: 1}",
            "at $ (argument `value`): expected a string such as \"x\", found `a` (byte 1 of the arguments)",
        ),
    ]);
}

#[test]
fn arguments_are_as_many_as_parameters_and_options_at_the_end_may_be_left_out() {
    let three = of::<(u8, Option<u8>, Option<String>)>(&["a", "b", "c"]);
    for text in ["1", "1,", "1, none", "1, none, none", "1 // only\n", "\n1\n, none"] {
        assert_eq!(encoded(&three, text), Ok(vec![1, 0, 0]), "{text}");
    }
    assert_eq!(encoded(&three, "1, 2, \"x\""), Ok(vec![1, 1, 2, 1, 1, b'x']));
    for (text, expected) in [
        ("", "at $: expected 3 arguments, found 0; `a: u8` is missing"),
        (
            "1, none, none, 4",
            "at $: expected 3 arguments, found 4; the first that is too many is `4` (byte 15 of the arguments)",
        ),
        ("1, true", "at $[1] (argument `b`): expected u8 (0 to 255), found `true` (byte 3 of the arguments)"),
    ] {
        assert_eq!(encoded(&three, text), Err(expected.into()), "{text}");
    }
    let none = of::<()>(&[]);
    for text in ["", " ", "\n// nothing"] {
        assert_eq!(encoded(&none, text), Ok(vec![]), "{text}");
    }
    assert!(
        encoded(&none, "1").expect_err("is too many").starts_with("at $: expected no arguments, found 1")
    );
    assert_eq!(encoded(&of::<()>(&["unit"]), ""), encoded(&of::<()>(&["unit"]), "{}"));
}

#[test]
fn what_is_no_wave_is_refused_at_its_place() {
    let task = of::<(Vec<u8>, String)>(&["a", "b"]);
    for (text, expected) in [
        (
            "[1, 2",
            "the arguments end too early: a value or a closing bracket is missing (byte 5 of the arguments)",
        ),
        (
            "[1], some(",
            "the arguments end too early: a value or a closing bracket is missing (byte 10 of the arguments)",
        ),
        (
            "[1 2]",
            "unexpected `2]`: a comma, a bracket or quotation marks may be missing before it (byte 3 of the arguments)",
        ),
        ("[1]) (2", "the arguments have ended before `(2` (byte 5 of the arguments)"),
        (") (", "`()` is no value in WAVE: write {} (byte 0 of the arguments)"),
        ("[1], ()", "`()` is no value in WAVE: write {} (byte 5 of the arguments)"),
        (
            "[1], \"x",
            "a string must end with a quotation mark, on the same line, and `\\` begins an escape: `\"x` (byte 5 of the arguments)",
        ),
        (
            "[1], 'xyz'",
            "a single character stands in single quotes, and text in double ones: `'xyz'` (byte 5 of the arguments)",
        ),
        (
            "[1], ä",
            "unexpected `ä`: a comma, a bracket or quotation marks may be missing before it (byte 5 of the arguments)",
        ),
        (
            "[1], \"\"\"x\n\"\"\"",
            "invalid multiline string (opening \"\"\" must be followed immediately by newline): `x\\n\"\"\"` (byte 8 of the arguments)",
        ),
    ] {
        let error = encoded(&task, text).expect_err(text);
        assert!(error.ends_with(expected), "{text}: {error}");
    }
}

#[test]
fn nesting_and_long_tokens_do_not_end_the_stack() {
    let small = std::thread::Builder::new().stack_size(1024 * 1024);
    let run = small.spawn(|| {
        let task = of::<Vec<Vec<Option<String>>>>(&["value"]);
        for open in ["[", "(", "some(", "ok(", "x(", "{a: ", "{\"a\": ", "[some({a:("] {
            let error = encoded(&task, &open.repeat(100_000)).expect_err("is too deep");
            assert!(error.contains("nested too deep"), "{open}: {error}");
        }
        for (text, times) in [
            ("\"", 1),
            ("\"a\\n", 1),
            ("// a\n", 500_000),
            (" ", 500_000),
            ("a_", 500_000),
            ("aB", 500_000),
            ("1", 500_000),
        ] {
            assert!(encoded(&task, &text.repeat(times)).is_err());
        }
        let text = format!("[[\"{}\"]]", "aä\\n ".repeat(100_000));
        assert_eq!(encoded(&task, &text).map(|bytes| bytes.len()), Ok(1 + 1 + 1 + 3 + 500_000));
    });
    run.expect("starts").join().expect("ends well");
}

#[test]
fn what_is_read_and_what_is_encoded_is_bounded() {
    let long = encoded(&of::<String>(&["s"]), &" ".repeat(TEXT_BYTES_MAX + 1)).expect_err("is too long");
    assert!(long.ends_with("give them as JSON"), "{long}");
    let mut builder = SchemaBuilder::default();
    let mut fields = Vec::new();
    for index in 0..1000 {
        let of = builder.push(Node::U8).expect("is small");
        fields.push((format!("f{index}"), builder.push(Node::Option(of)).expect("is small")));
    }
    let of = builder.push(Node::Struct { name: "S".into(), fields }).expect("is small");
    builder.push(Node::Seq(of)).expect("is small");
    let task = samples::task("t", &["s"], builder.finish().expect("is fine"), TypeSchema::of::<()>());
    let error = encoded(&task, &format!("[{}]", "{:},".repeat(300_000))).expect_err("is too much");
    assert!(error.contains("more than 268435456 bytes"), "{error}");
}

/// A type, as wasm-wave has it and as a schema.
fn small_types() -> Vec<(Type, TaskDescription)> {
    let task = |nodes: Vec<Node>| {
        let mut builder = SchemaBuilder::default();
        for node in nodes {
            builder.push(node).expect("is small");
        }
        samples::task("t", &["value"], builder.finish().expect("is fine"), TypeSchema::of::<()>())
    };
    let named =
        |names: &[&str]| names.iter().zip(0..).map(|(name, id)| (name.to_string(), id)).collect::<Vec<_>>();
    let result = |ok, err| Node::Enum {
        name: "Result".into(),
        variants: vec![("Ok".into(), Variant::Newtype(ok)), ("Err".into(), Variant::Newtype(err))],
    };
    let variant = vec![
        ("a".into(), Variant::Unit),
        ("none".into(), Variant::Newtype(0)),
        ("b-c".into(), Variant::Newtype(1)),
    ];
    vec![
        (Type::list(Type::U8), task(vec![Node::U8, Node::Seq(0)])),
        (Type::option(Type::option(Type::BOOL)), task(vec![Node::Bool, Node::Option(0), Node::Option(1)])),
        (Type::result(Some(Type::U8), None), task(vec![Node::U8, Node::Unit, result(0, 1)])),
        (Type::result(None, Some(Type::STRING)), task(vec![Node::Unit, Node::String, result(0, 1)])),
        (
            Type::flags(["a", "b-c", "none"]).expect("has flags"),
            task(vec![
                Node::Bool,
                Node::Bool,
                Node::Bool,
                Node::Struct { name: "f".into(), fields: named(&["a", "b-c", "none"]) },
            ]),
        ),
        (
            Type::record([("a", Type::U8), ("b-c", Type::F32)]).expect("has fields"),
            task(vec![Node::U8, Node::F32, Node::Struct { name: "r".into(), fields: named(&["a", "b-c"]) }]),
        ),
        (
            Type::variant([("a", None), ("none", Some(Type::U8)), ("b-c", Some(Type::CHAR))])
                .expect("has cases"),
            task(vec![Node::U8, Node::Char, Node::Enum { name: "v".into(), variants: variant }]),
        ),
        (
            Type::map(Type::STRING, Type::S8).expect("has a key"),
            task(vec![Node::String, Node::I8, Node::Map(0, 1)]),
        ),
        (
            Type::map(Type::BOOL, Type::S8).expect("has a key"),
            task(vec![Node::Bool, Node::I8, Node::Map(0, 1)]),
        ),
        (
            Type::tuple([Type::S16, Type::STRING]).expect("has parts"),
            task(vec![Node::I16, Node::String, Node::Tuple(vec![0, 1])]),
        ),
    ]
}

fn tokens(max: usize) -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        "a",
        "b-c",
        "B_c",
        "Ab",
        "%none",
        "none",
        "some",
        "ok",
        "err",
        "Ok",
        "true",
        "false",
        "inf",
        "1",
        "-1",
        "0.5",
        "1e9",
        "300",
        "\"a\"",
        "\"\\u{61}\"",
        "'a'",
        "'\\n'",
        "\"\"\"",
        "\n",
        " ",
        "_",
        "//",
        "ä",
        "\"",
        "'",
        "\\",
    ]);
    prop::collection::vec(token, 0..max).prop_map(|tokens| tokens.concat())
}

/// Values of the small types, with a change or two.
fn nearly_values() -> impl Strategy<Value = String> {
    let value = prop::sample::select(vec![
        "[1, 2]",
        "some(some(true))",
        "some(none)",
        "none",
        "ok(1)",
        "7",
        "err",
        "ok",
        "err(\"x\")",
        "{}",
        "{a, b-c,}",
        "{none}",
        "{a: 1, b-c: 0.5}",
        "{b-c: nan, a: 255}",
        "a",
        "%none(1)",
        "b-c('x')",
        "{\"a\": 1, \"b\": -2, \"a\": 3}",
        "{true: 1}",
        "(1, \"x\",)",
        "{:}",
        "\"x\"",
    ]);
    (value, any::<prop::sample::Index>(), tokens(2), any::<prop::sample::Index>(), 0_usize..3).prop_map(
        |(value, at, token, cut, count)| {
            let mut text = value.to_string();
            text.insert_str(at.index(value.len() + 1), &token);
            let start = cut.index(text.len() + 1);
            let end = (start + count).min(text.len());
            if text.is_char_boundary(start) && text.is_char_boundary(end) && count < 2 {
                text.replace_range(start..end, "");
            }
            text
        },
    )
}

proptest! {
    #[test]
    fn wave_becomes_the_same_as_json_that_means_the_same(Sample { task, wave, json } in arguments()) {
        let expected = encode_arguments(&task, json.to_string().as_bytes()).expect("fits");
        prop_assert_eq!(encoded(&task, &wave), Ok(expected), "{} of {}", wave, task.signature());
    }

    #[test]
    fn no_text_is_a_panic(text in prop_oneof![tokens(40), any::<String>()]) {
        for task in [of::<(Vec<Shape>, Point, Rights)>(&["a", "b", "c"]), of::<BTreeMap<String, Result<f32, char>>>(&["a"])] {
            if let Err(error) = encoded(&task, &text) {
                prop_assert!(error.starts_with("at $"), "{}", error);
            }
        }
        if let Some(Call { name, arguments }) = call(&text) {
            let again = format!("{name}({arguments})");
            prop_assert_eq!(again.as_str(), text.trim_ascii());
        }
    }

    #[test]
    fn what_wasm_wave_takes_is_taken_and_means_the_same(text in prop_oneof![nearly_values(), tokens(8)]) {
        // wasm-wave panics at a comment that begins at the very end of a text.
        let text = format!("{text}\n");
        for (ty, task) in small_types() {
            if let Ok(value) = wasm_wave::from_str::<WaveValue>(&ty, &text) {
                let canonical = wasm_wave::to_string(&value).expect("is written");
                if canonical.contains("inf") && !text.contains("inf") {
                    // wasm-wave takes a number that is too large for an infinity.
                    continue;
                }
                let ours = encoded(&task, &text);
                prop_assert!(ours.is_ok(), "{} of {}: {:?}", text, ty, ours);
                prop_assert_eq!(ours, encoded(&task, &canonical), "{} of {}", text, ty);
            }
        }
    }
}

#[test]
fn the_words_of_json_are_the_same_places() {
    let task = of::<(u8, Vec<Shape>)>(&["n", "shapes"]);
    let json = json!([1, [{"Pair": [1, null]}, {"Pair": [1, "xy"]}]]).to_string();
    let Err(EncodeError::Mismatch(of_json)) = encode_arguments(&task, json.as_bytes()) else {
        panic!("does not fit")
    };
    let Err(EncodeError::Mismatch(of_wave)) = encode_wave(&task, "1, [pair((1, none)), pair((1, \"xy\"))]")
    else {
        panic!("does not fit")
    };
    assert_eq!((of_wave.path, of_wave.argument), (of_json.path, of_json.argument));
}
