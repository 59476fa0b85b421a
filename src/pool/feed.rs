//! Pulls a map's inputs, and hands them over to the pool.
//!
//! ```text
//!  the iterator ─► pulled ─► encoded ─► alone, or gathered ─► charged ─► submitted ─► what is ahead ─► results
//!                  └──────────── a thread of the map's own ─────────────────────────┘  the caller's thread
//! ```
//! An iterator's `next` may wait for anything, perhaps for the result of the input before. So while something
//! is under way, the thread that asks for results does not call it; a thread of the map's own does. The
//! asking thread pulls only while nothing is under way, since then no result can be held up.
//! ([`Pool::map_local`], whose iterator cannot go to another thread, has no such thread, and its own rules.)
//!
//! For the same reason no pulled input waits long for inputs that are yet to be pulled: those that are
//! gathered for a batch are where the caller finds them. A caller that has waited [`STALLED`] for a result,
//! or has nothing under way, submits them as they are; until it has its result, each input is submitted as it
//! is pulled.
//!
//! Only one thread at a time submits (`is_submitting`), so that inputs are submitted in their order. No lock
//! is held while an iterator, an encoder or the pool is at work.

mod shared;
mod thread;

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Wake;
use std::time::{Duration, Instant};

use self::shared::{By, Handed, Pulled, Source};
pub(super) use self::shared::{End, FeedState};
pub(super) use self::thread::start as start_thread;
use super::Pool;
use super::batch::Submitted;
use super::submit::other_process;
use crate::account::{Account, Charge};
use crate::error::SubmitError;
use crate::fork::OfProcess;
use crate::host::batch::Inputs;
use crate::host::core::WhenFull;
use crate::module::{Callable, InputOf};
use crate::options::TaskOptions;
use crate::sync::Sender;

/// A caller that has waited this long for a result has gathered inputs submitted: it is longer than a batch
/// takes, and shorter than anyone notices.
const STALLED: Duration = Duration::from_millis(2);

/// A caller that waits for a result looks this often whether the iterator has panicked on the map's thread: a
/// task may run for an hour, and the caller must get the panic at once, as if it had called the iterator
/// itself.
const LOOK_FOR_A_PANIC: Duration = Duration::from_millis(100);

/// A map without a thread pulls this many inputs for a result that is there already, so that its look-ahead
/// grows while nobody waits. It pulls none if the iterator takes longer than `QUICK_NS` for one.
const PULLED_AT_LEAST: usize = 2;
const QUICK_NS: u64 = 20_000;
const QUICK: Duration = Duration::from_nanos(QUICK_NS);

/// The settings of a map.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) options: TaskOptions,
    /// `None` leaves the size to the pool.
    pub(super) buffer_size: Option<usize>,
    pub(super) bytes_max: Option<u64>,
    /// The number of inputs that go to one worker together; `None` leaves it to the pool.
    pub(super) chunk_size: Option<usize>,
    pub(super) timeout: Option<Duration>,
    began: Instant,
}

impl Plan {
    fn new() -> Self {
        let options = TaskOptions::new();
        let began = Instant::now();
        Plan { options, buffer_size: None, bytes_max: None, chunk_size: None, timeout: None, began }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timeout.and_then(|timeout| self.began.checked_add(timeout))
    }
}

/// Returns whether there is a deadline and it has passed.
fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// Tells the map's thread that the pool's queue may have room.
struct Knock(Arc<Account>);

impl Wake for Knock {
    fn wake(self: Arc<Self>) {
        self.0.knock();
    }
}

/// A function that starts the thread which pulls for a map.
pub(super) type Start<C, I> = fn(&Arc<FeedState<C, I>>) -> io::Result<()>;

