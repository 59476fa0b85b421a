//! The promises about time and order that the world holds the scheduler to: nobody is bypassed for long, and no task runs
//! longer than it may, and nobody waits for a long task while a worker is idle.

use super::books::ms;
use super::*;

impl World {
    /// The first that waits, if no worker is on the way for it.
    pub(super) fn first_in_line(&self) -> Option<TaskId> {
        let scheduler = &self.scheduler;
        let starting = |slot: &Slot| matches!(slot.state, slot::SlotState::Starting { .. });
        let is_served = scheduler.room() > 0
            || scheduler.slots.iter().any(starting)
            || !matches!(scheduler.mode, Mode::Open | Mode::Closing);
        let ((_, task), _) = scheduler.queue.in_order().next().filter(|_| !is_served)?;
        Some(task)
    }

    /// Nobody is bypassed for long by tasks of other domains, nor by any of lower priority.
    pub(super) fn check_overtaking(&mut self, task: TaskId) {
        let Some(first) = self.first_in_line() else { return };
        let spec = self.tasks[&first].spec;
        let other = self.tasks[&task].spec;
        if spec.domain == other.domain || (other.priority, first) > (spec.priority, task) {
            return;
        }
        assert_eq!(spec.priority, other.priority, "{task} goes before {first}, of higher priority");
        match self.bypassed_since {
            Some((waiting, since)) if waiting == first => {
                let for_long = self.now - since >= limits::OVERTAKEN_MAX;
                assert!(!for_long, "{task} goes before {first}, since {since:?}");
            }
            _ => self.bypassed_since = Some((first, self.now)),
        }
    }

    /// Asserts that nothing waits behind a long task while a worker is idle that could take it, and that a task is
    /// held only while as many workers as there are CPUs come on. A task is long when two ticks have found it so.
    pub(super) fn check_neighbours(&mut self) {
        let scheduler = &self.scheduler;
        if !matches!(scheduler.mode, Mode::Open | Mode::Closing) {
            return;
        }
        let now = self.now;
        assert!(scheduler.look_on_at().is_none_or(|at| at > now), "what was due was not done");
        let long_after = if self.is_contended { wakeups::STEAL_AFTER } else { wakeups::LONG_AFTER };
        let mut come_on = 0;
        for (&worker, process) in &mut self.processes {
            let is_long = |since: Now| now >= since + long_after;
            let has_idle = scheduler.idle.iter().any(|&idle| {
                process
                    .domain
                    .is_some_and(|domain| scheduler.slots[idle].domain.is_none_or(|of| of == domain))
            });
            match process.quiet_at {
                _ if process.running.is_none() || !process.said.is_empty() || !has_idle => {
                    process.moves(now);
                    come_on += usize::from(process.can_work());
                }
                None => {
                    process.quiet_at = is_long(process.quiet_since).then_some(now);
                    come_on += 1;
                }
                Some(at) if is_long(at) => {
                    let is_ours = scheduler.live(worker).is_some() && !process.ending;
                    let waits = process.prefetched.front().filter(|_| is_ours);
                    assert_eq!(
                        waits, None,
                        "it waits behind a long task in {worker:?}, beside an idle worker"
                    );
                }
                Some(_) => come_on += 1,
            }
        }
        let is_held = scheduler.is_held();
        assert!(
            !is_held || come_on >= scheduler.config.cpus,
            "{come_on} workers come on, and a task is held"
        );
    }

    /// Asserts that no task runs longer than its deadline allows, which holds after each tick.
    pub(super) fn check_deadlines(&self) {
        for process in self.processes.values().filter(|process| !process.ending) {
            let Some(task) = process.running else { continue };
            let books = &self.tasks[&task];
            let (Some(began), None) = (books.began, books.resolved) else { continue };
            let late = |since: Now, limit: Duration| self.now > since + limit;
            if let (None, Some(limit)) = (books.interrupted_at, books.spec.cpu_time) {
                assert!(books.used <= limit + ms(2), "{task} outlives its CPU time: {:?}", books.used);
            }
            match (books.interrupted_at, books.spec.timeout) {
                (Some(at), _) => {
                    let grace = if books.spec.uninterruptible { 0 } else { 500 };
                    assert!(!late(at, ms(grace)), "{task} outlives its grace");
                }
                (None, Some(timeout)) => assert!(!late(began, timeout), "{task} outlives its deadline"),
                (None, None) => {}
            }
        }
    }
}
