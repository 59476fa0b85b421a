//! A process that died, and the pool with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use proto::shortage::Shortage;
use proto::task::TaskId;
use proto::text::Words;

/// The work that a process was at when it died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Phase {
    /// Being started, up to its first word.
    Start,
    /// It waited for a task.
    Idle,
    /// It ran a task.
    Running,
    /// It compiled a module.
    Compiling,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Start => "while it started",
            Phase::Idle => "while it was idle",
            Phase::Running => "while it ran a task",
            Phase::Compiling => "while it compiled",
        })
    }
}

/// The way in which a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeathCause {
    /// It exited by itself.
    Exited(i32),
    /// A signal ended it.
    Signaled(i32),
    /// The kernel killed it because its cgroup had used up its memory.
    OutOfMemory {
        /// The group's limit.
        limit_bytes: u64,
    },
    /// It held more memory than the pool allows a worker, in ways that its own limits do not count, and the
    /// pool killed it.
    MemoryExceeded {
        /// The pool's [`worker_memory_bytes_max`](crate::PoolBuilder::worker_memory_bytes_max).
        limit_bytes: u64,
        /// The bytes that it held.
        seen_bytes: u64,
    },
    /// The kernel ended it at its limit of CPU time (`RLIMIT_CPU`), which it had inherited from this process.
    CpuTimeUsedUp {
        /// The limit: the hard one, to which each child raises its soft one.
        limit: Duration,
    },
    /// It said something that the protocol does not allow, and was killed for it.
    ProtocolViolation(String),
    /// It did not say its first word in time, and was killed.
    StartTimeout(Duration),
    /// It could not put up the sandbox that the pool's policy demands.
    SandboxRefused(String),
    /// It never came to be.
    SpawnFailed(String),
    /// The pool could not send it what its task needs for [`UNSENT_AFTER`](proto::limits::UNSENT_AFTER), and
    /// killed it.
    Unreachable(String),
    /// It is gone, but something else reaped it: the embedder ignores SIGCHLD, or waits for
    /// every child itself.
    Unknown,
    /// The embedder asked for it, by [`Pool::kill`](crate::Pool::kill).
    Killed,
}

impl fmt::Display for DeathCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeathCause::Exited(code) => write!(f, "exited with code {code}"),
            DeathCause::Signaled(signal) => write!(f, "was ended by {}", signal_name(*signal)),
            DeathCause::OutOfMemory { limit_bytes } => {
                write!(
                    f,
                    "was killed by the kernel: its cgroup had used up its {limit_bytes} bytes of memory"
                )
            }
            DeathCause::MemoryExceeded { limit_bytes, seen_bytes } => {
                write!(f, "held {seen_bytes} bytes of memory, and was killed: its limit is {limit_bytes}")
            }
            DeathCause::CpuTimeUsedUp { limit } => {
                let seconds = limit.as_secs();
                write!(
                    f,
                    "was ended by the kernel, since it had used up its CPU time (RLIMIT_CPU is {seconds} s for each \
                     process: raise it by ulimit -t)"
                )
            }
            DeathCause::ProtocolViolation(what) => {
                write!(f, "broke the protocol and was killed: {}", Words(what))
            }
            DeathCause::StartTimeout(limit) => {
                write!(
                    f,
                    "was not ready within {limit:?} and was killed; if the program is yours: does it call `init` first of all?"
                )
            }
            DeathCause::SandboxRefused(what) => write!(f, "did not serve: {}", Words(what)),
            DeathCause::SpawnFailed(what) => write!(f, "could not be started: {}", Words(what)),
            DeathCause::Unreachable(what) => write!(f, "was ended: {}", Words(what)),
            DeathCause::Unknown => f.write_str("ended in an unknown way (something else reaped it)"),
            DeathCause::Killed => f.write_str("was killed at the caller's request"),
        }
    }
}