/// The caller's side.
pub(super) struct Feed<C: Callable, I> {
    /// `None` if it was made in a process that was forked from the pool's: its inputs are then in `strays`.
    shared: Option<OfProcess<Arc<FeedState<C, I>>>>,
    strays: Option<I>,
    /// The rejection of another process's inputs was yielded already.
    has_rejected: bool,
    /// The task's name, for errors.
    name: Arc<str>,
    start: Option<Start<C, I>>,
    /// A thread of the map's own pulls.
    has_thread: bool,
    /// The time at which the map's time is up, and how long that was.
    deadline: Option<Instant>,
    timeout: Option<Duration>,
    /// Whether nobody wants more, if somebody may say so while a result is waited for.
    stop: Option<Arc<AtomicBool>>,
    /// This handle of the pool may be the last one, so it is dropped on the caller's thread.
    pool: Pool,
}

/// The findings of a caller that has nothing under way.
pub(super) enum Found {
    Submitted,
    End(End),
    /// The iterator has panicked with this payload.
    Panic(Box<dyn Any + Send>),
    /// This process was forked from the pool's.
    Rejected(SubmitError),
}

impl<C: Callable, I> Feed<C, I> {
    pub(super) fn new(pool: Pool, task: C, inputs: I, start: Option<Start<C, I>>) -> Self {
        let name = task.target().name.clone();
        let mut shared = None;
        let mut strays = None;
        match pool.core() {
            Some(core) => shared = Some(OfProcess::new(Arc::new(FeedState::new(core.clone(), task, inputs)))),
            None => strays = Some(inputs),
        }
        Feed {
            shared,
            strays,
            has_rejected: false,
            name,
            start,
            has_thread: false,
            stop: None,
            deadline: None,
            timeout: None,
            pool,
        }
    }

    /// Returns `None` in a process that was forked from the pool's.
    fn shared(&self) -> Option<&Arc<FeedState<C, I>>> {
        self.shared.as_ref()?.here()
    }

    /// Returns the map's account, or `None` in a process that was forked from the pool's.
    pub(super) fn account(&self) -> Option<Arc<Account>> {
        self.shared().map(|shared| shared.account.clone())
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or_default()
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut Plan)) {
        let Some(shared) = self.shared().cloned() else { return };
        let mut state = shared.lock();
        change(&mut state.plan);
        (self.deadline, self.timeout) = (state.plan.deadline(), state.plan.timeout);
        drop(state);
        shared.resize();
    }

    /// Sets how many tasks make a batch, as the results suggest.
    pub(super) fn set_batch_size(&self, items: usize) {
        if let Some(shared) = self.shared() {
            shared.lock().batch_size = items;
            shared.resize();
        }
    }

    /// Returns how many inputs were submitted.
    pub(super) fn count(&self) -> usize {
        self.shared().map_or(0, |shared| shared.lock().count)
    }

    /// Tells `listener` from now on the numbers of inputs that have results, including those submitted and
    /// not yet taken.
    pub(super) fn listen(&self, listener: &Sender<usize>) {
        let Some(shared) = self.shared() else { return };
        let mut state = shared.lock();
        state.submitted.iter().for_each(|(number, submitted)| submitted.announce(listener, *number));
        state.listener = Some(listener.clone());
    }

    /// Takes what was submitted since the last call, each with the number of its first input.
    pub(super) fn take(&self) -> VecDeque<(usize, Submitted<C::Output>)> {
        self.shared().map(|shared| std::mem::take(&mut shared.lock().submitted)).unwrap_or_default()
    }

    /// Submits tasks that a batch handed back; their charge goes on. Returns `None` if there was no room in
    /// time.
    pub(super) fn resubmit(&self, inputs: Inputs, charge: Arc<Charge>) -> Option<Submitted<C::Output>> {
        let shared = self.shared()?;
        let deadline = self.deadline;
        let prepared = shared.lock().prepare_request(shared, inputs);
        match shared.give(prepared, charge, WhenFull::Wait(deadline)) {
            Handed::Submitted(submitted) => Some(submitted),
            Handed::Full(..) if is_over(deadline) => None,
            Handed::Full(prepared, charge, error) => Some(Submitted::rejected(error, prepared.count, charge)),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::SeqCst))
    }

    /// Returns what ends a wait for a result from elsewhere; whoever waited must not go on then.
    pub(super) fn stop(&mut self) -> Box<dyn Fn() + Send + Sync>
    where
        C: 'static,
        I: Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        self.stop = Some(stop.clone());
        let shared = self.shared().map(|shared| OfProcess::new(Arc::downgrade(shared)));
        Box::new(move || {
            stop.store(true, Ordering::SeqCst);
            if let Some(shared) = shared.as_ref().and_then(OfProcess::here).and_then(Weak::upgrade) {
                shared.account.close();
                let state = shared.lock();
                shared.notify(&state);
            }
        })
    }

    /// The task's name.
    pub(super) fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Calls `wait`, which gets a deadline and returns `None` once that has passed, until it has a result.
    /// Gathered inputs are submitted meanwhile.
    pub(super) fn wait<T>(&self, mut wait: impl FnMut(Option<Instant>) -> Option<T>) -> Option<T> {
        let soon = Instant::now() + STALLED;
        let deadline = self.deadline;
        let Some(shared) = self.shared() else { return wait(deadline) };
        let is_looked_after = self.has_thread || self.stop.is_some();
        if !is_looked_after || deadline.is_some_and(|deadline| deadline <= soon) {
            return wait(deadline);
        }
        if let Some(done) = wait(Some(soon)) {
            return Some(done);
        }
        shared.lock().is_urgent = true;
        shared.submit(By::Passing);
        let done = loop {
            let mut state = shared.lock();
            if let Some(panic) = state.panic.take() {
                state.is_urgent = false;
                shared.notify(&state);
                drop(state);
                resume_unwind(panic);
            }
            if self.is_stopped() {
                drop(state);
                break None;
            }
            // An iterator that has ended cannot panic any more.
            let looks_again = state.end.is_none() || self.stop.is_some();
            let look_again = looks_again.then(|| Instant::now() + LOOK_FOR_A_PANIC);
            drop(state);
            let until = deadline.into_iter().chain(look_again).min();
            match wait(until) {
                Some(done) => break Some(done),
                None if is_over(deadline) => break None,
                None => {}
            }
        };
        shared.lock().is_urgent = false;
        done
    }
}

