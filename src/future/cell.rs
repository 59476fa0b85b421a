//! The cell: filled once, read often. `model.rs` tries every interleaving of those who fill it and those who wait.

#[cfg(all(test, wasmpool_loom))]
mod model;

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::error::{BrokenPool, TaskError, TaskFailure};
use crate::module::TaskOutput;
use crate::panic_guard::catch_panic;
use crate::report::TaskReport;
use crate::sync::{AtomicU8, Condvar, Mutex, MutexGuard, Ordering, Sender};
use proto::task::TaskId;

/// How far a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FutureState {
    /// It waits for a worker.
    Pending,
    /// A worker has it.
    Running,
    /// It was cancelled before it ran.
    Cancelled,
    /// It is done: with an output or a failure.
    Finished,
}

/// The names of a task, for its errors.
#[derive(Debug)]
pub(crate) struct Labels {
    pub(crate) task: TaskId,
    pub(crate) name: Arc<str>,
    pub(crate) module: Arc<str>,
    pub(crate) label: Option<String>,
}

impl Labels {
    pub(crate) fn failure(&self, error: TaskError, report: TaskReport) -> TaskFailure {
        self.failure_of(self.task, error, report)
    }

    /// Makes the failure of another task with the same names.
    pub(crate) fn failure_of(&self, task: TaskId, error: TaskError, report: TaskReport) -> TaskFailure {
        let (name, module) = (self.name.clone(), self.module.clone());
        TaskFailure::new(error, task, name, module, self.label.clone(), report)
    }
}

/// The way in which a task ended.
#[derive(Debug, Clone)]
pub(crate) struct TaskResult {
    pub(crate) result: Result<TaskOutput, Failed>,
    pub(crate) report: TaskReport,
}

/// The reason why there is no answer.
#[derive(Debug, Clone)]
pub(crate) enum Failed {
    For(TaskFailure),
    /// It was lost with all others of the pool: each task's failure is made when it is asked for.
    WithAll(BrokenPool),
}

impl TaskResult {
    pub(crate) fn state(&self) -> FutureState {
        match &self.result {
            Err(Failed::For(failure)) if *failure.error() == TaskError::Cancelled => FutureState::Cancelled,
            _ => FutureState::Finished,
        }
    }

    /// Returns how the task with these names failed, if it did.
    pub(crate) fn failure(&self, labels: &Labels) -> Option<TaskFailure> {
        self.result.as_ref().err().map(|failed| self.failure_of(labels, failed))
    }

    /// Makes the failure of the task with these names.
    pub(crate) fn failure_of(&self, labels: &Labels, failed: &Failed) -> TaskFailure {
        match failed {
            Failed::For(failure) => failure.clone(),
            Failed::WithAll(broken) => labels.failure(TaskError::Broken(broken.clone()), self.report.clone()),
        }
    }
}

/// The result of one task of a batch, and what its report needs if the result turns out not to be readable.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) result: Result<TaskOutput, TaskFailure>,
    pub(crate) run: Duration,
    pub(crate) queued: Duration,
    pub(crate) worker_pid: Option<u32>,
}

pub(crate) type Callback = Box<dyn FnOnce(&Labels, TaskResult) + Send>;

/// Others' code is sent here to be run, since it may block and panic.
pub(crate) struct Queues {
    pub(crate) callbacks: Sender<Box<dyn FnOnce() + Send>>,
    pub(crate) wakers: Sender<Box<dyn FnOnce() + Send>>,
}

impl Queues {
    /// Wakes the task of an executor.
    pub(crate) fn wake(&self, waker: Waker) {
        let wake = move || {
            if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                catch_panic(|| tracing::error!("a waker panicked"));
            }
        };
        if let Err(unsent) = self.wakers.send(Box::new(wake)) {
            // The pool and its thread for wakers are gone: this thread is the caller's own.
            (unsent.into_inner())();
        }
    }
}

