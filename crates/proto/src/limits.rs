//! Every bound of the pool, with its unit and its default, and the assertions between them.
//!
//! A bound that an embedder may set is a default here and a method of
//! `PoolBuilder`, `TaskOptions` (in [`task`]) or
//! `ModuleOptions`; the others are fixed by the wire.

pub mod compile;
pub mod task;

use std::time::Duration;

/// Bytes in each of a worker's two rings. It is a power of two, since positions are masked, not divided, and mostly not
/// less than a core's own cache: a writer that comes around to lines which the reader's core still holds waits for that
/// core at each (`benches/README.md`).
pub const RING_BYTES: usize = 1024 * 1024;

/// The least that they have where a limit on files (`RLIMIT_FSIZE`) leaves no room for more: a page.
pub const RING_BYTES_MIN: usize = 4096;

/// Most bytes of a frame's postcard metadata; the payload follows it raw.
pub const FRAME_META_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes of a frame's payload, whatever the pool's own limits say.
pub const FRAME_PAYLOAD_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// Most bytes of one message on a worker's or the compiler's control socket.
pub const CONTROL_BYTES_MAX: usize = 96 * 1024;

/// Most bytes of one reply to a running task: as much as a pipe holds, and few enough to fit into one
/// message with all else that it says.
pub const ASK_BYTES_MAX: usize = 64 * 1024;

/// Most worker processes of one pool.
pub const WORKERS_MAX: usize = 1024;

/// Most tasks that wait inside of a worker, behind the one that it runs.
pub const PREFETCH_MAX: usize = 127;

/// Tasks of a `map` that travel together, at most.
pub const BATCH_ITEMS_MAX: usize = 1024;

/// Bytes of their inputs, at most.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

/// A batch begins no further task once its answers have come to more bytes than this, and the rest goes back to
/// the map. Short tasks mostly have short answers, so that a batch need not be charged for the largest answer of
/// each task.
pub const BATCH_ANSWERS_BYTES_MAX: u64 = 1024 * 1024;

/// Default for `PoolBuilder::map_bytes_max`: most bytes that one map
/// holds in this process; or twice as much as all workers can return at once, if that is more. These count:
/// - the inputs that it has submitted and that are not done,
/// - the largest result that each of these tasks may have: its output limit (a command's twice, for stdout
///   and stderr; at least 64 KiB, for the text of an error), [`FRAME_META_BYTES_MAX`], and
///   [`RESULT_BYTES_BESIDE`]; a batch counts for one task and [`BATCH_ANSWERS_BYTES_MAX`],
/// - the results that are there and have not been taken.
///
/// A task is submitted when there is room for it; one that never has room is refused, with
/// `SubmitError::NoRoomInMap` or, by the command, before anything runs. One input that waits for room, and
/// [`BATCH_BYTES_MAX`] of encoded inputs, come on top. The same goes for the value that a typed handle makes of
/// the result that is being taken; the command makes what it prints a piece at a time.
pub const MAP_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The bytes that a task takes in this process besides its input and its result: its record, its future, the
/// frames of a backtrace.
pub const RESULT_BYTES_BESIDE: u64 = 4096;

/// A worker begins no more tasks of a batch after so long: the rest goes back to the pool.
pub const BATCH_WORK_MAX: Duration = Duration::from_millis(1);

/// This is how long tasks of other domains may go before one of the same priority that is the first in line: a few
/// times what it takes to start a process.
pub const OVERTAKEN_MAX: Duration = Duration::from_millis(25);

/// Default for `PoolBuilder::queue_tasks_max`: tasks accepted and not yet resolved.
pub const QUEUE_TASKS_MAX: usize = 65_536;

/// Default for `PoolBuilder::input_bytes_max`.
pub const INPUT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A byte of an output may become this many bytes of JSON where the command prints it; more counts towards
/// the limit of outputs. A control character becomes six, an absent `Option` four and a comma, `false,` six,
/// and a float of eight bytes up to 25. It only grows
/// further through names, and through values that have no bytes.
pub const JSON_BYTES_PER_BYTE: usize = 8;

/// Default for `PoolBuilder::log_rate_max`: bytes of log records a second
/// that the tasks of one worker get through to the host's subscriber; a second's worth at once. The rest is
/// dropped and counted.
pub const LOG_BYTES_PER_SECOND_MAX: u64 = 4 * 1024 * 1024;

