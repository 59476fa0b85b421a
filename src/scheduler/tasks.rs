//! Decisions about tasks: who gets them, and how they end.

use std::time::Duration;

use super::check::Mutant;
use super::slot::{Slot, SlotState, StopReason};
use super::spending::LOOK_AGAIN;
use super::{
    Action, Domain, Fate, KillReason, Mode, Now, Place, Resolution, Retry, RunReport, ScheduledTask,
    Scheduler, TaskSpec, WorkerKey,
};
use proto::task::TaskId;

/// Work that is kept in store inside of a worker: enough to hide a wake-up, little enough
/// that nobody waits long behind it.
const OFFERED_WORK: Duration = Duration::from_micros(500);

/// Tasks up to this length are worth having the next one at hand.
const OFFER_ONE_BELOW: Duration = Duration::from_millis(20);

/// Tasks that wait behind one that has run for so long (or for eight typical ones) come before
/// later ones again.
const RECALL_AFTER: Duration = Duration::from_micros(200);

impl Scheduler {
    pub(super) fn submit(&mut self, task: TaskId, spec: TaskSpec, actions: &mut Vec<Action>) {
        self.accepted += 1;
        self.more += spec.more;
        if self.tasks.is_empty() {
            self.uniform = Some(spec.priority);
        } else if self.uniform != Some(spec.priority) {
            self.uniform = None;
            self.recall_below(spec.priority, actions);
        }
        let entry = ScheduledTask {
            spec,
            attempts: 0,
            abort: false,
            discard_rest: false,
            bypassed_since: None,
            place: Place::Queued,
        };
        self.tasks.insert(task, entry);
        self.queue.push(task, &spec);
    }

    // ── To the workers ───────────────────────────────────────────────────────

    /// Hands the task to an idle worker, and what should follow it there.
    pub(super) fn run(&mut self, slot: usize, task: TaskId, now: Now, actions: &mut Vec<Action>) {
        let chunk = self.tasks.get(&task).and_then(|entry| entry.spec.chunk);
        self.hand(slot, task, actions);
        self.begin(slot, task, now, actions);
        if let Some(chunk) = chunk {
            self.affinity = Some((chunk, slot));
        }
        self.join_chunk(now, actions);
        self.prefetch(slot, now, actions);
    }

    /// The task goes over to the worker, which is bound to its domain from here on.
    fn hand(&mut self, slot: usize, task: TaskId, actions: &mut Vec<Action>) {
        self.slots[slot].domain = self.tasks.get(&task).map(|entry| entry.spec.domain);
        actions.push(Action::Assign { worker: self.slots[slot].key(slot), task });
    }

    /// The worker has come to this task.
    fn begin(&mut self, slot: usize, task: TaskId, now: Now, actions: &mut Vec<Action>) {
        let worker = self.slots[slot].key(slot);
        let is_unlimited = self.mutant(Mutant::CpuTimeForgotten);
        let Some(entry) = self.tasks.get_mut(&task) else { return };
        entry.move_to(Place::Running(slot), &mut self.recalled);
        entry.bypassed_since = None;
        entry.attempts += u32::from(!(cfg!(test) && self.mutant == Some(Mutant::AttemptsNotCounted)));
        let abort = entry.abort;
        let deadline = entry.spec.timeout.map(|timeout| now.saturating_add(timeout));
        let cpu_time = entry.spec.cpu_time.filter(|_| !is_unlimited);
        let deadline = deadline.filter(|_| !self.mutant(Mutant::DeadlineForgotten));
        let slow_at = self.config.slow_after.map(|after| now.saturating_add(after));
        let look_at = cpu_time.map(|_| now.saturating_add(LOOK_AGAIN));
        self.set_state(slot, SlotState::Busy { task, began: now, deadline, slow_at, look_at, stop: None });
        self.moves(slot, 0, now);
        actions.push(Action::Begin { worker, task });
        if abort {
            self.stop(slot, StopReason::Abort, now, actions);
        }
    }

    /// Tasks of the chunk that was begun last follow it.
    pub(super) fn join_chunk(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some((chunk, slot)) = self.affinity else { return };
        while self.room_behind(slot, self.config.prefetch_max) > 0
            && let Some((rank, domain)) = self.next_behind(slot, now)
            && self.tasks.get(&rank.1).is_some_and(|entry| entry.spec.chunk == Some(chunk))
            && !self.is_alone_there(rank.1)
        {
            self.queue.take(rank, domain);
            self.prefetch_one(slot, rank.1, actions);
        }
    }

