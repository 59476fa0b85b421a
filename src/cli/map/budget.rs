//! The budget of a map. It bounds the number of inputs under way, and the bytes of those inputs, of the
//! largest results that they may have, and of the results until they are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytesize::ByteSize;

use crate::account::{Account, Charge, Need, Waited};
use crate::cli::exit::Failure;
use crate::limits::RESULT_BYTES_BESIDE;

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
    /// # Errors
    /// [`Failure::Usage`], if no result has room: then no input could be run.
    pub(super) fn new(inputs_max: usize, bytes_max: u64, result_bytes_max: u64) -> Result<Self, Failure> {
        if result_bytes_max > bytes_max {
            let (max, one) = (ByteSize(bytes_max).display().iec(), result_bytes_max);
            return Err(Failure::Usage(format!(
                "--map-memory {max} has no room for the result of one task, which may take {one} bytes ({}): raise \
                 --map-memory to that and the bytes of an input, or lower --output-limit",
                ByteSize(one).display().iec()
            )));
        }
        let account = Account::new(Need { items: inputs_max, bytes: bytes_max });
        Ok(Budget { account, result_bytes_max, inputs: AtomicUsize::new(0) })
    }

    /// Returns why an input of this size is not run, if it never has room beside its largest result.
    pub(super) fn refusal(&self, bytes: usize) -> Option<Failure> {
        let (result, max) = (self.result_bytes_max, self.account.bytes_max());
        let is_refused = result.saturating_add(bytes as u64) > max;
        is_refused.then(|| {
            Failure::Input(format!(
                "it has {bytes} bytes and its result may take {result}, more than the {max} of --map-memory: raise \
                 that, or lower --output-limit"
            ))
        })
    }

    /// Waits until there is room for an input of this size and its largest result, or, without a size, for the error of
    /// an input that is not run; returns `None` if the budget was closed.
    pub(super) fn take(&self, bytes: Option<usize>) -> Option<Arc<Charge>> {
        let bytes = match bytes {
            Some(bytes) => self.result_bytes_max.saturating_add(bytes as u64),
            None => RESULT_BYTES_BESIDE.min(self.account.bytes_max()),
        };
        let need = Need { items: 1, bytes };
        loop {
            if let Some(charge) = self.account.try_take(need) {
                self.inputs.fetch_add(1, Ordering::SeqCst);
                return Some(charge);
            }
            match self.account.wait(need, None) {
                Waited::Room | Waited::Late => {}
                // `refusal` was asked before.
                Waited::Closed | Waited::Never => return None,
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