/// The CPU time that a task has used by the time that its worker dies or is killed is measured by the worker process's
/// clock, which is read when the task begins, too. That costs the host half a microsecond, so where tasks mostly take
/// less than this it is not read.
pub const CPU_MEASURED_FROM: Duration = Duration::from_micros(50);

/// Events of a worker's own that wait for room on the way to the host, where the thread that tells them does not.
pub const WORKER_EVENTS_WAITING_MAX: usize = 64;

/// The last log records of a worker that are kept for its `Death`.
pub const LAST_LOGS_MAX: usize = 16;

/// Bytes of each; what is longer is cut and marked.
pub const LAST_LOG_BYTES_MAX: usize = 512;

/// Bytes of one log record; longer ones are cut and marked.
pub const LOG_RECORD_BYTES_MAX: usize = 16 * 1024;

/// Bytes kept of the end of a worker's own stderr, for `BrokenPool`.
pub const STDERR_TAIL_BYTES: usize = 8 * 1024;

/// Most bytes of wasm that `Pool::load` accepts.
pub const MODULE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Most bytes of machine code that the compiler may return for one module.
pub const ARTIFACT_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// Default for `PoolBuilder::cache_bytes_max`: it has room for several
/// builds of large modules, or thousands of small ones. Those used last stay.
pub const CACHE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// Most tasks that one module may declare.
pub const TASKS_PER_MODULE_MAX: usize = 512;

/// Most bytes of a task's name, of its export's, and of each argument's.
pub const TASK_NAME_BYTES_MAX: usize = 256;

/// Most bytes of a task's doc comment.
pub const TASK_DOC_BYTES_MAX: usize = 16 * 1024;

/// Most bytes of the text in which a module gives the types of its tasks.
pub const TASK_TYPES_BYTES_MAX: usize = 64 * 1024;

/// Most nodes of one type's schema, and the deepest nesting of types in it.
pub const SCHEMA_NODES_MAX: usize = 2_048;
/// See [`SCHEMA_NODES_MAX`].
pub const SCHEMA_DEPTH_MAX: usize = 64;

/// Most bytes of the name of a type, field or variant in a schema; names in Rust are far shorter.
pub const SCHEMA_NAME_BYTES_MAX: usize = 256;

/// Most bytes of all names in one type's schema. JSON repeats the names of fields for each value, even if the
/// value has only one byte.
pub const SCHEMA_NAMES_BYTES_MAX: usize = 64 * 1024;

/// Frames kept of a wasm backtrace.
pub const BACKTRACE_FRAMES_MAX: usize = 32;

/// Most bytes of a module's debug information (DWARF) that are read for the places in its source; of more, nothing is. Rust's
/// modules have some 10 bytes of it for each byte of code.
pub const DWARF_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Reading it may take so many units of work for each of its bytes: rows of lines, entries and their attributes, ranges.
/// What compilers write takes less than two.
pub const DWARF_WORK_PER_BYTE: u64 = 8;

/// Most compilation units of one module that are read.
pub const DWARF_UNITS_MAX: usize = 32_768;

/// Most bytes of abbreviations that are read: each may take 30 times as many in memory.
pub const DWARF_ABBREVIATIONS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most bytes of the head of one line program, which lists its files: each may take 60 times as many in memory.
pub const DWARF_LINE_HEAD_BYTES_MAX: usize = 1024 * 1024;

/// The deepest nesting of functions in debug information.
pub const DWARF_DEPTH_MAX: usize = 1024;

/// The debug information is not read by a compiler that may not have this much memory: that goes beyond what it takes at
/// the bounds.
pub const DWARF_MEMORY_BYTES_MIN: u64 = 1024 * 1024 * 1024;

/// Most rows of places in the source that are kept of one module, and most ranges of inlined functions.
pub const LINES_ROWS_MAX: usize = 2_000_000;

/// Most calls of inlined functions that are kept of one module, and most names of such functions.
pub const LINES_CALLS_MAX: usize = 1_000_000;

/// Most files of source that are kept of one module.
pub const LINES_FILES_MAX: usize = 65_536;

/// Most bytes of all their paths, and of all names of inlined functions.
pub const LINES_TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of one path that are kept: its end.
pub const LINES_PATH_BYTES_MAX: usize = 256;

