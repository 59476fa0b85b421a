//! Turns events into effects: decisions are made under the lock, and actions follow after it.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use smallvec::SmallVec;

use super::{Core, State, TaskRecord, resolve, unknown_death};
use crate::error::{DeathCause, Phase};
use crate::future::{Failed, Filled};
use crate::host::asks::TaskAsks;
use crate::host::completion::Received;
use crate::host::cpu;
use crate::host::domains::Breakage;
use crate::host::effects::Effect;
use crate::host::link::Link;
use crate::host::requests::SupervisorRequest;
use crate::observe::{EventKind, LeaveReason};
use crate::scheduler::{Action, Event, Found, KillReason, Now, Resolution, RetireReason, WorkerKey};
use proto::limits::RESULT_BYTES_BESIDE;
use proto::task::TaskId;

/// More actions than this come at once only if a pool breaks or is shut down.
const FEW_ACTIONS: usize = 256;

/// An earlier flush of the same link is looked for among so many effects: tasks go over in turn to few links.
const LOOKED_BACK: usize = 4;

impl Core {
    /// Decides under the lock, acts after it; `now` was read under the lock. Each event may come with a worker's
    /// answer.
    pub(super) fn drive(
        &self,
        mut state: MutexGuard<'_, State>,
        now: Now,
        events: impl IntoIterator<Item = (Event, Option<Received>)>,
    ) {
        let mut changed = false;
        let mut effects = SmallVec::<[Effect; 4]>::new();
        let mut actions = std::mem::take(&mut state.actions);
        // Revocations and looks are answered within this call, and each may lead to more events.
        let mut replies = std::mem::take(&mut state.replies);
        for (event, mut received) in events {
            // A submitter that waits for room must learn that there will be none.
            changed |= matches!(event, Event::Shutdown { .. } | Event::Kill { .. });
            let mut next = Some(event);
            if let Some(Event::Done { worker, task, report }) = &mut next {
                report.used = used_in_all(&mut state, *worker, *task, received.as_ref());
            }
            while let Some(event) = next.take().or_else(|| replies.pop()) {
                state.scheduler.handle(event, now, &mut actions);
                effects.reserve(actions.len());
                let are_many = actions.len() > FEW_ACTIONS;
                for action in actions.drain(..) {
                    changed |=
                        matches!(action, Action::Resolve { .. } | Action::Break { .. } | Action::Stopped);
                    match action {
                        Action::Revoke { worker, task } => {
                            let is_back = state.links.get(&worker).is_some_and(|link| link.revoke(task));
                            replies.push(Event::Revoked { worker, task, revoked: is_back });
                        }
                        Action::Locate { worker, task, begun } => {
                            let found = locate(&state, worker, task, begun, self.settings.workers.cpus);
                            replies.push(Event::Located { worker, task, found });
                        }
                        Action::Look { worker, task } => {
                            let (used, told) = used_so_far(&mut state, worker, task);
                            effects.extend(told);
                            replies.push(Event::Looked { worker, task, used });
                        }
                        action => {
                            let effect = self.effect(&mut state, action, now, &mut received, are_many);
                            if let Some(effect) = effect.filter(|effect| !is_flushed_anyway(effect, &effects))
                            {
                                effects.push(effect);
                            }
                        }
                    }
                }
            }
        }
        state.actions = actions;
        state.replies = replies;
        let deadline = state.scheduler.next_deadline();
        let earlier = match (deadline, state.armed) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier {
            state.armed = deadline;
        }
        let wakers = (changed && !state.wakers.is_empty()).then(|| std::mem::take(&mut state.wakers));
        let has_sleepers = changed && state.sleepers > 0;
        drop(state);
        if earlier {
            self.supervisor.wake();
        }
        effects.iter_mut().for_each(|effect| effect.perform(&self.supervisor));
        if has_sleepers {
            self.changed.notify_all();
        }
        wakers.into_iter().flat_map(HashMap::into_values).for_each(|waker| self.queues.wake(waker));
        // This comes last: to drop an input may be the caller's code, and may block.
        drop(effects);
    }

