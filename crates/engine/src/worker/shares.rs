//! Shared inputs: mapped for reading by the watcher as they arrive, read by tasks.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags};
use wasmtime::{Caller, Extern};

use super::arrivals::Arrivals;
use super::linker::TaskState;
use proto::limits::SHARED_READ_BYTES_MAX;
use proto::message::ShareId;

/// A shared input, unmapped when nobody has it any longer.
pub(super) struct Mapping {
    /// An empty input has no mapping.
    base: Option<NonNull<u8>>,
    len: usize,
}

// SAFETY: nobody writes to it: the mapping is for reading, and the file is sealed against writing.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The file is sealed, and can be closed then.
    pub(super) fn new(file: &impl AsFd, bytes: u64) -> std::result::Result<Mapping, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot be mapped: {error}");
        let len = usize::try_from(bytes).map_err(|error| failed(&error))?;
        if len == 0 {
            return Ok(Mapping { base: None, len });
        }
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0)
        };
        let base = base.map_err(|error| failed(&error))?;
        Ok(Mapping { base: NonNull::new(base.cast()), len })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let Some(base) = self.base else { return &[] };
        // SAFETY: mapped with this length until the drop; the host has sealed the file, so that it has
        // these bytes, and nobody changes them.
        unsafe { std::slice::from_raw_parts(base.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(base) = self.base {
            // SAFETY: from `mmap` with this length, and no slice of it outlives `self`.
            let _ = unsafe { rustix::mm::munmap(base.as_ptr().cast(), self.len) };
        }
    }
}

/// A shared input, or the message why it could not be mapped, which each of its tasks gets.
pub(super) type Arrived = std::result::Result<Arc<Mapping>, String>;

/// The shared inputs that the host has sent and not taken back.
pub(super) type Mappings = Arrivals<ShareId, Arrived>;

impl Mappings {
    /// Maps what has come. `None` if there is not a file for each.
    pub(super) fn map(&self, shares: &[(ShareId, u64)], files: &[OwnedFd]) -> Option<()> {
        if shares.len() != files.len() {
            return None;
        }
        for ((share, bytes), file) in shares.iter().zip(files) {
            let mapping = Mapping::new(file, *bytes).map(Arc::new);
            let mapping = mapping.map_err(|error| format!("a shared input {error}"));
            // The mapping is logged before any task can find it, and so before its tasks end.
            match &mapping {
                Ok(_) => tracing::debug!(share = share.0, bytes, "a shared input is mapped"),
                Err(error) => {
                    tracing::warn!(share = share.0, bytes, error, "a shared input's tasks will fail")
                }
            }
            self.arrive(*share, mapping);
        }
        Some(())
    }

    /// Waits for a task's shared inputs.
    pub(super) fn get(&self, shares: &[ShareId]) -> std::result::Result<Vec<Arc<Mapping>>, String> {
        if shares.is_empty() {
            return Ok(Vec::new());
        }
        self.wait_for(|arrived| {
            let are_there = shares.iter().all(|share| arrived.contains_key(share));
            are_there.then(|| shares.iter().filter_map(|share| arrived.get(share).cloned()).collect())
        })
    }
}

/// Returns the length of a shared input, or −1 if there is none of that number.
pub(super) fn len(caller: Caller<'_, TaskState>, index: u32) -> i64 {
    caller.data().shares.get(index as usize).map_or(-1, |mapping| mapping.len as i64)
}

/// Like `pread`: how many bytes were copied, −1 for what is out of range.
pub(super) fn read(
    mut caller: Caller<'_, TaskState>,
    index: u32,
    offset: u64,
    pointer: u32,
    len: u32,
) -> i32 {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return -1 };
    let (memory, state) = memory.data_and_store_mut(&mut caller);
    let shared = state.shares.get(index as usize).map(|mapping| mapping.bytes());
    shared.and_then(|shared| copy(shared, offset, memory, pointer, len)).unwrap_or(-1)
}

/// Everything is checked in 64 bits before a byte is copied.
fn copy(shared: &[u8], offset: u64, memory: &mut [u8], pointer: u32, len: u32) -> Option<i32> {
    let start = u64::from(pointer);
    let end = u64::from(pointer) + u64::from(len);
    if end > memory.len() as u64 || offset > shared.len() as u64 {
        return None;
    }
    let len = u64::from(len).min(shared.len() as u64 - offset).min(SHARED_READ_BYTES_MAX);
    let offset = offset as usize;
    let start = start as usize;
    let len = len as usize;
    memory[start..start + len].copy_from_slice(&shared[offset..offset + len]);
    Some(len as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_within_both_sides_or_nothing() {
        let shared: Vec<u8> = (0..10).collect();
        let mut memory = [99; 8];
        assert_eq!(copy(&shared, 2, &mut memory, 1, 4), Some(4));
        assert_eq!(memory, [99, 2, 3, 4, 5, 99, 99, 99]);
        let mut memory = [99; 8];
        assert_eq!(copy(&shared, 7, &mut memory, 0, 8), Some(3), "it ends where the input does");
        assert_eq!(memory, [7, 8, 9, 99, 99, 99, 99, 99]);
        let mut memory = [99; 8];
        assert_eq!(copy(&shared, 10, &mut memory, 8, 0), Some(0));
        for (offset, pointer, len) in [
            (11, 0, 1),
            (u64::MAX, 0, 1),
            (1 << 32, 0, 1),
            (0, 8, 1),
            (0, 1, 8),
            (0, u32::MAX, 1),
            (0, 1, u32::MAX),
            (0, u32::MAX, u32::MAX),
        ] {
            assert_eq!(copy(&shared, offset, &mut memory, pointer, len), None, "{offset} {pointer} {len}");
        }
        assert_eq!(memory, [99; 8]);
    }

    #[test]
    fn a_task_waits_for_what_is_under_way_and_keeps_what_is_forgotten() {
        let file = |bytes: &[u8]| OwnedFd::from(proto::memfd::sealed("test", bytes).expect("a file"));
        let mappings = Mappings::new();
        let ids = [ShareId(1), ShareId(2)];
        let taken = std::thread::scope(|scope| {
            let taking = scope.spawn(|| mappings.get(&ids));
            mappings.map(&[(ids[0], 3)], &[file(&[1, 2, 3])]).expect("a file each");
            mappings.map(&[(ids[1], 0)], &[file(&[])]).expect("a file each");
            taking.join().expect("ends")
        });
        let taken = taken.expect("mapped");
        mappings.forget(&ids);
        assert!(mappings.lock().is_empty());
        assert_eq!((taken[0].bytes(), taken[1].bytes()), (&[1, 2, 3][..], &[][..]));
        assert!(mappings.map(&[(ids[0], 3)], &[]).is_none(), "a file is missing");
    }
}
