//! `map`: many inputs, a bounded look-ahead, results in input order or as they come.
//!
//! Tasks that are short travel in batches (`batch`), and share what a task costs on the way.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::Pool;
use super::batch::{Batching, Inputs, Many, Submitted};
use crate::error::{SubmitError, TaskFailure};
use crate::fork::OfProcess;
use crate::host::core::Group;
use crate::module::Callable;
use crate::task::TaskOptions;

/// Inputs pulled ahead of the results, unless set: enough to keep many workers busy.
const BUFFER_SIZE: usize = 1024;

/// The same where tasks are so short that they travel together: several batches of them.
const BUFFER_SIZE_BATCHED: usize = 4096;

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
struct Source<C: Callable, I> {
    pool: Pool,
    task: C,
    inputs: I,
    options: TaskOptions,
    /// Unless that is left to us.
    buffer_size: Option<usize>,
    /// Items that go to one worker together; `None` leaves it to the pool.
    chunk_size: Option<NonZeroUsize>,
    /// Number of the chunk at hand, and what is still missing in it.
    chunk: (u64, usize),
    batching: Batching,
    /// Most that travel together; 1 if they may not. Asked of the pool once a pull.
    share: usize,
    /// Inputs that were pulled and are not submitted. They stay here while more are pulled: an iterator
    /// that panics loses none of them.
    batch: Inputs,
    /// The input after those, which goes alone: it did not fit.
    held: Option<C::Input>,
    exhausted: bool,
    began: Instant,
    timeout: Option<Duration>,
    /// Inputs were left when the time ran out.
    late: bool,
    timed_out: bool,
}

impl<C: Callable, I> Source<C, I> {
    /// Most inputs that are pulled ahead of the results.
    fn buffer_size(&self) -> usize {
        let usual = if self.batching.size() > 1 { BUFFER_SIZE_BATCHED } else { BUFFER_SIZE };
        self.buffer_size.unwrap_or(usual)
    }
}

impl<C, I> Source<C, I>
where
    C: Callable,
    I: Iterator<Item = C::Input>,
{
    /// Whether there may be another input, and time for it.
    fn is_open(&self) -> bool {
        (!self.exhausted || self.held.is_some() || self.batch.count() > 0) && !self.late
    }

    /// Submits the next input, or a batch of at most `room`, if there are any; waits for room in the
    /// queue.
    fn pull(&mut self, room: usize) -> Option<Submitted<C::Output>> {
        let deadline = self.deadline();
        let is_over = || deadline.is_some_and(|deadline| deadline <= Instant::now());
        if is_over() {
            self.late = true;
            return None;
        }
        if self.held.is_none() {
            self.gather(room);
        }
        let submitted = match (self.batch.count(), &self.held) {
            (0, None) => return None,
            (0, Some(_)) => {
                let (group, input) = (self.group(), self.held.take()?);
                let submitted =
                    self.pool.submit_in(&self.task, &input, self.options.clone(), group, deadline);
                submitted.map(|future| Submitted::One(Some(future))).map_err(|error| (error, 1))
            }
            (count, _) => {
                let batch = std::mem::take(&mut self.batch);
                let submitted = self.pool.submit_batch(&self.task, batch, self.options.clone(), deadline);
                let many = submitted.map(|future| Submitted::Many(Many::new(future, count)));
                many.map_err(|error| (error, count))
            }
        };
        match submitted {
            Err((SubmitError::QueueFull { .. }, _)) if is_over() => {
                self.late = true;
                None
            }
            Err((error, count)) => Some(Submitted::Refused(error, count)),
            Ok(submitted) => Some(submitted),
        }
    }

    /// Pulls the next inputs: one to go alone, or as many as fit into a batch.
    fn gather(&mut self, room: usize) {
        self.share = self.share();
        let size = self.batch_size(room);
        let began = Instant::now();
        while self.held.is_none() && self.batch.count() < size && !self.exhausted {
            let Some(input) = self.inputs.next() else {
                self.exhausted = true;
                break;
            };
            // What cannot be encoded is told in its own place.
            if size == 1 || !self.batch.push(|bytes| self.task.encode_onto(&input, bytes).is_ok()) {
                self.held = Some(input);
            }
        }
        self.batching.pulled(self.batch.count() + usize::from(self.held.is_some()), began.elapsed());
    }

    /// Most that may travel together now: so that each worker has a batch, and another one waits for it.
    fn share(&self) -> usize {
        let Some(core) = self.pool.core() else { return 1 };
        let may_not = self.chunk_size.is_some() || self.buffer_size() < BATCHED_FROM;
        if may_not || !core.may_batch(&self.options) {
            return 1;
        }
        self.buffer_size() / (2 * core.workers_max())
    }

    /// How many inputs are to travel together next.
    fn batch_size(&self, room: usize) -> usize {
        self.batching.size().min(self.share).min(room).max(1)
    }

    /// Whether the next inputs are to wait: there is room, but not for a whole batch.
    fn holds_back(&self, ahead: usize) -> bool {
        let size = self.buffer_size();
        let room = size.saturating_sub(ahead);
        ahead > 0 && self.held.is_none() && self.batch_size(room) < self.batch_size(size)
    }

    fn group(&mut self) -> Group {
        let Some(size) = self.chunk_size else { return Group::Alone };
        if self.chunk.1 == 0 {
            self.chunk = (self.pool.core().map_or(0, |core| core.new_chunk()), size.get());
        }
        self.chunk.1 -= 1;
        Group::Chunk(self.chunk.0)
    }

    fn deadline(&self) -> Option<Instant> {
        self.timeout.and_then(|timeout| self.began.checked_add(timeout))
    }

    fn time_out(&mut self) -> MapError {
        self.timed_out = true;
        MapError::Timeout { limit: self.timeout.unwrap_or_default() }
    }
}