fn signal_name(signal: i32) -> String {
    let hint = match signal {
        4 => "SIGILL",
        6 => "SIGABRT: an abort or a failed allocation",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL: perhaps the kernel's out-of-memory killer",
        11 => "SIGSEGV: a crash of the process itself, not of a task",
        15 => "SIGTERM",
        24 => "SIGXCPU: a CPU limit",
        25 => "SIGXFSZ: a file size limit",
        31 => "SIGSYS: a system call outside of the sandbox's policy",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal} ({hint})")
}

/// The end of a worker or compiler process, with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Death {
    /// The process; 0 if it never came to be.
    pub pid: u32,
    /// The way in which it ended.
    pub cause: DeathCause,
    /// The work that it was at.
    pub phase: Phase,
    /// The end of what it wrote to stderr, at most [`STDERR_TAIL_BYTES`](proto::limits::STDERR_TAIL_BYTES).
    pub stderr_tail: String,
    /// The last that its tasks logged, whatever became of that, oldest first: at most
    /// [`LAST_LOGS_MAX`](proto::limits::LAST_LOGS_MAX) records, each with its task, escaped. A worker's tasks are
    /// all of one [domain](crate::TaskOptions::domain).
    pub last_logs: Vec<String>,
}

impl Death {
    pub(crate) fn new(pid: u32, cause: DeathCause, phase: Phase, stderr_tail: String) -> Self {
        Death { pid, cause, phase, stderr_tail, last_logs: Vec::new() }
    }

    /// Finds the shortage that kept a child from getting ready, if there was one.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        match self.cause {
            // A later word of the child's for itself is not believed.
            DeathCause::Exited(code) if self.phase == Phase::Start => {
                Shortage::of_exit_code(code, &self.stderr_tail)
            }
            _ => None,
        }
    }

    /// Returns a copy for tasks of another domain, without anything that the worker or its tasks have said.
    pub(crate) fn without_words(&self) -> Self {
        Death::new(self.pid, self.cause.clone(), self.phase, String::new())
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            // A process that was never made has no number.
            DeathCause::SpawnFailed(_) => write!(f, "process {}", self.cause)?,
            _ => write!(f, "process {} {} {}", self.pid, self.cause, self.phase)?,
        }
        match self.stderr_tail.trim() {
            "" => {}
            tail => write!(f, "; its stderr ends: {}", Words(tail))?,
        }
        match self.last_logs.last() {
            None => Ok(()),
            Some(last) => write!(f, "; the last of its logs: {}", Words(last)),
        }
    }
}

/// A worker died unexpectedly, and the pool with it. Cheap to clone.
///
/// The last words of the worker and its tasks are in the errors of tasks of the same
/// [domain](crate::TaskOptions::domain) only, and in [`Pool::broken`](crate::Pool::broken).
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias = "BrokenProcessPool")]
pub struct BrokenPool(Arc<BrokenParts>);

#[derive(Debug, PartialEq, Eq)]
struct BrokenParts {
    death: Death,
    tasks_in_flight: Vec<TaskId>,
}

impl BrokenPool {
    pub(crate) fn new(death: Death, tasks_in_flight: Vec<TaskId>) -> Self {
        BrokenPool(Arc::new(BrokenParts { death, tasks_in_flight }))
    }

    /// The worker that died.
    pub fn pid(&self) -> u32 {
        self.0.death.pid
    }

    /// Returns how the worker died, in which phase, and its last words.
    pub fn death(&self) -> &Death {
        &self.0.death
    }

    /// The signal that ended the worker, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self.0.death.cause {
            DeathCause::Signaled(signal) => Some(signal),
            _ => None,
        }
    }

    /// The worker's exit code, if it exited by itself.
    pub fn exit_code(&self) -> Option<i32> {
        match self.0.death.cause {
            DeathCause::Exited(code) => Some(code),
            _ => None,
        }
    }

    /// The tasks that this worker had begun.
    pub fn tasks_in_flight(&self) -> &[TaskId] {
        &self.0.tasks_in_flight
    }
}

impl fmt::Display for BrokenPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the pool is broken: worker {}", self.0.death)?;
        match self.tasks_in_flight() {
            [] => Ok(()),
            ids => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                write!(f, "; tasks in flight there: {}", ids.join(", "))
            }
        }
    }
}

impl std::error::Error for BrokenPool {}
