//! A map for asynchronous callers: its results as a stream.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::thread;

use futures_core::Stream;

use super::submit::other_process;
use crate::error::SubmitError;
use crate::fork::OfProcess;
use crate::panic_guard::catch_panic;
use proto::sync::{Lock, Sleep};

/// The results of a [`Map`](super::Map) or an [`UnorderedMap`](super::UnorderedMap) as a [`Stream`], for any
/// executor: [`Map::stream`](super::Map::stream) makes it.
///
/// A thread of its own asks the map for a result when the stream is polled for one, so that nothing is pulled that
/// the map itself would not pull. Dropping the stream cancels what does not run yet, within a tenth of a second; the
/// thread holds a handle of the pool until then, or until `inputs` returns, if it waits for something.
pub struct MapStream<T> {
    shared: OfProcess<Arc<Shared<T>>>,
    /// Tells the map that nobody wants more.
    stop: Box<dyn Fn() + Send + Sync>,
    /// The task's name, and what an error is among the stream's items, for a process that was forked from its own.
    name: Arc<str>,
    rejected: fn(SubmitError) -> T,
    has_rejected: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// An item is asked for that is not there yet.
    is_wanted: bool,
    /// The map's next item, `None` after the last, or the panic that came in its place.
    next: Option<thread::Result<Option<T>>>,
    waker: Option<Waker>,
    /// The stream was dropped.
    is_closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.hold()
    }

    /// Asks the map for items as they are wanted, until it ends or nobody wants more.
    fn run(&self, map: impl Iterator<Item = T>) {
        let mut map = Some(map);
        loop {
            let mut state = self.lock();
            while !state.is_wanted && !state.is_closed {
                state = self.changed.sleep(state, None);
            }
            if state.is_closed {
                return;
            }
            drop(state);
            let next = catch_unwind(AssertUnwindSafe(|| map.as_mut().and_then(Iterator::next)));
            let is_last = !matches!(next, Ok(Some(_)));
            if is_last && catch_unwind(AssertUnwindSafe(|| map.take())).is_err() {
                catch_panic(|| tracing::error!("the destructor of a map's inputs panicked"));
            }
            let mut state = self.lock();
            state.is_wanted = false;
            state.next = Some(next);
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker
                && catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err()
            {
                catch_panic(|| tracing::error!("a waker panicked"));
            }
            if is_last {
                return;
            }
        }
    }
}

impl<T: Send + 'static> MapStream<T> {
    /// # Errors
    /// The system has no thread for it.
    pub(super) fn new(
        map: impl Iterator<Item = T> + Send + 'static,
        stop: Box<dyn Fn() + Send + Sync>,
        name: Arc<str>,
        rejected: fn(SubmitError) -> T,
    ) -> std::io::Result<Self> {
        let state = State { is_wanted: false, next: None, waker: None, is_closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let for_thread = shared.clone();
        thread::Builder::new().name("wasmpool-stream".into()).spawn(move || for_thread.run(map))?;
        Ok(MapStream { shared: OfProcess::new(shared), stop, name, rejected, has_rejected: false })
    }
}

impl<T> Stream for MapStream<T> {
    type Item = T;

    /// Cancellation safe: a result that is not taken is there at the next poll.
    ///
    /// # Panics
    /// If the map's inputs do, once the results before that have been yielded.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        let Some(shared) = this.shared.here() else {
            let is_first = !std::mem::replace(&mut this.has_rejected, true);
            return Poll::Ready(is_first.then(|| (this.rejected)(other_process(&this.name))));
        };
        // The executor's code runs outside of the lock.
        let waker = context.waker().clone();
        let mut state = shared.lock();
        let next = match &state.next {
            // The end stays.
            Some(Ok(None)) => Some(Ok(None)),
            _ => state.next.take(),
        };
        let unused = match &next {
            Some(_) => Some(waker),
            None => {
                state.is_wanted = true;
                shared.changed.notify_one();
                state.waker.replace(waker)
            }
        };
        if let Some(Err(_)) = &next {
            state.next = Some(Ok(None));
        }
        drop(state);
        drop(unused);
        match next {
            None => Poll::Pending,
            Some(Ok(item)) => Poll::Ready(item),
            Some(Err(panic)) => resume_unwind(panic),
        }
    }
}

impl<T> Drop for MapStream<T> {
    fn drop(&mut self) {
        let Some(shared) = self.shared.here() else { return };
        let mut state = shared.lock();
        state.is_closed = true;
        let waker = state.waker.take();
        shared.changed.notify_one();
        drop(state);
        drop(waker);
        (self.stop)();
    }
}

impl<T> fmt::Debug for MapStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapStream(`{}`)", self.name)
    }
}
