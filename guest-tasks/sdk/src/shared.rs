//! Large inputs that many tasks share: the host keeps one copy for each worker, and a
//! task reads from it what it wants.

/// A shared input of the task at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    index: u32,
    len: u64,
}

/// The shared input of that number, from 0, in the order of the caller's options
/// (`TaskOptions::shared`); `None` if the task was given fewer.
///
/// In a native test it is what [`set_shared`] has put there.
pub fn shared(index: u32) -> Option<Shared> {
    let len = u64::try_from(imports::len(index)).ok()?;
    Some(Shared { index, len })
}

impl Shared {
    /// Its size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "`len() == 0` says it, and nobody asks")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Copies what stands at `offset`, and says how many bytes that were: fewer than
    /// `into` has room for only where the input ends, and none behind its end.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> usize {
        let mut filled = 0;
        // The host may copy less at a time.
        while filled < into.len() {
            match usize::try_from(imports::read(
                self.index,
                offset.saturating_add(filled as u64),
                &mut into[filled..],
            )) {
                Ok(copied @ 1..) => filled += copied,
                _ => break,
            }
        }
        filled
    }

    /// All of it, in the instance's own memory.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(usize::MAX)];
        let copied = self.read_at(0, &mut bytes);
        bytes.truncate(copied);
        bytes
    }
}

#[cfg(target_arch = "wasm32")]
mod imports {
    #[link(wasm_import_module = "wasmpool")]
    unsafe extern "C" {
        safe fn shared_len(index: u32) -> i64;
        safe fn shared_read(index: u32, offset: u64, ptr: *mut u8, len: usize) -> i32;
    }

    pub(super) fn len(index: u32) -> i64 {
        shared_len(index)
    }

    pub(super) fn read(index: u32, offset: u64, into: &mut [u8]) -> i32 {
        shared_read(index, offset, into.as_mut_ptr(), into.len())
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod imports {
    use std::cell::RefCell;

    thread_local! {
        pub(super) static SHARED: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn len(index: u32) -> i64 {
        SHARED.with_borrow(|all| all.get(index as usize).map_or(-1, |bytes| bytes.len() as i64))
    }

    pub(super) fn read(index: u32, offset: u64, into: &mut [u8]) -> i32 {
        SHARED.with_borrow(|all| {
            let bytes = all.get(index as usize).and_then(|bytes| bytes.get(usize::try_from(offset).ok()?..));
            let Some(bytes) = bytes else { return -1 };
            // As a host may.
            let len = bytes.len().min(into.len()).min(1 << 16);
            into[..len].copy_from_slice(&bytes[..len]);
            len as i32
        })
    }
}

/// For native tests: what [`shared`] finds on this thread from here on.
#[cfg(not(target_arch = "wasm32"))]
pub fn set_shared(inputs: impl IntoIterator<Item = Vec<u8>>) {
    imports::SHARED.set(inputs.into_iter().collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_end_where_the_input_does() {
        set_shared([vec![1, 2, 3], Vec::new()]);
        let (first, second) = (shared(0).expect("given"), shared(1).expect("given"));
        assert_eq!((first.len(), second.len(), shared(2)), (3, 0, None));
        let mut room = [0; 2];
        assert_eq!((first.read_at(0, &mut room), room), (2, [1, 2]));
        assert_eq!((first.read_at(2, &mut room), room[0]), (1, 3));
        assert_eq!(first.read_at(3, &mut room), 0);
        assert_eq!(first.read_at(u64::MAX, &mut room), 0);
        assert_eq!((first.to_vec(), second.to_vec()), (vec![1, 2, 3], Vec::new()));
    }

    #[test]
    fn what_is_copied_in_pieces_arrives_whole() {
        let bytes: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        set_shared([bytes.clone()]);
        assert_eq!(shared(0).expect("given").to_vec(), bytes);
    }
}
