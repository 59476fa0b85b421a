//! The engine's configuration: what compiles a module must be what runs it.

use wasmtime::{Config, Enabled, Inlining, InstanceAllocationStrategy, PoolingAllocationConfig, Result};

use proto::description::{CodeKind, MemoryKind, ModuleForm};
use proto::fingerprint::{self, fnv};
use proto::limits::{
    HOST_STACK_BYTES, TABLE_ELEMENTS_MAX, WASM_STACK_BYTES_AT_MOST, WASM_STACK_BYTES_MAX,
    WORKER_MEMORY_BYTES_MIN,
};

/// Fibers of one engine.
const FIBERS: u32 = 4;

/// Memories of all instances of a process, heaps of objects among them, and of one module.
pub const MEMORIES_MAX: usize = 16;
pub const MEMORIES_PER_MODULE_MAX: u32 = 8;

/// Tables of all instances of a process, and of one module.
pub const TABLES: u32 = 16;

/// Instances of core modules in one store. A component of CPython has some 40 of them; a module is one.
pub const CORE_INSTANCES_MAX: u32 = 256;

/// Bytes that the instances of one component's modules may take beside their memories and tables.
const INSTANCE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Addresses of a linear memory, and of the room before and behind it in which an access traps: the
/// engine's defaults, stated because the worker's own memories are made to them.
pub const MEMORY_BYTES: usize = 4 << 30;
pub const GUARD_BYTES: usize = 32 << 20;

/// One engine's pool counts this much against `RLIMIT_DATA` from the start, though none of it is touched: it
/// has room for every table, with eight bytes an entry, rounded up to pages.
pub const RESERVED_DATA_BYTES: u64 = TABLES as u64 * (TABLE_ELEMENTS_MAX as u64 * 8 + 64 * 1024);

/// The engines of a worker that have a pool: one for each kind of code, and one for components.
const POOLS: u64 = CodeKind::ALL.len() as u64 + 1;

// A worker has engines with their pools and fibers, and needs something for itself and its tasks.
const _: () = {
    let fibers = FIBERS as u64 * (WASM_STACK_BYTES_AT_MOST + HOST_STACK_BYTES) as u64;
    let engines = POOLS * (RESERVED_DATA_BYTES + fibers);
    assert!(engines + 64 * 1024 * 1024 <= WORKER_MEMORY_BYTES_MIN);
};

/// Stack of the compiler's main thread.
pub const COMPILER_STACK_BYTES: u64 = 8 * 1024 * 1024;

/// Bytes of a table that are zeroed by hand instead of given back to the kernel when an
/// instance ends: cheaper than a page fault for each.
const TABLE_KEEP_RESIDENT_BYTES: usize = 64 * 1024;

/// The same for the start of a memory. Current linkers put the stack there, and a task touches its other end,
/// so keeping the start resident only cost time. A scan knows which pages were touched, wherever they are.
fn memory_keep_resident_bytes(pagemap_scan: bool) -> usize {
    if pagemap_scan { 2 * 1024 * 1024 } else { 0 }
}

/// Addresses of one memory, with its guards on both sides.
const SLOT_BYTES: u64 = (GUARD_BYTES + MEMORY_BYTES + GUARD_BYTES) as u64;

/// Addresses that a worker wants, so that memories can be in reserve: those of its engines' pools, of
/// its own memories, and for everything else as much again as two of them.
const ADDRESSES_WANTED: u64 = (POOLS + 1) * (MEMORIES_MAX as u64 + 2) * SLOT_BYTES;

/// Says where memories come from. A limit on addresses (`RLIMIT_AS`) counts those that are only reserved, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// All that an instance may need is reserved when the engine is made.
    Full,
    /// The compiler runs nothing. What a module may have is checked against the same bounds, and one memory is
    /// reserved for that.
    Compiler,
    /// Each memory is reserved when its instance is made, and goes with it: slower, and needs addresses for
    /// the memories of one instance only.
    None,
}

