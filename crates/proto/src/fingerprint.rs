//! The wire's fingerprint: both sides must speak the very same wire.
//!
//! A worker is started from the host's own executable, so the fingerprints only ever differ for a `worker_program`.
//! They are made of the schemas of all messages, of the version, and of where things lie in shared memory. So a comment
//! changes nothing, and a field changes them; whoever changes what a field means without changing its type raises the
//! version.

use postcard_schema::key::Key;

use crate::artifact::Described;
use crate::message::{
    CompileReply, CompileRequest, FromWorker, FromWorkerControl, ToWorker, ToWorkerControl,
};
use crate::{frame, ring};

/// All that one side says to the other.
type Messages = (ToWorkerControl, FromWorkerControl, ToWorker, FromWorker, CompileRequest, CompileReply);

/// The wire that this build speaks. The first message of each side has it.
pub const WIRE: u64 = {
    let version = concat!("wasmpool ", env!("CARGO_PKG_VERSION"));
    let schemas = Key::for_path::<Messages>(version).to_bytes();
    let mut hash = fnv(u64::from_le_bytes(schemas), &frame::MAGIC);
    let mut index = 0;
    while index < ring::LAYOUT.len() {
        hash = fnv(hash, &(ring::LAYOUT[index] as u64).to_le_bytes());
        index += 1;
    }
    hash
};

/// The format of the files that describe modules, which the cache keeps.
pub const DESCRIPTIONS: u64 =
    u64::from_le_bytes(Key::for_path::<Described>("wasmpool descriptions").to_bytes());

/// Continues an FNV-1a hash of 64 bits. It is no defence against malice, and two halves of one program need none.
pub const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        index += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use postcard_schema::Schema;
    use postcard_schema::schema::owned::{OwnedDataModelType, OwnedDataModelVariant, OwnedNamedType};

    use super::*;

    mod plain {
        #[derive(postcard_schema::Schema)]
        #[expect(dead_code, reason = "its schema is compared")]
        pub(super) enum Message {
            One { task: u64 },
            Two(Vec<String>),
        }
    }

    mod commented {
        /// A message.
        #[derive(postcard_schema::Schema)]
        #[expect(dead_code, reason = "its schema is compared")]
        pub(super) enum Message {
            /// The first kind.
            One {
                /// Its task.
                task: u64,
            },
            // This is the second kind.
            Two(Vec<String>),
        }
    }

    mod longer {
        #[derive(postcard_schema::Schema)]
        #[expect(dead_code, reason = "its schema is compared")]
        pub(super) enum Message {
            One { task: u64, run: u64 },
            Two(Vec<String>),
        }
    }

    mod turned {
        #[derive(postcard_schema::Schema)]
        #[expect(dead_code, reason = "its schema is compared")]
        pub(super) enum Message {
            Two(Vec<String>),
            One { task: u64 },
        }
    }

    #[test]
    fn a_comment_changes_no_fingerprint_and_a_field_or_an_order_does() {
        fn key<T: Schema>() -> [u8; 8] {
            Key::for_path::<T>("a wire").to_bytes()
        }
        assert_eq!(key::<plain::Message>(), key::<commented::Message>());
        assert_ne!(key::<plain::Message>(), key::<longer::Message>());
        assert_ne!(key::<plain::Message>(), key::<turned::Message>());
    }

    /// Adds the names of all types that a value of this one is made of.
    fn names(of: &OwnedNamedType, found: &mut BTreeSet<String>) {
        found.insert(of.name.clone());
        let mut inside = Vec::new();
        match &of.ty {
            OwnedDataModelType::Option(ty)
            | OwnedDataModelType::NewtypeStruct(ty)
            | OwnedDataModelType::Seq(ty) => inside.push((**ty).clone()),
            OwnedDataModelType::Tuple(types) | OwnedDataModelType::TupleStruct(types) => {
                inside.extend(types.iter().cloned());
            }
            OwnedDataModelType::Map { key, val } => inside.extend([(**key).clone(), (**val).clone()]),
            OwnedDataModelType::Struct(fields) => inside.extend(fields.iter().map(|field| field.ty.clone())),
            OwnedDataModelType::Enum(variants) => {
                for variant in variants {
                    match &variant.ty {
                        OwnedDataModelVariant::UnitVariant => {}
                        OwnedDataModelVariant::NewtypeVariant(ty) => inside.push((**ty).clone()),
                        OwnedDataModelVariant::TupleVariant(types) => inside.extend(types.iter().cloned()),
                        OwnedDataModelVariant::StructVariant(fields) => {
                            inside.extend(fields.iter().map(|field| field.ty.clone()));
                        }
                    }
                }
            }
            _ => {}
        }
        inside.iter().for_each(|ty| names(ty, found));
    }

    #[test]
    fn every_message_is_a_part_of_the_wires_fingerprint() {
        let mut found = BTreeSet::new();
        names(&OwnedNamedType::from(<Messages as Schema>::SCHEMA), &mut found);
        let source = include_str!("message.rs");
        let mut messages = 0;
        for line in source.lines() {
            let name = line.strip_prefix("pub enum ").or_else(|| line.strip_prefix("pub struct "));
            let Some(name) = name.and_then(|rest| rest.split([' ', '(', '<']).next()) else { continue };
            messages += 1;
            assert!(found.contains(name), "{name} is no part of a message: add it to `Messages`");
        }
        assert!(messages > 15, "{messages} messages: they stand elsewhere");
    }
}