    /// Applies an action, perhaps one of many, to the state, and returns what it means for the processes, links and
    /// cells at hand.
    pub(super) fn effect(
        &self,
        state: &mut State,
        action: Action,
        now: Now,
        received: &mut Option<Received>,
        are_many: bool,
    ) -> Option<Effect> {
        match action {
            Action::Start { worker } => Some(Effect::Request(Some(SupervisorRequest::Spawn(worker)))),
            Action::Assign { worker, task } => assign(state, worker, task, now),
            // `drive` has answered these where they came up.
            Action::Revoke { .. } | Action::Locate { .. } | Action::Look { .. } => None,
            Action::Begin { worker, task } => {
                begin(state, worker, task, now);
                None
            }
            Action::Interrupt { worker, task } => {
                let link = state.link(worker)?;
                let run = link.run_of(task)?;
                Some(Effect::Interrupt { link, run })
            }
            Action::Slow { worker, task } => slow(state, worker, task, now),
            Action::GivenBack { task } => {
                state.records.get_mut(&task)?.give_back();
                None
            }
            Action::Retry { task, how } => {
                retry(state, task, how, now, received);
                None
            }
            Action::Short { workers } => {
                let shortage = state.shortage.clone()?;
                state.observers.tell(now, || EventKind::WorkersShort { workers, shortage: shortage.clone() });
                Some(Effect::Short { workers, shortage })
            }
            Action::Kill { worker, reason } => self.kill(state, worker, reason),
            Action::Terminate { worker } => {
                state.expected.insert(worker);
                to_process(state, worker, |link| Effect::Terminate { link })
            }
            Action::Retire { worker, reason } => retire(state, worker, reason, now),
            Action::Resolve { task, how } => finish(state, task, how, now, received, are_many),
            Action::Break { worker, in_flight } => {
                break_pool(state, worker, in_flight, now);
                None
            }
            Action::Stopped => {
                state.observers.tell(now, || EventKind::Stopped);
                Some(Effect::Stopped)
            }
        }
    }

    fn kill(&self, state: &mut State, worker: WorkerKey, reason: KillReason) -> Option<Effect> {
        if resolve::is_expected(reason) {
            state.expected.insert(worker);
        }
        let cause = match reason {
            KillReason::Violation => Some(DeathCause::ProtocolViolation("an answer to no question".into())),
            KillReason::StartTimeout => Some(DeathCause::StartTimeout(self.settings.workers.start_timeout)),
            KillReason::Grace | KillReason::PoolEnds => None,
        };
        to_process(state, worker, |link| Effect::Kill { link, cause })
    }
}

/// Returns whether an effect shortly before this one sends what the link was ordered, too.
fn is_flushed_anyway(effect: &Effect, before: &[Effect]) -> bool {
    let Effect::Flush { link } = effect else { return false };
    let flushes =
        |effect: &Effect| matches!(effect, Effect::Flush { link: flushed } if Arc::ptr_eq(flushed, link));
    before.iter().rev().take(LOOKED_BACK).any(flushes)
}

impl State {
    fn link(&self, worker: WorkerKey) -> Option<Arc<Link>> {
        self.links.get(&worker).cloned()
    }
}

/// Hands a task to a worker's link, and binds the worker to the task's domain.
fn assign(state: &mut State, worker: WorkerKey, task: TaskId, now: Now) -> Option<Effect> {
    let link = state.link(worker)?;
    let record = state.records.get_mut(&task)?;
    record.worker = Some(worker);
    // The clock is read before the worker can begin. A task with a limit goes to an idle worker.
    record.cpu.iter_mut().for_each(|cpu| cpu.hand(link.computed().unwrap_or_default()));
    link.order(task, &record.call, record.batch.as_ref());
    if let Some(domain) = state.domains.bind(worker, record.domain) {
        let pid = link.pid;
        state.observers.tell(now, || EventKind::WorkerBound { pid, domain });
    }
    Some(Effect::Flush { link })
}

