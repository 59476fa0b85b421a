//! Whatever postcard makes of Rust's values, we make of their JSON, and back.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::encode::Mismatch;
use super::*;
use proto::description::TaskDescription;
use proto::description::samples;
use proto::schema::{Node, TypeSchema};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, postcard_schema::Schema)]
struct Everything {
    small: (bool, i8, u8, i16, u16),
    large: (i32, u32, i64, u64),
    wide: (u128, i128),
    floats: (f32, f64),
    text: (char, String),
    bytes: Vec<u8>,
    maybe: Option<Vec<Option<i32>>>,
    shapes: Vec<Shape>,
    by_name: BTreeMap<String, Shape>,
    by_number: BTreeMap<i16, String>,
    nothing: (),
    wrapped: Wrapped,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, postcard_schema::Schema)]
struct Wrapped(u32);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, postcard_schema::Schema)]
enum Shape {
    Empty,
    Circle(f64),
    Pair(u32, Option<char>),
    Named { name: String, size: i64 },
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Empty),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Shape::Circle),
        any::<(u32, Option<char>)>().prop_map(|(n, c)| Shape::Pair(n, c)),
        any::<(String, i64)>().prop_map(|(name, size)| Shape::Named { name, size }),
    ]
}

fn everything() -> impl Strategy<Value = Everything> {
    let floats = (any::<f32>(), any::<f64>()).prop_filter("finite", |(a, b)| a.is_finite() && b.is_finite());
    let scalars =
        any::<((bool, i8, u8, i16, u16), (i32, u32, i64, u64), (u128, i128), (char, String), u32)>();
    let collections = (
        any::<Vec<u8>>(),
        any::<Option<Vec<Option<i32>>>>(),
        prop::collection::vec(shape(), 0..4),
        prop::collection::btree_map(any::<String>(), shape(), 0..4),
        any::<BTreeMap<i16, String>>(),
    );
    (scalars, floats, collections).prop_map(|((small, large, wide, text, wrapped), floats, collections)| {
        let (bytes, maybe, shapes, by_name, by_number) = collections;
        let wrapped = Wrapped(wrapped);
        let nothing = ();
        Everything {
            small,
            large,
            wide,
            floats,
            text,
            bytes,
            maybe,
            shapes,
            by_name,
            by_number,
            nothing,
            wrapped,
        }
    })
}

fn encode(schema: &TypeSchema, value: &Value) -> Result<Vec<u8>, Mismatch> {
    arguments(&task(schema.clone(), &["input"]), value)
}

/// Encodes it from memory and from a stream, and checks that both agree.
fn arguments(task: &TaskDescription, value: &Value) -> Result<Vec<u8>, Mismatch> {
    let text = value.to_string();
    let mismatch = |error| match error {
        EncodeError::Mismatch(mismatch) => mismatch,
        EncodeError::Json(error) => panic!("it is JSON: {error}: {text}"),
    };
    let encoded = encode_arguments(task, text.as_bytes()).map_err(mismatch);
    let small_steps = std::io::BufReader::with_capacity(3, text.as_bytes());
    assert_eq!(encode_stream(task, small_steps, 0).map_err(mismatch), encoded);
    encoded
}

fn decode(schema: &TypeSchema, bytes: &[u8]) -> Result<String, String> {
    super::decode(schema, bytes, 1 << 20).map_err(|error| match error {
        Undecodable::Bytes(error) => error.to_string(),
        Undecodable::TooLong(bytes) => format!("{bytes} bytes of JSON"),
    })
}

fn task(input: TypeSchema, params: &[&str]) -> TaskDescription {
    samples::task("t", params, input, TypeSchema::of::<()>())
}

/// The JSON that serde_json itself makes of a value, by our rules where they differ.
fn by_serde(value: &Everything) -> Value {
    let mut json = json!({
        "small": value.small, "large": value.large, "floats": value.floats, "text": value.text,
        "maybe": value.maybe, "shapes": value.shapes, "by_name": value.by_name,
        "by_number": value.by_number.iter().collect::<Vec<_>>(), "nothing": null, "wrapped": value.wrapped,
    });
    json["wide"] = json!([value.wide.0.to_string(), value.wide.1.to_string()]);
    json["bytes"] = json!(value.bytes);
    json
}