/// Bytes of one name of an inlined function that are kept.
pub const LINES_NAME_BYTES_MAX: usize = 1024;

/// Most bytes of a module's table of places, which stands behind its description.
pub const LINES_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes kept of the end of a task's stderr, for its error if it traps or exits.
pub const STDERR_WORDS_BYTES_MAX: usize = 16 * 1024;

/// Bytes kept of one function name, panic message or error text of a guest.
pub const GUEST_TEXT_BYTES_MAX: usize = 64 * 1024;

/// Causes kept of a task's own error.
pub const ERROR_CAUSES_MAX: usize = 32;

/// Stack of the main thread of a worker or compiler: main threads usually have as much. It is not more, since
/// `RLIMIT_DATA` does not count it.
pub const WORKER_STACK_BYTES: u64 = 8 * 1024 * 1024;

/// Addresses that a worker may have beyond its memory. The engines reserve hundreds of GiB when a worker
/// starts and for modules with memories of their own, and modules and shared inputs are mapped. It bounds the
/// page tables to 2 GiB.
pub const WORKER_ADDRESSES_MAX: u64 = 1024 * 1024 * 1024 * 1024;

/// This is how often the host looks what each worker holds in memory: first while tasks run, then while none does.
/// Between two looks, a worker that was taken over can only hold what it fills in that time.
pub const MEMORY_LOOKS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];

/// Default for `PoolBuilder::start_timeout`: from spawn to the worker's first word.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);

/// This is how long a map's running tasks may take after SIGTERM or SIGHUP asked it to end; `--stop-grace` sets
/// it. `docker stop` waits as long before it kills.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// Default for `PoolBuilder::grace`: from the interrupt of a task to the SIGKILL of its worker.
pub const GRACE: Duration = Duration::from_millis(500);

/// Default for `Replacement::crashes_max`.
pub const CRASHES_MAX: u32 = 5;

/// Defaults for `Replacement::backoff`: the first pause, and the longest.
pub const CRASH_BACKOFF: Duration = Duration::from_millis(50);
/// See [`CRASH_BACKOFF`].
pub const CRASH_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The first pause before a worker is tried again that could not be started because descriptors, processes or
/// memory were short; it doubles each time. There is no pause when one of the pool's own workers has ended.
pub const SHORTAGE_BACKOFF: Duration = Duration::from_millis(10);
/// The longest such pause: what others hold may be free again at any time, and a try is cheap.
pub const SHORTAGE_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The waiting tasks fail with `TaskError::NoWorker` if no worker has lived and none could be started for this
/// long. A burst of other processes is mostly over by then.
pub const NO_WORKER_AFTER: Duration = Duration::from_secs(3);

/// A shortage of workers is reported when it begins, but not sooner than this after the last one.
pub const SHORTAGE_TOLD_EVERY: Duration = Duration::from_secs(60);

/// A compiler that cannot be started because something is short is tried again for this long.
pub const NO_COMPILER_AFTER: Duration = Duration::from_secs(3);

/// Workers beyond the first leave this many descriptors to the rest of the process: enough to load a module,
/// on top of those that starting a worker takes for a moment.
pub const DESCRIPTORS_LEFT_MIN: usize = 20;

/// A module or shared input that a worker cannot be sent (because too many descriptors are under way, or its
/// socket is full) is tried again for this long; then the worker is killed.
pub const UNSENT_AFTER: Duration = Duration::from_secs(10);

/// Default for `Pool::events`: events that wait to be read; later ones are dropped and counted.
pub const EVENTS_BUFFERED_MAX: usize = 65_536;

/// Default for `CompileLimits::cpu_time`: several times what the largest
/// known modules take.
pub const COMPILE_CPU_TIME: Duration = Duration::from_secs(300);

/// Default for `CompileLimits::timeout`: far more than [`COMPILE_CPU_TIME`],
/// since a compiler may have to share its CPUs with others all the time, or step back behind tasks of its own
/// pool.
pub const COMPILE_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);