impl<C, I> Feed<C, I>
where
    C: Callable,
    I: Iterator,
    I::Item: InputOf<C>,
{
    /// Waits for something to be submitted while nothing is under way.
    pub(super) fn find(&mut self) -> Found {
        let Some(shared) = self.shared().cloned() else { return self.stray() };
        let mut state = shared.lock();
        let deadline = state.plan.deadline();
        let found = loop {
            if !state.submitted.is_empty() {
                break Found::Submitted;
            }
            if self.is_stopped() {
                break Found::End(End::Exhausted);
            }
            if state.has_submitted_all() {
                if let Some(panic) = state.panic.take() {
                    break Found::Panic(panic);
                }
                if let Some(end) = state.end {
                    break Found::End(end);
                }
            }
            if is_over(deadline) {
                state.end = Some(End::Late);
                break Found::End(End::Late);
            }
            if !state.is_submitting && state.has_some() {
                drop(state);
                shared.submit(By::Waiting);
                state = shared.lock();
            } else if !self.has_thread && state.source.is_some() && state.end.is_none() {
                drop(state);
                Self::pull(&shared, By::Waiting);
                state = shared.lock();
            } else {
                state.is_urgent = true;
                state = shared.sleep(state, deadline);
            }
        };
        state.is_urgent = false;
        // The map's thread sleeps until the caller has taken the panic.
        shared.notify(&state);
        drop(state);
        found
    }

    /// In a process that was forked from the pool's, returns an error for each input, or a single one for the
    /// inputs that the other process has.
    fn stray(&mut self) -> Found {
        let is_one = match &mut self.strays {
            Some(inputs) => inputs.next().is_some(),
            None => !std::mem::replace(&mut self.has_rejected, true),
        };
        match is_one {
            true => Found::Rejected(other_process(&self.name)),
            false => Found::End(End::Exhausted),
        }
    }

    /// Keeps inputs being pulled while something is under way, the first of which may be ready.
    pub(super) fn keep_up(&mut self, is_ready: impl Fn() -> bool) {
        let Some(shared) = self.shared().filter(|_| !self.has_thread).cloned() else { return };
        let state = shared.lock();
        let is_over = state.end.is_some() || state.source.is_none();
        let size = state.buffer_size();
        drop(state);
        // A look-ahead of one is pulled only when nothing is under way.
        if is_over || size == 1 {
            return;
        }
        if let Some(start) = self.start.take() {
            // The map pulls on the caller's thread if the system gives it none.
            self.has_thread = start(&shared).is_ok();
            if self.has_thread {
                return;
            }
        }
        self.pull_some(&shared, is_ready);
    }

    /// Pulls some inputs for a map without a thread.
    fn pull_some(&self, shared: &FeedState<C, I>, is_ready: impl Fn() -> bool) {
        let mut pulled = 0;
        loop {
            let state = shared.lock();
            let Some(source) = state.source.as_ref().filter(|_| state.end.is_none()) else { break };
            let is_quick = source.pace.nanos() <= QUICK_NS;
            let gathered = state.gathered.count();
            drop(state);
            // Gathered inputs do not wait for an iterator that is slow.
            if gathered > 0 && !is_quick {
                break;
            }
            let may_go_on = gathered > 0 || (is_quick && pulled < PULLED_AT_LEAST);
            if (!may_go_on && is_ready()) || !Self::pull(shared, By::Passing) {
                break;
            }
            pulled += usize::from(gathered == 0);
        }
        shared.submit(By::Passing);
    }

    /// Pulls an input on the caller's thread and hands it on, and with it the rest of its batch as long as each comes
    /// quickly. Returns `false` if none may be pulled now.
    fn pull(shared: &FeedState<C, I>, by: By) -> bool {
        let room = shared.room(by);
        if room == 0 {
            return false;
        }
        let Some(source) = shared.lock().source.take() else { return false };
        // The iterator is put back even if it panics.
        let mut taken = Taken { shared, source: Some(source) };
        let Some(source) = &mut taken.source else { return false };
        let mut since = Instant::now();
        for _ in 0..room {
            let pulled = source.pull(shared);
            // An input's time ends where that of the next begins: to read the clock costs as much as to gather an input.
            let now = Instant::now();
            let took = now.saturating_duration_since(std::mem::replace(&mut since, now));
            source.pace.learn(took);
            let is_last = matches!(pulled, Pulled::Nothing);
            shared.see_to(source, pulled, by);
            if is_last || !source.is_amid || took > QUICK || source.pace.nanos() > QUICK_NS {
                break;
            }
        }
        true
    }
}

