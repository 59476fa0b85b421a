//! `poll_oneoff`, in the place of wasmtime's own.
//!
//! Everything that a guest may poll besides clocks is ready at any time: outputs are memory, files do not
//! block, and neither does a stdin that was sent. Only a stdin that the host is asked for may have to be
//! waited for. Otherwise the poll sleeps on the task's own clock: by a timer, which an interrupt can drop, or
//! in virtual time (where everything is ready) not at all. Wasmtime's own would start a thread to poll a
//! file, sleep in the kernel where files may block, and take a million subscriptions, each of which costs the
//! worker several times what it costs the guest.

use std::time::{Duration, Instant};

use wasmtime::{Caller, Extern, Linker, Result};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::types::{self, Errno};
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wiggle::GuestMemory;

use super::asks::AskedStdin;
use super::clocks::Clock;
use super::linker::TaskState;
use proto::imports::Preview;
use proto::limits::WASI_SUBSCRIPTIONS_MAX;

/// Bytes of an event in the guest's memory, by the specification of WASI:
/// <https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md#event>.
const EVENT_BYTES: usize = 32;

/// Where the parts of a subscription lie in the guest's memory. All begin with the caller's own number, and the kind of
/// what is awaited at 8; a descriptor is at 16.
#[derive(Clone, Copy)]
struct Layout {
    subscription_bytes: usize,
    /// Where what describes a clock begins.
    clock: usize,
}

impl Layout {
    /// By the specification:
    /// <https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md#subscription>. Preview 0 has one more number of
    /// the caller's in front of the clock.
    fn of(preview: Preview) -> Layout {
        match preview {
            Preview::Zero => Layout { subscription_bytes: 56, clock: 24 },
            Preview::One => Layout { subscription_bytes: 48, clock: 16 },
        }
    }
}

