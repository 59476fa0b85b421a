//! Python's own tests of `ProcessPoolExecutor`, as they read for this pool: one Rust test for
//! each Python test, of the same name, in one file for each Python file
//! (`Lib/test/test_concurrent_futures/`, CPython 3.14), in both modes of
//! [`OnWorkerDeath`](wasmpool::OnWorkerDeath).
//!
//! `rows.tsv` lists every Python test with what became of it; `table` (a script beside this
//! file) runs the tests and prints that list with their results.

#[path = "../common/mod.rs"]
mod common;

use wasmpool::{OnWorkerDeath, Pool, PoolBuilder};

mod as_completed;
mod beyond;
mod deadlock;
mod executor;
mod future;
mod init;
mod process_pool;
mod shutdown;
mod wait;

/// The two ways to take a worker's death; every test of a pool runs in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Break,
    Replace,
}

impl Mode {
    pub fn policy(self) -> OnWorkerDeath {
        match self {
            Mode::Break => OnWorkerDeath::Break,
            Mode::Replace => OnWorkerDeath::replace(),
        }
    }

    pub fn builder(self, workers: usize) -> PoolBuilder {
        common::builder(workers).on_worker_death(self.policy())
    }

    pub fn pool(self, workers: usize) -> Pool {
        self.builder(workers).build().expect("the pool builds")
    }
}

/// `fn test_submit(mode: Mode) { … }` as two tests, `test_submit::breaking` and
/// `test_submit::replacing`.
#[macro_export]
macro_rules! in_both_modes {
    ($($(#[$meta:meta])* fn $name:ident($mode:ident: Mode) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not every test needs everything")]
            use super::*;

            $(#[$meta])*
            fn body($mode: $crate::Mode) $body

            #[test]
            fn breaking() {
                body($crate::Mode::Break);
            }

            #[test]
            fn replacing() {
                body($crate::Mode::Replace);
            }
        }
    )*};
}
