//! The defaults and bounds of the builders' methods, each with its unit.
//!
//! The methods are those of [`PoolBuilder`](crate::PoolBuilder), [`TaskOptions`],
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
pub use proto::limits::SHARES_PER_TASK_MAX;
#[doc(inline)]
pub use proto::limits::task::{
    CLOCK_RESOLUTION, CLOCK_RESOLUTION_MAX, INSTANCE_TASKS_MAX, LOG_BYTES_PER_TASK_MAX, MEMORY_BYTES_MAX,
    OUTPUT_BYTES_MAX, TIMEOUT,
};
// These bound the compiling of a module.
#[doc(inline)]
pub use proto::limits::compile::{CompileLimit, CompileLimits, ExceededLimit};
#[doc(inline)]
pub use proto::limits::{
    COMPILE_BLOCK_VALUES_MAX, COMPILE_BLOCKS_MAX, COMPILE_BRANCH_TARGETS_MAX,
    COMPILE_BRANCH_TARGETS_TOTAL_MAX, COMPILE_CPU_TIME, COMPILE_DATA_SEGMENTS_MAX, COMPILE_ELEMENT_ITEMS_MAX,
    COMPILE_ELEMENTS_MAX, COMPILE_EXPORTS_MAX, COMPILE_FUNCTION_BYTES_MAX, COMPILE_FUNCTIONS_MAX,
    COMPILE_GLOBALS_MAX, COMPILE_IMPORTS_MAX, COMPILE_LOCALS_MAX, COMPILE_LOOP_NESTING_MAX,
    COMPILE_MEMORIES_MAX, COMPILE_MEMORY_BYTES_MAX, COMPILE_MEMORY_BYTES_MIN, COMPILE_NESTING_MAX,
    COMPILE_TIMEOUT, COMPILE_TYPES_MAX, COMPILE_WASM_BYTES_MAX, MODULE_BYTES_MAX,
};

use crate::options::TaskOptions;
use crate::setting::{Measure, SetLimit, Setting, SettingDefault, file, flag, looks, lower, own, pool, task};
use proto::limits::STOP_GRACE;

