//! Says how a task ended, in the caller's words: its result, its report, and where it counts.

use super::{State, TaskRecord, unknown_death};
use crate::error::{BrokenPool, Phase, TaskError};
use crate::future::Failed;
use crate::host::completion::{self, Received};
use crate::host::domains::Breakage;
use crate::module::TaskOutput;
use crate::observe::{LeaveReason, TaskOutcome};
use crate::report::TaskReport;
use crate::scheduler::{KillReason, Now, Resolution, RetireReason};
use proto::shortage::{Scarce, Shortage};
use proto::task::TaskId;

pub(super) fn result(
    state: &State,
    record: &TaskRecord,
    how: Resolution,
    now: Now,
    received: Option<Received>,
) -> (Result<TaskOutput, Failed>, TaskReport) {
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
    // A worker's words about a batch as a whole are not about the task at hand.
    match received.as_ref().filter(|_| record.batch.is_none()) {
        Some(received) => {
            completion::add_cost(&mut report, &received.completion.cost);
            report.output_bytes = Some(received.payload.len() as u64);
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
    // An interrupt that the worker obeyed comes as an answer, too.
    let written = received.as_ref().and_then(|received| received.written(&record.call.callee));
    let limit = record.timeout.unwrap_or_default();
    let result = match how {
        Resolution::Completed => match received {
            Some(received) => {
                let call = &record.call;
                completion::read(received, &call.callee, &call.limits, || call.error_schema())
            }
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
            // The pool is not broken where the caller has killed it; each task then has its own death.
            let broken = state.broken.as_ref().map(told).unwrap_or_else(|| {
                let mut death = unknown_death(Phase::Running);
                death.pid = record.worker_pid.unwrap_or_default();
                BrokenPool::new(death, vec![record.cell.task()])
            });
            Err(TaskError::Broken(broken))
        }
    };
    // A batch's task is the one that was at hand.
    let at_hand = record.batch.as_ref().map_or(0, |batch| batch.answered());
    let task = TaskId(record.cell.task().0 + at_hand);
    let failed = |error| {
        let failure = record.cell.labels().failure_of(task, error, report.clone());
        Failed::For(failure.with_output(written))
    };
    (result.map_err(failed), report)
}

/// Returns how an end counts; `result` where there is one.
pub(super) fn outcome(how: Resolution, result: Option<&Result<TaskOutput, Failed>>) -> TaskOutcome {
    match how {
        Resolution::Completed if result.is_some_and(Result::is_ok) => TaskOutcome::Succeeded,
        Resolution::Completed => TaskOutcome::Failed,
        Resolution::Cancelled => TaskOutcome::Cancelled,
        Resolution::TimedOut { .. } | Resolution::Overspent { .. } => TaskOutcome::TimedOut,
        Resolution::Aborted { .. } => TaskOutcome::Aborted,
        Resolution::Died { .. } | Resolution::Broken | Resolution::NoWorker => TaskOutcome::Lost,
    }
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

/// Returns whether a worker killed for this has not failed.
pub(super) fn is_expected(reason: KillReason) -> bool {
    matches!(reason, KillReason::Grace | KillReason::PoolEnds)
}
