//! The defaults and bounds of the builders' methods, each with its unit.
//!
//! The methods are those of [`PoolBuilder`](crate::PoolBuilder), [`TaskOptions`](crate::TaskOptions),
//! [`ModuleOptions`](crate::module::ModuleOptions), [`CompileLimits`] and
//! [`Replacement`](crate::pool::Replacement). What the processes of a pool hold each other to is no part of the
//! API, and may change with any version.

// These limits are a pool's.
#[doc(inline)]
pub use proto::limits::{
    CACHE_BYTES_MAX, COMPILE_THREADS_MAX, COMPILERS_AT_MOST, COMPILERS_MAX, DIRS_MAX, EVENTS_BUFFERED_MAX,
    GRACE, GUEST_PATH_BYTES_MAX, INPUT_BYTES_MAX, LOG_BYTES_PER_SECOND_MAX, MAP_BYTES_MAX, MODULES_MAX,
    PREFETCH_MAX, QUEUE_TASKS_MAX, SHARE_BYTES_MAX, SHARES_AT_MOST, SHARES_MAX, START_TIMEOUT,
    WASM_STACK_BYTES_AT_MOST, WASM_STACK_BYTES_MAX, WASM_STACK_BYTES_MIN, WORKER_MEMORY_BYTES_MAX,
    WORKER_MEMORY_BYTES_MIN, WORKER_UID, WORKERS_MAX,
};
// These bound the replacement of a pool's workers.
#[doc(inline)]
pub use proto::limits::{CRASH_BACKOFF, CRASH_BACKOFF_MAX, CRASHES_MAX};
// These limits are a task's.
#[doc(inline)]
pub use proto::limits::{
    CLOCK_RESOLUTION, CLOCK_RESOLUTION_MAX, INSTANCE_TASKS_MAX, LOG_BYTES_PER_TASK_MAX, MEMORY_BYTES_MAX,
    OUTPUT_BYTES_MAX, SHARES_PER_TASK_MAX, TIMEOUT,
};
// These bound the compiling of a module.
#[doc(inline)]
pub use proto::limits::compile::{CompileLimit, CompileLimits};
#[doc(inline)]
pub use proto::limits::{
    COMPILE_BLOCK_VALUES_MAX, COMPILE_BLOCKS_MAX, COMPILE_BRANCH_TARGETS_MAX,
    COMPILE_BRANCH_TARGETS_TOTAL_MAX, COMPILE_CPU_TIME, COMPILE_DATA_SEGMENTS_MAX, COMPILE_ELEMENT_ITEMS_MAX,
    COMPILE_ELEMENTS_MAX, COMPILE_EXPORTS_MAX, COMPILE_FUNCTION_BYTES_MAX, COMPILE_FUNCTIONS_MAX,
    COMPILE_GLOBALS_MAX, COMPILE_IMPORTS_MAX, COMPILE_LOCALS_MAX, COMPILE_LOOP_NESTING_MAX,
    COMPILE_MEMORIES_MAX, COMPILE_MEMORY_BYTES_MAX, COMPILE_MEMORY_BYTES_MIN, COMPILE_NESTING_MAX,
    COMPILE_TIMEOUT, COMPILE_TYPES_MAX, COMPILE_WASM_BYTES_MAX, MODULE_BYTES_MAX,
};
