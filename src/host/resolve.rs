//! How a task ended, in the caller's words: its result, its report, and where it counts.

use std::time::Duration;

use super::core::{Answered, Record, State, unknown_death};
use super::domains::Breakage;
use crate::dispatch::{KillReason, Now, Resolution, RetireReason};
use crate::error::{BrokenPool, Phase, TaskError};
use crate::future::Failed;
use crate::limits::{BACKTRACE_FRAMES_MAX, GUEST_TEXT_BYTES_MAX, TABLE_ELEMENTS_MAX};
use crate::module::Answer;
use crate::observe::{Ended, LeaveReason, TaskOutcome};
use crate::octets::Octets;
use crate::report::{CommandOutput, PartialOutput, TaskReport};
use crate::shortage::{Scarce, Shortage};
use crate::task::{TaskId, TaskLimits};
use crate::text::quoted;
use crate::trap::Frame;
use crate::wire::message::{Cost, Entry, Verdict};

pub(super) fn result(
    state: &State,
    record: &Record,
    how: Resolution,
    now: Now,
    answered: Option<Answered>,
) -> (Result<Answer, Failed>, TaskReport) {
    let mut report = TaskReport {
        queued: record.began.unwrap_or(now).saturating_sub(record.submitted),
        total: now.saturating_sub(record.submitted),
        attempts: record.attempts,
        worker_pid: record.worker_pid,
        input_bytes: match (&record.batch, &record.call.asks) {
            (Some(_), _) => None,
            (None, Some(asks)) => Some(asks.bytes()),
            (None, None) => Some(record.call.input.len() as u64),
        },
        ..TaskReport::default()
    };
    // What a worker says of a batch as a whole is not about the task at hand.
    match answered.as_ref().filter(|_| record.batch.is_none()) {
        Some(answered) => {
            add_cost(&mut report, &answered.cost);
            report.output_bytes = Some(answered.payload.len() as u64);
            if let Some(cpu) = &record.cpu {
                report.cpu = Some(cpu.used);
            }
        }
        None => (report.run, report.cpu) = state.measured(record, now),
    }
    let report = report.with_bounded_wait();
    let told = |breakage: &Breakage| breakage.told_to(state.domains.name(record.domain).as_ref());
    if let (Resolution::Broken, Some(broken), None) = (how, &state.broken, &record.batch) {
        return (Err(Failed::WithAll(told(broken))), report);
    }
    // An interrupt that was heeded is an answer, too.
    let written = answered.as_ref().and_then(|answered| answered.written(&record.call.entry));
    let limit = record.timeout.unwrap_or_default();
    let result = match how {
        Resolution::Answered => match answered {
            Some(answered) => read_verdict(answered, &record.call.entry, &record.call.limits),
            None => Err(TaskError::Abi { message: "the worker's answer is missing".into() }),
        },
        Resolution::Cancelled => Err(TaskError::Cancelled),
        Resolution::TimedOut { killed } => Err(TaskError::Timeout { limit, killed }),
        Resolution::Overspent { killed } => {
            let limit = record.cpu.map(|cpu| cpu.limit).unwrap_or_default();
            Err(TaskError::CpuTime { limit, killed })
        }
        Resolution::Aborted { killed } => Err(TaskError::Aborted { killed }),
        Resolution::Died { worker } => {
            let death = state.deaths.get(&worker).map(|ended| ended.death.clone());
            let mut death = death.unwrap_or_else(|| unknown_death(Phase::Running));
            death.phase = Phase::Running;
            Err(TaskError::WorkerDied(death))
        }
        Resolution::NoWorker => {
            let unknown = || Shortage::new(Scarce::Processes, String::new());
            Err(TaskError::NoWorker(state.shortage.clone().unwrap_or_else(unknown)))
        }
        Resolution::Broken => {
            // Nobody broke it where the caller killed it: then each task has its own death.
            let broken = state.broken.as_ref().map(told).unwrap_or_else(|| {
                let mut death = unknown_death(Phase::Running);
                death.pid = record.worker_pid.unwrap_or_default();
                BrokenPool::new(death, vec![record.cell.task()])
            });
            Err(TaskError::Broken(broken))
        }
    };
    // For a batch, this is the task that was at hand.
    let at_hand = record.batch.as_ref().map_or(0, |batch| batch.answered());
    let task = TaskId(record.cell.task().0 + at_hand);
    let failed = |error| {
        let failure = record.cell.labels().failure_of(task, error, report.clone());
        Failed::For(failure.with_output(written))
    };
    (result.map_err(failed), report)
}

