//! Ctrl-C and SIGTERM, as events. Workers do not see the terminal's Ctrl-C: each is a session of
//! its own.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::exit::{Exit, Failure};

/// After so many, this process ends at once, whatever it waits for.
const PATIENCE: usize = 3;

/// Signals that come closer to each other are one: `timeout` sends its own to the command and to its group.
const TOGETHER: Duration = Duration::from_millis(50);

/// The last signal that came.
static LAST: AtomicI32 = AtomicI32::new(0);

/// From here on each signal is one event; the third ends the process.
pub(super) fn listen() -> Result<Receiver<()>, Failure> {
    let cannot = |error| Failure::Machinery(format!("cannot listen for Ctrl-C: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(cannot)?;
    let (sender, receiver) = unbounded();
    let wait = move || {
        let (mut count, mut counted) = (0, None);
        for signal in signals.forever() {
            LAST.store(signal, Ordering::SeqCst);
            if counted.is_some_and(|counted: Instant| counted.elapsed() < TOGETHER) {
                continue;
            }
            (count, counted) = (count + 1, Some(Instant::now()));
            if count >= PATIENCE {
                std::process::exit(i32::from(code()));
            }
            // Nobody listens any more where the work is done.
            let _ = sender.send(());
        }
    };
    std::thread::Builder::new().name("wasmpool-signals".into()).spawn(wait).map_err(cannot)?;
    Ok(receiver)
}

/// How to end, if a signal came.
pub(super) fn exit() -> Option<Exit> {
    (LAST.load(Ordering::SeqCst) != 0).then(|| Exit::Interrupted(code()))
}

/// The exit code of a process that such a signal ended, as shells show it.
pub(super) fn code() -> u8 {
    match LAST.load(Ordering::SeqCst) {
        SIGTERM => 143,
        _ => 130,
    }
}
