//! The limits on what compiling a module may cost, and the bounds on a module's shape that keep it there.
//!
//! Valid WebAssembly can be made to cost a compiler minutes or gigabytes: a few kilobytes of loops inside of loops
//! take seconds, and of blocks that hand on many values gigabytes. Bounds on the shape refuse what no tool-chain
//! emits, at once; time and memory bound whatever is left. This is vocabulary without behaviour: the shape is counted
//! in `crates/engine/src/compile/shape.rs`, time and memory are held by the host and by the compiler process.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;

/// The bounds of a module's shape, one line each: kind, the builder's method, its default, and what
/// is counted.
macro_rules! shape {
    ($($kind:ident, $method:ident, $name:literal, $default:ident, $what:literal;)*) => {
        /// Says what a [`CompileLimits`] bounds, and what a `ModuleError::CompileLimit` was about. `Display` is
        /// its name on the command line, such as `loop-nesting`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
        #[non_exhaustive]
        pub enum CompileLimit {
            $(#[doc = concat!("The number of ", $what, ": [`CompileLimits::", stringify!($method), "`].")]
            $kind,)*
            /// Bytes of memory that the compiler process holds: [`CompileLimits::memory_bytes_max`].
            Memory,
            /// Milliseconds of CPU time that the compiler uses: [`CompileLimits::cpu_time`].
            CpuTime,
            /// Milliseconds that it takes: [`CompileLimits::timeout`].
            Time,
        }

        /// This is how many bounds of the shape there are.
        const SHAPES: usize = [$(CompileLimit::$kind),*].len();

        impl CompileLimit {
            /// Every kind there is.
            pub const ALL: [CompileLimit; SHAPES + 3] =
                [$(CompileLimit::$kind,)* CompileLimit::Memory, CompileLimit::CpuTime, CompileLimit::Time];

            /// Name on the command line, name of the method, what is counted.
            const fn names(self) -> (&'static str, &'static str, &'static str) {
                match self {
                    $(CompileLimit::$kind => ($name, stringify!($method), $what),)*
                    CompileLimit::Memory => ("memory", "memory_bytes_max", "bytes of memory"),
                    CompileLimit::CpuTime => ("cpu-time", "cpu_time", "milliseconds of CPU time"),
                    CompileLimit::Time => ("timeout", "timeout", "milliseconds"),
                }
            }
        }

        impl CompileLimits {
            /// The defaults, which are for modules of strangers and in `limits`.
            pub const fn new() -> CompileLimits {
                CompileLimits {
                    shape: [$(limits::$default),*],
                    memory_bytes: None,
                    cpu_time: limits::COMPILE_CPU_TIME,
                    timeout: limits::COMPILE_TIMEOUT,
                }
            }

            $(#[doc = concat!("Most ", $what, ". Default: [`limits::", stringify!($default),
                "`](crate::limits::", stringify!($default), ").")]
            pub const fn $method(self, max: u64) -> CompileLimits {
                self.with_shape(CompileLimit::$kind, max)
            })*
        }
    };
}

