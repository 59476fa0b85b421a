//! Safepoints: what the compiler adds to a module so that its tasks can be stopped, and how places in the module that it
//! compiles are told as places in the module that its author wrote.
//!
//! At a safepoint the code reads a byte of the *polling page* (the word of Java's virtual machines), which is a page of its
//! own memory, or one that was added. To stop a task, its worker takes the page's access rights away, and the next safepoint traps.

use serde::{Deserialize, Serialize};

/// Bytes that safepoints read. No machine has smaller pages, so one page of the system's holds them.
pub const POLLING_PAGE_BYTES: u64 = 4096;

/// The things that were added to a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct Safepoints {
    /// The memory with the polling page is exported under this name. If it is not exported, all instances share a page of
    /// the worker's own.
    pub page_export: Option<String>,
    /// Where the polling page begins in that memory.
    pub page_offset: u64,
    /// The function that the module names as its start is exported under this name, and the worker calls it. An engine
    /// that did so would not have said yet where the polling page is.
    pub start_export: Option<String>,
    pub insertions: Insertions,
}

/// Where bytes were inserted into a module, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct Insertions {
    /// One [`Step`] after the other, as postcard has them: some three bytes each, of which a large module has tens of
    /// thousands.
    steps: Vec<u8>,
}

/// From here on places are shifted by so many bytes more.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Step {
    /// Bytes since the step before, in the module with insertions.
    gap: u32,
    /// Bytes that were inserted here. Before the first function there may be fewer than there were.
    bytes: i32,
}

impl Insertions {
    /// Returns where a place of the module with insertions was in the module without. A place inside of an insertion is
    /// where the insertion was made.
    pub fn original(&self, offset: u64) -> u64 {
        let mut place = i64::try_from(offset).unwrap_or(i64::MAX);
        let mut rest = &self.steps[..];
        let mut at = 0;
        let mut shift = 0;
        while let Ok((step, left)) = postcard::take_from_bytes::<Step>(rest) {
            rest = left;
            at += i64::from(step.gap);
            if at > place {
                break;
            }
            let before = at - shift;
            shift += i64::from(step.bytes);
            if place < at + i64::from(step.bytes) {
                return u64::try_from(before).unwrap_or(0);
            }
        }
        place -= shift;
        u64::try_from(place).unwrap_or(0)
    }
}

/// Notes insertions as they are made.
#[derive(Debug, Default)]
pub struct Recorder {
    insertions: Insertions,
    at: u64,
    shift: i64,
}

impl Recorder {
    /// The bytes from `offset` on, in the module with insertions, were at `original` in the one without.
    /// Offsets only grow.
    pub fn moved(&mut self, offset: u64, original: u64) {
        let bytes = offset.cast_signed() - original.cast_signed() - self.shift;
        // What was inserted stands before it.
        self.push(offset.saturating_sub(u64::try_from(bytes).unwrap_or(0)), bytes);
    }

    /// So many bytes were inserted at this offset. Offsets only grow.
    pub fn inserted(&mut self, offset: u64, bytes: u64) {
        self.push(offset, bytes.cast_signed());
    }

    fn push(&mut self, offset: u64, bytes: i64) {
        if bytes == 0 {
            return;
        }
        // A module has at most `MODULE_BYTES_MAX` bytes.
        let gap = u32::try_from(offset.saturating_sub(self.at)).unwrap_or(u32::MAX);
        let step = Step { gap, bytes: i32::try_from(bytes).unwrap_or(i32::MAX) };
        let mut encoded = [0; 16];
        if let Ok(encoded) = postcard::to_slice(&step, &mut encoded) {
            self.insertions.steps.extend_from_slice(encoded);
        }
        self.at = offset;
        self.shift += bytes;
    }

    pub fn end(self) -> Insertions {
        self.insertions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_as_they_were_before_the_insertions() {
        // The original: 20 bytes of a head of which 4 were dropped, then `abcdef` with insertions of 7 at c and of 9 at e.
        let mut recorder = Recorder::default();
        recorder.moved(16, 20);
        recorder.inserted(18, 7);
        recorder.inserted(27, 9);
        let insertions = recorder.end();
        for (offset, original) in [
            (16, 20),
            (17, 21),
            (18, 22),
            (20, 22),
            (24, 22),
            (25, 22),
            (26, 23),
            (27, 24),
            (35, 24),
            (36, 24),
            (37, 25),
            (900, 888),
        ] {
            assert_eq!(insertions.original(offset), original, "{offset}");
        }
        assert_eq!(Insertions::default().original(77), 77);
    }

    #[test]
    fn damaged_steps_are_an_end() {
        let insertions = Insertions { steps: vec![0xff; 9] };
        assert_eq!(insertions.original(5), 5);
    }
}
