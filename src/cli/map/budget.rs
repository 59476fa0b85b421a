//! The budget of a map. It bounds the number of inputs under way, and the bytes of those inputs, of the
//! largest results that they may have, and of the results that wait for their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::account::{Account, Charge, Need, Waited};

/// The map's account. Only one thread takes from it.
#[derive(Debug)]
pub(super) struct Budget {
    account: Arc<Account>,
    /// The result of an input takes at most this many bytes.
    result_bytes_max: u64,
    /// These inputs were taken and are not finished.
    inputs: AtomicUsize,
}

impl Budget {
    pub(super) fn new(inputs_max: usize, bytes_max: u64, result_bytes_max: u64) -> Self {
        let account = Account::new(Need { items: inputs_max, bytes: bytes_max });
        Budget { account, result_bytes_max, inputs: AtomicUsize::new(0) }
    }

    /// Waits until there is room for an input of this size and its largest result; returns `None` if the
    /// budget was closed.
    pub(super) fn take(&self, bytes: usize) -> Option<Arc<Charge>> {
        let need = Need { items: 1, bytes: self.result_bytes_max.saturating_add(bytes as u64) };
        loop {
            if let Some(charge) = self.account.try_take(need) {
                self.inputs.fetch_add(1, Ordering::SeqCst);
                return Some(charge);
            }
            if self.account.wait(need, None) == Waited::Closed {
                return None;
            }
        }
    }

    /// Gives back the room of an input that is finished.
    pub(super) fn give(&self, charge: Arc<Charge>) {
        drop(charge);
        self.inputs.fetch_sub(1, Ordering::SeqCst);
    }

    /// Returns the number of inputs that were taken and are not finished.
    pub(super) fn inputs(&self) -> usize {
        self.inputs.load(Ordering::SeqCst)
    }

    /// Ends the budget: no further input begins.
    pub(super) fn close(&self) {
        self.account.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.account.is_closed()
    }
}