proptest! {
    #[test]
    fn json_becomes_what_postcard_makes_of_the_value_and_comes_back(value in everything()) {
        let schema = TypeSchema::of::<Everything>();
        let postcard = postcard::to_stdvec(&value).expect("serialises");
        prop_assert_eq!(encode(&schema, &by_serde(&value)).expect("fits"), postcard.clone());

        let json = decode(&schema, &postcard).expect("decodes");
        let json: Value = serde_json::from_str(&json).expect("is JSON");
        prop_assert_eq!(encode(&schema, &json).expect("fits"), postcard);
    }

    #[test]
    fn decoded_json_is_what_serde_json_writes(value in prop::collection::vec(shape(), 0..5)) {
        let postcard = postcard::to_stdvec(&value).expect("serialises");
        let json = decode(&TypeSchema::of::<Vec<Shape>>(), &postcard).expect("decodes");
        prop_assert_eq!(serde_json::from_str::<Value>(&json).expect("is JSON"), json!(value));
    }

    #[test]
    fn what_arbitrary_bytes_become_is_json(bytes: Vec<u8>) {
        for schema in [TypeSchema::of::<Everything>(), TypeSchema::of::<BTreeMap<String, Vec<Option<()>>>>()] {
            if let Ok(json) = decode(&schema, &bytes) {
                prop_assert!(serde_json::from_str::<Value>(&json).is_ok(), "{json}");
            }
        }
    }

    /// A map is left out: bytes may say a key twice, and JSON that does is refused.
    #[test]
    fn what_arbitrary_bytes_become_is_the_same_after_a_way_back(bytes: Vec<u8>) {
        for schema in [
            TypeSchema::of::<Vec<Shape>>(), TypeSchema::of::<Vec<()>>(), TypeSchema::of::<(f32, f64, u128, i128)>(),
            TypeSchema::of::<Vec<String>>(), TypeSchema::of::<Option<Vec<u8>>>(), TypeSchema::of::<Vec<char>>(),
        ] {
            if let Ok(json) = decode(&schema, &bytes) {
                let value: Value = serde_json::from_str(&json).expect("is JSON");
                let again = encode(&schema, &value).expect("fits what it came from");
                prop_assert_eq!(decode(&schema, &again).expect("decodes"), json);
            }
        }
    }

    #[test]
    fn what_postcard_refuses_we_refuse(bytes: Vec<u8>) {
        let ours = decode(&TypeSchema::of::<Vec<Shape>>(), &bytes).is_ok();
        let postcards = matches!(postcard::take_from_bytes::<Vec<Shape>>(&bytes), Ok((_, [])));
        prop_assert_eq!(ours, postcards);
    }
}

#[test]
fn every_cut_of_an_encoding_is_an_error() {
    let value = vec![Shape::Pair(300, Some('ä')), Shape::Named { name: "n".into(), size: -1 }];
    let postcard = postcard::to_stdvec(&value).expect("serialises");
    let schema = TypeSchema::of::<Vec<Shape>>();
    for end in 0..postcard.len() {
        assert!(decode(&schema, &postcard[..end]).is_err(), "{end} bytes");
    }
    let mut longer = postcard;
    longer.push(0);
    assert!(decode(&schema, &longer).expect_err("longer").contains("left over"));
}

#[test]
fn announced_lengths_cost_nothing() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for schema in [TypeSchema::of::<Vec<()>>(), TypeSchema::of::<Vec<u8>>(), TypeSchema::of::<Vec<u64>>()] {
        assert!(decode(&schema, &huge).is_err());
    }
    assert!(decode(&TypeSchema::of::<Vec<()>>(), &[3]).is_ok());
}

