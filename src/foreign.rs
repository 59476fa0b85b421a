//! Others' code on our threads.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a log statement. The subscriber behind it is the embedder's code, and this may be
/// the thread that a worker's or the whole pool's fate depends on: a panic ends here.
pub(crate) fn guarded(emit: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(emit));
}