shape! {
    WasmBytes, wasm_bytes_max, "wasm-bytes", COMPILE_WASM_BYTES_MAX, "bytes of wasm";
    Types, types_max, "types", COMPILE_TYPES_MAX, "types";
    Imports, imports_max, "imports", COMPILE_IMPORTS_MAX, "imports";
    Functions, functions_max, "functions", COMPILE_FUNCTIONS_MAX, "functions with a body";
    Memories, memories_max, "memories", COMPILE_MEMORIES_MAX, "memories and tables";
    Globals, globals_max, "globals", COMPILE_GLOBALS_MAX, "globals and exception tags";
    Exports, exports_max, "exports", COMPILE_EXPORTS_MAX, "exports";
    Elements, elements_max, "elements", COMPILE_ELEMENTS_MAX, "element segments";
    ElementItems, element_items_max, "element-items", COMPILE_ELEMENT_ITEMS_MAX,
        "items in all element segments";
    DataSegments, data_segments_max, "data-segments", COMPILE_DATA_SEGMENTS_MAX, "data segments";
    FunctionBytes, function_bytes_max, "function-bytes", COMPILE_FUNCTION_BYTES_MAX,
        "bytes in the body of one function";
    Locals, locals_max, "locals", COMPILE_LOCALS_MAX, "local variables of one function";
    Nesting, nesting_max, "nesting", COMPILE_NESTING_MAX, "levels of blocks inside of blocks";
    LoopNesting, loop_nesting_max, "loop-nesting", COMPILE_LOOP_NESTING_MAX,
        "levels of loops inside of loops";
    Blocks, blocks_max, "blocks", COMPILE_BLOCKS_MAX, "blocks and conditional branches in one function";
    BlockValues, block_values_max, "block-values", COMPILE_BLOCK_VALUES_MAX,
        "parameters and results of the blocks of one function";
    BranchTargets, branch_targets_max, "branch-targets", COMPILE_BRANCH_TARGETS_MAX,
        "targets of the br_tables and exception handlers of one function";
    BranchTargetsTotal, branch_targets_total_max, "branch-targets-total", COMPILE_BRANCH_TARGETS_TOTAL_MAX,
        "targets of the br_tables and exception handlers of all functions";
}

/// One of the bounds on a module's shape that a module goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct ExceededLimit {
    /// The bound, which knows the setting that raises it.
    pub kind: CompileLimit,
    /// Its number.
    pub limit: u64,
    /// The number that the module needs.
    pub seen: u64,
}

impl ExceededLimit {
    #[doc(hidden)]
    pub fn new(kind: CompileLimit, limit: u64, seen: u64) -> ExceededLimit {
        ExceededLimit { kind, limit, seen }
    }
}

impl CompileLimit {
    /// The kind of that name, as the command line has it.
    pub fn from_name(name: &str) -> Option<CompileLimit> {
        CompileLimit::ALL.into_iter().find(|kind| kind.names().0 == name)
    }

    /// The method of [`CompileLimits`] that sets it.
    pub fn setting(self) -> &'static str {
        self.names().1
    }

    /// Returns what is counted, in the plural.
    pub fn what(self) -> &'static str {
        self.names().2
    }
}

impl fmt::Display for CompileLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.names().0)
    }
}

/// Holds what compiling one module may cost, for a whole pool (`PoolBuilder::compile_limits`) or one module
/// (`ModuleOptions::compile_limits`).
///
/// Most are bounds on the module's shape, counted before anything is compiled. The defaults let
/// large programs through (CPython, QuickJS, ITK), and refuse with
/// `ModuleError::CompileLimit` what only a bomb needs; the error
/// names the setting. They are about compiling only: a module that the pool has loaded, or finds in
/// its cache, costs nothing more, and is not held to them (but for the bytes of wasm).
///
/// ```
/// use std::time::Duration;
/// use wasmpool::limits::CompileLimits;
///
/// let strict = CompileLimits::new().functions_max(1_000).timeout(Duration::from_secs(5));
/// let own_build = CompileLimits::trusted().memory_bytes_max(8 << 30);
/// assert_ne!(strict, own_build);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct CompileLimits {
    /// The bounds are in the order of the kinds.
    shape: [u64; SHAPES],
    /// `None` means that the machine's memory decides.
    memory_bytes: Option<u64>,
    cpu_time: Duration,
    timeout: Duration,
}

impl CompileLimits {
    /// Returns limits for modules of one's own: any shape, up to the [256 MiB](crate::limits::MODULE_BYTES_MAX)
    /// that a pool takes at all. Time and memory stay bounded, by the defaults.
    pub const fn trusted() -> CompileLimits {
        CompileLimits { shape: [u64::MAX; SHAPES], ..CompileLimits::new() }
    }

