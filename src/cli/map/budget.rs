//! What may be under way at one time: inputs by their number; and in bytes the inputs, the largest results that may come
//! of them, and the results that wait for their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::account::{Account, Charge, Need, Waited};

/// The map's account, for one thread that takes.
#[derive(Debug)]
pub(super) struct Budget {
    account: Arc<Account>,
    /// Most bytes that the result of an input takes.
    result_bytes_max: u64,
    /// Inputs that were taken and are not done with.
    inputs: AtomicUsize,
}

impl Budget {
    pub(super) fn new(inputs_max: usize, bytes_max: u64, result_bytes_max: u64) -> Self {
        let account = Account::new(Need { items: inputs_max, bytes: bytes_max });
        Budget { account, result_bytes_max, inputs: AtomicUsize::new(0) }
    }

    /// Waits until there is room for an input of so many bytes and whatever comes of it; `None` if there will be none.
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

    /// An input that was taken is done with.
    pub(super) fn give(&self, charge: Arc<Charge>) {
        drop(charge);
        self.inputs.fetch_sub(1, Ordering::SeqCst);
    }

    /// Inputs that were taken and are not done with.
    pub(super) fn inputs(&self) -> usize {
        self.inputs.load(Ordering::SeqCst)
    }

    /// Nothing more is to begin.
    pub(super) fn close(&self) {
        self.account.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.account.is_closed()
    }
}