/// Notes that a worker has begun a task. Returns `None` if the worker is gone without a trace, or the task is resolved.
fn begin(state: &mut State, worker: WorkerKey, task: TaskId, now: Now) -> Option<()> {
    // The link may be gone while the worker's death still has the pid to report.
    let link = state.links.get(&worker);
    let pid = match link {
        Some(link) => link.pid,
        None => state.deaths.get(&worker)?.death.pid,
    };
    let record = state.records.get_mut(&task)?;
    let computed = match record.is_worth_measuring(state.scheduler.typical()) {
        true => link.and_then(|link| link.computed()),
        false => None,
    };
    record.begin(pid, computed, now);
    let attempt = record.attempts;
    state.observers.tell(now, || EventKind::TaskStarted { task, pid, attempt });
    Some(())
}

/// Tells that a task runs for longer than the pool expects of one.
fn slow(state: &mut State, worker: WorkerKey, task: TaskId, now: Now) -> Option<Effect> {
    let link = state.link(worker)?;
    let pid = link.pid;
    state.observers.tell(now, || EventKind::TaskSlow { task, pid });
    let record = state.records.get(&task)?;
    let after = now.saturating_sub(record.began?);
    let run = link.run_of(task)?;
    Some(Effect::Slow { cell: record.cell.clone(), link, run, after })
}

/// Notes how an attempt ended that is followed by another one. What was received belongs to the attempt that ended.
fn retry(state: &mut State, task: TaskId, how: Resolution, now: Now, received: &mut Option<Received>) {
    let received = received.take();
    let outcome = resolve::outcome(how, None);
    if let Some(record) = state.records.get(&task)
        && let Some(batch) = &record.batch
    {
        let (result, _) = resolve::result(state, record, how, now, None);
        // A worker may die between the last answer and the batch's end.
        if let Err(Failed::For(failure)) = result
            && batch.fail(failure)
        {
            state.tally.ended.add(outcome, 1);
        }
        if let Some(record) = state.records.get_mut(&task) {
            record.give_back();
        }
        return;
    }
    let measured = state.records.get(&task).map(|record| match received {
        Some(received) => {
            let cost = &received.completion.cost;
            (Duration::from_nanos(cost.run_ns), Some(Duration::from_nanos(cost.cpu_ns)))
        }
        None => state.measured(record, now),
    });
    if let Some(record) = state.records.get_mut(&task) {
        record.last_attempt = measured;
    }
    state.tally.retries += 1;
    state.observers.tell(now, || EventKind::TaskRetried { task, outcome });
}

/// Lets a worker leave in peace, and tells why it leaves.
fn retire(state: &mut State, worker: WorkerKey, reason: RetireReason, now: Now) -> Option<Effect> {
    state.expected.insert(worker);
    let reason = resolve::leave_reason(reason);
    state.tally.workers_recycled += u64::from(reason == LeaveReason::Recycled);
    if let Some(link) = state.link(worker) {
        let pid = link.pid;
        state.observers.tell(now, || EventKind::WorkerLeaving { pid, reason });
    }
    to_process(state, worker, |link| Effect::Retire { link })
}

/// Resolves a task: counts and reports it, and fills its cell.
fn finish(
    state: &mut State,
    task: TaskId,
    how: Resolution,
    now: Now,
    received: &mut Option<Received>,
    are_many: bool,
) -> Option<Effect> {
    let record = state.records.remove(&task)?;
    settle(&record, how, received.as_ref());
    let (result, report) = resolve::result(state, &record, how, now, received.take());
    state.domains.leave(record.domain);
    let outcome = resolve::outcome(how, Some(&result));
    match &record.batch {
        None => state.tally.ended.add(outcome, 1),
        // The tasks without an answer were not begun and go back to the map, so they are not counted.
        Some(batch) if how == Resolution::Completed => {
            batch.count_answers(&mut state.tally.ended);
            state.batched -= batch.left();
        }
        Some(batch) => batch.count_ends(&mut state.tally.ended, outcome),
    }
    state.observers.tell(now, || {
        let report = report.clone();
        EventKind::TaskFinished { task, outcome, report }
    });
    // The stdin is given back before the end is told: whoever learns of it may give its reader to
    // another task.
    record.call.asks.iter().for_each(TaskAsks::close);
    // The cell is filled under the lock, so that whoever learns of the end in another way finds the future done.
    let filled = record.cell.fill(result, report);
    // A caller that waits for one of many goes on with it while the others are ended.
    if filled == Filled::WaitedFor && are_many {
        record.cell.announce();
    }
    let is_announced = filled != Filled::Heard && (filled != Filled::WaitedFor || are_many);
    // The call goes out with the effect where dropping it may be the caller's code, or takes long.
    let call = (!record.call.is_quiet()).then(|| Box::new(record.call));
    if is_announced && call.is_none() {
        return None;
    }
    Some(Effect::Announce { cell: record.cell, _call: call })
}