    /// Prefetches several tasks for a busy worker, if they are short and nobody else could begin them.
    fn prefetch(&mut self, slot: usize, now: Now, actions: &mut Vec<Action>) {
        let depth = self.prefetch_depth();
        let behind = self.slots[slot].behind.len();
        // More are prefetched once half of them have begun, so that many tasks go over together.
        if depth == 0 || behind > depth / 2 {
            return;
        }
        let Some(domain) = self.slots[slot].domain else { return };
        let busy = self.busy.iter().filter(|&&slot| self.slots[slot].domain == Some(domain)).count();
        let elsewhere = self.to_be_woken(domain) + self.starting() + self.room();
        // Revoked tasks come first; others are prefetched the next time.
        if self.revoke_prefetched(domain, now, actions) {
            return;
        }
        let per_worker = self.queue.ready_of(domain).saturating_sub(elsewhere).div_ceil(busy.max(1));
        for _ in 0..per_worker.min(self.room_behind(slot, depth)) {
            let Some((rank, domain)) = self.next_behind(slot, now) else { break };
            if self.is_alone_there(rank.1) {
                break;
            }
            self.queue.take(rank, domain);
            self.prefetch_one(slot, rank.1, actions);
        }
    }

    fn prefetch_one(&mut self, slot: usize, task: TaskId, actions: &mut Vec<Action>) {
        if let Some(entry) = self.tasks.get_mut(&task) {
            entry.move_to(Place::Prefetched(slot, None), &mut self.recalled);
            self.slots[slot].behind.push_back(task);
            self.look_again(slot);
            self.hand(slot, task, actions);
        }
    }

    /// Returns how many tasks it pays to have in store, by how long they take.
    fn prefetch_depth(&self) -> usize {
        let typical = self.typical.duration();
        let depth = OFFERED_WORK.as_nanos().checked_div(typical.as_nanos()).unwrap_or(0);
        let at_least = usize::from(!typical.is_zero() && typical < OFFER_ONE_BELOW);
        usize::try_from(depth).unwrap_or(usize::MAX).max(at_least).min(self.config.prefetch_max)
    }

    /// Returns how many more tasks the worker may be prefetched, if `max` may wait there.
    fn room_behind(&self, slot: usize, max: usize) -> usize {
        let Slot { state, draining, behind, answered, .. } = &self.slots[slot];
        match *state {
            SlotState::Busy { task, stop: None, .. } if !draining && !self.is_alone_there(task) => {
                let behind = behind.len();
                let taken = answered + 1 + behind as u64;
                let left = self.config.recycle.tasks_max.map(|max| max.saturating_sub(taken));
                max.saturating_sub(behind).min(left.map_or(usize::MAX, |left| left as usize))
            }
            _ => 0,
        }
    }

    // ── And back ─────────────────────────────────────────────────────────────

    /// Has prefetched tasks of lower priority come back: a higher one goes before them.
    fn recall_below(&mut self, priority: i32, actions: &mut Vec<Action>) {
        for slot in 0..self.slots.len() {
            for index in 0..self.slots[slot].behind.len() {
                let task = self.slots[slot].behind[index];
                if self.tasks.get(&task).is_some_and(|entry| entry.spec.priority < priority) {
                    self.revoke(task, Fate::Requeue, actions);
                }
            }
        }
    }

    /// Has prefetched tasks come back from behind a task that takes long, before later ones go to
    /// other workers of their domain: they get back into the queue. `true` if some do.
    fn revoke_prefetched(&mut self, domain: Domain, now: Now, actions: &mut Vec<Action>) -> bool {
        let takes_long = RECALL_AFTER.max(self.typical.duration().saturating_mul(8));
        let mut comes_back = false;
        // While a worker is idle, the others are looked at, and what waits behind a long task has come back.
        if !self.idle.is_empty() {
            return false;
        }
        for index in 0..self.busy.len() {
            let slot = self.busy[index];
            let Slot { state, domain: bound_to, behind, .. } = &self.slots[slot];
            if !behind.is_empty()
                && *bound_to == Some(domain)
                && matches!(*state, SlotState::Busy { began, .. } if now.saturating_sub(began) > takes_long)
            {
                for task in behind.clone() {
                    comes_back |= self.revoke(task, Fate::Requeue, actions);
                }
            }
        }
        comes_back
    }

