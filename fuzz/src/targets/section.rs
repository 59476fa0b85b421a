//! Fuzzes a module's own description of its tasks: the custom section `wasmpool.tasks`, and the schemas in
//! it.

use postcard_schema::schema::owned::OwnedNamedType;
use proto::artifact::{self, Described};
use proto::description::samples::of_tasks;
use proto::guest::section::records;
use proto::limits::{CONTROL_BYTES_MAX, SCHEMA_NODES_MAX, TASKS_PER_MODULE_MAX};
use proto::schema::{SchemaError, TypeSchema};
use serde::Serialize;
use wasmpool::fuzzing::Input;

use super::description::{assert_bounds, read};
use crate::bounded::within;

/// Most that a byte may cost: a node of a schema takes two bytes, and a vector that grows has twice
/// the room that it needs.
const DECODED_PER_BYTE: usize = 128;

/// What serde reserves at most for a sequence that says how long it will be.
const RESERVED_BYTES: usize = 1024 * 1024;

/// Most memory that the parser of types may take for a text of the longest length.
const TEXT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The input: whether it is a schema alone, then its bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 2 {
        0 => schema(input.0),
        _ => section(input.0),
    }
}

fn schema(bytes: &[u8]) {
    let decoded = within(DECODED_PER_BYTE * bytes.len() + 4096, || TypeSchema::decode_guest(bytes));
    let postcard = || postcard::take_from_bytes::<OwnedNamedType>(bytes);
    let (schema, rest) = match decoded {
        Ok(decoded) => decoded,
        // Bytes that are no schema for us are none for postcard. (Postcard knows no limits, and longer
        // numbers.)
        Err(SchemaError::Truncated | SchemaError::UnknownTag(_)) => return assert!(postcard().is_err()),
        Err(_) => return,
    };
    assert!(bytes.ends_with(rest));
    assert!(schema.check().is_ok(), "{schema}");
    // The crate that guests encode with reads the same, to the same byte, and writes it so that it
    // reads back.
    let (owned, left) = postcard().expect("postcard reads it, too");
    assert_eq!(rest, left);
    let encoded = postcard::to_stdvec(&owned).expect("encodes");
    assert_eq!(TypeSchema::decode_guest(&encoded), Ok((schema, &[][..])));
}

fn section(bytes: &[u8]) {
    let bytes_max = DECODED_PER_BYTE * bytes.len() + RESERVED_BYTES + 65_536;
    let tasks = match within(bytes_max, || records(bytes)) {
        Ok(described) => {
            // The parser's own structures take many times a text's bytes, and a text is short.
            let _ = within(TEXT_BYTES_MAX, || wit::tasks(&described.text));
            described.tasks
        }
        // It travels in one message, with a few words around it.
        Err(error) => return assert!(error.len() < CONTROL_BYTES_MAX / 2, "{} bytes", error.len()),
    };
    // One more than the limit is kept, for the error that says so.
    assert!(tasks.len() <= TASKS_PER_MODULE_MAX + 1);
    if tasks.len() > TASKS_PER_MODULE_MAX {
        return;
    }
    // A task that the compiler accepts can be described, and the host accepts it.
    let description = of_tasks(tasks);
    assert_bounds(&description);
    let file = artifact::encode(&Described::new(description.clone(), 12)).expect("encodes");
    assert_eq!(read(&file), Some(description));
}

#[derive(postcard_schema::Schema)]
#[expect(dead_code, reason = "only its schema is used")]
enum Shape {
    Empty,
    Newtype(f64),
    Pair(u32, Option<u8>),
    Named { name: String, tags: Vec<(char, [u8; 3])> },
}

/// A record of the section, as the SDK writes it.
fn record(kind: u8, name: &str, params: &[&str], types: &[&OwnedNamedType]) -> Vec<u8> {
    let head = (1u8, kind, name, name, "What it does.", 1u8, params);
    let mut body = encode(&head);
    types.iter().for_each(|ty| body.extend(encode(ty)));
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

fn encode(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    postcard::to_stdvec(value).expect("encodes")
}

/// Schemas of each kind of type, sections of one, two and too many records.
pub fn seeds() -> Vec<Vec<u8>> {
    fn owned<T: postcard_schema::Schema>() -> OwnedNamedType {
        OwnedNamedType::from(T::SCHEMA)
    }
    let types = [
        owned::<Shape>(),
        owned::<((bool, i8, i16, i32, i64, i128), (u16, u64, u128, f32, ()))>(),
        owned::<std::collections::BTreeMap<String, Vec<u8>>>(),
        owned::<Result<u64, String>>(),
    ];
    let [shape, numbers, map, result] = &types;
    let mut seeds: Vec<_> = types.iter().map(|ty| [vec![0], encode(ty)].concat()).collect();
    // At the limit of the depth, and a level beyond.
    for levels in [64, 65] {
        seeds.push([vec![0], [0, 18].repeat(levels), vec![0, 0]].concat());
    }
    let many = encode(&("", 23u32, vec![("", 0u8); SCHEMA_NODES_MAX]));
    seeds.push([vec![0], many].concat());
    let two = [record(0, "count", &["upto"], &[shape, map]), record(1, "init", &[], &[numbers, result])];
    seeds.push([vec![1], two.concat()].concat());
    seeds.push([vec![1], record(0, "sum", &["a", "b"], &[numbers, result])].concat());
    seeds
}
