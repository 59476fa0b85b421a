//! Decides which modules get memories of the worker's own, and which those of the engine's pool.
//!
//! It changes what an instance costs, and nothing that a guest can see. Decided from the module alone,
//! so that the cache needs no second entry for it; the description says which it was.

use wasmparser::{BinaryReaderError, DataKind, Parser, Payload, TypeRef};

use crate::config::{MEMORIES_PER_MODULE_MAX, MEMORY_BYTES, TABLES};
use proto::description::{MemoryKind, ModuleForm};
use proto::imports::Preview;

/// The most bytes of data segments of a module with memories of the worker's own. These are copied into each fresh
/// instance and zeroed with it, where the engine's pool maps an image of them, of which only the pages that are written
/// cost anything. So own memories are faster up to about this size, and the more so the more a task writes
/// (`benches/README.md`).
const DATA_BYTES_MAX: usize = 128 * 1024;

/// The most entries of one table at the start. They are allocated for each instance.
const TABLE_ENTRIES_MAX: u64 = 4096;

/// The most functions, globals, tables, memories and tags together. Each may take some bytes of each instance, about
/// a megabyte in all.
const ITEMS_MAX: u64 = 20_000;

/// The kind of a module's memories, and how many it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) memories: MemoryKind,
    count: u32,
}

/// Chooses for a module whose shape was checked; anything else that is wrong with it is found when it is
/// compiled.
pub(super) fn choose(wasm: &[u8], form: ModuleForm) -> Choice {
    if form == ModuleForm::Component {
        // It has modules of its own, whose memories are counted when it is compiled.
        return Choice { memories: MemoryKind::Pooled, count: 0 };
    }
    match Parts::count(wasm) {
        Ok(parts) if parts.are_small() => Choice { memories: MemoryKind::Own, count: parts.memories },
        Ok(parts) => Choice { memories: MemoryKind::Pooled, count: parts.memories },
        Err(_) => Choice { memories: MemoryKind::Pooled, count: 0 },
    }
}

impl Choice {
    /// Returns an error if the module has more memories than one may have. The engine's pool does not say so of all: it has
    /// room for one more, which may be added for safepoints.
    pub(super) fn too_many_memories(self) -> Option<wasmtime::Error> {
        let Choice { count, .. } = self;
        let max = MEMORIES_PER_MODULE_MAX;
        (count > max).then(|| {
            wasmtime::format_err!("defined memories count of {count} exceeds the per-instance limit of {max}")
        })
    }
}

#[derive(Default)]
struct Parts {
    /// WASI runs on fibers, of which the pool has some and an engine without it would make one a task.
    uses_wasi: bool,
    memories: u32,
    largest_memory_bytes: u64,
    tables: u32,
    largest_table: u64,
    data_bytes: usize,
    items: u64,
}

impl Parts {
    fn count(wasm: &[u8]) -> Result<Parts, BinaryReaderError> {
        let mut parts = Parts::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let import = import?;
                        parts.items += 1;
                        // The host has no memories or tables that a module could import.
                        parts.uses_wasi |=
                            Preview::is_module(import.module) || !matches!(import.ty, TypeRef::Func(_));
                    }
                }
                Payload::FunctionSection(section) => parts.items += u64::from(section.count()),
                Payload::GlobalSection(section) => parts.items += u64::from(section.count()),
                Payload::TagSection(section) => parts.items += u64::from(section.count()),
                Payload::TableSection(section) => {
                    parts.tables = parts.tables.saturating_add(section.count());
                    for table in section {
                        parts.largest_table = parts.largest_table.max(table?.ty.initial);
                    }
                }
                Payload::MemorySection(section) => {
                    parts.memories = parts.memories.saturating_add(section.count());
                    for memory in section {
                        let memory = memory?;
                        let page = 1u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
                        let bytes = memory.initial.saturating_mul(page);
                        parts.largest_memory_bytes = parts.largest_memory_bytes.max(bytes);
                    }
                }
                Payload::DataSection(section) => {
                    for segment in section {
                        let segment = segment?;
                        // A passive segment is copied where the guest asks for it.
                        if let DataKind::Active { .. } = segment.kind {
                            parts.data_bytes = parts.data_bytes.saturating_add(segment.data.len());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(parts)
    }

    fn are_small(&self) -> bool {
        !self.uses_wasi
            && self.memories <= MEMORIES_PER_MODULE_MAX
            && self.largest_memory_bytes <= MEMORY_BYTES as u64
            && self.tables <= TABLES
            && self.largest_table <= TABLE_ENTRIES_MAX
            && self.data_bytes <= DATA_BYTES_MAX
            && self.items <= ITEMS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> MemoryKind {
        choose(&wat::parse_str(format!("(module {text})")).expect("valid text"), ModuleForm::Core).memories
    }

    fn data(kind: &str, bytes: usize) -> String {
        format!("(data {kind} \"{}\")", "x".repeat(bytes))
    }

    #[test]
    fn small_modules_have_memories_of_the_workers_own() {
        let full = DATA_BYTES_MAX / 2;
        let texts = [
            String::new(),
            "(import \"wasmpool\" \"log\" (func (param i32))) (memory 17) (table 100 funcref)".into(),
            "(memory 65536)".into(),
            "(memory 1) ".repeat(8),
            format!("(memory 17) {} {}", data("(i32.const 0)", full), data("(i32.const 0)", full)),
            // This segment is copied only where the guest wants it.
            format!("(memory 17) {}", data("", 4 * DATA_BYTES_MAX)),
            "(func) ".repeat(ITEMS_MAX as usize),
        ];
        for text in texts {
            assert_eq!(of(&text), MemoryKind::Own, "{}", &text[..text.len().min(100)]);
        }
    }

    #[test]
    fn modules_with_a_large_image_many_parts_or_wasi_have_those_of_the_pool() {
        let full = DATA_BYTES_MAX / 2;
        let texts = [
            format!("(memory 17) {} {}", data("(i32.const 0)", full), data("(i32.const 0)", full + 1)),
            "(import \"wasi_snapshot_preview1\" \"sched_yield\" (func (result i32)))".into(),
            "(import \"wasi_unstable\" \"sched_yield\" (func (result i32)))".into(),
            "(import \"wasmpool\" \"memory\" (memory 1))".into(),
            "(memory 1) ".repeat(9),
            "(memory i64 65537)".into(),
            "(memory i64 281474976710656)".into(),
            "(table 4097 funcref)".into(),
            "(table 1 funcref) ".repeat(17),
            "(func) ".repeat(ITEMS_MAX as usize + 1),
        ];
        for text in texts {
            assert_eq!(of(&text), MemoryKind::Pooled, "{}", &text[..text.len().min(100)]);
        }
        assert_eq!(choose(b"junk", ModuleForm::Core).memories, MemoryKind::Pooled);
    }
}
