//! Each message about a signal is written by a thread of its own, so that nobody waits for a stderr that is not read.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use proto::sync::Lock;

/// The sayings that have begun. Each has a channel, which is disconnected once it is over.
#[derive(Debug)]
pub(super) struct Sayings {
    begun: Mutex<Vec<Receiver<()>>>,
}

impl Sayings {
    pub(super) const fn new() -> Sayings {
        Sayings { begun: Mutex::new(Vec::new()) }
    }

    /// Runs `saying` on another thread. Where no thread can be started, nothing is said.
    pub(super) fn begin(&self, saying: impl FnOnce() + Send + 'static) {
        let (under_way, over) = bounded(0);
        self.begun.hold().push(over);
        let say = move || {
            saying();
            drop(under_way);
        };
        // A thread that does not start drops the closure, and with it the sending half.
        let _ = std::thread::Builder::new().spawn(say);
    }

    /// Waits for at most `patience` until all of what has begun is over. Returns whether it is.
    pub(super) fn finish(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let begun = std::mem::take(&mut *self.begun.hold());
        // Nothing is ever sent.
        begun.iter().all(|over| over.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_waits_for_what_is_being_said_and_not_for_ever() {
        let sayings = Sayings::new();
        assert!(sayings.finish(Duration::ZERO), "nothing was said");
        let (go_on, stuck) = bounded::<()>(1);
        sayings.begin(move || {
            let _ = stuck.recv();
        });
        assert!(!sayings.finish(Duration::from_millis(1)), "a stderr that nobody reads");
        drop(go_on);
        let (said, heard) = bounded(1);
        sayings.begin(move || said.send(()).expect("there is room"));
        assert!(sayings.finish(Duration::from_secs(60)));
        assert_eq!(heard.try_recv(), Ok(()), "it was said before the wait was over");
    }
}
