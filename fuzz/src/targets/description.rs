//! The file that describes a module: whoever wrote it, what is accepted keeps every bound.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use proto::artifact::{self, Described};
use proto::description::ModuleDescription;
use proto::description::samples::{of_tasks, task};
use proto::limits::{
    SCHEMA_DEPTH_MAX, SCHEMA_NODES_MAX, TASK_DOC_BYTES_MAX, TASK_NAME_BYTES_MAX, TASKS_PER_MODULE_MAX,
};
use proto::schema::{Node, TypeSchema, Variant};
use wasmpool::fuzzing::Input;
use wasmpool::fuzzing::cache::read_compiled;
use wasmpool::fuzzing::text::assert_harmless;

use crate::bounded::within;

/// Most that a byte may cost: an empty name takes one, and a vector that grows has twice the room that
/// it needs.
const DECODED_PER_BYTE: usize = 64;

/// What serde reserves at most for a sequence that says how long it will be; three of them nest.
const RESERVED_BYTES: usize = 3 * 1024 * 1024;

/// The hash of the description, and its length.
const HASH_BYTES: usize = 32;
const HEAD_BYTES: usize = HASH_BYTES + 8;

/// The input: whether hash and length are made right, then the file behind them; no table of places stands behind it.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let is_hashed = input.byte() % 8 != 0;
    let head = || [&blake3::hash(input.0).as_bytes()[..], &(input.0.len() as u64).to_le_bytes()].concat();
    let file = if is_hashed { [&head()[..], input.0].concat() } else { input.0.to_vec() };
    let Some(description) = read(&file) else { return };
    let len = u64::from_le_bytes(file[HASH_BYTES..HEAD_BYTES].try_into().expect("eight bytes"));
    let body = &file[HEAD_BYTES..][..len as usize];
    assert_eq!(blake3::hash(body).as_bytes()[..], file[..HASH_BYTES], "what is accepted has its hash");
    assert_bounds(&description);

    // A description is read as it was written, and with one bit changed it is nothing.
    let mut written = artifact::encode(&Described::new(description.clone(), 12)).expect("encodes");
    assert_eq!(read(&written).as_ref(), Some(&description));
    let bit = file.len() * 7 % (written.len() * 8);
    written[bit / 8] ^= 1 << (bit % 8);
    assert_eq!(read(&written), None);
}

/// Reads it as host and workers do.
pub(super) fn read(bytes: &[u8]) -> Option<ModuleDescription> {
    thread_local! {
        static FILE: File = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).expect("a file");
    }
    let file = FILE.with(|file| file.try_clone()).expect("a descriptor");
    file.set_len(0).expect("truncates");
    (&file).seek(SeekFrom::Start(0)).expect("seeks");
    (&file).write_all(bytes).expect("writes");
    let bytes_max = RESERVED_BYTES + DECODED_PER_BYTE * bytes.len();
    let description = within(bytes_max, || artifact::read(&file).map(|described| described.description));
    // The host's way in is the same, and asks for the artifact's size besides.
    let described = within(2 * bytes_max, || {
        let clone = || file.try_clone().expect("a descriptor");
        read_compiled(clone(), clone(), u64::MAX)
    });
    if described.is_some() {
        assert_eq!(described, description);
    }
    description
}

/// Every bound that `limits.rs` sets, checked by a walk that knows nothing of `is_well_formed`.
pub(super) fn assert_bounds(description: &ModuleDescription) {
    assert!(description.tasks.len() <= TASKS_PER_MODULE_MAX);
    for task in &description.tasks {
        let names = [&task.name, &task.export].into_iter().chain(&task.params);
        assert!(names.into_iter().all(|name| name.len() <= TASK_NAME_BYTES_MAX));
        assert!(task.doc.len() <= TASK_DOC_BYTES_MAX && task.params.len() <= SCHEMA_NODES_MAX);
        for schema in [&task.input, &task.output] {
            let mut nodes = 0;
            walk(schema, schema.root(), 0, &mut nodes);
            within(usize::MAX / 2, || {
                assert!(schema.is_compatible(schema));
                assert_harmless(&schema.to_string());
            });
        }
        assert_harmless(&within(usize::MAX / 2, || task.signature()));
    }
}

/// A schema is a tree of bounded size and depth: the walk of it ends, and soon.
fn walk(schema: &TypeSchema, node: &Node, depth: usize, nodes: &mut usize) {
    *nodes += 1;
    assert!(depth <= SCHEMA_DEPTH_MAX && *nodes <= SCHEMA_NODES_MAX);
    let mut visit = |id: &u32| walk(schema, schema.node(*id), depth + 1, nodes);
    match node {
        Node::Option(id) | Node::Seq(id) => visit(id),
        Node::Tuple(ids) => ids.iter().for_each(visit),
        Node::Map(key, value) => [key, value].into_iter().for_each(visit),
        Node::Struct { fields, .. } => fields.iter().for_each(|(_, id)| visit(id)),
        Node::Enum { variants, .. } => {
            for (_, variant) in variants {
                match variant {
                    Variant::Unit => {}
                    Variant::Newtype(id) => visit(id),
                    Variant::Tuple(ids) => ids.iter().for_each(&mut visit),
                    Variant::Struct(fields) => fields.iter().for_each(|(_, id)| visit(id)),
                }
            }
        }
        _ => {}
    }
}

/// Descriptions of no task, of a few, of names that terminals obey.
pub fn seeds() -> Vec<Vec<u8>> {
    let tasks = vec![
        task("count", &["upto"], TypeSchema::of::<u64>(), TypeSchema::of::<Vec<(u8, Option<String>)>>()),
        task("\u{1b}[31m", &["upto"], TypeSchema::of::<Result<u8, String>>(), TypeSchema::raw_bytes()),
    ];
    let mut seeds = Vec::new();
    for description in [of_tasks(Vec::new()), of_tasks(tasks)] {
        let file = artifact::encode(&Described::new(description, 12)).expect("encodes");
        seeds.push([&[1], &file[HEAD_BYTES..]].concat());
        seeds.push([&[0], &file[..]].concat());
    }
    seeds
}
