//! The randomness that a guest is given: the kernel's, or a stream that a seed determines.
//!
//! Either way no state outlives the task: nothing of one task's randomness says anything of the
//! next one's, and two processes that were forked from one never draw the same.

use std::convert::Infallible;

use rand_core::TryRng;

/// Asks the kernel each time.
#[derive(Debug)]
pub(super) struct System;

impl TryRng for System {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        bytes_of(self).map(u32::from_le_bytes)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        bytes_of(self).map(u64::from_le_bytes)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        // The call fails on kernels that do not have it, or if the sandbox refuses it. A task must not go on with
        // bytes that only look random, so the worker ends.
        getrandom::fill(bytes).unwrap_or_else(|error| panic!("the kernel gives no random bytes: {error}"));
        Ok(())
    }
}

/// The output of BLAKE3, keyed by the seed: the same for ever, whatever generator is in fashion.
#[derive(Debug)]
pub(super) struct Seeded(blake3::OutputReader);

impl Seeded {
    /// `stream` tells several generators of one task apart.
    pub(super) fn new(seed: u64, stream: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("wasmpool v1: the randomness of deterministic tasks");
        hasher.update(&seed.to_le_bytes()).update(stream.as_bytes());
        Seeded(hasher.finalize_xof())
    }

    pub(super) fn number(mut self) -> u128 {
        let Ok(bytes) = bytes_of(&mut self);
        u128::from_le_bytes(bytes)
    }
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        bytes_of(self).map(u32::from_le_bytes)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        bytes_of(self).map(u64::from_le_bytes)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

fn bytes_of<const N: usize>(from: &mut impl TryRng<Error = Infallible>) -> Result<[u8; N], Infallible> {
    let mut bytes = [0; N];
    from.try_fill_bytes(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(from: &mut impl TryRng<Error = Infallible>) -> [u8; 32] {
        let Ok(bytes) = bytes_of(from);
        bytes
    }

    #[test]
    fn a_seed_and_a_stream_determine_every_byte_and_nothing_else_does() {
        let mut first = Seeded::new(7, "a");
        let drawn = [draw(&mut first), draw(&mut first)];
        let mut again = Seeded::new(7, "a");
        assert_eq!(drawn, [draw(&mut again), draw(&mut again)]);
        assert_ne!(drawn[0], drawn[1]);
        for mut other in [Seeded::new(8, "a"), Seeded::new(7, "b")] {
            assert_ne!(draw(&mut other), drawn[0]);
        }
        // The value is written down, so that another version of the hash cannot change it unseen.
        let hex: String = drawn[0][..8].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5b090a402761cefa");
    }

    #[test]
    fn the_kernels_bytes_differ_each_time() {
        assert_ne!(draw(&mut System), draw(&mut System));
    }
}
