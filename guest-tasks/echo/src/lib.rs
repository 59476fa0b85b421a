//! The smallest tasks there are: for smoke tests, benchmarks and examples.

use std::sync::atomic::{AtomicU64, Ordering};

use log::Level;

/// Returns its input.
#[wasmpool_guest::task(raw)]
pub fn echo(input: &[u8]) -> Vec<u8> {
    input.to_vec()
}

/// Adds two numbers; an overflow wraps around.
#[wasmpool_guest::task]
pub fn add(a: i64, b: i64) -> i64 {
    a.wrapping_add(b)
}

/// Logs `n` lines, at each level in turn from error to trace; returns `n`.
#[wasmpool_guest::task]
pub fn log_lines(n: u32) -> u32 {
    const LEVELS: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
    for (line, level) in (0..n).zip(LEVELS.into_iter().cycle()) {
        log::log!(level, "line {line}");
    }
    n
}

/// Counts its own calls: 1 in a fresh instance, more in one that is reused.
#[wasmpool_guest::task]
pub fn bump() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed) + 1
}

/// Returns its input, as bytes that have a type.
#[wasmpool_guest::task]
pub fn typed_echo(data: Vec<u8>) -> Vec<u8> {
    data
}

/// A checksum of the bytes (FNV-1a, 64 bits).
#[wasmpool_guest::task]
pub fn hash(data: Vec<u8>) -> u64 {
    data.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Keeps the processor busy for so many rounds of one or two nanoseconds; the
/// result depends on all of them.
#[wasmpool_guest::task]
pub fn spin(iterations: u64) -> u64 {
    let mut state = 1_u64;
    for _ in 0..iterations {
        // xorshift: each round needs the one before.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        assert_eq!(echo(b"abc"), b"abc");
    }

    #[test]
    fn numbers_are_added() {
        assert_eq!(add(2, -5), -3);
        assert_eq!(add(i64::MAX, 1), i64::MIN);
    }

    #[test]
    fn calls_are_counted() {
        assert_eq!((bump(), bump()), (1, 2));
    }

    #[test]
    fn the_checksum_is_fnv() {
        assert_eq!(hash(vec![]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"foobar".to_vec()), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn spinning_goes_on_from_where_it_was() {
        assert_eq!(spin(0), 1);
        assert_eq!(spin(1), 0x4082_2041);
    }
}
