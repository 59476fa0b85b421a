//! Guards our threads against the panics of others' code.

use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a log statement. The subscriber behind it is the embedder's code, and this may be
/// the thread that a worker's or the whole pool's fate depends on: a panic ends here.
pub(crate) fn catch_panic(emit: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(emit));
}

/// A value whose destructor may be the caller's code, such as an input made with
/// `Bytes::from_owner`: wherever it is dropped, a panic ends there.
#[derive(Debug, Clone)]
pub(crate) struct PanicGuard<T>(Option<T>);

impl<T> PanicGuard<T> {
    pub(crate) fn new(value: T) -> Self {
        PanicGuard(Some(value))
    }
}

impl<T> Deref for PanicGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is taken by drop alone")
    }
}

impl<T> DerefMut for PanicGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is taken by drop alone")
    }
}

impl<T> Drop for PanicGuard<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
            catch_panic(|| tracing::error!("the destructor of an input panicked"));
        }
    }
}