impl<C: Callable, I> Drop for Feed<C, I> {
    fn drop(&mut self) {
        let Some(shared) = self.shared() else { return };
        shared.account.close();
        let mut state = shared.lock();
        state.is_closed = true;
        shared.notify(&state);
        // A prepared request that is being submitted must be cancelled, too. This wait is short, since the account is
        // closed.
        while state.is_submitting {
            state = shared.sleep(state, None);
        }
        let submitted = std::mem::take(&mut state.submitted);
        let source = state.source.take();
        let unadmitted = std::mem::take(&mut state.unadmitted);
        drop(state);
        submitted.into_iter().for_each(|(_, submitted)| submitted.cancel());
        if let Some(core) = self.pool.core() {
            core.forget_ticket(shared.ticket);
        }
        // Dropping an iterator or an input runs the caller's code, so it happens outside of the lock.
        drop((source, unadmitted));
    }
}

/// The iterator while the caller pulls from it.
struct Taken<'a, C: Callable, I> {
    shared: &'a FeedState<C, I>,
    source: Option<Source<I>>,
}

impl<C: Callable, I> Drop for Taken<'_, C, I> {
    fn drop(&mut self) {
        self.shared.lock().source = self.source.take();
    }
}

impl<C: Callable, I> fmt::Debug for Feed<C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(shared) = self.shared() else { return f.write_str("of another process") };
        write!(f, "{} ahead of at most {}", shared.account.items(), shared.lock().buffer_size())
    }
}