/// The result of an attempt to fill a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// It was filled before: the first stays.
    TooLate,
    /// Nobody waits or has asked to be told: there is nothing to announce.
    Unheard,
    /// [`Cell::announce`] is to follow, and wakes threads, no more: it may be called under a lock.
    WaitedFor,
    /// [`Cell::announce`] is to follow.
    Heard,
}

const PENDING: u8 = 0;
const RUNNING: u8 = 1;

pub(crate) struct Cell {
    labels: Labels,
    queues: Arc<Queues>,
    /// The progress of a task that is not done; it is set where that is decided.
    progress: AtomicU8,
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    outcome: Option<TaskResult>,
    /// The results of a batch that have come and were not taken yet, in order.
    items: VecDeque<Item>,
    /// It is told by number whenever there are items again, and when the cell is filled.
    items_watcher: Option<(Sender<usize>, usize)>,
    /// Everyone who waited has been told.
    announced: bool,
    /// Threads that wait: to wake nobody is a system call, too.
    sleepers: usize,
    callbacks: Vec<Callback>,
    /// The last task that polled: a future has one owner, which may move it.
    waker: Option<Waker>,
    /// Wakers of those who wait for it by a reference; the key lets each take itself out, or change its waker.
    wakers_beside: Vec<(u64, Waker)>,
    /// These callers read a worker's answers while they wait for this one. There is one, unless the task went
    /// to another worker meanwhile.
    inline_readers: SmallVec<[Waker; 1]>,
    /// Each is told once, by number; see `wait.rs`. The key lets a waiter take itself out. Mostly there is
    /// one.
    watchers: SmallVec<[(u64, Sender<usize>, usize); 1]>,
    next_watcher: u64,
}

impl State {
    /// Returns whether there are some to be told besides threads that wait here.
    fn has_others(&self) -> bool {
        let is_watched = !self.watchers.is_empty() || self.items_watcher.is_some();
        is_watched || self.waker.is_some() || !self.wakers_beside.is_empty() || !self.callbacks.is_empty()
    }
}

