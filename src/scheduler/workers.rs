//! Decisions about processes: when they start, leave, die, and what their deaths mean.

use super::check::Mutant;
use super::slot::{Slot, SlotState, StopReason};
use super::{
    Action, Fate, KillReason, Mode, Now, OnDeath, Place, Resolution, RetireReason, RunReport, Scheduler,
    WorkerKey,
};
use proto::task::TaskId;

impl Scheduler {
    /// The slot of a worker, unless a later one has taken it.
    pub(super) fn live(&self, worker: WorkerKey) -> Option<usize> {
        let slot = self.slots.get(worker.slot as usize)?;
        let is_this = slot.generation == worker.generation || self.mutant(Mutant::GenerationIgnored);
        (is_this && slot.state != SlotState::Vacant).then_some(worker.slot as usize)
    }

    /// Workers that count towards the bounds: not those that are on their way out.
    pub(super) fn occupied(&self) -> usize {
        match self.are_idle_or_busy() {
            true => self.slots.len() - self.busy.iter().filter(|&&slot| self.slots[slot].draining).count(),
            false => self.slots.iter().filter(|slot| slot.is_occupied()).count(),
        }
    }

    /// Returns whether each slot has a worker that is idle or busy. Then nobody need look at those that are idle, which
    /// may be many.
    pub(super) fn are_idle_or_busy(&self) -> bool {
        self.idle.len() + self.busy.len() == self.slots.len()
    }

    /// Returns how many workers start.
    pub(super) fn starting(&self) -> usize {
        let starts = |slot: &&Slot| matches!(slot.state, SlotState::Starting { .. });
        if self.are_idle_or_busy() { 0 } else { self.slots.iter().filter(starts).count() }
    }

    /// Sets the state of a slot, and keeps the list of the busy ones.
    pub(super) fn set_state(&mut self, slot: usize, state: SlotState) {
        let before = std::mem::replace(&mut self.slots[slot].state, state);
        match (before.is_busy(), state.is_busy()) {
            (false, true) => self.busy.push(slot),
            (true, false) => self.busy.retain(|&busy| busy != slot),
            _ => {}
        }
    }

    pub(super) fn may_shrink(&self) -> bool {
        self.occupied() > self.config.workers_min
    }

    // ── They come ────────────────────────────────────────────────────────────

    /// Returns whether each worker that there may be has a task, and is to go on.
    pub(super) fn are_all_busy(&self) -> bool {
        let is_busy = |slot: &Slot| matches!(slot.state, SlotState::Busy { .. }) && !slot.draining;
        self.slots.len() == self.config.workers_max
            && self.slots.iter().all(is_busy)
            && !self.mutant(Mutant::TooManyWorkers)
    }

    /// Does what [`start_workers`](Self::start_workers) does where there is no room for one.
    pub(super) fn start_none(&mut self) {
        self.start_waits = false;
        self.shortage.is_over();
        self.prestart = 0;
    }

    /// Starts as many workers as there are queued tasks that no starting one will take, and
    /// as many as there are to be in any case.
    pub(super) fn start_workers(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.start_waits = false;
        let starting = self.starting();
        let occupied = self.occupied();
        let max = self.config.workers_max;
        let floor = match self.mode {
            Mode::Open => self.config.workers_min.max(self.prestart).min(max),
            _ => 0,
        };
        let for_tasks = if self.is_held() { 0 } else { self.queue.ready().saturating_sub(starting) };
        let room = max.saturating_sub(occupied) + usize::from(self.mutant(Mutant::TooManyWorkers));
        let wanted = for_tasks.max(floor.saturating_sub(occupied)).min(room);
        if wanted == 0 && starting == 0 {
            self.shortage.is_over();
        }
        if wanted > 0 && now < self.start_at() {
            self.start_waits = !self.mutant(Mutant::ShortageForgotten);
            return;
        }
        self.prestart = 0;
        let wanted = self.tries(wanted, starting);
        // Workers that leave are not counted, but they are processes, too.
        let alive = self.slots.iter().filter(|slot| slot.state != SlotState::Vacant).count();
        for _ in 0..wanted.min((2 * max).saturating_sub(alive)) {
            let vacant = self.slots.iter().position(|slot| slot.state == SlotState::Vacant);
            let index = vacant.unwrap_or_else(|| {
                self.slots.push(Slot::new());
                self.slots.len() - 1
            });
            self.slots[index].begin();
            actions.push(Action::Start { worker: self.slots[index].key(index) });
        }
    }

