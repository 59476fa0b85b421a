//! A set of descriptors that one thread waits for, each under a name of the caller's: what is ready is asked for by
//! name, so that no index has to be kept in step with what happens to be watched.
//!
//! A wait that a signal interrupts ends with nothing ready. It is not taken up again, since the timeout is the pool's
//! timer and each caller looks anew how long it may wait.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

/// The descriptors of one wait. It is made anew for each one, as descriptors come and go in between.
pub(super) struct PollSet<'fd, N> {
    fds: Vec<PollFd<'fd>>,
    names: Vec<N>,
}

impl<'fd, N: Copy + PartialEq> PollSet<'fd, N> {
    pub(super) fn new() -> Self {
        PollSet { fds: Vec::new(), names: Vec::new() }
    }

    /// Waits for this descriptor as well. Several may have the same name.
    pub(super) fn watch(&mut self, name: N, fd: BorrowedFd<'fd>) {
        self.fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        self.names.push(name);
    }

    /// Waits until a descriptor can be read or its other end is gone, or for as long as the timeout (`None`: for ever).
    pub(super) fn wait(mut self, timeout: Option<Duration>) -> Ready<N> {
        if !poll(&mut self.fds, timeout) {
            return Ready(Vec::new());
        }
        let mut is_ready = self.fds.iter().map(|fd| !fd.revents().is_empty());
        self.names.retain(|_| is_ready.next() == Some(true));
        Ready(self.names)
    }
}

/// The names of the descriptors that were ready, in the order in which they were added.
#[derive(Debug)]
pub(super) struct Ready<N>(Vec<N>);

impl<N: Copy + PartialEq> Ready<N> {
    pub(super) fn has(&self, name: N) -> bool {
        self.0.contains(&name)
    }

    pub(super) fn names(&self) -> impl DoubleEndedIterator<Item = N> {
        self.0.iter().copied()
    }
}

/// Returns whether one descriptor is ready, or becomes so within this time.
pub(super) fn is_ready(fd: impl AsFd, within: Duration) -> bool {
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(within))
}

/// Returns whether any descriptor is ready.
fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> bool {
    // A timeout that the system cannot represent is beyond all time.
    let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
    rustix::event::poll(fds, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ready_is_told_by_name_and_a_closed_end_is_ready() {
        let [(quiet, _open), (written, end), (closed, _)] =
            [(); 3].map(|()| rustix::pipe::pipe().expect("a pipe"));
        rustix::io::write(&end, b"x").expect("writes");
        let mut set = PollSet::new();
        for (name, fd) in [("quiet", &quiet), ("written", &written), ("closed", &closed)] {
            set.watch(name, fd.as_fd());
        }
        let ready = set.wait(None);
        assert_eq!(ready.names().collect::<Vec<_>>(), ["written", "closed"]);
        assert!(ready.has("closed") && !ready.has("quiet"));
        assert!(is_ready(&written, Duration::ZERO) && !is_ready(&quiet, Duration::from_millis(1)));
    }

    #[test]
    fn a_wait_ends_with_its_timeout() {
        let (quiet, _open) = rustix::pipe::pipe().expect("a pipe");
        let mut set = PollSet::new();
        set.watch((), quiet.as_fd());
        assert!(!set.wait(Some(Duration::from_millis(1))).has(()));
    }
}