/// Replaces wasmtime's.
///
/// # Errors
/// What wasmtime says; nothing is expected.
pub(super) fn define(linker: &mut Linker<TaskState>, preview: Preview) -> Result<()> {
    let layout = Layout::of(preview);
    linker.allow_shadowing(true);
    linker.func_wrap_async(
        preview.module(),
        "poll_oneoff",
        move |mut caller: Caller<'_, TaskState>,
              (subscriptions, events, count, ready): (i32, i32, i32, i32)| {
            Box::new(async move {
                let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
                    return Err(wasmtime::format_err!("missing required memory export"));
                };
                let (memory, state) = memory.data_and_store_mut(&mut caller);
                let clock = state.clock.clone();
                let stdin = state.stdin.clone();
                let args = PollArgs { layout, subscriptions, events, count, ready };
                Ok(args.poll(state.wasi(), memory, &clock, stdin.as_ref()).await? as i32)
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The call's arguments, which but for the count point into the guest's memory.
struct PollArgs {
    layout: Layout,
    subscriptions: i32,
    events: i32,
    count: i32,
    ready: i32,
}

impl PollArgs {
    /// # Errors
    /// The task's end, for pointers that lead nowhere: as wasmtime's other functions have it.
    async fn poll(
        &self,
        wasi: &mut WasiP1Ctx,
        memory: &mut [u8],
        clock: &Clock,
        stdin: Option<&AskedStdin>,
    ) -> Result<Errno> {
        let count = self.count as u32;
        if count == 0 {
            return Ok(Errno::Inval);
        }
        if count > WASI_SUBSCRIPTIONS_MAX {
            return Ok(Errno::Nomem);
        }
        let count = count as usize;
        // The subscriptions are copied first, since the events may be written over them.
        let Layout { subscription_bytes, .. } = self.layout;
        let subscriptions = slice(memory, self.subscriptions, 8, count * subscription_bytes)?.to_vec();
        slice(memory, self.events, 8, count * EVENT_BYTES)?;
        slice(memory, self.ready, 4, 4)?;

        let began = Instant::now();
        let now = clock.read();
        let mut waits = Vec::with_capacity(count);
        for subscription in subscriptions.chunks_exact(subscription_bytes) {
            match wait(wasi, self.layout, subscription, now).await {
                Ok(wait) => waits.push(wait),
                Err(errno) => return Ok(errno),
            }
        }
        let times = waits.iter().filter_map(|wait| wait.until(stdin, clock));
        let shortest = times.min();
        let asked = stdin.filter(|_| waits.iter().any(|wait| wait.until(stdin, clock).is_none()));
        let (passed, has_stdin) = match (clock, asked) {
            (Clock::System(_), Some(stdin)) => {
                let at_most = shortest.unwrap_or(Duration::MAX);
                match stdin.is_ready_within(at_most).await? {
                    true => (began.elapsed(), true),
                    false => (began.elapsed().max(at_most), false),
                }
            }
            (_, None) if shortest.is_none_or(|shortest| shortest.is_zero()) => (Duration::ZERO, false),
            (Clock::System(_), None) => {
                let shortest = shortest.unwrap_or_default();
                tokio::time::sleep(shortest).await;
                (began.elapsed().max(shortest), false)
            }
            (Clock::Virtual(time), _) => {
                let shortest = shortest.unwrap_or_default();
                time.sleep(shortest);
                (shortest, false)
            }
        };
        let mut written = 0;
        for (subscription, wait) in subscriptions.chunks_exact(subscription_bytes).zip(&waits) {
            if wait.until(stdin, clock).map_or(has_stdin, |wait| wait <= passed) {
                let at = self.events as u32 as usize + written as usize * EVENT_BYTES;
                memory[at..at + EVENT_BYTES].copy_from_slice(&event(subscription));
                written += 1;
            }
        }
        slice(memory, self.ready, 4, 4)?.copy_from_slice(&u32::to_le_bytes(written));
        Ok(Errno::Success)
    }
}

/// Says what one subscription waits for.
#[derive(Clone, Copy)]
enum Wait {
    For(Duration),
    Stdin,
}

impl Wait {
    /// Returns how long to wait, or `None` if only the host can say. A stdin that was sent is ready at once,
    /// and in virtual time nothing comes late.
    fn until(self, stdin: Option<&AskedStdin>, clock: &Clock) -> Option<Duration> {
        match (self, clock) {
            (Wait::For(time), _) => Some(time),
            (Wait::Stdin, Clock::System(_)) if stdin.is_some() => None,
            (Wait::Stdin, _) => Some(Duration::ZERO),
        }
    }
}

/// Reads what a subscription waits for. A descriptor is ready at once, unless it is stdin.
async fn wait(
    wasi: &mut WasiP1Ctx,
    layout: Layout,
    subscription: &[u8],
    (monotonic, wall): (Duration, Duration),
) -> Result<Wait, Errno> {
    let right = match subscription[8] {
        0 => {
            let clock = &subscription[layout.clock..];
            let timeout = Duration::from_nanos(number::<8>(clock, 8));
            let is_absolute = number::<2>(clock, 24) & 1 == 1;
            return match (number::<4>(clock, 0), is_absolute) {
                (0 | 1, false) => Ok(Wait::For(timeout)),
                (0, true) => Ok(Wait::For(timeout.saturating_sub(wall))),
                (1, true) => Ok(Wait::For(timeout.saturating_sub(monotonic))),
                _ => Err(Errno::Inval),
            };
        }
        1 => types::Rights::FD_READ,
        2 => types::Rights::FD_WRITE,
        _ => return Err(Errno::Inval),
    };
    let descriptor = number::<4>(subscription, 16) as u32;
    let stat = wasi.fd_fdstat_get(&mut GuestMemory::Unshared(&mut []), descriptor.into()).await;
    match stat {
        Ok(stat) if stat.fs_filetype == types::Filetype::Directory => Err(Errno::Badf),
        // Only stdin can be read and has no file type, whatever its number: files have a type, and outputs
        // can only be written.
        Ok(stat) if stat.fs_rights_base == types::Rights::FD_READ && right == types::Rights::FD_READ => {
            Ok(Wait::Stdin)
        }
        Ok(stat) if stat.fs_rights_base.contains(right) => Ok(Wait::For(Duration::ZERO)),
        _ => Err(Errno::Badf),
    }
}

/// The event of a subscription that is ready.
fn event(subscription: &[u8]) -> [u8; EVENT_BYTES] {
    let mut event = [0; EVENT_BYTES];
    event[..8].copy_from_slice(&subscription[..8]);
    event[10] = subscription[8];
    // The event of a descriptor says that there is at least one byte.
    event[16] = u8::from(subscription[8] != 0);
    event
}

fn slice(memory: &mut [u8], at: i32, alignment: usize, len: usize) -> Result<&mut [u8]> {
    let at = at as u32 as usize;
    if !at.is_multiple_of(alignment) {
        return Err(wasmtime::format_err!("Pointer not aligned to {alignment}: {at}"));
    }
    memory
        .get_mut(at..at + len)
        .ok_or_else(|| wasmtime::format_err!("Pointer out of bounds: {len} bytes at {at}"))
}

/// A number of so many bytes, little endian.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(number)
}
