//! The map's own thread, which pulls and submits.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::is_over;
use super::shared::{By, FeedState, Pulled};
use crate::module::{Callable, InputOf};

/// Starts the thread that pulls for a map.
pub(in crate::pool) fn start<C, I>(shared: &Arc<FeedState<C, I>>) -> io::Result<()>
where
    C: Callable + 'static,
    I: Iterator + Send + 'static,
    I::Item: InputOf<C>,
{
    let shared = shared.clone();
    std::thread::Builder::new().name("wasmpool-map".into()).spawn(move || run(&shared)).map(drop)
}

/// Pulls and submits until the inputs end, the time is up, or nobody wants more.
fn run<C, I>(shared: &FeedState<C, I>)
where
    C: Callable,
    I: Iterator,
    I::Item: InputOf<C>,
{
    // The caller does not pull from here on.
    let Some(mut source) = shared.lock().source.take() else { return };
    let deadline = shared.lock().plan.deadline();
    // Only this thread takes room, so what it was told of stays free.
    let mut room = 0;
    loop {
        if room == 0 || is_over(deadline) {
            room = shared.room(By::Thread);
        }
        if room == 0 {
            break;
        }
        room -= 1;
        match catch_unwind(AssertUnwindSafe(|| source.pull(shared))) {
            Ok(pulled) => {
                let is_last = matches!(pulled, Pulled::Nothing);
                shared.see_to(&mut source, pulled, By::Thread);
                if is_last || shared.account.is_closed() {
                    break;
                }
            }
            Err(panic) => {
                shared.submit(By::Thread);
                let mut state = shared.lock();
                state.panic = Some(panic);
                shared.notify(&state);
                while state.panic.is_some() && !state.is_closed {
                    state = shared.sleep(state, None);
                }
            }
        }
    }
    let mut state = shared.lock();
    // A closed map is gone already, so its iterator is dropped here; else it is the map's to drop.
    let left = if state.is_closed { Some(source) } else { state.source.replace(source) };
    drop(state);
    drop(left);
}