/// Each level holds the one below twice: a schema of 40 nodes, a value of 2^39.
#[test]
fn values_without_bytes_are_counted_even_if_a_schema_multiplies_them() {
    let mut nodes = vec![Node::Unit];
    nodes.extend((0..39).map(|below| Node::Tuple(vec![below, below])));
    let bytes = postcard::to_stdvec(&nodes).expect("serialises");
    let schema: TypeSchema = postcard::from_bytes(&bytes).expect("a schema is its nodes");
    assert!(decode(&schema, &[]).is_err());
}

#[test]
fn floats_that_json_lacks_are_strings() {
    let schema = TypeSchema::of::<Vec<f64>>();
    let given = json!(["NaN", "inf", "-inf", 1, 0.5]);
    let bytes = encode(&schema, &given).expect("fits");
    assert_eq!(decode(&schema, &bytes).expect("decodes"), r#"["NaN","inf","-inf",1.0,0.5]"#);
    assert!(encode(&TypeSchema::of::<f32>(), &json!(1e300)).is_err());
}

#[test]
fn bytes_have_three_spellings() {
    let schema = TypeSchema::of::<Vec<u8>>();
    for given in [json!("AB"), json!([65, 66]), json!({"base64": "QUI="})] {
        assert_eq!(encode(&schema, &given).expect("fits"), [2, 65, 66]);
    }
    assert_eq!(decode(&schema, &[2, 65, 66]).expect("decodes"), "\"AB\"");
    assert_eq!(decode(&schema, &[1, 0xff]).expect("decodes"), r#"{"base64":"/w=="}"#);
}

#[test]
fn the_same_key_twice_is_an_error() {
    let schema = TypeSchema::of::<BTreeMap<String, u8>>();
    assert_eq!(decode(&schema, &[2, 1, b'a', 7, 1, b'b', 8]).expect("decodes"), r#"{"a":7,"b":8}"#);
    assert!(decode(&schema, &[2, 1, b'a', 7, 1, b'a', 8]).is_err());
}

#[test]
fn errors_say_where_and_what() {
    let shapes = TypeSchema::of::<Vec<Shape>>();
    let cases = [
        (json!(7), "at $: expected an array of Shape, found 7"),
        (
            json!(["Empty", "Square"]),
            "at $[1]: expected a variant of Shape (`Empty`, `Circle`, `Pair`, `Named`), found the string \"Square\"",
        ),
        (json!([{"Pair": [1]}]), "at $[0].Pair: expected 2 values, found 1"),
        (json!([{"Pair": [-1, null]}]), "at $[0].Pair[0]: expected u32 (0 to 4294967295), found -1"),
        (json!([{"Named": {"name": "n"}}]), "at $[0].Named: missing field `size: i64`"),
        (
            json!([{"Named": {"name": "n", "size": 1, "x y": 1}}]),
            "at $[0].Named: unknown field `x y`; there is `name`, `size`",
        ),
        (
            json!(["Circle"]),
            "at $[0]: expected {\"Circle\": …}, since that variant has content, found the string \"Circle\"",
        ),
        (
            json!([{"Circle": true}]),
            "at $[0].Circle: expected f64 (a number, \"NaN\", \"inf\" or \"-inf\"), found true",
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(encode(&shapes, &value).expect_err("does not fit").to_string(), expected);
    }
    let map = encode(&TypeSchema::of::<BTreeMap<String, u8>>(), &json!({"a b": 256})).expect_err("too large");
    assert_eq!(map.to_string(), "at $[\"a b\"]: expected u8 (0 to 255), found 256");
}

#[test]
fn arguments_come_by_place_or_by_name() {
    let pi = task(TypeSchema::of::<(u64, Option<String>)>(), &["samples", "seed"]);
    for given in [json!([5, null]), json!({"seed": null, "samples": 5}), json!({"samples": 5})] {
        assert_eq!(arguments(&pi, &given).expect("fits"), [5, 0]);
    }
    let says = |given| arguments(&pi, &given).expect_err("does not fit").to_string();
    assert_eq!(says(json!([5, 6])), "at $[1] (argument `seed`): expected a string, found 6");
    assert_eq!(says(json!({"seed": "x"})), "at $: missing argument `samples: u64`");
    assert_eq!(says(json!({"sample": 1})), "at $: unknown argument `sample`; there is `samples`, `seed`");
    assert_eq!(
        says(json!(5)),
        "at $: expected an array of 2 arguments, or an object by their names, found 5"
    );
    assert_eq!(
        says(json!([5])),
        "at $: expected an array of 2 arguments, or an object by their names, found an array of 1"
    );
    assert_eq!(
        says(json!([5, null, 7])),
        "at $: expected an array of 2 arguments, or an object by their names, found a longer array"
    );

    let none = task(TypeSchema::of::<()>(), &[]);
    for given in [json!(null), json!([]), json!({})] {
        assert!(arguments(&none, &given).expect("fits").is_empty());
    }
    assert!(arguments(&none, &json!([1])).is_err());
}

/// The text is endless: the test ends only if nothing of it is skipped or held.
#[test]
fn what_does_not_fit_is_refused_where_it_begins() {
    struct Endless {
        read: usize,
    }
    impl std::io::Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            assert!(self.read < 4096, "it is refused before");
            into.copy_from_slice(&b"[1,1,".repeat(into.len())[..into.len()]);
            self.read += into.len();
            Ok(into.len())
        }
    }
    let number = task(TypeSchema::of::<u64>(), &["n"]);
    let text = std::io::BufReader::with_capacity(64, Endless { read: 0 });
    let Err(EncodeError::Mismatch(mismatch)) = encode_stream(&number, text, 0) else {
        panic!("it is a mismatch")
    };
    assert_eq!(mismatch.to_string(), "at $: expected u64 (0 to 18446744073709551615), found an array");
}

#[test]
fn fields_may_come_in_any_order_and_the_last_of_a_name_counts() {
    #[derive(Serialize, postcard_schema::Schema)]
    struct Three {
        a: Option<u8>,
        b: Vec<u16>,
        c: String,
    }
    let schema = task(TypeSchema::of::<Vec<Three>>(), &["threes"]);
    let encoded = |text: &str| encode_arguments(&schema, text.as_bytes()).expect(text);
    let three = |a, b: &[u16], c: &str| Three { a, b: b.to_vec(), c: c.into() };
    let expected = postcard::to_stdvec(&vec![three(Some(1), &[2, 300], "x"), three(None, &[], "y")])
        .expect("serialises");
    for text in [
        r#"[{"a":1,"b":[2,300],"c":"x"},{"a":null,"b":[],"c":"y"}]"#,
        r#"[{"c":"x","b":[2,300],"a":1},{"c":"y","b":[]}]"#,
        r#"[{"a":9,"c":"z","b":[7],"c":"x","b":[2,300],"a":1},{"b":[],"c":"","c":"y"}]"#,
    ] {
        assert_eq!(encoded(text), expected, "{text}");
    }
}

#[test]
fn the_last_value_of_a_key_counts_at_the_place_of_the_first() {
    let map = task(TypeSchema::of::<BTreeMap<String, Vec<u8>>>(), &["map"]);
    let encoded = encode_arguments(&map, br#"{"b":[1],"a":"xy","b":[2,3],"":[],"a":"z"}"#).expect("fits");
    assert_eq!(encoded, [3, 1, b'b', 2, 2, 3, 1, b'a', 1, b'z', 0, 0]);
    let many: Vec<_> = (0..300).map(|n| format!("\"k{}\":[{}]", n % 200, n % 256)).collect();
    let encoded = encode_arguments(&map, format!("{{{}}}", many.join(",")).as_bytes()).expect("fits");
    let decoded: Vec<(String, Vec<u8>)> = postcard::from_bytes(&encoded).expect("decodes");
    assert_eq!(decoded.len(), 200);
    assert_eq!(decoded[0], ("k0".into(), vec![200]));
    assert_eq!(decoded[199], ("k199".into(), vec![199]));
}

/// A guest chooses its schema and what it returns, so both may be hostile.
#[test]
fn what_is_printed_counts_and_not_what_was_returned() {
    #[derive(Serialize, postcard_schema::Schema)]
    struct NamedAtSomeLengthSoThatItTakesSomeRoom {
        and_this_is_the_name_of_its_only_field: (),
    }
    let nested = TypeSchema::of::<Vec<Vec<NamedAtSomeLengthSoThatItTakesSomeRoom>>>();
    let nested_bytes = [&[100_u8][..], &[100; 100]].concat();
    for (schema, bytes) in [
        (TypeSchema::of::<Vec<()>>(), &[0xff, 0xff, 3][..]),
        (TypeSchema::of::<Vec<NamedAtSomeLengthSoThatItTakesSomeRoom>>(), &[0xff, 0x7f]),
        (nested, &nested_bytes),
    ] {
        let max = 1024 + 8 * bytes.len();
        match super::decode(&schema, bytes, 1024) {
            Err(Undecodable::TooLong(long)) => assert!(long > max && long < 2 * max, "{long}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(super::decode(&TypeSchema::of::<Vec<()>>(), &[3], 1024).as_deref(), Ok("[null,null,null]"));
}

/// A result within its limit must be printed, if its own bytes account for the JSON's length.
#[test]
fn what_bytes_become_in_json_by_themselves_is_no_reason_to_refuse_them() {
    let text = "\u{1}".repeat(1000);
    let postcard = postcard::to_stdvec(&text).expect("serialises");
    assert_eq!(super::decode(&TypeSchema::of::<String>(), &postcard, 0).map(|json| json.len()), Ok(6002));
    let floats = vec![-1.234_567_890_123_456_7e-300_f64; 100];
    let postcard = postcard::to_stdvec(&floats).expect("serialises");
    assert!(super::decode(&TypeSchema::of::<Vec<f64>>(), &postcard, 0).is_ok());
    let postcard = postcard::to_stdvec(&vec![false; 1000]).expect("serialises");
    assert!(super::decode(&TypeSchema::of::<Vec<bool>>(), &postcard, 0).is_ok());
}

#[test]
fn strings_are_as_serde_json_reads_them_whatever_is_in_them() {
    let all: String = (0..=0x2_ffff).chain(0xe_0000..0xe_0200).filter_map(char::from_u32).collect();
    let mut json = String::new();
    push_string(&mut json, &all);
    assert_eq!(serde_json::from_str::<String>(&json).expect("is JSON"), all);
    assert!(json.chars().all(|c| is_harmless(c) && c != '\n' && c != '\t'));
    let mut value = String::new();
    push_value(&mut value, &json!({ &all[..64]: all }));
    assert!(value.chars().all(is_harmless) && value.lines().count() == 1);
    assert_eq!(serde_json::from_str::<Value>(&value).expect("is JSON")[&all[..64]], json!(all));
}

/// Three bytes of text stand for two thousand encoded ones here, since each absent field is one byte.
#[test]
fn what_is_encoded_is_bounded_by_itself() {
    let fields = (0..2000).map(|n| (format!("f{n}"), 0)).collect::<Vec<_>>();
    let mut nodes = vec![Node::U8];
    let mut named = Vec::new();
    for (name, _) in fields {
        nodes.push(Node::U8);
        let of = nodes.len() as u32 - 1;
        nodes.push(Node::Option(of));
        named.push((name, nodes.len() as u32 - 1));
    }
    nodes.push(Node::Struct { name: "S".into(), fields: named });
    let of = nodes.len() as u32 - 1;
    nodes.push(Node::Seq(of));
    let bytes = postcard::to_stdvec(&nodes).expect("serialises");
    let schema: TypeSchema = postcard::from_bytes(&bytes).expect("a schema is its nodes");
    let text = format!("[{}{{}}]", "{},".repeat(200_000));
    let Err(EncodeError::Mismatch(error)) = encode_arguments(&task(schema, &["many"]), text.as_bytes())
    else {
        panic!("it is refused")
    };
    assert!(error.message.contains("more than 268435456 bytes"), "{error}");
}
