//! Loading and shutting down for callers that may not wait: on a thread of its own, for any executor.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;

use bytes::Bytes;

use super::{Pool, ShutdownMode};
use crate::error::ModuleError;
use crate::fork::OfProcess;
use crate::module::{Module, ModuleOptions};
use crate::panic_guard::catch_panic;
use proto::sync::Lock;

impl Pool {
    /// Does the same as [`load_with`](Self::load_with), for asynchronous callers: a thread of its own waits for the
    /// compiler, and begins at once. Dropping the future changes nothing for the load: whoever loads the same
    /// module later finds it.
    ///
    /// ```no_run
    /// # async fn example(pool: wasmpool::Pool, wasm: Vec<u8>) -> anyhow::Result<()> {
    /// let module = pool.load_async(wasm, Default::default()).await?;
    /// println!("{}", module.description().kind);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn load_async(
        &self,
        wasm: impl Into<Bytes>,
        options: ModuleOptions,
    ) -> Background<Result<Module, ModuleError>> {
        let pool = self.clone();
        let wasm = wasm.into();
        Background::begin(move || pool.load_with(&wasm, options), || Err(ModuleError::OtherProcess))
    }

    /// Does the same as [`load_file_with`](Self::load_file_with), for asynchronous callers, as
    /// [`load_async`](Self::load_async).
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn load_file_async(
        &self,
        path: impl AsRef<Path>,
        options: ModuleOptions,
    ) -> Background<Result<Module, ModuleError>> {
        let pool = self.clone();
        let path = path.as_ref().to_path_buf();
        Background::begin(move || pool.load_file_with(path, options), || Err(ModuleError::OtherProcess))
    }

    /// Does the same as [`shutdown`](Self::shutdown), for asynchronous callers: the shutdown begins at once, and the
    /// future is ready when every process is gone. Dropping it changes nothing for the shutdown.
    ///
    /// ```no_run
    /// # async fn example(pool: wasmpool::Pool) {
    /// pool.shutdown_async(wasmpool::pool::ShutdownMode::CancelPending).await;
    /// # }
    /// ```
    #[doc(alias = "shutdown")]
    pub fn shutdown_async(&self, mode: ShutdownMode) -> Background<()> {
        self.begin_shutdown(mode);
        let pool = self.clone();
        Background::begin(move || pool.wait_until_gone(), || ())
    }
}

/// Work on a thread of its own, for asynchronous callers: a future for any executor. The work goes on if it is
/// dropped.
#[must_use = "the work goes on, but its result is lost"]
pub struct Background<T> {
    shared: OfProcess<Arc<Mutex<State<T>>>>,
    /// It makes the result that is ready at once in a process that was forked from its own.
    elsewhere: fn() -> T,
}

struct State<T> {
    /// The result, or the panic that came in its place.
    result: Option<thread::Result<T>>,
    waker: Option<Waker>,
}

impl<T: Send + 'static> Background<T> {
    /// Does the work on a thread of its own, or, without one from the system, here.
    fn begin(work: impl FnOnce() -> T + Send + 'static, elsewhere: fn() -> T) -> Background<T> {
        let shared = Arc::new(Mutex::new(State { result: None, waker: None }));
        // It is taken out by whoever does the work.
        let work = Arc::new(Mutex::new(Some(work)));
        let run = {
            let shared = shared.clone();
            let work = work.clone();
            move || {
                let work = work.hold().take();
                if let Some(work) = work {
                    let result = catch_unwind(AssertUnwindSafe(work));
                    let waker = {
                        let mut state = shared.hold();
                        state.result = Some(result);
                        state.waker.take()
                    };
                    if let Some(waker) = waker
                        && catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err()
                    {
                        catch_panic(|| tracing::error!("a waker panicked"));
                    }
                }
            }
        };
        if thread::Builder::new().name("wasmpool-background".into()).spawn(run.clone()).is_err() {
            run();
        }
        Background { shared: OfProcess::new(shared), elsewhere }
    }
}

impl<T> Future for Background<T> {
    type Output = T;

    /// # Panics
    /// When the work has panicked, and when polled after it was ready, as every future may.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(shared) = self.shared.here() else { return Poll::Ready((self.elsewhere)()) };
        // The executor's code runs outside of the lock.
        let waker = context.waker().clone();
        let mut state = shared.hold();
        let result = state.result.take();
        let unused = match &result {
            Some(_) => Some(waker),
            None => state.waker.replace(waker),
        };
        drop(state);
        drop(unused);
        match result {
            None => Poll::Pending,
            Some(Ok(value)) => Poll::Ready(value),
            Some(Err(panic)) => resume_unwind(panic),
        }
    }
}

impl<T> fmt::Debug for Background<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Background")
    }
}