    /// Asks for a prefetched task back; `false` if that was done before or cannot be done.
    pub(super) fn revoke(&mut self, task: TaskId, fate: Fate, actions: &mut Vec<Action>) -> bool {
        let Some(entry) = self.tasks.get_mut(&task) else { return false };
        let Place::Prefetched(slot, known) = entry.place else { return false };
        match known {
            None => {
                entry.move_to(Place::Prefetched(slot, Some(fate)), &mut self.recalled);
                actions.push(Action::Revoke { worker: self.slots[slot].key(slot), task });
                true
            }
            // The task comes back anyway, and now it is to be cancelled, or is lost.
            Some(Fate::Requeue) if fate != Fate::Requeue => {
                entry.move_to(Place::Prefetched(slot, Some(fate)), &mut self.recalled);
                false
            }
            Some(_) => false,
        }
    }

    pub(super) fn revoked(
        &mut self,
        worker: WorkerKey,
        task: TaskId,
        revoked: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(slot) = self.live(worker) else { return };
        let Some(entry) = self.tasks.get_mut(&task) else { return };
        let Place::Prefetched(held, Some(fate @ (Fate::Cancel | Fate::Requeue | Fate::Break))) = entry.place
        else {
            return;
        };
        if held != slot {
            return;
        }
        if !(revoked || cfg!(test) && self.mutant == Some(Mutant::BegunTakenBack)) {
            entry.move_to(Place::Prefetched(slot, Some(Fate::Begun)), &mut self.recalled);
            // The task of a pool that was killed or broke ends with its worker.
            if self.killed || self.broken {
                self.slots[slot].forget(task);
                self.note_begun(worker, task, actions);
                self.resolve(task, Resolution::Broken, actions);
            }
            self.extend_grace(slot, now);
            return;
        }
        self.slots[slot].forget(task);
        match fate {
            Fate::Cancel => self.resolve(task, Resolution::Cancelled, actions),
            Fate::Break => self.resolve(task, Resolution::Broken, actions),
            Fate::Requeue | Fate::Begun => self.requeue(task),
        }
    }

    /// A worker has begun a task that was never the one at hand: its end is all that is heard of it.
    pub(super) fn note_begun(&mut self, worker: WorkerKey, task: TaskId, actions: &mut Vec<Action>) {
        if !self.mutant(Mutant::BegunForgotten)
            && let Some(entry) = self.tasks.get_mut(&task)
        {
            entry.attempts += 1;
            actions.push(Action::Begin { worker, task });
        }
    }

    fn requeue(&mut self, task: TaskId) {
        if let Some(entry) = self.tasks.get_mut(&task) {
            entry.move_to(Place::Queued, &mut self.recalled);
            // The task leaves its chunk, which would only send it back to where it came from.
            entry.spec.chunk = None;
            self.queue.push(task, &entry.spec);
        }
    }

    /// Queues a task again that is not done.
    fn put_back(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        let is_wanted = self.tasks.get(&task).is_some_and(|entry| !entry.discard_rest && !entry.abort);
        actions.push(Action::GivenBack { task });
        if self.broken || self.killed {
            self.resolve(task, Resolution::Broken, actions);
        } else if is_wanted {
            self.requeue(task);
        } else {
            self.resolve(task, Resolution::Cancelled, actions);
        }
    }

    /// Puts back the tasks that a worker which is gone was prefetched: it had begun none of them.
    pub(super) fn requeue_all(
        &mut self,
        prefetched: impl IntoIterator<Item = TaskId>,
        actions: &mut Vec<Action>,
    ) {
        for task in prefetched {
            if self.mutant(Mutant::OfferedForgotten) {
                continue;
            }
            match self.tasks.get(&task).map(|entry| entry.place) {
                Some(Place::Prefetched(_, Some(Fate::Cancel))) => {
                    self.resolve(task, Resolution::Cancelled, actions);
                }
                Some(Place::Prefetched(_, Some(Fate::Break))) => {
                    self.resolve(task, Resolution::Broken, actions);
                }
                Some(_) => self.requeue(task),
                None => {}
            }
        }
    }

