//! The observers of the pool: each has a bounded queue, which is filled without waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::observe::{EventKind, PoolEvent};

/// The sending ends.
#[derive(Default)]
pub(super) struct Observers(Vec<Observer>);

struct Observer {
    queue: Sender<PoolEvent>,
    dropped: Arc<AtomicU64>,
}

/// The receiving end of one observer.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) queue: Receiver<PoolEvent>,
    /// Events that found the queue full.
    pub(crate) dropped: Arc<AtomicU64>,
}

impl Observers {
    pub(super) fn subscribe(&mut self, capacity: usize) -> Subscription {
        let (queue, receiver) = bounded(capacity.max(1));
        let dropped = Arc::new(AtomicU64::new(0));
        self.0.push(Observer { queue, dropped: dropped.clone() });
        Subscription { queue: receiver, dropped }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells everyone, and forgets those who have gone. The event is made only if someone
    /// listens. After the last event the queues end.
    pub(super) fn tell(&mut self, at: Duration, event: impl FnOnce() -> EventKind) {
        if self.0.is_empty() {
            return;
        }
        let kind = event();
        let is_last = kind == EventKind::Stopped;
        self.0.retain(|observer| match observer.queue.try_send(PoolEvent { at, kind: kind.clone() }) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                observer.dropped.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
        if is_last {
            self.0.clear();
        }
    }
}
