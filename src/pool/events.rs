//! The stream of a pool's events.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Pool;
use crate::host::Subscription;
use crate::observe::PoolEvent;

/// What happens in a pool, in order: an iterator that waits for the next event and ends after
/// [`EventKind::Stopped`](crate::EventKind::Stopped). It does not keep the pool alive.
pub struct Events(Subscription);

impl Pool {
    /// Asks each task that runs where it is, and does not wait: the answers come as log records of the target
    /// `wasmpool::stack`, each with its task, within milliseconds, and count for its log limit. Tasks go on
    /// meanwhile. One that waits in a host call, is compiled without checks
    /// ([`Interrupt::Kill`](crate::Interrupt::Kill)), or has ended meanwhile does not answer.
    pub fn sample(&self) {
        self.0.core.links().iter().for_each(|link| link.sample_at_hand());
    }
}

impl Events {
    pub(super) fn new(subscription: Subscription) -> Self {
        Events(subscription)
    }

    /// The next event, if there is one now.
    pub fn try_next(&mut self) -> Option<PoolEvent> {
        self.0.queue.try_recv().ok()
    }

    /// The next event, if it comes within `timeout`.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<PoolEvent> {
        self.0.queue.recv_timeout(timeout).ok()
    }

    /// Events that were dropped because the buffer was full.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Iterator for Events {
    type Item = PoolEvent;

    fn next(&mut self) -> Option<PoolEvent> {
        self.0.queue.recv().ok()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({} waiting, {} dropped)", self.0.queue.len(), self.dropped())
    }
}