    // ── Ends ─────────────────────────────────────────────────────────────────

    pub(super) fn cancel(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        let Some(entry) = self.tasks.get(&task) else { return };
        match entry.place {
            Place::Queued | Place::Delayed(_) => {
                self.queue.remove(task, entry);
                self.resolve(task, Resolution::Cancelled, actions);
            }
            Place::Prefetched(..) => {
                self.revoke(task, Fate::Cancel, actions);
            }
            Place::Running(_) if self.mutant(Mutant::RunningCancelled) => {
                self.resolve(task, Resolution::Cancelled, actions);
            }
            Place::Running(_) => {
                if let Some(entry) = self.tasks.get_mut(&task) {
                    entry.discard_rest = true;
                }
            }
        }
    }

    pub(super) fn abort(&mut self, task: TaskId, now: Now, actions: &mut Vec<Action>) {
        let Some(entry) = self.tasks.get_mut(&task) else { return };
        // This task has no other attempt; and if it turns out to have begun, it is stopped when we hear of that.
        entry.abort = true;
        match entry.place {
            Place::Running(slot) => self.stop(slot, StopReason::Abort, now, actions),
            _ => self.cancel(task, actions),
        }
    }

    /// Interrupts what runs in the slot, once; the grace period starts, which is none for a task that is
    /// uninterruptible. What waits behind it is asked back, since the worker may have to be killed.
    pub(super) fn stop(&mut self, slot: usize, why: StopReason, now: Now, actions: &mut Vec<Action>) {
        let uninterruptible =
            |task: TaskId| self.tasks.get(&task).is_some_and(|entry| entry.spec.uninterruptible);
        let grace = match self.slots[slot].state.task().is_some_and(uninterruptible) {
            true => Duration::ZERO,
            false => self.config.grace,
        };
        let kill_at = now.saturating_add(grace);
        let worker = self.slots[slot].key(slot);
        if let SlotState::Busy { task, deadline, look_at, stop: stop @ None, .. } =
            &mut self.slots[slot].state
        {
            *stop = Some(why);
            *deadline = Some(kill_at);
            *look_at = None;
            actions.push(Action::Interrupt { worker, task: *task });
            for index in 0..self.slots[slot].behind.len() {
                self.revoke(self.slots[slot].behind[index], Fate::Requeue, actions);
            }
        }
    }

    /// The worker has begun what stands behind a task that is to stop: it has ended that one, and says so
    /// any moment. A kill would hit the wrong one.
    fn extend_grace(&mut self, slot: usize, now: Now) {
        let patient = now.saturating_add(self.config.grace);
        if let SlotState::Busy { deadline: Some(deadline), stop: Some(_), .. } = &mut self.slots[slot].state {
            *deadline = patient.max(*deadline);
        }
    }

    pub(super) fn done(
        &mut self,
        worker: WorkerKey,
        task: TaskId,
        report: RunReport,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(slot) = self.live(worker) else { return };
        match self.slots[slot].state {
            // An interrupt that nobody sent cannot have been heeded, but a worker stops a task by itself at its limit
            // of CPU time.
            SlotState::Busy { task: held, stop, .. }
                if held == task && (stop.is_some() || !report.interrupted || self.is_over(task, &report)) =>
            {
                self.crashes = 0;
                self.slots[slot].answered += 1;
                if stop.is_none() {
                    self.typical.learn(report.ran);
                    self.has_ended_in(report.ran);
                }
                let is_over = self.is_over(task, &report);
                let how = match stop {
                    Some(reason) if report.interrupted => reason.stopped(),
                    // The task ended by itself, but had used more than its limit.
                    _ if is_over => Resolution::Overspent { killed: false },
                    _ => Resolution::Completed,
                };
                match how {
                    Resolution::Completed if report.unfinished => self.put_back(task, actions),
                    how => self.ended(task, how, now, actions),
                }
                self.proceed(slot, &report, now, actions);
            }
            // The answer was under way when the kill was decided, so it counts.
            SlotState::Killed { task: Some((held, reason)) } if held == task => {
                self.set_state(slot, SlotState::Killed { task: None });
                match report.interrupted {
                    true => self.ended(task, reason.stopped(), now, actions),
                    false if self.is_over(task, &report) => {
                        self.ended(task, Resolution::Overspent { killed: false }, now, actions);
                    }
                    false if report.unfinished => self.put_back(task, actions),
                    false => self.ended(task, Resolution::Completed, now, actions),
                }
            }
            SlotState::Killed { .. } => {
                let is_next = self.slots[slot].behind.front() == Some(&task);
                if is_next && !report.interrupted {
                    self.slots[slot].behind.pop_front();
                    self.note_begun(worker, task, actions);
                    match report.unfinished {
                        true => self.put_back(task, actions),
                        false => self.resolve(task, Resolution::Completed, actions),
                    }
                }
            }
            // The worker's lie has been found out already.
            SlotState::Faulty { .. } => {}
            // The worker was asked to end, and answered still: what it ran is resolved.
            SlotState::Retiring { .. } if self.killed => {}
            _ => self.kill_faulty(slot, KillReason::Violation, actions),
        }
    }