/// CPU time that a compiler may use before it steps back: this much for any module, plus
/// [`COMPILE_ALLOWANCE_NS_PER_BYTE`] for each byte of it. Honest modules take less, even small functions full
/// of branches; a bomb takes far more.
pub const COMPILE_ALLOWANCE: Duration = Duration::from_millis(200);
/// See [`COMPILE_ALLOWANCE`].
pub const COMPILE_ALLOWANCE_NS_PER_BYTE: u64 = 3_000;

/// This is how long a pool mistrusts modules after one went over its allowance or a limit: meanwhile others only
/// have [`COMPILE_ALLOWANCE_MISTRUSTED`]. So of a series of bombs only the first one gets a full allowance.
pub const COMPILE_MISTRUST: Duration = Duration::from_secs(60);

/// The allowance of any module that comes while the pool mistrusts.
pub const COMPILE_ALLOWANCE_MISTRUSTED: Duration = Duration::from_millis(30);

/// All compilers of this process that step back share one part in this many of the machine's CPUs, while its
/// tasks compute. Tasks lose somewhat more than that, through caches and moments at which a worker waits.
pub const COMPILE_STEPPED_BACK_PART: u32 = 32;

/// Each of them gets at least one part in this many of one CPU.
pub const COMPILE_STEPPED_BACK_PART_MIN: u32 = 40;

/// Default for `PoolBuilder::worker_memory_bytes_max`: writable memory of a whole worker process.
pub const WORKER_MEMORY_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Least that it can be set to: a worker must be able to start. Five engines have room for tables of
/// 128 MB each, which counts though nothing of it is touched.
pub const WORKER_MEMORY_BYTES_MIN: u64 = 864 * 1024 * 1024;

/// Timers that a worker makes: those of its alarm, and the watcher's.
pub const WORKER_TIMERS: usize = 4;

/// Descriptors that a worker or compiler may have open.
pub const WORKER_DESCRIPTORS_MAX: u64 = 704;

/// A worker that holds this many modules is replaced after a task: each mapped module keeps a descriptor
/// until the pool releases it.
pub const MODULES_PER_WORKER_MAX: usize = 256;

/// Default for `PoolBuilder::modules_max`: modules of one pool that are
/// held at a time. Each takes two descriptors of this process, and memory for its machine code.
pub const MODULES_MAX: usize = 4096;

/// A pool removes ended modules from its table when there are this many more entries than held modules. Each
/// entry takes little memory until then.
pub const MODULES_UNSWEPT_MAX: usize = 64;

/// One message tells a worker to forget at most this many modules and shared inputs.
pub const FORGOTTEN_AT_ONCE_MAX: usize = 4096;

/// A worker needs this many descriptors for its sockets, rings and engines.
pub const WORKER_DESCRIPTORS_OWN: usize = 32;

/// Default for `PoolBuilder::worker_identity`: `nobody`.
pub const WORKER_UID: u32 = 65_534;

/// Most entries of one table. CPython needs some 13,000; GC languages more. The room for all
/// tables counts as writable memory of the worker, touched or not.
pub const TABLE_ELEMENTS_MAX: usize = 1_000_000;
/// Default for `CompileLimits::memory_bytes_max` on a machine that
/// has twice that; elsewhere it is half of the memory that this process may have. The largest known modules
/// need less.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 6 * 1024 * 1024 * 1024;

/// Least memory that a compiler process can be given: it must be able to start.
pub const COMPILE_MEMORY_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Default for `PoolBuilder::compilers_max`: compiler processes of one pool at a time.
pub const COMPILERS_MAX: usize = 2;

/// Most that it can be set to.
pub const COMPILERS_AT_MOST: usize = 64;

/// Most threads of one compiler process. Default for `PoolBuilder::compile_threads`: the CPUs, at most four.
pub const COMPILE_THREADS_MAX: usize = 32;

/// Modules that a pool remembers as not to be compiled again; beyond it the oldest is forgotten, and
/// costs one more compilation if it comes again.
pub const QUARANTINE_MODULES_MAX: usize = 1024;

// The shape of a module. The bounds lie far above what real programs have, and low enough that a bomb at the bound
// costs seconds and not hours. benches/README.md says what was measured of both.