impl Cell {
    pub(crate) fn new(labels: Labels, queues: Arc<Queues>) -> Arc<Cell> {
        Arc::new(Cell {
            labels,
            queues,
            progress: AtomicU8::new(PENDING),
            state: Mutex::new(State::default()),
            filled: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No user code runs under this lock, so a panic cannot have left it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn task(&self) -> TaskId {
        self.labels.task
    }

    /// A worker has begun the task.
    pub(crate) fn set_dispatched(&self) {
        self.progress.store(RUNNING, Ordering::SeqCst);
    }

    /// Returns the state of a task that is not done.
    pub(crate) fn open_state(&self) -> FutureState {
        match self.progress.load(Ordering::SeqCst) {
            RUNNING => FutureState::Running,
            _ => FutureState::Pending,
        }
    }

    /// Returns whether the task ended as cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        let state = self.lock();
        state.outcome.as_ref().is_some_and(|outcome| outcome.state() == FutureState::Cancelled)
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Fills the cell. Whoever looks sees it done, and nobody's code runs, so this may be called under a lock.
    pub(crate) fn fill(&self, result: Result<TaskOutput, Failed>, report: TaskReport) -> Filled {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return Filled::TooLate;
        }
        state.outcome = Some(TaskResult { result, report });
        let has_threads = state.sleepers > 0 || !state.inline_readers.is_empty();
        match state.has_others() {
            true => Filled::Heard,
            false if has_threads => Filled::WaitedFor,
            false => {
                // A waiter that comes from now on finds the cell filled.
                state.announced = true;
                Filled::Unheard
            }
        }
    }

    /// Wakes everyone who waits for a cell that is filled, once.
    pub(crate) fn announce(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.outcome.is_none() || state.announced {
            return;
        }
        state.announced = true;
        let callbacks = std::mem::take(&mut state.callbacks);
        let outcome = if callbacks.is_empty() { None } else { state.outcome.clone() };
        let waker = state.waker.take();
        let wakers_beside = std::mem::take(&mut state.wakers_beside);
        let inline_readers = std::mem::take(&mut state.inline_readers);
        let items_watcher = state.items_watcher.take();
        let watchers = std::mem::take(&mut state.watchers);
        let has_sleepers = state.sleepers > 0;
        drop(state);
        if has_sleepers {
            self.filled.notify_all();
        }
        inline_readers.into_iter().for_each(Waker::wake);
        let watchers = watchers.into_iter().map(|(_, watcher, number)| (watcher, number));
        for (watcher, number) in watchers.chain(items_watcher) {
            // A watcher that has given up is no reason to fail.
            let _ = watcher.send(number);
        }
        for waker in waker.into_iter().chain(wakers_beside.into_iter().map(|(_, waker)| waker)) {
            self.queues.wake(waker);
        }
        for (callback, outcome) in callbacks.into_iter().zip(std::iter::repeat(outcome)) {
            if let Some(outcome) = outcome {
                self.queue(callback, outcome);
            }
        }
    }

    fn queue(self: &Arc<Self>, callback: Callback, outcome: TaskResult) {
        let cell = self.clone();
        let run = move || {
            let task = cell.labels.task;
            if catch_unwind(AssertUnwindSafe(|| callback(&cell.labels, outcome))).is_err() {
                catch_panic(|| tracing::error!(%task, "a done callback panicked"));
            }
        };
        if let Err(unsent) = self.queues.callbacks.send(Box::new(run)) {
            // The pool and its callback thread are gone: this thread is the caller's own.
            (unsent.into_inner())();
        }
    }

    pub(crate) fn on_done(self: &Arc<Self>, callback: Callback) {
        let mut state = self.lock();
        match state.outcome.clone() {
            // It runs after those that came before it.
            Some(outcome) if state.announced => {
                drop(state);
                self.queue(callback, outcome);
            }
            _ => state.callbacks.push(callback),
        }
    }

    pub(crate) fn outcome(&self) -> Option<TaskResult> {
        self.lock().outcome.clone()
    }

    /// Another result of a batch. One that comes after the batch has ended otherwise comes too late: whoever
    /// was told so counts the rest as ended with it.
    pub(crate) fn push(&self, item: Item) {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return;
        }
        state.items.push_back(item);
        if state.items.len() > 1 {
            // The waiters have been told already.
            return;
        }
        let inline_readers = state.inline_readers.clone();
        let watcher = state.items_watcher.clone();
        let has_sleepers = state.sleepers > 0;
        drop(state);
        if has_sleepers {
            self.filled.notify_all();
        }
        inline_readers.into_iter().for_each(Waker::wake);
        if let Some((watcher, number)) = watcher {
            let _ = watcher.send(number);
        }
    }

    /// Takes the results that have come, and says whether there will be no more.
    pub(crate) fn take_items(&self, into: &mut VecDeque<Item>) -> bool {
        let mut state = self.lock();
        if into.is_empty() {
            std::mem::swap(into, &mut state.items);
        } else {
            into.append(&mut state.items);
        }
        state.outcome.is_some()
    }

    /// Waits for results, or for the end of the batch. `false` if the deadline came first.
    pub(crate) fn wait_items(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.lock();
        while state.items.is_empty() && state.outcome.is_none() {
            state.sleepers += 1;
            state = match deadline {
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        state.sleepers -= 1;
                        return false;
                    }
                    self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.sleepers -= 1;
        }
        true
    }

    /// Sends `number` when there are results, or the batch is over; at once if so already.
    pub(crate) fn watch_items(&self, watcher: &Sender<usize>, number: usize) {
        let mut state = self.lock();
        if state.outcome.is_none() {
            state.items_watcher = Some((watcher.clone(), number));
        }
        let is_ready = state.outcome.is_some() || !state.items.is_empty();
        drop(state);
        if is_ready {
            let _ = watcher.send(number);
        }
    }

    /// Returns whether there is something to take, or nothing more to wait for.
    pub(crate) fn has_news(&self) -> bool {
        let state = self.lock();
        state.outcome.is_some() || !state.items.is_empty()
    }

    pub(crate) fn is_filled(&self) -> bool {
        self.lock().outcome.is_some()
    }

    /// Sets whom to wake when the cell is filled or there are results, besides those who wait here. The
    /// waker's code is the library's own, so it may run under a lock.
    pub(crate) fn add_inline_reader(&self, inline_reader: &Waker) {
        self.lock().inline_readers.push(inline_reader.clone());
    }

    /// Takes it back, if it still stands.
    pub(crate) fn remove_inline_reader(&self, inline_reader: &Waker) {
        let mut state = self.lock();
        let index = state.inline_readers.iter().position(|other| other.will_wake(inline_reader));
        let unset = index.map(|index| state.inline_readers.swap_remove(index));
        drop(state);
        drop(unset);
    }

    pub(crate) fn wait(&self) -> TaskResult {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            state.sleepers += 1;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleepers -= 1;
        }
    }