/// Notes whose death has broken the pool.
fn break_pool(state: &mut State, worker: WorkerKey, in_flight: Vec<TaskId>, now: Now) {
    let ended = state.deaths.get(&worker).cloned();
    let (mut death, domain) = match ended {
        Some(ended) => (ended.death, ended.domain),
        None => (unknown_death(Phase::Idle), None),
    };
    if !in_flight.is_empty() {
        death.phase = Phase::Running;
    }
    state.observers.tell(now, || EventKind::Broken { death: death.clone() });
    state.broken = Some(Breakage::new(death, in_flight, domain));
}

/// Returns the effect on a process that exists. One that is yet to be made will not be.
fn to_process(
    state: &mut State,
    worker: WorkerKey,
    effect: impl FnOnce(Arc<Link>) -> Effect,
) -> Option<Effect> {
    match state.links.get(&worker) {
        Some(link) => Some(effect(link.clone())),
        None => {
            state.unwanted.insert(worker);
            None
        }
    }
}

/// Reads how much CPU time the task has used; returns `None` if its worker has not begun it. The first time that it
/// has, its worker is to be told the limit.
fn used_so_far(state: &mut State, worker: WorkerKey, task: TaskId) -> (Option<Duration>, Option<Effect>) {
    let Some(link) = state.links.get(&worker).cloned() else { return (None, None) };
    let cpu = state.records.get_mut(&task).and_then(|record| record.cpu.as_mut());
    let Some(cpu) = cpu else { return (None, None) };
    let Some(computed) = link.computed() else { return (None, None) };
    let used = cpu.look(computed, link.has_begun(task));
    let told = cpu.take_limit().zip(link.run_of(task));
    (used, told.map(|(cpu, run)| Effect::Limit { link, run, cpu }))
}

/// Finds out whether a worker has begun more than so many tasks, from this one on.
fn locate(state: &State, worker: WorkerKey, task: TaskId, begun: u64, cpus: usize) -> Found {
    match state.links.get(&worker).and_then(|link| link.begun_from(task)) {
        Some(now) if now > begun => Found::Begun(now),
        Some(_) if cpu::are_contended(cpus) => Found::Waiting,
        Some(_) => Found::Computing,
        // Its answer is on the way to the scheduler.
        None => Found::Begun(begun),
    }
}

/// Reads how much CPU time a task that has answered has used.
fn used_in_all(
    state: &mut State,
    worker: WorkerKey,
    task: TaskId,
    received: Option<&Received>,
) -> Option<Duration> {
    let cpu = state.records.get_mut(&task)?.cpu.as_mut()?;
    let computed = state.links.get(&worker).and_then(|link| link.computed());
    Some(cpu.end(computed, Duration::from_nanos(received?.completion.cost.cpu_ns)))
}

/// Lowers the charge to the size of the result. A batch that hands tasks back keeps its whole charge for
/// them.
fn settle(record: &TaskRecord, how: Resolution, received: Option<&Received>) {
    let Some(charge) = &record.charge else { return };
    let (items, answer_bytes) = match &record.batch {
        Some(batch) if how == Resolution::Completed && batch.left() > 0 => return,
        Some(batch) => (batch.count(), batch.answer_bytes()),
        None => (1, received.map_or(0, |received| received.frame_bytes)),
    };
    charge.settle(answer_bytes + items * RESULT_BYTES_BESIDE);
}