impl Reserve {
    /// A worker's, by the limit of addresses that it has.
    pub fn within(addresses_max: Option<u64>) -> Reserve {
        match addresses_max {
            Some(max) if max < ADDRESSES_WANTED => Reserve::None,
            _ => Reserve::Full,
        }
    }
}

/// The configuration of running machine code, which does not shape it: the same artifact serves pools of several.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    /// Says how a worker finds the pages that an instance has written.
    pub pagemap_scan: bool,
    /// Stack that wasm may use.
    pub wasm_stack_bytes: usize,
    pub reserve: Reserve,
}

impl Default for Running {
    fn default() -> Self {
        Running { pagemap_scan: false, wasm_stack_bytes: WASM_STACK_BYTES_MAX, reserve: Reserve::Full }
    }
}

impl Running {
    /// Returns the configuration of a process that runs nothing.
    pub fn nothing() -> Self {
        Running { reserve: Reserve::Compiler, ..Running::default() }
    }
}

/// A switch of the engine's.
type Switch = fn(&mut Config, bool) -> &mut Config;

/// The switches that shape machine code, by the names that the engine has for them, and how they are set.
const SWITCHES: [(&str, Switch, bool); 17] = [
    // This is the concurrency of components: nothing here uses it, and every store would pay for it.
    ("concurrency_support", Config::concurrency_support, false),
    ("relaxed_simd_deterministic", Config::relaxed_simd_deterministic, true),
    // Current tool-chains emit these. Guest threads are not offered, since one task has one thread: atomics are, and a memory
    // that is shared is refused (`compile/shape.rs`).
    ("wasm_threads", Config::wasm_threads, true),
    ("wasm_simd", Config::wasm_simd, true),
    ("wasm_relaxed_simd", Config::wasm_relaxed_simd, true),
    ("wasm_bulk_memory", Config::wasm_bulk_memory, true),
    ("wasm_multi_value", Config::wasm_multi_value, true),
    ("wasm_multi_memory", Config::wasm_multi_memory, true),
    ("wasm_memory64", Config::wasm_memory64, true),
    ("wasm_tail_call", Config::wasm_tail_call, true),
    ("wasm_extended_const", Config::wasm_extended_const, true),
    ("wasm_reference_types", Config::wasm_reference_types, true),
    ("wasm_function_references", Config::wasm_function_references, true),
    ("wasm_gc", Config::wasm_gc, true),
    ("wasm_exceptions", Config::wasm_exceptions, true),
    ("wasm_wide_arithmetic", Config::wasm_wide_arithmetic, true),
    ("guard_before_linear_memory", Config::guard_before_linear_memory, true),
];

/// A size that shapes machine code.
type Size = fn(&mut Config, u64) -> &mut Config;

/// The sizes that shape machine code, by the names that the engine has for them.
const SIZES: [(&str, Size, u64); 2] = [
    ("memory_reservation", Config::memory_reservation, MEMORY_BYTES as u64),
    ("memory_guard_size", Config::memory_guard_size, GUARD_BYTES as u64),
];

/// Sets what shapes all machine code.
fn shape(config: &mut Config) {
    for (_, set, value) in SWITCHES {
        set(config, value);
    }
    for (_, set, value) in SIZES {
        set(config, value);
    }
    // The safepoints of two functions may be the same: of one that was put into the other Cranelift could leave some out.
    config.compiler_inlining(Inlining::No);
}

/// One of the engines of a worker, or of a compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// For modules that are compiled in this way and have these memories. Components are compiled by it as well, if the code
    /// has no safepoints and the memories are pooled.
    Modules(CodeKind, MemoryKind),
    /// For components whose code would have safepoints: these are placed in single modules, whose polling pages the host
    /// finds by their exports, and nobody but a component has access to those of its own modules. Their code looks at
    /// the engine's epoch instead.
    Components,
}