/// Default for `CompileLimits::wasm_bytes_max`.
pub const COMPILE_WASM_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Default for `CompileLimits::types_max`.
pub const COMPILE_TYPES_MAX: u64 = 50_000;
/// Default for `CompileLimits::imports_max`.
pub const COMPILE_IMPORTS_MAX: u64 = 10_000;
/// Default for `CompileLimits::functions_max`: more than the largest
/// known modules have, and less than the engine's own limit of a million.
pub const COMPILE_FUNCTIONS_MAX: u64 = 800_000;
/// Default for `CompileLimits::memories_max`. Workers have room for fewer.
pub const COMPILE_MEMORIES_MAX: u64 = 64;
/// Default for `CompileLimits::globals_max`.
pub const COMPILE_GLOBALS_MAX: u64 = 50_000;
/// Default for `CompileLimits::exports_max`.
pub const COMPILE_EXPORTS_MAX: u64 = 50_000;
/// Default for `CompileLimits::elements_max`.
pub const COMPILE_ELEMENTS_MAX: u64 = 10_000;
/// Default for `CompileLimits::element_items_max`.
pub const COMPILE_ELEMENT_ITEMS_MAX: u64 = 1_000_000;
/// Default for `CompileLimits::data_segments_max`.
pub const COMPILE_DATA_SEGMENTS_MAX: u64 = 100_000;
/// Default for `CompileLimits::function_bytes_max`.
pub const COMPILE_FUNCTION_BYTES_MAX: u64 = 1024 * 1024;
/// Default for `CompileLimits::locals_max`.
pub const COMPILE_LOCALS_MAX: u64 = 5_000;
/// Default for `CompileLimits::nesting_max`.
pub const COMPILE_NESTING_MAX: u64 = 5_000;
/// Default for `CompileLimits::loop_nesting_max`. The cost grows with the cube of this.
pub const COMPILE_LOOP_NESTING_MAX: u64 = 250;
/// Default for `CompileLimits::blocks_max`.
pub const COMPILE_BLOCKS_MAX: u64 = 35_000;
/// Default for `CompileLimits::block_values_max`. The memory grows with their number times that
/// of blocks.
pub const COMPILE_BLOCK_VALUES_MAX: u64 = 5_000;
/// Default for `CompileLimits::branch_targets_max`.
pub const COMPILE_BRANCH_TARGETS_MAX: u64 = 400_000;
/// Default for `CompileLimits::branch_targets_total_max`.
pub const COMPILE_BRANCH_TARGETS_TOTAL_MAX: u64 = 2_500_000;

/// Default for `PoolBuilder::wasm_stack_bytes_max`.
pub const WASM_STACK_BYTES_MAX: usize = 1024 * 1024;

/// Least that it can be set to: a few hundred plain calls.
pub const WASM_STACK_BYTES_MIN: usize = 64 * 1024;

/// Most that it can be set to, within the 8 MiB that a process's main thread usually has.
pub const WASM_STACK_BYTES_AT_MOST: usize = 4 * 1024 * 1024;

/// This is what a worker has of stack beyond wasm's: for its own calls, and for those that a task makes of it at
/// the deepest point.
pub const HOST_STACK_BYTES: usize = 1024 * 1024;

/// Default for `PoolBuilder::share_bytes_max`.
pub const SHARE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Default for `PoolBuilder::shares_max`: shared inputs of one pool, at a time.
/// Each is a descriptor of this process and a mapping of each worker that has had it, whose
/// descriptor is closed once it is mapped.
pub const SHARES_MAX: usize = 128;

/// Most that it can be set to: workers keep no more mappings than the system allows by default (65,530).
pub const SHARES_AT_MOST: usize = 4096;

/// Most shared inputs of one task. One message brings those that a worker does not have.
pub const SHARES_PER_TASK_MAX: usize = 16;

/// Bytes that one `shared_read` copies, at most: no interrupt ends it half-way.
pub const SHARED_READ_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Most directories of one pool.
pub const DIRS_MAX: usize = 16;

/// Most bytes of a directory's path in the guest.
pub const GUEST_PATH_BYTES_MAX: usize = 4096;

/// Most files and directories that one task may have open, the pool's own directories among them;
/// beyond, opening fails with `EMFILE`. The worker needs descriptors, too: for modules that arrive.
pub const TASK_DESCRIPTORS_MAX: usize = 256;

/// This is what the clocks of a deterministic task begin with: 2020-01-01 00:00 UTC, as time since 1970.
pub const VIRTUAL_TIME_EPOCH: Duration = Duration::from_secs(1_577_836_800);

