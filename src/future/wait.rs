//! Waiting for many: `wait` and `as_completed`, as in `concurrent.futures`.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::TaskFuture;
use crate::error::TaskError;
use crate::fork::OfProcess;
use crate::id_map::IdSet;
use crate::sync::{Receiver, Sender, unbounded};

/// Room is made at once for so many futures at most.
const ROOM_MAX: usize = 1 << 16;

/// The moment at which [`wait`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ReturnWhen {
    /// Return as soon as one is done; a cancelled one counts as done.
    #[doc(alias = "FIRST_COMPLETED")]
    FirstCompleted,
    /// Return as soon as one has failed, else as with `AllCompleted`. A cancelled one does not count as
    /// failed.
    #[doc(alias = "FIRST_EXCEPTION")]
    FirstException,
    /// It returns when all are done.
    #[default]
    #[doc(alias = "ALL_COMPLETED")]
    AllCompleted,
}

/// The findings of [`wait`], as indices into the futures it was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Waited {
    /// The futures that are done, cancelled ones included.
    pub done: Vec<usize>,
    /// The futures that are not done.
    pub not_done: Vec<usize>,
}

/// Waits for some or all of `futures`, at most for `timeout`. A timeout is not an error:
/// what is not done then is in [`Waited::not_done`]. Takes futures or references to them; the
/// same one given twice is in the answer at both of its places.
pub fn wait<O, F>(futures: &[F], timeout: Option<Duration>, when: ReturnWhen) -> Waited
where
    F: Borrow<TaskFuture<O>>,
{
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let watch = Watch::new(futures.iter().map(Borrow::borrow));
    let mut open: HashSet<usize> = (0..futures.len()).collect();
    while !open.is_empty() {
        let Ok(number) = watch.next(deadline) else { break };
        open.remove(&number);
        let failed = || {
            let result = futures[number].borrow().try_result();
            result.is_some_and(|result| result.is_err_and(|failure| *failure.error() != TaskError::Cancelled))
        };
        let enough = match when {
            ReturnWhen::FirstCompleted => true,
            ReturnWhen::FirstException => failed(),
            ReturnWhen::AllCompleted => false,
        };
        if enough {
            // Futures that are done already belong to the answer, too.
            while let Some(number) = watch.try_next() {
                open.remove(&number);
            }
            break;
        }
    }
    let (not_done, done) = (0..futures.len()).partition(|number| open.contains(number));
    Waited { done, not_done }
}

/// Yields the futures, or the references to them, in the order in which they complete. The same
/// one given twice is yielded once. Nothing is kept of what was yielded.
pub fn as_completed<O, F>(futures: impl IntoIterator<Item = F>) -> AsCompleted<F>
where
    F: Borrow<TaskFuture<O>>,
{
    AsCompleted::new(futures, None)
}

/// Does the same as [`as_completed`], but gives up `timeout` after this call: the iterator then yields one
/// [`AsCompletedTimeout`] and ends.
pub fn as_completed_timeout<O, F>(
    futures: impl IntoIterator<Item = F>,
    timeout: Duration,
) -> impl Iterator<Item = Result<F, AsCompletedTimeout>>
where
    F: Borrow<TaskFuture<O>>,
{
    let mut inner = AsCompleted::new(futures, Instant::now().checked_add(timeout));
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        match inner.step() {
            Ok(next) => next.map(Ok),
            Err(timeout) => {
                over = true;
                Some(Err(timeout))
            }
        }
    })
}

/// The time of [`as_completed_timeout`] ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
#[error("{unfinished} of {total} futures unfinished")]
pub struct AsCompletedTimeout {
    /// The number of futures that are not done.
    pub unfinished: usize,
    /// The number of futures that there were.
    pub total: usize,
}

/// The iterator of [`as_completed`].
pub struct AsCompleted<F> {
    watch: Watch,
    futures: Vec<Option<F>>,
    left: usize,
    deadline: Option<Instant>,
}

impl<F> AsCompleted<F> {
    fn new<O>(futures: impl IntoIterator<Item = F>, deadline: Option<Instant>) -> Self
    where
        F: Borrow<TaskFuture<O>>,
    {
        let futures = futures.into_iter();
        // An iterator may say that it is endless.
        let room = futures.size_hint().0.min(ROOM_MAX);
        let mut seen = IdSet::with_capacity_and_hasher(room, Default::default());
        let futures: Vec<F> = futures.filter(|future| seen.insert(future.borrow().task_key())).collect();
        let watch = Watch::new(futures.iter().map(Borrow::borrow));
        let left = futures.len();
        AsCompleted { watch, futures: futures.into_iter().map(Some).collect(), left, deadline }
    }

    fn step(&mut self) -> Result<Option<F>, AsCompletedTimeout> {
        if self.left == 0 {
            return Ok(None);
        }
        let next = match self.watch.0.here() {
            Some(_) => self.watch.next(self.deadline),
            // In a process that was forked from the waiting one, all futures count as done.
            None => self.futures.iter().position(Option::is_some).ok_or(RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(number) => {
                self.left -= 1;
                Ok(self.futures.get_mut(number).and_then(Option::take))
            }
            Err(_) => Err(AsCompletedTimeout { unfinished: self.left, total: self.futures.len() }),
        }
    }
}

impl<F> Iterator for AsCompleted<F> {
    type Item = F;

    fn next(&mut self) -> Option<Self::Item> {
        // Without a deadline there is no timeout.
        self.step().ok().flatten()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<F> fmt::Debug for AsCompleted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsCompleted({} of {} left)", self.left, self.futures.len())
    }
}

/// Numbers of completed futures, as they complete. Unregisters itself when dropped, so
/// that a `wait` in a loop does not leave a trail in long-lived futures.
struct Watch(OfProcess<Watching>);

struct Watching {
    finished: Receiver<usize>,
    /// Held so that `finished` is never disconnected.
    _sender: Sender<usize>,
    /// Weak: a yielded future must not live on in here.
    registered: Vec<(Weak<super::Cell>, u64)>,
}

impl Watch {
    fn new<'a, O: 'a>(futures: impl Iterator<Item = &'a TaskFuture<O>>) -> Watch {
        let (sender, finished) = unbounded();
        let registered = futures
            .enumerate()
            .filter_map(|(number, future)| {
                let Some(cell) = future.cell() else {
                    // The future is another process's, so it is done. The channel is new and has room.
                    let _ = sender.send(number);
                    return None;
                };
                cell.watch(&sender, number).map(|key| (Arc::downgrade(cell), key))
            })
            .collect();
        Watch(OfProcess::new(Watching { finished, _sender: sender, registered }))
    }

    fn try_next(&self) -> Option<usize> {
        self.0.here()?.finished.try_recv().ok()
    }

    fn next(&self, deadline: Option<Instant>) -> Result<usize, RecvTimeoutError> {
        let watching = self.0.here().ok_or(RecvTimeoutError::Disconnected)?;
        match deadline {
            Some(deadline) => watching.finished.recv_deadline(deadline),
            None => watching.finished.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        for (cell, key) in &self.registered {
            if let Some(cell) = cell.upgrade() {
                cell.unwatch(*key);
            }
        }
    }
}