/// Those who ask for a smaller look-ahead want each input to be submitted as it is pulled.
const BATCHED_FROM: usize = 256;

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
struct Ahead<O> {
    submitted: VecDeque<Submitted<O>>,
    /// Inputs in it.
    items: usize,
}

impl<O> Drop for Ahead<O> {
    fn drop(&mut self) {
        self.submitted.drain(..).for_each(Submitted::cancel);
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
            buffer_size: None,
            chunk_size: None,
            chunk: (0, 0),
            batching: Batching::default(),
            share: 1,
            batch: Inputs::default(),
            held: None,
            exhausted: false,
            began: Instant::now(),
            timeout: None,
            late: false,
            timed_out: false,
        };
        Map { source, ahead: Ahead { submitted: VecDeque::new(), items: 0 } }
    }

    /// Most inputs that are pulled ahead of the results. Default 1024, or 4096 of tasks that travel in batches.
    pub fn buffer_size(mut self, items: NonZeroUsize) -> Self {
        self.source.buffer_size = Some(items.get());
        self
    }

    /// So many consecutive items go to one worker together, unless another has nothing to do.
    /// Each is still a task of its own, with its own instance, limits, error and report. Bounded by
    /// [`PoolBuilder::prefetch_max`](crate::PoolBuilder::prefetch_max).
    /// Default: tasks that take less than 100 µs travel in batches of up to 1024, of at most half a
    /// millisecond's work, where the buffer has room for 256 and the iterator gives its inputs as quickly.
    /// An input waits for those that travel with it; set 1 if the iterator may pause for long. Those of a batch are pending or run
    /// together; one that fails or times out costs the others nothing; and where a worker's process
    /// dies, the one that it was at is lost, as ever. They travel alone while someone listens to
    /// [`Pool::events`], in a pool that counts its workers' tasks
    /// ([`recycle_after_tasks`](crate::PoolBuilder::recycle_after_tasks)), and with a
    /// [`Retry`](crate::Retry).
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
        let Map { source, mut ahead } = self;
        let mut map = UnorderedMap {
            source,
            ahead: HashMap::new(),
            items: 0,
            pulled: 0,
            ready: VecDeque::new(),
            finished: OfProcess::new(unbounded()),
        };
        // It may have been pulled from already: what it has goes on there.
        ahead.submitted.drain(..).for_each(|submitted| map.adopt(submitted));
        map
    }

    /// Pulls until the first result is there or the look-ahead is full.
    fn fill(&mut self) {
        let mut pulled = 0;
        while self.source.is_open()
            && self.ahead.items < self.source.buffer_size()
            && !self.source.holds_back(self.ahead.items)
        {
            if pulled >= PULLED_AT_LEAST && self.ahead.submitted.front().is_some_and(Submitted::is_ready) {
                return;
            }
            let room = self.source.buffer_size().saturating_sub(self.ahead.items);
            if let Some(submitted) = self.source.pull(room) {
                self.ahead.items += submitted.left();
                self.ahead.submitted.push_back(submitted);
            }
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
        let Some(first) = self.ahead.submitted.front_mut() else {
            return self.source.late.then(|| Err(self.source.time_out()));
        };
        let Some((result, run)) = first.next(deadline) else {
            return Some(Err(self.source.time_out()));
        };
        self.source.batching.learn(run);
        self.ahead.items -= 1;
        if first.left() == 0 {
            self.ahead.submitted.pop_front();
        }
        Some(result)
    }
}