impl EngineKind {
    pub const ALL: [EngineKind; 9] = {
        let mut all = [EngineKind::Components; CodeKind::ALL.len() * MemoryKind::ALL.len() + 1];
        let mut index = 0;
        while index + 1 < all.len() {
            let code = CodeKind::ALL[index / MemoryKind::ALL.len()];
            all[index] = EngineKind::Modules(code, MemoryKind::ALL[index % MemoryKind::ALL.len()]);
            index += 1;
        }
        all
    };

    /// Returns the engine for a file of this form, for which this kind of code is wanted.
    pub fn of(code: CodeKind, form: ModuleForm, memories: MemoryKind) -> EngineKind {
        match form {
            ModuleForm::Component if code.has_safepoints() => EngineKind::Components,
            ModuleForm::Component => EngineKind::Modules(code, MemoryKind::Pooled),
            _ => EngineKind::Modules(code, memories),
        }
    }

    pub fn memories(self) -> MemoryKind {
        match self {
            EngineKind::Modules(_, memories) => memories,
            EngineKind::Components => MemoryKind::Pooled,
        }
    }

    fn has_safepoints(self) -> bool {
        matches!(self, EngineKind::Modules(code, _) if code.has_safepoints())
    }

    fn is_metered(self) -> bool {
        matches!(self, EngineKind::Modules(code, _) if code.is_metered())
    }
}

/// The switches by which one engine differs from another. The name of an entry of the cache has the kind of code; a
/// module's description has the form of its file, and the kind of its memories.
fn set_kinds(config: &mut Config, kind: EngineKind) {
    // The code of all other kinds is stopped by its polling page, or with its worker.
    config.epoch_interruption(kind.is_metered() || kind == EngineKind::Components);
    // No guest has a memory whose pages are not of the usual size: a polling page is known by its own.
    config.wasm_custom_page_sizes(kind.has_safepoints());
    config.consume_fuel(kind.is_metered());
    let is_deterministic = matches!(kind, EngineKind::Modules(code, _) if code.is_deterministic());
    config.cranelift_nan_canonicalization(is_deterministic);
    if kind.memories() == MemoryKind::Own {
        // Each memory has one slot of the reservation's size, and stays there. `MEMORIES_MAX` bounds the
        // slots, and `compile/choice.rs` bounds what else an instance has.
        config.memory_may_move(false);
        config.memory_init_cow(false);
    }
}

/// This rises when what the compiler says of a module changes its meaning, but not its type.
const MEANING: u64 = 3;

/// The fingerprint of the machine code that this engine makes, but for its kind and the processor: of the engine's
/// version, of the switches and sizes that shape code, of how safepoints are placed, and of the form in which modules are
/// described. Cached machine code of another fingerprint is compiled anew.
pub const MACHINE_CODE: u64 = {
    let mut hash = fnv(fingerprint::DESCRIPTIONS ^ MEANING, wasmtime_environ::VERSION.as_bytes());
    hash = fnv(hash, env!("CARGO_PKG_VERSION").as_bytes());
    // Where safepoints stand shapes the code as well, and is no setting: any change of the file that places them counts.
    hash = fnv(hash, include_bytes!("compile/safepoints.rs"));
    let mut index = 0;
    while index < SWITCHES.len() {
        hash = fnv(fnv(hash, SWITCHES[index].0.as_bytes()), &[SWITCHES[index].2 as u8]);
        index += 1;
    }
    index = 0;
    while index < SIZES.len() {
        hash = fnv(fnv(hash, SIZES[index].0.as_bytes()), &SIZES[index].2.to_le_bytes());
        index += 1;
    }
    hash
};

