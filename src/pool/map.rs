//! `map`: many inputs, a bounded look-ahead, results in input order or as they come.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::Pool;
use crate::error::{SubmitError, TaskFailure};
use crate::future::TaskFuture;
use crate::module::Callable;
use crate::task::TaskOptions;

/// Inputs pulled ahead of the results, unless set: enough to keep many workers busy.
const BUFFER_SIZE: usize = 1024;

/// Why one item of a [`Map`] has no result. The others go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// It could not be submitted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It failed.
    #[error(transparent)]
    Task(#[from] TaskFailure),
    /// The time of the whole map ran out; nothing follows.
    #[error("the map was not done within {limit:?}")]
    Timeout {
        /// [`Map::timeout`].
        limit: Duration,
    },
}

/// The inputs, and how they are submitted.
struct Source<C, I> {
    pool: Pool,
    task: C,
    inputs: I,
    options: TaskOptions,
    buffer_size: usize,
    /// Items that go to one worker together; `None` leaves it to the pool.
    chunk_size: Option<NonZeroUsize>,
    /// Number of the chunk at hand, and what is still missing in it.
    chunk: (u64, usize),
    exhausted: bool,
    began: Instant,
    timeout: Option<Duration>,
    /// Inputs were left when the time ran out.
    late: bool,
    timed_out: bool,
}

impl<C, I> Source<C, I>
where
    C: Callable,
    I: Iterator<Item = C::Input>,
{
    /// Whether there may be another input, and time for it.
    fn is_open(&self) -> bool {
        !self.exhausted && !self.late
    }

    /// Submits the next input, if there is one, and waits for room in the queue.
    fn pull(&mut self) -> Option<Result<TaskFuture<C::Output>, SubmitError>> {
        let deadline = self.deadline();
        let is_over = || deadline.is_some_and(|deadline| deadline <= Instant::now());
        if is_over() {
            self.late = true;
            return None;
        }
        let Some(input) = self.inputs.next() else {
            self.exhausted = true;
            return None;
        };
        if let Some(size) = self.chunk_size {
            if self.chunk.1 == 0 {
                self.chunk = (self.pool.0.core.new_chunk(), size.get());
            }
            self.chunk.1 -= 1;
        }
        let submitted = self.pool.submit_in(&self.task, &input, self.options.clone(), self.chunk.0, deadline);
        if matches!(submitted, Err(SubmitError::QueueFull { .. })) && is_over() {
            self.late = true;
            return None;
        }
        Some(submitted)
    }

    fn deadline(&self) -> Option<Instant> {
        self.timeout.and_then(|timeout| self.began.checked_add(timeout))
    }

    fn time_out(&mut self) -> MapError {
        self.timed_out = true;
        MapError::Timeout { limit: self.timeout.unwrap_or_default() }
    }
}

/// Inputs that are pulled for one result even if that result is there already: so the
/// look-ahead grows to its size while nobody waits for it.
const PULLED_AT_LEAST: usize = 2;

/// The iterator of [`Pool::map`]. Submits as it is pulled; dropping it cancels what does
/// not run yet.
pub struct Map<C: Callable, I> {
    /// First, so that it is cancelled before what may be the pool's last handle goes.
    ahead: Ahead<C::Output>,
    source: Source<C, I>,
}

/// What has been submitted and not yielded; cancelled when dropped.
struct Ahead<O>(VecDeque<Result<TaskFuture<O>, SubmitError>>);

impl<O> Drop for Ahead<O> {
    fn drop(&mut self) {
        for future in self.0.drain(..).flatten() {
            future.cancel();
        }
    }
}

impl<C, I> Map<C, I>
where
    C: Callable,
    I: Iterator<Item = C::Input>,
{
    pub(super) fn new(pool: Pool, task: C, inputs: I) -> Self {
        let source = Source {
            pool,
            task,
            inputs,
            options: TaskOptions::new(),
            buffer_size: BUFFER_SIZE,
            chunk_size: None,
            chunk: (0, 0),
            exhausted: false,
            began: Instant::now(),
            timeout: None,
            late: false,
            timed_out: false,
        };
        Map { source, ahead: Ahead(VecDeque::new()) }
    }

    /// Most inputs that are pulled ahead of the results. Default 1024.
    pub fn buffer_size(mut self, items: NonZeroUsize) -> Self {
        self.source.buffer_size = items.get();
        self
    }

    /// So many consecutive items go to one worker together, unless another has nothing to do.
    /// Each is still a task of its own, with its own instance, limits, error and report. Bounded by
    /// [`PoolBuilder::prefetch_max`](crate::PoolBuilder::prefetch_max).
    /// Default: by how long the pool's tasks take.
    pub fn chunk_size(mut self, items: NonZeroUsize) -> Self {
        self.source.chunk_size = Some(items);
        self
    }

    /// Options of each task.
    pub fn options(mut self, options: TaskOptions) -> Self {
        self.source.options = options;
        self
    }

    /// How long the whole may take, counted from the call of [`Pool::map`]. After that nothing more
    /// is pulled, what is done is still yielded, in its order, then one [`MapError::Timeout`], then
    /// nothing.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.source.timeout = Some(timeout);
        self
    }

    /// Yields results as they come, each with the number of its input, from 0.
    pub fn unordered(self) -> UnorderedMap<C, I> {
        let (sender, finished) = unbounded();
        let Map { source, mut ahead } = self;
        let (unordered, refused) = (HashMap::new(), VecDeque::new());
        let mut map = UnorderedMap { source, ahead: unordered, pulled: 0, refused, sender, finished };
        // It may have been pulled from already: what it has goes on there.
        ahead.0.drain(..).for_each(|submitted| map.adopt(submitted));
        map
    }

    /// Pulls until the first result is there or the look-ahead is full.
    fn fill(&mut self) {
        let mut pulled = 0;
        while self.source.is_open() && self.ahead.0.len() < self.source.buffer_size {
            let is_ready = match self.ahead.0.front() {
                Some(Ok(future)) => future.done(),
                Some(Err(_)) => true,
                None => false,
            };
            if is_ready && pulled >= PULLED_AT_LEAST {
                return;
            }
            self.ahead.0.extend(self.source.pull());
            pulled += 1;
        }
    }
}