    /// `None` if the deadline came first; without a deadline it never does.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> Option<TaskResult> {
        let Some(deadline) = deadline else { return Some(self.wait()) };
        let mut state = self.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return Some(outcome.clone());
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            state.sleepers += 1;
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.sleepers -= 1;
        }
    }

    pub(crate) fn poll(&self, waker: &Waker) -> Option<TaskResult> {
        // Cloning and dropping a waker is the executor's code: not under the lock.
        let waker = waker.clone();
        let mut state = self.lock();
        let outcome = state.outcome.clone();
        let unused = match &outcome {
            None => state.waker.replace(waker),
            Some(_) => Some(waker),
        };
        drop(state);
        drop(unused);
        outcome
    }

    /// Does the same as [`poll`](Self::poll) for one of several who wait. Its waker is there under `waker_key`, from its
    /// first poll on, until [`forget_waker`](Self::forget_waker).
    pub(crate) fn poll_beside(&self, waker_key: &mut Option<u64>, waker: &Waker) -> Option<TaskResult> {
        let waker = waker.clone();
        let mut state = self.lock();
        let outcome = state.outcome.clone();
        let unused = match &outcome {
            Some(_) => Some(waker),
            None => {
                let key = *waker_key.get_or_insert_with(|| {
                    state.next_watcher += 1;
                    state.next_watcher - 1
                });
                match state.wakers_beside.iter_mut().find(|(other, _)| *other == key) {
                    Some((_, before)) => Some(std::mem::replace(before, waker)),
                    None => {
                        state.wakers_beside.push((key, waker));
                        None
                    }
                }
            }
        };
        drop(state);
        drop(unused);
        outcome
    }

    pub(crate) fn forget_waker(&self, waker_key: u64) {
        let mut state = self.lock();
        let index = state.wakers_beside.iter().position(|(key, _)| *key == waker_key);
        let waker = index.map(|index| state.wakers_beside.swap_remove(index));
        drop(state);
        drop(waker);
    }

    /// Sends `number` when the cell is filled, at once if it is. The key takes it back.
    pub(crate) fn watch(&self, watcher: &Sender<usize>, number: usize) -> Option<u64> {
        let mut state = self.lock();
        if state.outcome.is_some() {
            drop(state);
            let _ = watcher.send(number);
            return None;
        }
        let key = state.next_watcher;
        state.next_watcher += 1;
        state.watchers.push((key, watcher.clone(), number));
        Some(key)
    }

    pub(super) fn unwatch(&self, key: u64) {
        let mut state = self.lock();
        let index = state.watchers.iter().position(|watcher| watcher.0 == key);
        let watcher = index.map(|index| state.watchers.swap_remove(index));
        drop(state);
        drop(watcher);
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cell(task {})", self.labels.task)
    }
}
