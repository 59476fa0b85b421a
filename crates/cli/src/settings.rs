//! Turns the arguments into a pool, the options of each task, and the loaded module.

use std::path::{Path, PathBuf};

use tracing::level_filters::LevelFilter;

use super::args::{Common, Dir, Level, Policy, Stop, Target, bytes};
use super::exit::Failure;
use super::input;
use files::HostFiles;
use proto::limits::{FRAME_PAYLOAD_BYTES_MAX, INPUT_BYTES_MAX, SHARE_BYTES_MAX};
use wasmpool::internal;
use wasmpool::limits::CompileLimits;
use wasmpool::module::{Interrupt, ModuleOptions};
use wasmpool::sandbox::SandboxPolicy;
use wasmpool::task::Isolation;
use wasmpool::{Module, Pool, PoolBuilder, TaskOptions};

/// Log limit of a task whose profile is made, unless set.
const PROFILE_LOG_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of a length, or of a line feed, beside an input's own.
const BYTES_BESIDE_TEXT: usize = 16;

/// The settings that all commands share.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) workers: Option<usize>,
    cache: Cache,
    cache_bytes_max: Option<u64>,
    pub(super) files: HostFiles,
    pub(super) log_file: Option<PathBuf>,
    compile_limits: CompileLimits,
    log_rate: Option<u64>,
    worker_log: LevelFilter,
    engine_log: LevelFilter,
    pub(super) quiet: bool,
    pub(super) sandbox: Option<SandboxPolicy>,
}

#[derive(Debug)]
enum Cache {
    Default,
    Dir(PathBuf),
    Off,
}

impl Settings {
    pub(super) fn resolve(common: &Common, files: HostFiles) -> Settings {
        let cache = match &common.cache_dir {
            _ if common.no_cache => Cache::Off,
            Some(dir) => Cache::Dir(dir.clone()),
            None => Cache::Default,
        };
        let sandbox = common.sandbox.map(|policy| match policy {
            Policy::Strict => SandboxPolicy::Strict,
            Policy::BestEffort => SandboxPolicy::BestEffort,
            Policy::Off => SandboxPolicy::Off,
        });
        Settings {
            workers: common.workers,
            cache,
            cache_bytes_max: common.cache_limit.map(|size| size.as_u64()),
            files,
            log_file: common.log_file.clone(),
            compile_limits: compile_limits(common),
            log_rate: common.log_rate,
            worker_log: common.worker_log().filter(),
            engine_log: common.engine_log.filter(),
            quiet: common.quiet,
            sandbox,
        }
    }

    /// The cache that was asked for by name.
    pub(super) fn cache_dir(&self) -> Option<&Path> {
        match &self.cache {
            Cache::Dir(dir) => Some(dir),
            Cache::Default | Cache::Off => None,
        }
    }

    /// A pool with as many workers as asked for, else `workers_default`, else one per CPU.
    pub(super) fn pool(&self, workers_default: Option<usize>) -> Result<Pool, Failure> {
        self.build(Pool::builder(), workers_default)
    }

    /// Builds a pool for tasks of this kind.
    pub(super) fn pool_for(
        &self,
        target: &Target,
        mut builder: PoolBuilder,
        workers_default: Option<usize>,
    ) -> Result<Pool, Failure> {
        if let Some(stack) = target.limits.worded.wasm_stack {
            builder = builder.wasm_stack_bytes_max(bytes(stack));
        }
        builder = builder.input_bytes_max(encoded_bytes_max(input_bytes_max(target)));
        if let Some(after) = target.slow_after {
            builder = builder.slow_after(after);
        }
        for Dir { host, guest, access } in &target.dir {
            builder = builder.dir(host, guest, *access);
        }
        self.build(builder, workers_default)
    }