impl<C, I> Iterator for Map<C, I>
where
    C: Callable,
    I: Iterator<Item = C::Input>,
{
    type Item = Result<C::Output, MapError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.source.timed_out {
            return None;
        }
        self.fill();
        let deadline = self.source.deadline();
        let future = match self.ahead.0.front() {
            None if self.source.late => return Some(Err(self.source.time_out())),
            None => return None,
            Some(Ok(future)) => future,
            Some(Err(_)) => return self.ahead.0.pop_front()?.err().map(|error| Err(MapError::Submit(error))),
        };
        let Some(result) = future.result_until(deadline) else {
            return Some(Err(self.source.time_out()));
        };
        self.ahead.0.pop_front();
        Some(result.map_err(MapError::Task))
    }
}

impl<C: Callable, I> fmt::Debug for Map<C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} ahead of at most {})", self.ahead.0.len(), self.source.buffer_size)
    }
}

/// The iterator of [`Map::unordered`]: pairs of an input's number and its result. Dropping it
/// cancels what does not run yet.
pub struct UnorderedMap<C: Callable, I> {
    source: Source<C, I>,
    ahead: HashMap<usize, TaskFuture<C::Output>>,
    pulled: usize,
    refused: VecDeque<(usize, SubmitError)>,
    sender: Sender<usize>,
    finished: Receiver<usize>,
}

impl<C, I> Iterator for UnorderedMap<C, I>
where
    C: Callable,
    I: Iterator<Item = C::Input>,
{
    type Item = (usize, Result<C::Output, MapError>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.source.timed_out {
            return None;
        }
        let mut pulled = 0;
        loop {
            let may_pull = self.source.is_open() && self.ahead.len() < self.source.buffer_size;
            if may_pull && pulled < PULLED_AT_LEAST {
                self.pull();
                pulled += 1;
                continue;
            }
            if let Some((number, error)) = self.refused.pop_front() {
                return Some((number, Err(MapError::Submit(error))));
            }
            let number = match self.finished.try_recv() {
                Ok(number) => number,
                Err(_) if may_pull => {
                    self.pull();
                    continue;
                }
                Err(_) if self.ahead.is_empty() && self.source.late => {
                    return Some((self.pulled, Err(self.source.time_out())));
                }
                Err(_) if self.ahead.is_empty() => return None,
                Err(_) => match self.source.deadline() {
                    None => self.finished.recv().ok()?,
                    Some(deadline) => match self.finished.recv_deadline(deadline) {
                        Ok(number) => number,
                        Err(_) => return Some((self.pulled, Err(self.source.time_out()))),
                    },
                },
            };
            let Some(future) = self.ahead.remove(&number) else { continue };
            return Some((number, future.result().map_err(MapError::Task)));
        }
    }
}

impl<C, I> UnorderedMap<C, I>
where
    C: Callable,
    I: Iterator<Item = C::Input>,
{
    fn pull(&mut self) {
        if let Some(submitted) = self.source.pull() {
            self.adopt(submitted);
        }
    }

    fn adopt(&mut self, submitted: Result<TaskFuture<C::Output>, SubmitError>) {
        let number = self.pulled;
        self.pulled += 1;
        match submitted {
            Ok(future) => {
                future.cell.watch(&self.sender, number);
                self.ahead.insert(number, future);
            }
            Err(error) => self.refused.push_back((number, error)),
        }
    }
}

impl<C: Callable, I> Drop for UnorderedMap<C, I> {
    fn drop(&mut self) {
        for future in self.ahead.values() {
            future.cancel();
        }
    }
}

impl<C: Callable, I> fmt::Debug for UnorderedMap<C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnorderedMap({} ahead of at most {})", self.ahead.len(), self.source.buffer_size)
    }
}