/// The configuration for both roles. With memories of the worker's own ([`MemoryKind::Own`]), a worker adds
/// what makes them.
pub fn engine_config(kind: EngineKind, running: Running) -> Result<Config> {
    let mut config = Config::new();
    shape(&mut config);
    set_kinds(&mut config, kind);
    config.max_wasm_stack(running.wasm_stack_bytes);
    // A module or component that imports WASI runs on a fiber, whose stack needs room for wasm and for host calls.
    config.async_stack_size(running.wasm_stack_bytes + HOST_STACK_BYTES);
    if kind.memories() == MemoryKind::Own || running.reserve == Reserve::None {
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        return Ok(config);
    }
    // A polling page counts as one.
    let pages = u32::from(kind.has_safepoints());
    let memories = if running.reserve == Reserve::Full { MEMORIES_MAX as u32 + pages } else { 1 };
    // A worker runs one task at a time, so it needs a few of everything, for modules with several memories or
    // tables.
    let mut pool = PoolingAllocationConfig::default();
    pool.total_core_instances(2 * CORE_INSTANCES_MAX)
        .total_component_instances(4)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_PER_MODULE_MAX)
        .max_tables_per_component(TABLES)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .total_memories(memories)
        .total_tables(TABLES)
        .total_stacks(FIBERS)
        .total_gc_heaps(4)
        .max_memories_per_module(MEMORIES_PER_MODULE_MAX + pages)
        .max_tables_per_module(TABLES)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_memory_size(MEMORY_BYTES)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(memory_keep_resident_bytes(running.pagemap_scan))
        .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES)
        .pagemap_scan(if running.pagemap_scan { Enabled::Yes } else { Enabled::No });
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::hash::{Hash as _, Hasher as _};

    use super::*;

    fn data_bytes() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("reads");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB"));
        kib.expect("has data").parse::<u64>().expect("a number") * 1024
    }

    /// Returns what machine code depends on, by the engine's own word.
    fn compatibility(config: &Config) -> u64 {
        let engine = wasmtime::Engine::new(config).expect("an engine");
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    /// Each kind of code and of memories, with the switches of the tables alone.
    fn by_the_tables(kind: EngineKind) -> Config {
        let mut config = Config::new();
        shape(&mut config);
        set_kinds(&mut config, kind);
        config
    }

    #[test]
    fn nothing_but_the_tables_and_the_kind_shapes_machine_code() {
        for kind in EngineKind::ALL {
            let whole = engine_config(kind, Running::nothing()).expect("a configuration");
            let whole = compatibility(&whole);
            let tables = compatibility(&by_the_tables(kind));
            assert_eq!(whole, tables, "{kind:?} is shaped by something else");
        }
    }

    #[test]
    fn kinds_of_code_are_told_apart_by_the_engine() {
        let mut seen = std::collections::HashSet::new();
        for kind in EngineKind::ALL {
            assert!(seen.insert(compatibility(&by_the_tables(kind))), "{kind:?}");
        }
    }

    #[test]
    fn the_configuration_of_running_code_shapes_none() {
        let other = Running { pagemap_scan: false, wasm_stack_bytes: 64 * 1024, reserve: Reserve::None };
        let kind = EngineKind::Modules(CodeKind::Plain, MemoryKind::Own);
        let config_of = |running| engine_config(kind, running).expect("a configuration");
        assert_eq!(compatibility(&config_of(other)), compatibility(&config_of(Running::nothing())));
    }

    #[test]
    fn a_switch_that_is_turned_is_other_machine_code() {
        let kind = EngineKind::Modules(CodeKind::Plain, MemoryKind::Own);
        let usual = compatibility(&by_the_tables(kind));
        let mut config = by_the_tables(kind);
        config.wasm_tail_call(false);
        assert_ne!(usual, compatibility(&config));
    }

    /// The compiler's memory limit counts from there.
    #[test]
    fn what_an_engine_reserves_is_what_is_allowed_for_it() {
        let engine = |memories| {
            let kind = EngineKind::Modules(CodeKind::Plain, memories);
            let config = engine_config(kind, Running::nothing()).expect("a configuration");
            wasmtime::Engine::new(&config).expect("an engine")
        };
        let own = engine(MemoryKind::Own);
        let before = data_bytes();
        let pooled = engine(MemoryKind::Pooled);
        let reserved = data_bytes() - before;
        drop((own, pooled));
        // Other tests run beside this one.
        let slack = 256 << 20;
        assert!(reserved.abs_diff(RESERVED_DATA_BYTES) < slack, "{reserved}, not {RESERVED_DATA_BYTES}");
    }
}
