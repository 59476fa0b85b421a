//! `map`: many inputs, a bounded look-ahead, results in input order or as they come.
//!
//! The module `feed` pulls the inputs, and `batch` decides what travels together; this is the caller's side.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use super::batch::{Batching, Next, Seen, Submitted};
use super::feed::{End, Feed, Found, Start};
use super::{MapStream, Pool};
use crate::account::{Account, Charge};
use crate::error::MapError;
use crate::fork::OfProcess;
use crate::module::{Callable, InputOf};
use crate::options::TaskOptions;
use crate::sync::{Receiver, Sender, unbounded};

/// The iterator of [`Pool::map`]. Submits as it is pulled; dropping it cancels what does
/// not run yet.
pub struct Map<C: Callable, I> {
    /// First, so that it is cancelled before what may be the pool's last handle goes.
    ahead: Ahead<C::Output>,
    feed: Feed<C, I>,
    pace: Pace,
    timed_out: bool,
}

/// Everything submitted and not yielded, each with the number of its next input. Dropping it closes the map's
/// account first, so that the room given back takes no further input, and then cancels the rest.
struct Ahead<O>(VecDeque<(usize, Submitted<O>)>, Option<OfProcess<Arc<Account>>>);

impl<O> Drop for Ahead<O> {
    fn drop(&mut self) {
        if let Some(account) = self.1.as_ref().and_then(OfProcess::here) {
            account.close();
        }
        self.0.drain(..).for_each(|(_, submitted)| submitted.cancel());
    }
}

/// The estimates that the results so far suggest, and the charge of the last one.
#[derive(Default)]
struct Pace {
    batching: Batching,
    /// The feed was told this size.
    batch_size: Option<usize>,
    /// The charge of the last result. It is given back only when the next result is asked for, so that no
    /// more is pulled ahead than is allowed.
    spent: Option<Arc<Charge>>,
}

impl Pace {
    fn learn<C: Callable, I>(&mut self, seen: Option<Seen>, feed: &Feed<C, I>) {
        self.batching.learn(seen);
        if !self.batching.is_due() {
            return;
        }
        let size = self.batching.size();
        let before = self.batch_size.unwrap_or(1);
        // Small changes are not passed on, since the estimate wavers.
        if size.abs_diff(before) > before / 4 || (size == 1) != (before == 1) {
            self.batch_size = Some(size);
            feed.set_batch_size(size);
        }
    }
}

impl<C: Callable, I> Map<C, I> {
    pub(super) fn new(pool: Pool, task: C, inputs: I, start: Option<Start<C, I>>) -> Self {
        let feed = Feed::new(pool, task, inputs, start);
        let ahead = Ahead(VecDeque::new(), feed.account().map(OfProcess::new));
        Map { ahead, feed, pace: Pace::default(), timed_out: false }
    }

    /// Most inputs that are pulled ahead of the results. Default 1024, or 4096 of tasks that travel in batches.
    #[doc(alias = "buffersize")]
    pub fn buffer_size(mut self, items: NonZeroUsize) -> Self {
        self.feed.change(|plan| plan.buffer_size = Some(items.get()));
        self
    }

    /// This many consecutive items go to one worker together, unless another has nothing to do. Each is still
    /// a task of its own, with its own instance, limits, error and report. It is bounded by
    /// [`PoolBuilder::prefetch_max`](crate::PoolBuilder::prefetch_max).
    ///
    /// By default, tasks that take less than 100 µs travel in batches of up to 1024, each of at most half a
    /// millisecond's work, if the buffer has room for 256. An input waits at most 2 ms for others to travel
    /// with it, whatever the iterator does. The tasks of a batch are pending or run together. One that fails
    /// or times out costs the others nothing; if a worker's process dies, only the task that it was running
    /// is lost. Tasks travel alone while someone listens to [`Pool::events`], in a pool that counts its
    /// workers' tasks ([`recycle_after_tasks`](crate::PoolBuilder::recycle_after_tasks)), and with a
    /// [`Retry`](crate::task::Retry).
    #[doc(alias = "chunksize")]
    pub fn chunk_size(mut self, items: NonZeroUsize) -> Self {
        self.feed.change(|plan| plan.chunk_size = Some(items.get()));
        self
    }