pub(super) fn add_cost(report: &mut TaskReport, cost: &Cost) {
    report.run = Duration::from_nanos(cost.run_ns);
    report.cpu = Some(Duration::from_nanos(cost.cpu_ns));
    report.peak_memory_bytes = Some(cost.peak_memory_bytes);
    report.fuel_used = cost.fuel_used;
    report.log_bytes_dropped = Some(cost.log_bytes_dropped);
    report.refusals = Some(cost.refusals.clone());
}

/// The worker's verdict, in the caller's words. The payload was bounded when it was read.
pub(super) fn read_verdict(
    answered: Answered,
    entry: &Entry,
    limits: &TaskLimits,
) -> Result<Answer, TaskError> {
    let written = answered.written(entry).unwrap_or_default();
    let Answered { verdict, payload, .. } = answered;
    // The text has room as JSON, with its escapes, in what a map is charged for the task.
    let text = |payload: Octets| quoted(&payload, GUEST_TEXT_BYTES_MAX);
    // The worker keeps this bound; one that lies is not believed to have kept it.
    let kept = |mut backtrace: Vec<Frame>| {
        backtrace.truncate(BACKTRACE_FRAMES_MAX);
        backtrace.shrink_to_fit();
        backtrace
    };
    Err(match verdict {
        Verdict::Ok => return Ok(Answer::Output(payload)),
        Verdict::Exited { code } => {
            let PartialOutput { stdout, stderr } = written;
            let output = CommandOutput { exit_code: code, stdout, stderr };
            // For a task, to exit is to fail: it has returned nothing.
            if code == 0 && matches!(entry, Entry::Command { .. }) {
                return Ok(Answer::Command(output));
            }
            TaskError::Exit { output }
        }
        Verdict::Guest => TaskError::Guest { message: text(payload) },
        Verdict::InputDecode => TaskError::InputDecode { message: text(payload) },
        Verdict::InputTooLarge { bytes } => TaskError::InputTooLarge { bytes },
        Verdict::Trap { code, message, backtrace } => {
            TaskError::Trap { code, message, backtrace: kept(backtrace) }
        }
        Verdict::Panic { message, location, backtrace } => {
            TaskError::Panic { message, location, backtrace: kept(backtrace) }
        }
        // Dispatch never resolves an interrupt as an answer; a worker that claims one lies.
        Verdict::Interrupted => TaskError::Abi { message: "interrupted without being asked to".into() },
        Verdict::Memory { requested, backtrace } => {
            let limit = limits.memory_bytes_max;
            TaskError::Memory { limit, requested, backtrace: kept(backtrace) }
        }
        Verdict::Fuel { backtrace } => {
            TaskError::Fuel { limit: limits.fuel.unwrap_or_default(), backtrace: kept(backtrace) }
        }
        Verdict::Table { requested, backtrace } => {
            TaskError::Table { limit: TABLE_ELEMENTS_MAX as u64, requested, backtrace: kept(backtrace) }
        }
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

/// How an end counts; `result` where there is one.
pub(super) fn outcome(how: Resolution, result: Option<&Result<Answer, Failed>>) -> TaskOutcome {
    match how {
        Resolution::Answered if result.is_some_and(Result::is_ok) => TaskOutcome::Succeeded,
        Resolution::Answered => TaskOutcome::Failed,
        Resolution::Cancelled => TaskOutcome::Cancelled,
        Resolution::TimedOut { .. } | Resolution::Overspent { .. } => TaskOutcome::TimedOut,
        Resolution::Aborted { .. } => TaskOutcome::Aborted,
        Resolution::Died { .. } | Resolution::Broken | Resolution::NoWorker => TaskOutcome::Lost,
    }
}

pub(super) fn count(ended: &mut Ended, outcome: TaskOutcome, tasks: u64) {
    let counter = match outcome {
        TaskOutcome::Succeeded => &mut ended.succeeded,
        TaskOutcome::Failed => &mut ended.failed,
        TaskOutcome::TimedOut => &mut ended.timed_out,
        TaskOutcome::Cancelled => &mut ended.cancelled,
        TaskOutcome::Aborted => &mut ended.aborted,
        TaskOutcome::Lost => &mut ended.lost,
    };
    *counter += tasks;
}

pub(super) fn leave_reason(reason: RetireReason) -> LeaveReason {
    match reason {
        RetireReason::Idle => LeaveReason::Idle,
        RetireReason::Resized => LeaveReason::Resized,
        RetireReason::Recycled => LeaveReason::Recycled,
        RetireReason::Domain => LeaveReason::Domain,
        RetireReason::PoolEnds => LeaveReason::PoolEnds,
    }
}

/// Whether a worker killed for this has not failed.
pub(super) fn is_expected(reason: KillReason) -> bool {
    matches!(reason, KillReason::Grace | KillReason::PoolEnds)
}