    /// The worker goes on: to the next of its tasks, to rest, or away.
    fn proceed(&mut self, slot: usize, report: &RunReport, now: Now, actions: &mut Vec<Action>) {
        let is_due = self.is_due(slot, report, now);
        let next = self.slots[slot].behind.pop_front().filter(|_| !self.mutant(Mutant::NextForgotten));
        match next {
            Some(task) => {
                self.begin(slot, task, now, actions);
                if !is_due {
                    self.prefetch(slot, now, actions);
                }
            }
            None => self.rest(slot, is_due, now),
        }
    }

    /// An attempt is over: the task is resolved, or waits for the next.
    pub(super) fn ended(&mut self, task: TaskId, how: Resolution, now: Now, actions: &mut Vec<Action>) {
        let Some(entry) = self.tasks.get_mut(&task) else { return };
        let retry = entry.spec.retry;
        let again = match how {
            Resolution::Died { .. } => true,
            Resolution::TimedOut { .. } | Resolution::Overspent { .. } => retry.on_timeout,
            _ => false,
        };
        if !again || entry.attempts >= retry.attempts_max || entry.abort || self.broken {
            return self.resolve(task, how, actions);
        }
        let doublings = entry.attempts.saturating_sub(1).min(30);
        let until = now.saturating_add(retry.backoff.saturating_mul(1 << doublings));
        entry.move_to(Place::Delayed(until), &mut self.recalled);
        let is_forgone = entry.discard_rest && retry == Retry::OF_A_BATCH;
        self.queue.delay(task, until);
        actions.push(Action::Retry { task, how });
        if is_forgone {
            self.cancel(task, actions);
        }
    }

    /// The pool is broken: everything that waits ends, and what was prefetched is asked whether it
    /// has begun.
    pub(super) fn break_waiting(&mut self, actions: &mut Vec<Action>) {
        for task in self.queue.drain() {
            self.resolve(task, Resolution::Broken, actions);
        }
        let prefetched: Vec<_> = self.slots.iter().flat_map(|slot| slot.behind.iter().copied()).collect();
        for task in prefetched {
            self.revoke(task, Fate::Break, actions);
        }
    }

    /// Cancels each task that waits.
    pub(super) fn cancel_waiting(&mut self, actions: &mut Vec<Action>) {
        for task in self.queue.drain() {
            self.resolve(task, Resolution::Cancelled, actions);
        }
        let prefetched: Vec<_> = self.slots.iter().flat_map(|slot| slot.behind.iter().copied()).collect();
        for task in prefetched {
            self.cancel(task, actions);
        }
    }

    pub(super) fn resolve(&mut self, task: TaskId, how: Resolution, actions: &mut Vec<Action>) {
        if self.mutant(Mutant::ResolvedTwice) && self.tasks.contains_key(&task) {
            actions.push(Action::Resolve { task, how });
        }
        if let Some(entry) = self.tasks.remove(&task) {
            self.resolved += 1;
            self.more -= entry.spec.more;
            self.recalled -= usize::from(entry.place.is_recalled());
            actions.push(Action::Resolve { task, how });
        }
    }

    /// Returns whether the pool accepts nothing more and has nothing left to hand out.
    pub(super) fn is_drained(&self) -> bool {
        self.mode == Mode::Closing && self.queue.len() == 0
    }
}
// edit