    /// Most bytes that the map holds in this process, instead of
    /// [`PoolBuilder::map_bytes_max`](crate::PoolBuilder::map_bytes_max).
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.feed.change(|plan| plan.bytes_max = Some(bytes));
        self
    }

    /// Options of each task.
    pub fn options(mut self, options: TaskOptions) -> Self {
        self.feed.change(|plan| plan.options = options);
        self
    }

    /// Sets how long the whole map may take, counted from the call of [`Pool::map`]. After that nothing more is
    /// pulled. Results that are there are still yielded in their order, then one [`MapError::Timeout`], then
    /// nothing.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.feed.change(|plan| plan.timeout = Some(timeout));
        self
    }

    /// Yields results as they come, each with the number of its input, from 0.
    pub fn unordered(self) -> UnorderedMap<C, I> {
        let Map { mut ahead, feed, pace, timed_out } = self;
        // The account lives on in the other map, and must not be closed here.
        ahead.1 = None;
        // Inputs may have been pulled already, and must go on in the new map.
        let mut map = UnorderedMap {
            ahead: HashMap::new(),
            feed,
            pace,
            timed_out,
            ready: VecDeque::new(),
            finished: OfProcess::new(unbounded()),
        };
        map.ahead.extend(ahead.0.drain(..).map(|(next, submitted)| (next, (next, submitted))));
        if let Some((sender, _)) = map.finished.here() {
            map.ahead.iter().for_each(|(number, (_, submitted))| submitted.announce(sender, *number));
            map.feed.listen(sender);
        }
        map
    }

    /// The results as a stream, for asynchronous callers under any executor: in input order, or, after
    /// [`unordered`](Self::unordered), as they come.
    ///
    /// ```no_run
    /// use futures::StreamExt as _;
    ///
    /// async fn all(pool: wasmpool::Pool, count: wasmpool::Task<u64, u64>) -> anyhow::Result<()> {
    ///     let mut counts = pool.map(&count, 1..=100).stream()?;
    ///     while let Some(primes) = counts.next().await {
    ///         println!("{}", primes?);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn stream(mut self) -> io::Result<MapStream<Result<C::Output, MapError>>>
    where
        C: 'static,
        C::Output: Send + 'static,
        I: Iterator + Send + 'static,
        I::Item: InputOf<C>,
    {
        let stop = self.feed.stop();
        let name = self.feed.name();
        MapStream::new(self, stop, name, |error| Err(MapError::Submit(error)))
    }

    fn time_out(&mut self) -> MapError {
        self.timed_out = true;
        MapError::Timeout { limit: self.feed.timeout() }
    }
}

impl<C, I> Iterator for Map<C, I>
where
    C: Callable,
    I: Iterator,
    I::Item: InputOf<C>,
{
    type Item = Result<C::Output, MapError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.pace.spent = None;
        if self.timed_out {
            return None;
        }
        loop {
            if self.ahead.0.is_empty() {
                self.ahead.0 = self.feed.take();
            }
            let Some((number, first)) = self.ahead.0.front_mut() else {
                match self.feed.find() {
                    Found::Submitted => continue,
                    Found::End(End::Exhausted) => return None,
                    Found::End(End::Late) => return Some(Err(self.time_out())),
                    Found::Panic(panic) => resume_unwind(panic),
                    Found::Rejected(error) => return Some(Err(MapError::Submit(error))),
                }
            };
            self.feed.keep_up(|| first.is_ready());
            let next = if first.is_ready() {
                Some(first.next(None))
            } else {
                self.feed.wait(|until| match first.next(until) {
                    Next::Late => None,
                    next => Some(next),
                })
            };
            match next {
                Some(Next::Result(result, seen)) => {
                    *number += 1;
                    if first.left() == 0 {
                        self.pace.spent = first.charge();
                        self.ahead.0.pop_front();
                    }
                    self.pace.learn(seen, &self.feed);
                    return Some(result);
                }
                Some(Next::HandedBack(inputs)) => {
                    let again = first.charge().and_then(|charge| self.feed.resubmit(inputs, charge));
                    match again {
                        Some(again) => *first = again,
                        None => return Some(Err(self.time_out())),
                    }
                }
                Some(Next::Late) | None => return Some(Err(self.time_out())),
            }
        }
    }
}

impl<C: Callable, I> fmt::Debug for Map<C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({:?})", self.feed)
    }
}

/// The iterator of [`Map::unordered`]: pairs of an input's number and its result. Dropping it
/// cancels what does not run yet.
pub struct UnorderedMap<C: Callable, I> {
    /// Everything submitted, by the number of its first input, for which its results are announced; with each
    /// goes the number of its first input that has not been yielded.
    ahead: HashMap<usize, (usize, Submitted<C::Output>)>,
    feed: Feed<C, I>,
    pace: Pace,
    timed_out: bool,
    /// Numbers of what has results.
    ready: VecDeque<usize>,
    finished: OfProcess<(Sender<usize>, Receiver<usize>)>,
}