    fn build(&self, builder: PoolBuilder, workers_default: Option<usize>) -> Result<Pool, Failure> {
        let mut builder = builder
            .compile_limits(self.compile_limits.clone())
            .worker_log_level(self.worker_log)
            .engine_log_level(self.engine_log);
        if let Some(workers) = self.workers.or(workers_default) {
            builder = builder.workers(workers);
        }
        if let Some(rate) = self.log_rate {
            builder = builder.log_rate_max(rate);
        }
        if let Some(policy) = self.sandbox {
            builder = builder.sandbox(policy);
        }
        builder = match &self.cache {
            Cache::Default => builder,
            Cache::Dir(dir) => builder.cache_dir(dir),
            Cache::Off => builder.without_cache(),
        };
        if let Some(bytes) = self.cache_bytes_max {
            builder = builder.cache_bytes_max(bytes);
        }
        let pool = builder.build()?;
        // The pool and this command open the same paths at different times, and a path may lead elsewhere by
        // then.
        if internal::has_other_dirs_than(&pool, &self.files) {
            let message =
                "a directory of --dir was replaced by another while this command began: run it again";
            return Err(Failure::Usage(message.into()));
        }
        Ok(pool)
    }
}

/// Returns what compiling the module may cost.
fn compile_limits(common: &Common) -> CompileLimits {
    let mut limits = if common.trust_module { CompileLimits::trusted() } else { CompileLimits::new() };
    if let Some(cpu_time) = common.compile_cpu_time {
        limits = limits.cpu_time(cpu_time);
    }
    if let Some(timeout) = common.compile_timeout {
        limits = limits.timeout(timeout);
    }
    if let Some(memory) = common.compile_memory {
        limits = limits.memory_bytes_max(memory.as_u64());
    }
    common.compile_limit.iter().fold(limits, |limits, (kind, max)| limits.with(*kind, *max))
}

/// Most bytes of an input.
pub(super) fn input_bytes_max(target: &Target) -> usize {
    target.limits.worded.input_limit.map_or(INPUT_BYTES_MAX, bytes)
}

/// Returns the most bytes of an input as the pool gets it: its own bytes were counted when it was read. Text becomes
/// longer by its length, a command's line by its line feed, and JSON by its numbers, up to the bound of its encoding.
fn encoded_bytes_max(own: usize) -> usize {
    own.max(INPUT_BYTES_MAX).saturating_add(BYTES_BESIDE_TEXT).min(FRAME_PAYLOAD_BYTES_MAX as usize)
}

/// The options of each task.
pub(super) fn task_options(target: &Target) -> TaskOptions {
    let mut options = TaskOptions::new();
    if target.profile.is_some() {
        // Stacks are log records, and come a hundred times a second.
        options = options.log_bytes_max(PROFILE_LOG_BYTES_MAX);
    }
    options = target.limits.set(options);
    if let Some(domain) = &target.domain {
        options = options.domain(domain);
    }
    if let Some(seed) = target.deterministic {
        options = options.deterministic(seed);
    }
    if let Some(level) = target.isolation {
        options = options.isolation(match level {
            Level::Instance => Isolation::Instance,
            Level::Reuse => Isolation::Reuse,
        });
    }
    options
}

/// Returns the options with the files that the tasks share.
pub(super) fn shared_options(
    pool: &Pool,
    target: &Target,
    files: &HostFiles,
) -> Result<TaskOptions, Failure> {
    target.share.iter().try_fold(task_options(target), |options, path| {
        Ok(options.shared(&pool.share(input::read_shared(files, path, SHARE_BYTES_MAX as usize)?)?))
    })
}

/// Returns what the module is compiled for: it counts fuel if that is limited, and is deterministic for a
/// seed.
pub(super) fn module_options(target: &Target) -> Result<ModuleOptions, Failure> {
    if matches!(target.interrupt, Some(Stop::Kill))
        && (target.limits.worded.fuel.is_some() || target.deterministic.is_some())
    {
        let message = "--interrupt kill is not for --fuel or --deterministic: such code looks at its fuel, and whether \
                       it is to stop, anyway";
        return Err(Failure::Usage(message.into()));
    }
    let interrupt = match target.interrupt {
        Some(Stop::Kill) => Interrupt::Kill,
        Some(Stop::Check) | None => Interrupt::Check,
    };
    Ok(ModuleOptions::new()
        .metered(target.limits.worded.fuel.is_some())
        .deterministic(target.deterministic.is_some())
        .interrupt(interrupt)
        .to_run(target.task_name()))
}

pub(super) fn load(pool: &Pool, path: &Path, options: ModuleOptions) -> Result<Module, Failure> {
    pool.load_file_with(path, options)
        .map_err(|error| Failure::Load { file: path.into(), error: error.into() })
}
