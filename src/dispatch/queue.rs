//! The tasks that wait for a worker: by priority, then by age. And those that wait for a
//! time, between two attempts.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::{Entry, Now, Place};
use crate::task::TaskId;

/// Ids grow, so their order is the order of submission; a task that comes back finds its
/// old place.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: BTreeSet<(Reverse<i32>, TaskId)>,
    delayed: BTreeSet<(Now, TaskId)>,
}

impl Queue {
    /// Waiting tasks, the delayed ones included.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.delayed.len()
    }

    /// Tasks that a worker could take now.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn push(&mut self, task: TaskId, priority: i32) {
        self.ready.insert((Reverse(priority), task));
    }

    pub(super) fn delay(&mut self, task: TaskId, until: Now) {
        self.delayed.insert((until, task));
    }

    pub(super) fn first(&self) -> Option<TaskId> {
        self.ready.first().map(|&(_, task)| task)
    }

    pub(super) fn pop(&mut self) -> Option<TaskId> {
        self.ready.pop_first().map(|(_, task)| task)
    }

    /// Takes a waiting task out; `false` if it does not wait.
    pub(super) fn remove(&mut self, task: TaskId, entry: &Entry) -> bool {
        match entry.place {
            Place::Pending => self.ready.remove(&(Reverse(entry.spec.priority), task)),
            Place::Delayed(until) => self.delayed.remove(&(until, task)),
            Place::Offered(..) | Place::Running(_) => false,
        }
    }

    /// When the next delayed task is to be released.
    pub(super) fn next_due(&self) -> Option<Now> {
        self.delayed.first().map(|&(until, _)| until)
    }

    /// Lets go the delayed tasks whose time has come.
    pub(super) fn release(&mut self, now: Now, tasks: &mut HashMap<TaskId, Entry>) {
        while let Some(&(until, task)) = self.delayed.first() {
            if until > now {
                break;
            }
            self.delayed.pop_first();
            if let Some(entry) = tasks.get_mut(&task) {
                entry.place = Place::Pending;
                self.push(task, entry.spec.priority);
            }
        }
    }

    /// Takes everything out, in order.
    pub(super) fn drain(&mut self) -> Vec<TaskId> {
        let ready = std::mem::take(&mut self.ready).into_iter().map(|(_, task)| task);
        let delayed = std::mem::take(&mut self.delayed).into_iter().map(|(_, task)| task);
        ready.chain(delayed).collect()
    }
}