impl<C, I> Iterator for UnorderedMap<C, I>
where
    C: Callable,
    I: Iterator,
    I::Item: InputOf<C>,
{
    type Item = (usize, Result<C::Output, MapError>);

    fn next(&mut self) -> Option<Self::Item> {
        self.pace.spent = None;
        if self.timed_out {
            return None;
        }
        loop {
            if let Some(number) = self.next_ready() {
                match self.take(number) {
                    Some(next) => return Some(next),
                    None => continue,
                }
            }
            if self.ahead.is_empty() {
                self.adopt();
            }
            if self.ahead.is_empty() {
                match self.feed.find() {
                    Found::Submitted => continue,
                    Found::End(End::Exhausted) => return None,
                    Found::End(End::Late) => return Some(self.time_out()),
                    Found::Panic(panic) => resume_unwind(panic),
                    Found::Rejected(error) => return Some((self.feed.count(), Err(MapError::Submit(error)))),
                }
            }
            let Some((_, finished)) = self.finished.here() else { continue };
            self.feed.keep_up(|| !finished.is_empty());
            let number = self.feed.wait(|until| match until {
                None => finished.recv().ok(),
                Some(until) => finished.recv_deadline(until).ok(),
            });
            match number {
                Some(number) => self.ready.push_back(number),
                None => return Some(self.time_out()),
            }
        }
    }
}

impl<C: Callable, I> UnorderedMap<C, I> {
    /// The pairs as a stream, for asynchronous callers: [`Map::stream`].
    ///
    /// # Errors
    /// The system has no thread for it.
    #[expect(clippy::type_complexity, reason = "a stream of numbered results")]
    pub fn stream(mut self) -> io::Result<MapStream<(usize, Result<C::Output, MapError>)>>
    where
        C: 'static,
        C::Output: Send + 'static,
        I: Iterator + Send + 'static,
        I::Item: InputOf<C>,
    {
        let stop = self.feed.stop();
        let name = self.feed.name();
        MapStream::new(self, stop, name, |error| (0, Err(MapError::Submit(error))))
    }

    /// Returns the number of an input that has a result, if there is one.
    fn next_ready(&mut self) -> Option<usize> {
        match self.finished.here() {
            Some((_, finished)) => self.ready.pop_front().or_else(|| finished.try_recv().ok()),
            // In a process that was forked from the map's, all count as done.
            None => self.ahead.keys().min().copied(),
        }
    }

    /// Takes over what was submitted since.
    fn adopt(&mut self) {
        let submitted = self.feed.take().into_iter();
        self.ahead.extend(submitted.map(|(number, submitted)| (number, (number, submitted))));
    }

    /// The next result of what has some.
    fn take(&mut self, number: usize) -> Option<(usize, Result<C::Output, MapError>)> {
        if !self.ahead.contains_key(&number) {
            self.adopt();
        }
        let (at, submitted) = self.ahead.get_mut(&number)?;
        if !submitted.is_ready() {
            return None;
        }
        match submitted.next(None) {
            Next::Result(result, seen) => {
                let taken = *at;
                *at += 1;
                if submitted.left() == 0 {
                    self.pace.spent = submitted.charge();
                    self.ahead.remove(&number);
                } else {
                    self.ready.push_front(number);
                }
                self.pace.learn(seen, &self.feed);
                Some((taken, result))
            }
            Next::HandedBack(inputs) => {
                let again = submitted.charge().and_then(|charge| self.feed.resubmit(inputs, charge));
                match (again, self.finished.here()) {
                    (Some(again), Some((sender, _))) => {
                        again.announce(sender, number);
                        *submitted = again;
                        None
                    }
                    _ => Some(self.time_out()),
                }
            }
            Next::Late => None,
        }
    }

    fn time_out(&mut self) -> (usize, Result<C::Output, MapError>) {
        self.timed_out = true;
        let limit = self.feed.timeout();
        (self.feed.count(), Err(MapError::Timeout { limit }))
    }
}

impl<C: Callable, I> Drop for UnorderedMap<C, I> {
    fn drop(&mut self) {
        if let Some(account) = self.feed.account() {
            account.close();
        }
        self.ahead.drain().for_each(|(_, (_, submitted))| submitted.cancel());
    }
}

impl<C: Callable, I> fmt::Debug for UnorderedMap<C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnorderedMap({:?})", self.feed)
    }
}