    /// Returns the time before which no start is tried.
    pub(super) fn start_at(&self) -> Now {
        self.restart_at.max(self.shortage.retry_at())
    }

    pub(super) fn spawned(&mut self, worker: WorkerKey, now: Now) {
        if let Some(slot) = self.live(worker)
            && let SlotState::Starting { deadline } = &mut self.slots[slot].state
        {
            *deadline = Some(now.saturating_add(self.config.start_timeout));
        }
    }

    pub(super) fn ready(&mut self, worker: WorkerKey, now: Now) {
        // A worker that is already `Killed` or `Retiring` may still say that it is ready.
        if let Some(slot) = self.live(worker)
            && matches!(self.slots[slot].state, SlotState::Starting { .. })
        {
            self.set_state(slot, SlotState::Idle { since: now });
            self.slots[slot].ready_at = now;
            self.shortage.has_eased(now);
            self.idle.push(slot);
        }
    }

    // ── They go ──────────────────────────────────────────────────────────────

    /// A worker without a task: it stays, or it leaves.
    pub(super) fn rest(&mut self, slot: usize, is_due: bool, now: Now) {
        self.set_state(slot, SlotState::Idle { since: now });
        if is_due {
            self.retire(slot, RetireReason::Recycled, now);
        } else if self.slots[slot].draining {
            self.retire(slot, RetireReason::Resized, now);
        } else {
            self.idle.push(slot);
        }
    }

    /// Returns whether the worker has run enough tasks, is old enough, or large enough.
    pub(super) fn is_due(&self, slot: usize, report: &RunReport, now: Now) -> bool {
        let slot = &self.slots[slot];
        let recycle = &self.config.recycle;
        let resident_bytes = report.resident_bytes;
        report.is_full
            || recycle.tasks_max.is_some_and(|max| slot.answered >= max)
            || recycle.memory_bytes_max.is_some_and(|max| resident_bytes.is_some_and(|bytes| bytes > max))
            || recycle.age_max.is_some_and(|max| now.saturating_sub(slot.ready_at) > max)
    }

    /// Asks the worker to leave, once what follows from that (a replacement) is under way.
    pub(super) fn retire(&mut self, slot: usize, reason: RetireReason, now: Now) {
        self.set_state(slot, SlotState::Retiring { deadline: now.saturating_add(self.config.grace) });
        self.idle.retain(|&idle| idle != slot);
        self.leaving.push((slot, reason));
    }

    /// The retirements that were decided, after the starts that they made room for.
    pub(super) fn let_go(&mut self, actions: &mut Vec<Action>) {
        for (slot, reason) in std::mem::take(&mut self.leaving) {
            if matches!(self.slots[slot].state, SlotState::Retiring { .. }) {
                actions.push(Action::Retire { worker: self.slots[slot].key(slot), reason });
            }
        }
    }

    /// Has as many stay as there is room for again beside what waits for a slot.
    pub(super) fn keep(&mut self, waiting: usize) {
        let mut room = self.config.workers_max.saturating_sub(self.occupied()).saturating_sub(waiting);
        for slot in self.slots.iter_mut().filter(|slot| slot.draining) {
            if room > 0 && matches!(slot.state, SlotState::Busy { .. }) {
                slot.draining = false;
                room -= 1;
            }
        }
    }

    /// Has as many workers leave as there are too many: idle ones first, then those that
    /// start, then those that run something, once they have.
    pub(super) fn trim(&mut self, now: Now) {
        let mut surplus = self.occupied().saturating_sub(self.config.workers_max);
        while surplus > 0 {
            let starting = |slot: &Slot| matches!(slot.state, SlotState::Starting { .. });
            let busy = |slot: &Slot| matches!(slot.state, SlotState::Busy { .. }) && !slot.draining;
            if let Some(&slot) = self.idle.first() {
                self.retire(slot, RetireReason::Resized, now);
            } else if let Some(slot) = self.slots.iter().position(starting) {
                self.retire(slot, RetireReason::Resized, now);
            } else if let Some(slot) = self.slots.iter().position(busy) {
                self.slots[slot].draining = true;
            } else {
                return;
            }
            surplus -= 1;
        }
    }