    /// Most bytes of data (`RLIMIT_DATA`) of the compiler process. At least
    /// [64 MiB](crate::limits::COMPILE_MEMORY_BYTES_MIN): less is taken as that. More than this process may
    /// have itself (`ulimit -d`) is refused when a module is to be compiled
    /// (`ModuleError::CompileLimitUnavailable`). It holds under every
    /// `SandboxPolicy`, `Off` included; only where the
    /// system refuses it, and the policy does without the layer
    /// `ResourceLimits`, is there none. Default:
    /// [`limits::COMPILE_MEMORY_BYTES_MAX`](crate::limits::COMPILE_MEMORY_BYTES_MAX), or half of the memory that
    /// there is for this process, if that is less.
    pub const fn memory_bytes_max(mut self, bytes: u64) -> CompileLimits {
        let least = limits::COMPILE_MEMORY_BYTES_MIN;
        self.memory_bytes = Some(if bytes < least { least } else { bytes });
        self
    }

    /// CPU time that all threads of the compiler process may use together; then it is killed, and the module
    /// is in quarantine. A busy machine does not change whether a module exceeds it. Default:
    /// [`limits::COMPILE_CPU_TIME`](crate::limits::COMPILE_CPU_TIME).
    pub const fn cpu_time(mut self, cpu_time: Duration) -> CompileLimits {
        self.cpu_time = cpu_time;
        self
    }

    /// Sets how long the compiler process may take, from its start to its end; then it is killed. It takes longer
    /// on a busy machine, hence a default far above [`cpu_time`](Self::cpu_time). The time in which it waits for
    /// its turn does not count (`PoolBuilder::compilers_max`). Default:
    /// [`limits::COMPILE_TIMEOUT`](crate::limits::COMPILE_TIMEOUT).
    pub const fn timeout(mut self, timeout: Duration) -> CompileLimits {
        self.timeout = timeout;
        self
    }

    /// Sets any of them: bytes, milliseconds or a number, as its kind says.
    pub fn with(self, kind: CompileLimit, max: u64) -> CompileLimits {
        match kind {
            CompileLimit::Memory => self.memory_bytes_max(max),
            CompileLimit::CpuTime => self.cpu_time(Duration::from_millis(max)),
            CompileLimit::Time => self.timeout(Duration::from_millis(max)),
            shape => self.with_shape(shape, max),
        }
    }

    /// Returns the bound of this kind: bytes, milliseconds or a number. For memory that is not set, this is
    /// the most that it may come to.
    pub fn get(&self, kind: CompileLimit) -> u64 {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match kind {
            CompileLimit::Memory => self.memory_bytes.unwrap_or(limits::COMPILE_MEMORY_BYTES_MAX),
            CompileLimit::CpuTime => millis(self.cpu_time),
            CompileLimit::Time => millis(self.timeout),
            shape => self.shape[shape as usize],
        }
    }

    pub fn time(&self) -> Duration {
        self.timeout
    }

    pub fn cpu(&self) -> Duration {
        self.cpu_time
    }

    /// Sets the memory, unless it is set already.
    pub fn or_memory(mut self, bytes: u64) -> CompileLimits {
        self.memory_bytes.get_or_insert(bytes);
        self
    }

    const fn with_shape(mut self, kind: CompileLimit, max: u64) -> CompileLimits {
        self.shape[kind as usize] = max;
        self
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        CompileLimits::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_can_be_set_and_is_found_by_its_name() {
        for kind in CompileLimit::ALL {
            let value = 77 << 20;
            let limits = CompileLimits::trusted().with(kind, value);
            assert_eq!(limits.get(kind), value, "{kind}");
            let others = CompileLimit::ALL.into_iter().filter(|other| *other != kind);
            for other in others {
                assert_eq!(limits.get(other), CompileLimits::trusted().get(other), "{kind} set {other}");
            }
            assert_eq!(CompileLimit::from_name(&kind.to_string()), Some(kind));
        }
        assert_eq!(CompileLimits::new().memory_bytes_max(1).get(CompileLimit::Memory), 64 << 20);
        assert_eq!(CompileLimits::new().timeout(Duration::MAX).get(CompileLimit::Time), u64::MAX);
    }
}
