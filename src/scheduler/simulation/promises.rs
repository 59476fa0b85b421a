//! The promises about time and order that the world holds the scheduler to: nobody is bypassed for long, and no task runs
//! longer than it may.

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
