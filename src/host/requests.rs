//! The requests to the supervisor, and the wake-up that comes with each. Whoever asks need not know the supervisor.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::EventfdFlags;

use super::spawn::Child;
use crate::scheduler::WorkerKey;
use proto::refused::calling;

/// A request to the supervisor.
pub(crate) enum SupervisorRequest {
    /// Start this worker.
    Spawn(WorkerKey),
    /// Start a compiler with this socket, and send it back. Its group limits it to `memory_bytes_max`, and
    /// the host kills it if its own pages come to more than `limit_bytes` allows.
    SpawnCompiler {
        socket: OwnedFd,
        memory_bytes_max: u64,
        limit_bytes: u64,
        reply: Sender<io::Result<Child>>,
    },
}

/// Asks the supervisor, and wakes it for that.
#[derive(Debug)]
pub(crate) struct SupervisorHandle {
    requests: Sender<SupervisorRequest>,
    wake: Arc<OwnedFd>,
    /// Hangs up when the supervisor's thread is gone, and with it those that it started.
    pub(crate) gone: OwnedFd,
}

/// The supervisor's end of a [`SupervisorHandle`].
pub(crate) struct SupervisorRequests {
    requests: Receiver<SupervisorRequest>,
    wake: Arc<OwnedFd>,
    /// The other end of [`SupervisorHandle::gone`]: nothing is ever written.
    _here: OwnedFd,
}

/// Makes the two ends.
///
/// # Errors
/// An error of eventfd or pipe.
pub(crate) fn channel() -> io::Result<(SupervisorHandle, SupervisorRequests)> {
    let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let wake = Arc::new(wake.map_err(calling("eventfd"))?);
    let (gone, here) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(calling("pipe"))?;
    let (sender, receiver) = unbounded();
    let handle = SupervisorHandle { requests: sender, wake: wake.clone(), gone };
    Ok((handle, SupervisorRequests { requests: receiver, wake, _here: here }))
}

impl SupervisorHandle {
    pub(crate) fn send(&self, request: SupervisorRequest) {
        // Nobody listens once the pool has stopped; a compiler's `reply` is then dropped.
        let _ = self.requests.send(request);
        self.wake();
    }

    /// Wakes the supervisor, which looks anew how long it may sleep.
    pub(crate) fn wake(&self) {
        // It fails only if the counter is full, and then the supervisor wakes anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl SupervisorRequests {
    /// The descriptor that is readable once something was asked, or the supervisor was woken.
    pub(super) fn wake_fd(&self) -> &OwnedFd {
        &self.wake
    }

    /// Makes the descriptor unreadable until the next wake-up.
    pub(crate) fn clear_wake(&self) {
        let mut count = [0; 8];
        while rustix::io::read(&*self.wake, &mut count).is_ok() {}
    }

    /// Returns whether nothing is asked just now.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Returns the next request, if there is one.
    pub(crate) fn next(&self) -> Option<SupervisorRequest> {
        self.requests.try_recv().ok()
    }
}
