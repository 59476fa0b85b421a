//! The budget of a map. It bounds the number of inputs under way, and the bytes of those inputs, of the
//! largest results that they may have, and of the results until they are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytesize::ByteSize;

use crate::exit::Failure;
use crate::origin::told;
use proto::limits::RESULT_BYTES_BESIDE;
use wasmpool::internal::{Account, Charge, Need, Waited};

const MIB: u64 = 1 << 20;

/// Most inputs are no longer than this.
const SHORT_INPUT_BYTES: u64 = 64 << 10;

/// The map's account. Only one thread takes from it.
#[derive(Debug)]
pub(super) struct Budget {
    account: Arc<Account>,
    /// The result of an input takes at most this many bytes.
    result_bytes_max: u64,
    /// A result takes at least this many bytes, even if outputs may have none.
    result_bytes_least: u64,
    /// These inputs were taken and are not finished.
    inputs: AtomicUsize,
}

impl Budget {
    /// # Errors
    /// [`Failure::Usage`], if no result has room: then no input could be run.
    pub(super) fn new(
        inputs_max: usize,
        bytes_max: u64,
        result_bytes_max: u64,
        result_bytes_least: u64,
    ) -> Result<Self, Failure> {
        let account = Account::new(Need { items: inputs_max, bytes: bytes_max });
        let budget = Budget { account, result_bytes_max, result_bytes_least, inputs: AtomicUsize::new(0) };
        if result_bytes_max > bytes_max {
            let max = ByteSize(bytes_max).display().iec();
            return Err(Failure::Usage(format!(
                "{} {max} has no room for the result of one task, which may take {result_bytes_max} bytes: {}",
                told("--map-memory"),
                budget.advice(SHORT_INPUT_BYTES)
            )));
        }
        Ok(budget)
    }

    /// Says what to do about an input of this size that has no room beside its largest result.
    fn advice(&self, bytes: u64) -> String {
        let enough = self.result_bytes_max.saturating_add(bytes).div_ceil(MIB);
        let raise = format!("give --map-memory {enough}MiB or more");
        // There is room for a task's error beside what it returns: no limit of outputs makes an error
        // smaller.
        match self.result_bytes_least.saturating_add(bytes) <= self.account.bytes_max() {
            true => format!("{raise}, or lower --output-limit"),
            false => raise,
        }
    }

    /// Returns why an input of this size is not run, if it never has room beside its largest result.
    pub(super) fn excess(&self, bytes: usize) -> Option<Failure> {
        let result = self.result_bytes_max;
        let max = self.account.bytes_max();
        let is_excess = result.saturating_add(bytes as u64) > max;
        is_excess.then(|| {
            Failure::Input(format!(
                "it has {bytes} bytes and its result may take {result}, more than the {max} of {}: {}",
                told("--map-memory"),
                self.advice(bytes as u64)
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
                // `excess` was asked before.
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