impl<C: Callable, I> fmt::Debug for Map<C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} ahead of at most {})", self.ahead.items, self.source.buffer_size())
    }
}

/// The iterator of [`Map::unordered`]: pairs of an input's number and its result. Dropping it
/// cancels what does not run yet.
pub struct UnorderedMap<C: Callable, I> {
    source: Source<C, I>,
    /// By the number of its first input, for which its results are announced; and the number of the
    /// first that has not been yielded.
    ahead: HashMap<usize, (usize, Submitted<C::Output>)>,
    /// Inputs in it.
    items: usize,
    pulled: usize,
    /// Numbers of what has results.
    ready: VecDeque<usize>,
    finished: OfProcess<(Sender<usize>, Receiver<usize>)>,
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
            let may_pull = self.source.is_open()
                && self.items < self.source.buffer_size()
                && !self.source.holds_back(self.items);
            if may_pull && pulled < PULLED_AT_LEAST {
                self.pull();
                pulled += 1;
                continue;
            }
            let number = match self.next_ready() {
                Some(number) => number,
                None if may_pull => {
                    self.pull();
                    continue;
                }
                None if self.ahead.is_empty() && self.source.late => {
                    return Some((self.pulled, Err(self.source.time_out())));
                }
                None if self.ahead.is_empty() => return None,
                None => match self.source.deadline() {
                    None => self.finished.here()?.1.recv().ok()?,
                    Some(deadline) => match self.finished.here()?.1.recv_deadline(deadline) {
                        Ok(number) => number,
                        Err(_) => return Some((self.pulled, Err(self.source.time_out()))),
                    },
                },
            };
            if let Some(next) = self.take(number) {
                return Some(next);
            }
        }
    }
}

impl<C, I> UnorderedMap<C, I>
where
    C: Callable,
    I: Iterator<Item = C::Input>,
{
    /// The number of what has results, if something has.
    fn next_ready(&mut self) -> Option<usize> {
        match self.finished.here() {
            Some((_, finished)) => self.ready.pop_front().or_else(|| finished.try_recv().ok()),
            // In a process that was forked from the map's, all are done.
            None => self.ahead.keys().min().copied(),
        }
    }

    fn pull(&mut self) {
        let room = self.source.buffer_size().saturating_sub(self.items);
        if let Some(submitted) = self.source.pull(room) {
            self.adopt(submitted);
        }
    }

    fn adopt(&mut self, submitted: Submitted<C::Output>) {
        let number = self.pulled;
        self.pulled += submitted.left();
        self.items += submitted.left();
        if let Some((sender, _)) = self.finished.here() {
            submitted.announce(sender, number);
        }
        self.ahead.insert(number, (number, submitted));
    }

    /// The next result of what has some.
    fn take(&mut self, number: usize) -> Option<(usize, Result<C::Output, MapError>)> {
        let (at, submitted) = self.ahead.get_mut(&number)?;
        if !submitted.is_ready() {
            return None;
        }
        let (result, run) = submitted.next(None)?;
        let taken = *at;
        *at += 1;
        self.items -= 1;
        self.source.batching.learn(run);
        match submitted.left() {
            0 => drop(self.ahead.remove(&number)),
            _ => self.ready.push_front(number),
        }
        Some((taken, result))
    }
}

impl<C: Callable, I> Drop for UnorderedMap<C, I> {
    fn drop(&mut self) {
        self.ahead.drain().for_each(|(_, (_, submitted))| submitted.cancel());
    }
}

impl<C: Callable, I> fmt::Debug for UnorderedMap<C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnorderedMap({} ahead of at most {})", self.ahead.len(), self.source.buffer_size())
    }
}
