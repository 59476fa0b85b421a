//! The stream of a pool's events.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Pool;
use crate::fork::OfProcess;
use crate::host::Subscription;
use crate::observe::PoolEvent;

/// The events of a pool, in order: an iterator that waits for the next event and ends after
/// [`EventKind::Stopped`](crate::event::EventKind::Stopped). It does not keep the pool alive. In a process that was forked from
/// the pool's it has ended.
pub struct Events(Option<OfProcess<Subscription>>);

impl Pool {
    /// Asks each task that runs where it is, and does not wait: the answers come as log records of the target
    /// `wasmpool::stack`, each with its task, within milliseconds, and count for its log limit. Tasks go on
    /// meanwhile. One that waits in a host call or has ended meanwhile does not answer.
    pub fn sample(&self) {
        if let Some(core) = self.core() {
            core.links().iter().for_each(|link| link.sample_at_hand());
        }
    }
}

impl Events {
    pub(super) fn new(subscription: Subscription) -> Self {
        Events(Some(OfProcess::new(subscription)))
    }

    /// Makes events that have ended, for a process that was forked from the pool's.
    pub(super) fn none() -> Self {
        Events(None)
    }

    fn here(&self) -> Option<&Subscription> {
        self.0.as_ref()?.here()
    }

    /// The next event, if there is one now.
    pub fn try_next(&mut self) -> Option<PoolEvent> {
        self.here()?.queue.try_recv().ok()
    }

    /// The next event, if it comes within `timeout`.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<PoolEvent> {
        self.here()?.queue.recv_timeout(timeout).ok()
    }

    /// Events that were dropped because the buffer was full.
    pub fn dropped(&self) -> u64 {
        self.here().map_or(0, |here| here.dropped.load(Ordering::Relaxed))
    }
}

impl Iterator for Events {
    type Item = PoolEvent;

    fn next(&mut self) -> Option<PoolEvent> {
        self.here()?.queue.recv().ok()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.here().map_or(0, |here| here.queue.len());
        write!(f, "Events({waiting} waiting, {} dropped)", self.dropped())
    }
}
