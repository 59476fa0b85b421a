//! An unbounded channel, modelled: it has what the library asks of crossbeam's, with crossbeam's own errors.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crossbeam_channel::{RecvError, RecvTimeoutError, SendError, TryRecvError};

use super::{Condvar, Mutex, MutexGuard};

#[derive(Debug)]
pub struct Sender<T>(Arc<Channel<T>>);

#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Channel<T>>);

struct Channel<T> {
    state: Mutex<State<T>>,
    /// There is something to be received, or the last sender is gone.
    arrived: Condvar,
}

struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    has_receiver: bool,
}

pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { queue: VecDeque::new(), senders: 1, has_receiver: true };
    let channel = Arc::new(Channel { state: Mutex::new(state), arrived: Condvar::new() });
    (Sender(channel.clone()), Receiver(channel))
}

impl<T> Channel<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut state = self.0.lock();
        if !state.has_receiver {
            return Err(SendError(value));
        }
        state.queue.push_back(value);
        drop(state);
        self.0.arrived.notify_all();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        let is_last = state.senders == 0;
        drop(state);
        if is_last {
            self.0.arrived.notify_all();
        }
    }
}

impl<T> Receiver<T> {
    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        let mut state = self.0.lock();
        loop {
            if let Some(value) = state.queue.pop_front() {
                return Ok(value);
            }
            if state.senders == 0 {
                return Err(RecvError);
            }
            state = self.0.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = self.0.lock();
        let is_open = state.senders > 0;
        let end = if is_open { TryRecvError::Empty } else { TryRecvError::Disconnected };
        state.queue.pop_front().ok_or(end)
    }

    /// The deadline has passed at once: loom knows no clock.
    pub(crate) fn recv_deadline(&self, _: Instant) -> Result<T, RecvTimeoutError> {
        self.try_recv().map_err(|end| match end {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().queue.is_empty()
    }

    /// Closes the channel; returns the number of what was never received.
    #[cfg(test)]
    pub(crate) fn close(self) -> usize {
        let mut state = self.0.lock();
        state.has_receiver = false;
        std::mem::take(&mut state.queue).len()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_receiver = false;
        let unheard = std::mem::take(&mut state.queue);
        drop(state);
        drop(unheard);
    }
}

impl<T> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel")
    }
}