/// This is how much later each reading of a clock is than the one before, in a deterministic task: about what a
/// reading costs, so that loops that wait for a time end, and no program sees time fly.
pub const VIRTUAL_TIME_STEP: Duration = Duration::from_micros(1);

/// Bytes that one WASI call may have the worker read or copy for it (a buffer to write, a path); beyond, it fails
/// with `ENOMEM`. It is wasmtime's own default: programs read files of some 90 MB in one call (nextpnr). It is no less than
/// [`OUTPUT_BYTES_MAX`](task::OUTPUT_BYTES_MAX), since a program may write all of its output at once.
pub const WASI_CALL_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Most bytes of one `random_get`; beyond, the task traps. They are made in the worker's memory,
/// outside of the task's limit. Wasmtime's own default is 64 MiB.
pub const WASI_RANDOM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Most resources of WASI 0.2 that one task may have at a time: descriptors, streams, what can be polled; beyond, the task
/// traps. Something that can be polled counts twice. Each takes some hundred bytes of the worker's memory, but for lists of
/// directories, which have a bound of their own.
pub const WASI_RESOURCES_MAX: usize = 16 * 1024;

/// Most lists of directories that one component may have at a time: one for each level of a walk. Each holds all names of its
/// directory in the worker's memory.
pub const DIRECTORY_LISTS_MAX: usize = 64;

/// Most subscriptions of one `poll_oneoff`; beyond, it fails with `ENOMEM`. Each costs the worker
/// several hundred bytes: within wasmtime's own limit of 1.6 million a task could have it allocate a GiB.
pub const WASI_SUBSCRIPTIONS_MAX: u32 = 4096;

const _: () = {
    assert!(WASM_STACK_BYTES_MIN <= WASM_STACK_BYTES_MAX && WASM_STACK_BYTES_MAX <= WASM_STACK_BYTES_AT_MOST);
    // Main threads usually have a stack of this size.
    assert!((WASM_STACK_BYTES_AT_MOST + HOST_STACK_BYTES) as u64 <= WORKER_STACK_BYTES);
    // One message brings all directories, beside what else it says.
    assert!(DIRS_MAX * (GUEST_PATH_BYTES_MAX + 16) + 16 * 1024 <= CONTROL_BYTES_MAX);
    // A control message has room for so many descriptors.
    assert!(SHARES_PER_TASK_MAX <= DIRS_MAX);
    // A reply must fit into one message.
    assert!(ASK_BYTES_MAX + 1024 <= CONTROL_BYTES_MAX);
    // A length of bytes copied is positive.
    assert!(SHARED_READ_BYTES_MAX <= i32::MAX as u64);
    // A number takes ten bytes at most.
    assert!(FORGOTTEN_AT_ONCE_MAX * 10 + 64 <= CONTROL_BYTES_MAX);
    // stdin, stdout and stderr are numbered with them.
    assert!(3 + DIRS_MAX < TASK_DESCRIPTORS_MAX);
    // Prefetched runs may bring that many more, by pairs until they are mapped; the rest are the worker's own.
    assert!(
        MODULES_PER_WORKER_MAX + 3 * PREFETCH_MAX + WORKER_DESCRIPTORS_OWN <= WORKER_DESCRIPTORS_MAX as usize
    );
    // Each node may have a name, and the parts of structs and enums have names, too.
    assert!(SCHEMA_NAME_BYTES_MAX <= TASK_NAME_BYTES_MAX && SCHEMA_NAME_BYTES_MAX < SCHEMA_NAMES_BYTES_MAX);
    assert!(RING_BYTES.is_power_of_two());
    assert!(LOG_RECORD_BYTES_MAX < FRAME_META_BYTES_MAX);
    assert!(INPUT_BYTES_MAX as u64 <= FRAME_PAYLOAD_BYTES_MAX);
    assert!(GUEST_TEXT_BYTES_MAX * 2 < FRAME_META_BYTES_MAX);
    assert!(COMPILE_WASM_BYTES_MAX <= MODULE_BYTES_MAX as u64);
    assert!(COMPILE_MEMORY_BYTES_MIN < COMPILE_MEMORY_BYTES_MAX);
    assert!(WORKER_MEMORY_BYTES_MIN < WORKER_MEMORY_BYTES_MAX);
};
