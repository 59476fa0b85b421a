//! What is done once the lock is released, and how a worker's verdict becomes a result.

use std::sync::Arc;

use bytes::Bytes;

use super::core::{Answered, Call, Core};
use super::link::Link;
use super::supervise::Job;
use crate::dispatch::KillReason;
use crate::error::{DeathCause, TaskError, TaskFailure};
use crate::future::Cell;
use crate::module::Answer;
use crate::task::{CommandOutput, TaskId, TaskLimits, TaskReport};
use crate::wire::message::Verdict;

pub(super) enum Effect {
    Job(Job),
    Run { link: Arc<Link>, task: TaskId, call: Call },
    Interrupt { link: Arc<Link>, task: TaskId },
    Kill { link: Arc<Link>, reason: KillReason },
    Retire { link: Arc<Link> },
    Complete { cell: Arc<Cell>, call: Option<Call>, result: Result<Answer, TaskFailure>, report: TaskReport },
    Stopped,
}

impl Effect {
    /// Acts. `true` if someone may wait for it on the core's condition.
    pub(super) fn perform(self, core: &Core) -> bool {
        match self {
            Effect::Job(job) => {
                core.mailbox.post(job);
                false
            }
            Effect::Run { link, task, call } => {
                link.run(task, call);
                false
            }
            Effect::Interrupt { link, task } => {
                link.interrupt(task);
                false
            }
            Effect::Kill { link, reason } => {
                match reason {
                    KillReason::Violation => {
                        link.kill_for(DeathCause::ProtocolViolation("an answer to no question".into()));
                    }
                    KillReason::StartTimeout => {
                        link.kill_for(DeathCause::StartTimeout(core.settings.start_timeout));
                    }
                    KillReason::Grace | KillReason::PoolEnds => link.kill(),
                }
                false
            }
            Effect::Retire { link } => {
                link.retire();
                false
            }
            Effect::Complete { cell, call, result, report } => {
                drop(call);
                cell.complete(result, report);
                true
            }
            Effect::Stopped => {
                core.mailbox.wake();
                true
            }
        }
    }
}

/// The worker's verdict, in the caller's words. The payload was bounded when it was read.
pub(super) fn read_verdict(answered: Answered, limits: &TaskLimits) -> Result<Answer, TaskError> {
    let Answered { verdict, payload, cost: _ } = answered;
    let text = |payload: Vec<u8>| String::from_utf8_lossy(&payload).into_owned();
    Err(match verdict {
        Verdict::Ok => return Ok(Answer::Output(payload.into())),
        Verdict::Exited { code, stdout_bytes } => {
            let mut stdout = Bytes::from(payload);
            let stderr = stdout.split_off(stdout.len().min(stdout_bytes as usize));
            let output = CommandOutput { exit_code: code, stdout, stderr };
            if code == 0 {
                return Ok(Answer::Command(output));
            }
            TaskError::Exit { output }
        }
        Verdict::Guest => TaskError::Guest { message: text(payload) },
        Verdict::InputDecode => TaskError::InputDecode { message: text(payload) },
        Verdict::Trap { code, message, backtrace } => TaskError::Trap { code, message, backtrace },
        Verdict::Panic { message, location, backtrace } => TaskError::Panic { message, location, backtrace },
        // Dispatch never resolves an interrupt as an answer; a worker that claims one lies.
        Verdict::Interrupted => TaskError::Abi { message: "interrupted without being asked to".into() },
        Verdict::Memory { requested, backtrace } => {
            TaskError::Memory { limit: limits.memory_bytes_max, requested, backtrace }
        }
        Verdict::Fuel { backtrace } => TaskError::Fuel { limit: limits.fuel.unwrap_or_default(), backtrace },
        Verdict::OutputTooLarge { bytes } => {
            TaskError::OutputTooLarge { limit: limits.output_bytes_max, bytes }
        }
        Verdict::LogsTooLarge { bytes } => TaskError::LogsTooLarge { limit: limits.log_bytes_max, bytes },
        Verdict::BadPointer { pointer, len, memory_bytes } => {
            TaskError::BadPointer { pointer, len, memory_bytes }
        }
        Verdict::Abi { message } => TaskError::Abi { message },
        Verdict::Instantiate { message } => TaskError::Instantiate { message },
    })
}