    /// Lets idle workers go in a pool that ends, and says when the last process is gone.
    pub(super) fn wind_down(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.is_drained() {
            for slot in 0..self.slots.len() {
                if matches!(self.slots[slot].state, SlotState::Idle { .. } | SlotState::Starting { .. }) {
                    self.retire(slot, RetireReason::PoolEnds, now);
                }
            }
        }
        self.let_go(actions);
        let all_gone = self.slots.iter().all(|slot| slot.state == SlotState::Vacant)
            || self.mutant(Mutant::StoppedTooEarly);
        if all_gone && self.tasks.is_empty() && self.mode != Mode::Stopped {
            self.mode = Mode::Stopped;
            actions.push(Action::Stopped);
        }
    }

    pub(super) fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        for index in 0..self.slots.len() {
            self.report_slow(index, now, actions);
            self.look(index, now, actions);
            let idle_timeout = self.config.idle_timeout;
            if self.slots[index].deadline(idle_timeout).is_none_or(|deadline| deadline > now) {
                continue;
            }
            let worker = self.slots[index].key(index);
            match self.slots[index].state {
                SlotState::Busy { stop: None, .. } => self.stop(index, StopReason::Timeout, now, actions),
                SlotState::Busy { .. } if self.mutant(Mutant::GraceEndless) => {}
                SlotState::Busy { task, stop: Some(reason), .. } => {
                    self.set_state(index, SlotState::Killed { task: Some((task, reason)) });
                    actions.push(Action::Kill { worker, reason: KillReason::Grace });
                }
                SlotState::Retiring { .. } => {
                    self.set_state(index, SlotState::Killed { task: None });
                    // The worker's slot has been promised to another one.
                    self.slots[index].draining = true;
                    actions.push(Action::Kill { worker, reason: KillReason::Grace });
                }
                SlotState::Starting { .. } => self.kill_faulty(index, KillReason::StartTimeout, actions),
                SlotState::Idle { .. } if self.may_shrink() => self.retire(index, RetireReason::Idle, now),
                SlotState::Vacant
                | SlotState::Idle { .. }
                | SlotState::Killed { .. }
                | SlotState::Faulty { .. } => {}
            }
        }
    }

    /// The worker lied, or never spoke: it is killed, and that is its own fault.
    pub(super) fn kill_faulty(&mut self, slot: usize, reason: KillReason, actions: &mut Vec<Action>) {
        let task = self.slots[slot].state.task();
        self.set_state(slot, SlotState::Faulty { task });
        self.idle.retain(|&idle| idle != slot);
        actions.push(Action::Kill { worker: self.slots[slot].key(slot), reason });
        // Its answers will not count any more, so what it has begun behind that task must be learnt now.
        for index in 0..self.slots[slot].behind.len() {
            self.revoke(self.slots[slot].behind[index], Fate::Requeue, actions);
        }
    }

    fn report_slow(&mut self, index: usize, now: Now, actions: &mut Vec<Action>) {
        let worker = self.slots[index].key(index);
        if let SlotState::Busy { task, slow_at, .. } = &mut self.slots[index].state
            && slow_at.is_some_and(|at| at <= now)
        {
            *slow_at = None;
            actions.push(Action::Slow { worker, task: *task });
        }
    }

    // ── They die ─────────────────────────────────────────────────────────────

    pub(super) fn dead(&mut self, worker: WorkerKey, now: Now, actions: &mut Vec<Action>) {
        let Some(slot) = self.live(worker) else { return };
        let (state, behind) = self.slots[slot].vacate();
        self.busy.retain(|&busy| busy != slot);
        self.shortage.has_room(now);
        let has_begun = |task: &TaskId| {
            matches!(
                self.tasks.get(task).map(|entry| entry.place),
                Some(Place::Prefetched(_, Some(Fate::Begun)))
            )
        };
        let (begun, behind): (Vec<_>, Vec<_>) = behind.into_iter().partition(has_begun);
        self.idle.retain(|&idle| idle != slot);
        self.requeue_all(behind, actions);
        for &task in &begun {
            self.note_begun(worker, task, actions);
        }
        match state {
            SlotState::Vacant | SlotState::Retiring { .. } | SlotState::Killed { task: None } => {}
            // The interrupt or its deadline made the worker fall over: that is the task's end,
            // not the pool's.
            SlotState::Killed { task: Some((task, reason)) }
            | SlotState::Busy { task, stop: Some(reason), .. } => {
                self.ended(task, reason.killed(), now, actions);
            }
            SlotState::Busy { task, stop: None, .. } | SlotState::Faulty { task: Some(task) } => {
                match self.config.on_death {
                    OnDeath::Break => {
                        let in_flight = std::iter::once(task).chain(begun).collect();
                        return self.break_pool(worker, in_flight, actions);
                    }
                    OnDeath::Replace { .. } => {
                        self.ended(task, Resolution::Died { worker }, now, actions);
                    }
                }
            }
            SlotState::Starting { .. } | SlotState::Idle { .. } | SlotState::Faulty { task: None } => {
                self.crashed(worker, now, actions)
            }
        }
        // These tasks had nothing to do with the death, but may have run.
        for task in begun {
            self.ended(task, Resolution::Died { worker }, now, actions);
        }
    }

    /// A death that no task can be blamed for.
    fn crashed(&mut self, worker: WorkerKey, now: Now, actions: &mut Vec<Action>) {
        match self.config.on_death {
            OnDeath::Break => self.break_pool(worker, Vec::new(), actions),
            OnDeath::Replace { crashes_max, backoff, backoff_max } => {
                self.crashes = self.crashes.saturating_add(1);
                if self.crashes > crashes_max && !self.mutant(Mutant::CrashesUnbounded) {
                    return self.break_pool(worker, Vec::new(), actions);
                }
                let doublings = (self.crashes - 1).min(30);
                let pause = backoff.saturating_mul(1 << doublings).min(backoff_max);
                self.restart_at = now.saturating_add(pause);
            }
        }
    }

    fn break_pool(&mut self, worker: WorkerKey, in_flight: Vec<TaskId>, actions: &mut Vec<Action>) {
        self.mode = Mode::Broken;
        self.broken = true;
        actions.push(Action::Break { worker, in_flight: in_flight.clone() });
        for task in in_flight {
            self.resolve(task, Resolution::Broken, actions);
        }
        self.end_all(None, actions);
        self.break_waiting(actions);
    }

    /// Ends every process; what ran there breaks. Gently: with time until the deadline.
    pub(super) fn end_all(&mut self, gently: Option<Now>, actions: &mut Vec<Action>) {
        self.idle.clear();
        self.leaving.clear();
        for index in 0..self.slots.len() {
            let worker = self.slots[index].key(index);
            let begun = |task: &TaskId| {
                self.tasks
                    .get(task)
                    .is_some_and(|entry| entry.place == Place::Prefetched(index, Some(Fate::Begun)))
            };
            let lost: Vec<_> = self.slots[index].behind.iter().copied().filter(begun).collect();
            self.slots[index].behind.retain(|task| !lost.contains(task));
            for task in lost {
                self.note_begun(worker, task, actions);
                self.resolve(task, Resolution::Broken, actions);
            }
            match (self.slots[index].state, gently) {
                (SlotState::Vacant | SlotState::Killed { task: None }, _)
                | (SlotState::Retiring { .. }, Some(_)) => {
                    continue;
                }
                (state, Some(deadline))
                    if !matches!(state, SlotState::Killed { .. } | SlotState::Faulty { .. }) =>
                {
                    self.set_state(index, SlotState::Retiring { deadline });
                    actions.push(Action::Terminate { worker });
                    state.task()
                }
                (state, _) => {
                    self.set_state(index, SlotState::Killed { task: None });
                    actions.push(Action::Kill { worker, reason: KillReason::PoolEnds });
                    state.task()
                }
            }
            .into_iter()
            .for_each(|task| self.resolve(task, Resolution::Broken, actions));
        }
    }
}