/// The one table of what can be set, of a pool, a task or the command, by what it is about.
pub(crate) const SETTINGS: &[Setting] = &[
    // Workers
    lower(
        Measure::Count,
        "PoolBuilder::workers",
        SettingDefault::Words("the CPUs there are; run: 1"),
        "workers",
        "most worker processes",
    ),
    pool("PoolBuilder::workers_min", SettingDefault::Count(0), "workers that are kept without work"),
    pool("PoolBuilder::idle_timeout", SettingDefault::None, "how long a worker without work stays"),
    pool(
        "PoolBuilder::start_timeout",
        SettingDefault::Time(START_TIMEOUT),
        "how long a worker may take to start",
    ),
    pool(
        "PoolBuilder::grace",
        SettingDefault::Time(GRACE),
        "how long a task has to heed an interrupt before its worker is killed",
    ),
    pool(
        "PoolBuilder::prefetch_max",
        SettingDefault::Count(PREFETCH_MAX as u64),
        "most tasks that wait in a worker behind the running one",
    ),
    pool("PoolBuilder::recycle_after_tasks", SettingDefault::None, "tasks after which a worker is replaced"),
    pool(
        "PoolBuilder::recycle_above_memory",
        SettingDefault::None,
        "resident memory above which a worker is replaced",
    ),
    pool("PoolBuilder::recycle_after", SettingDefault::None, "age at which a worker is replaced"),
    pool(
        "PoolBuilder::worker_memory_bytes_max",
        SettingDefault::Bytes(WORKER_MEMORY_BYTES_MAX),
        "most writable memory of a worker process",
    ),
    file(
        "",
        SettingDefault::Time(STOP_GRACE),
        "stop-grace",
        "how long running tasks of a map may take after SIGTERM or SIGHUP",
    ),
    // The pool holds these
    pool(
        "PoolBuilder::queue_tasks_max",
        SettingDefault::Count(QUEUE_TASKS_MAX as u64),
        "most tasks that wait or run",
    ),
    file(
        "PoolBuilder::map_bytes_max",
        SettingDefault::Bytes(MAP_BYTES_MAX),
        "map-memory",
        "most bytes that a map holds in this process",
    ),
    pool(
        "PoolBuilder::share_bytes_max",
        SettingDefault::Bytes(SHARE_BYTES_MAX),
        "most bytes of one shared input",
    ),
    pool("PoolBuilder::shares_max", SettingDefault::Count(SHARES_MAX as u64), "most shared inputs at a time"),
    pool(
        "PoolBuilder::modules_max",
        SettingDefault::Count(MODULES_MAX as u64),
        "most modules that are held at a time",
    ),
    // The sandbox, and the cache
    own(
        "PoolBuilder::sandbox",
        SettingDefault::Words("best-effort"),
        "sandbox",
        "how much of the sandbox is demanded",
    ),
    own(
        "PoolBuilder::cache_dir",
        SettingDefault::Words("~/.cache/wasmpool"),
        "cache-dir",
        "where compiled modules are kept",
    ),
    own(
        "PoolBuilder::cache_bytes_max",
        SettingDefault::Bytes(CACHE_BYTES_MAX),
        "cache-limit",
        "most bytes of disk for compiled modules",
    ),
    // Compiling
    file(
        "CompileLimits::cpu_time",
        SettingDefault::Time(COMPILE_CPU_TIME),
        "compile-cpu-time",
        "most CPU time for compiling one module",
    ),
    file(
        "CompileLimits::timeout",
        SettingDefault::Time(COMPILE_TIMEOUT),
        "compile-timeout",
        "most time for compiling one module",
    ),
    lower(
        Measure::Bytes,
        "CompileLimits::memory_bytes_max",
        SettingDefault::Words("6GiB; half of all"),
        "compile-memory",
        "most memory of the compiler",
    ),
    pool(
        "PoolBuilder::compilers_max",
        SettingDefault::Count(COMPILERS_MAX as u64),
        "most compiler processes at a time",
    ),
    // Tasks
    task(
        SetLimit::Time(TaskOptions::timeout),
        "TaskOptions::timeout",
        SettingDefault::Time(TIMEOUT),
        "timeout",
        "how long a task may run",
    ),
    lower(
        Measure::Time,
        "TaskOptions::cpu_time",
        SettingDefault::None,
        "cpu-time",
        "most CPU time of a task",
    ),
    task(
        SetLimit::Bytes(TaskOptions::memory_bytes_max),
        "TaskOptions::memory_bytes_max",
        SettingDefault::Bytes(MEMORY_BYTES_MAX as u64),
        "memory",
        "most memory of a task",
    ),
    flag("TaskOptions::fuel", SettingDefault::None, "fuel", "most fuel of a task"),
    file(
        "PoolBuilder::input_bytes_max",
        SettingDefault::Bytes(INPUT_BYTES_MAX as u64),
        "input-limit",
        "most bytes of one input",
    ),
    file(
        "TaskOptions::output_bytes_max",
        SettingDefault::Bytes(OUTPUT_BYTES_MAX as u64),
        "output-limit",
        "most bytes of a task's output",
    ),
    file(
        "TaskOptions::log_bytes_max",
        SettingDefault::Bytes(LOG_BYTES_PER_TASK_MAX as u64),
        "log-limit",
        "most bytes of a task's logs",
    ),
    file(
        "PoolBuilder::wasm_stack_bytes_max",
        SettingDefault::Bytes(WASM_STACK_BYTES_MAX as u64),
        "wasm-stack",
        "stack that the wasm of a task may use",
    ),
    flag(
        "TaskOptions::clock_resolution",
        SettingDefault::Time(CLOCK_RESOLUTION),
        "clock-resolution",
        "step of the clocks that WASI gives a task",
    ),
    pool(
        "TaskOptions::instance_tasks_max",
        SettingDefault::Count(INSTANCE_TASKS_MAX as u64),
        "tasks that one instance serves where instances are reused",
    ),
    flag(
        "PoolBuilder::slow_after",
        SettingDefault::None,
        "slow-after",
        "running time after which a task is reported as slow",
    ),
    // Logs
    own("", SettingDefault::None, "log-file", "a file that logs are written to, too"),
    own("", SettingDefault::Words("text"), "log-format", "the lines of the log file"),
    own("", SettingDefault::Words("never"), "log-rotate", "when the log file begins anew"),
    own("", SettingDefault::Count(7), "log-keep", "most old log files that are kept"),
    file(
        "PoolBuilder::log_rate_max",
        SettingDefault::Bytes(LOG_BYTES_PER_SECOND_MAX),
        "log-rate",
        "most bytes of logs a second from the tasks of one worker",
    ),
    own(
        "PoolBuilder::worker_log_level",
        SettingDefault::Words("warn; -v: debug"),
        "worker-log",
        "what workers say of themselves",
    ),
    own(
        "PoolBuilder::engine_log_level",
        SettingDefault::Words("off"),
        "engine-log",
        "what the engine in a worker says",
    ),
    // What the command shows
    looks("", SettingDefault::Words("auto"), "color", "colours"),
    looks("", SettingDefault::Words("auto"), "progress", "whether `map` shows its progress"),
    flag("", SettingDefault::Bytes(256 << 20), "trace-bytes", "most bytes of a timeline"),
];
