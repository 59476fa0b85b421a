//! `map` in its variants, and others' code in the middle of the pool: iterators, done callbacks and
//! wakers that use the pool, end it, panic or wait for it.

mod results;
mod time;
mod ahead;
mod iterators;
mod callbacks;
mod wakers;
mod full;
mod slow;
mod bounds;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::act::act;
use crate::support::{self, Guarded, PATIENCE, build, builder, error, eventually, signal};
use crossbeam_channel::unbounded;
use rustix::process::Signal;
use wasmpool::error::{MapError, SubmitError};
use wasmpool::event::{EventKind, TaskOutcome, WorkerState};
use wasmpool::module::RawTask;
use wasmpool::pool::ShutdownMode;
use wasmpool::task::CommandInput;
use wasmpool::{Bytes, Pool, PoolBuilder, TaskError, TaskFuture, TaskOptions};

type Future = TaskFuture<Bytes>;

fn pool(workers: usize) -> Guarded {
    build(builder(workers))
}

/// An input that comes back as it is, and can be told from others.
fn numbered(number: usize) -> Bytes {
    format!("e{number}").into()
}

fn submit(pool: &Pool, act: &RawTask, what: &'static str) -> Future {
    pool.submit_bytes(act, what).expect("submits")
}

fn output(future: &Future) -> Bytes {
    future.result_timeout(PATIENCE).expect("done in time").expect("succeeds")
}

fn texts(texts: &[&'static str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
}

fn items(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("not zero")
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn is_timeout(result: &Result<Bytes, MapError>) -> bool {
    matches!(result, Err(MapError::Timeout { .. }))
}

/// Runs `work` on a thread of its own; a deadlock fails the test instead of hanging it.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(done) => done,
        Err(crossbeam_channel::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(crossbeam_channel::RecvTimeoutError::Disconnected) => panic!("{what} panicked"),
    }
}

/// A task without end that runs.
fn running(pool: &Pool, act: &RawTask) -> Future {
    let spin = submit(pool, act, "s");
    eventually("it to run", || spin.is_running());
    spin
}

type Results = Box<dyn Iterator<Item = (usize, Result<Bytes, MapError>)> + Send>;

/// Either map, as pairs of a number and a result.
fn either(
    unordered: bool,
    map: wasmpool::pool::Map<RawTask, impl Iterator<Item = Bytes> + Send + 'static>,
) -> Results {
    if unordered { Box::new(map.unordered()) } else { Box::new(map.enumerate()) }
}
