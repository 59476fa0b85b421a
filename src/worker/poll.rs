//! `poll_oneoff`, around wasmtime's own: bounded, and under virtual time without any wait.
//!
//! Each subscription costs the host several times what it costs the guest, so their number has a
//! limit of its own. A task with virtual time must not wait for a real clock: its sleep sets the
//! clock forward and ends at once. What it may poll besides is ready at any time, since all of it
//! is in memory or a file.

use wasmtime::{Caller, Extern, Linker, Result};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::types::{self, Errno};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self, WasiSnapshotPreview1};
use wiggle::GuestMemory;

use super::clocks::VirtualTime;
use super::linker::{TaskState, WASI_MODULE};
use crate::limits::WASI_SUBSCRIPTIONS_MAX;

/// Bytes of a subscription and of an event in the guest's memory, by the WASI's specification:
/// <https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md#subscription>.
const SUBSCRIPTION_BYTES: usize = 48;
const EVENT_BYTES: usize = 32;

/// Puts this module's in the place of wasmtime's.
///
/// # Errors
/// What wasmtime says; nothing is expected.
pub(super) fn define(linker: &mut Linker<TaskState>) -> Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap_async(
        WASI_MODULE,
        "poll_oneoff",
        |mut caller: Caller<'_, TaskState>, (subscriptions, events, count, ready): (i32, i32, i32, i32)| {
            Box::new(async move {
                let fuel = wasmtime::AsContextMut::as_context_mut(&mut caller).hostcall_fuel();
                let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
                    return Err(wasmtime::format_err!("missing required memory export"));
                };
                let (data, state) = memory.data_and_store_mut(&mut caller);
                let time = state.time.clone();
                let wasi = state.wasi();
                wasi.set_hostcall_fuel(fuel);
                if count as u32 > WASI_SUBSCRIPTIONS_MAX {
                    return Ok(Errno::Nomem as i32);
                }
                match time {
                    None => {
                        let mut memory = GuestMemory::Unshared(data);
                        wasi_snapshot_preview1::poll_oneoff(
                            wasi,
                            &mut memory,
                            subscriptions,
                            events,
                            count,
                            ready,
                        )
                        .await
                    }
                    Some(time) => {
                        let place = Place { subscriptions, events, count, ready };
                        place.poll(wasi, data, &time).await.map(|errno| errno as i32)
                    }
                }
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Where in the guest's memory everything is.
struct Place {
    subscriptions: i32,
    events: i32,
    count: i32,
    ready: i32,
}

/// What a subscription waits for.
enum Awaited {
    /// A time of the virtual clock.
    Time(u64),
    Descriptor,
}

impl Place {
    async fn poll(&self, wasi: &mut WasiP1Ctx, memory: &mut [u8], time: &VirtualTime) -> Result<Errno> {
        let count = self.count as u32 as usize;
        if count == 0 {
            return Ok(Errno::Inval);
        }
        for (at, alignment) in [(self.subscriptions, 8), (self.events, 8), (self.ready, 4)] {
            if at % alignment != 0 {
                return Err(wasmtime::format_err!("Pointer not aligned to {alignment}: {at}"));
            }
        }
        // Copied first: the events may be written over them.
        let subscriptions = slice(memory, self.subscriptions, count * SUBSCRIPTION_BYTES)?.to_vec();
        slice(memory, self.events, count * EVENT_BYTES)?;
        slice(memory, self.ready, 4)?;
        let mut now = time.read();
        let mut awaited = Vec::with_capacity(count);
        for subscription in subscriptions.chunks_exact(SUBSCRIPTION_BYTES) {
            match read(wasi, subscription, now).await {
                Ok(read) => awaited.push(read),
                Err(errno) => return Ok(errno),
            }
        }
        let moments = awaited.iter().map(|awaited| match awaited {
            Awaited::Time(due) => *due,
            Awaited::Descriptor => now,
        });
        let earliest = moments.min().unwrap_or(now);
        time.advance_to(earliest);
        // At the end of all time a sleep ends early, and is said to have ended.
        now = time.read().max(earliest);
        let mut written = 0;
        for (subscription, awaited) in subscriptions.chunks_exact(SUBSCRIPTION_BYTES).zip(&awaited) {
            if matches!(awaited, Awaited::Time(due) if *due > now) {
                continue;
            }
            let is_descriptor = matches!(awaited, Awaited::Descriptor);
            let mut event = [0; EVENT_BYTES];
            event[..8].copy_from_slice(&subscription[..8]);
            event[10] = subscription[8];
            event[16] = u8::from(is_descriptor);
            let at = self.events as u32 as usize + written as usize * EVENT_BYTES;
            memory[at..at + EVENT_BYTES].copy_from_slice(&event);
            written += 1;
        }
        slice(memory, self.ready, 4)?.copy_from_slice(&u32::to_le_bytes(written));
        Ok(Errno::Success)
    }
}

async fn read(wasi: &mut WasiP1Ctx, subscription: &[u8], now: u64) -> Result<Awaited, Errno> {
    let right = match subscription[8] {
        0 => return due(subscription, now).map(Awaited::Time),
        1 => types::Rights::FD_READ,
        2 => types::Rights::FD_WRITE,
        _ => return Err(Errno::Inval),
    };
    is_pollable(wasi, number::<4>(subscription, 16) as u32, right).await?;
    Ok(Awaited::Descriptor)
}

/// When a clock's subscription is due, in virtual time.
fn due(subscription: &[u8], now: u64) -> Result<u64, Errno> {
    let (clock, timeout) = (number::<4>(subscription, 16), number::<8>(subscription, 24));
    let is_absolute = number::<2>(subscription, 40) & 1 == 1;
    match (clock, is_absolute) {
        (0 | 1, false) => Ok(now.saturating_add(timeout)),
        (0, true) => Ok(timeout.saturating_sub(VirtualTime::wall(0).as_nanos() as u64)),
        (1, true) => Ok(timeout),
        _ => Err(Errno::Inval),
    }
}

async fn is_pollable(wasi: &mut WasiP1Ctx, fd: u32, right: types::Rights) -> Result<(), Errno> {
    let stat = wasi.fd_fdstat_get(&mut GuestMemory::Unshared(&mut []), fd.into()).await;
    match stat {
        Ok(stat) if stat.fs_filetype == types::Filetype::Directory => Err(Errno::Badf),
        Ok(stat) if stat.fs_rights_base.contains(right) => Ok(()),
        _ => Err(Errno::Badf),
    }
}

/// # Errors
/// The task's end, as wasmtime's own functions have it.
fn slice(memory: &mut [u8], at: i32, len: usize) -> Result<&mut [u8]> {
    let at = at as u32 as usize;
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
