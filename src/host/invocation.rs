//! The part of a request that is kept until its end, since it may have to be sent again.

use std::sync::Arc;

use super::asks::TaskAsks;
use crate::module::Loaded;
use crate::panic_guard::PanicGuard;
use crate::shared_input::SharedInput;
use proto::limits::task::TaskLimits;
use proto::limits::{FRAME_PAYLOAD_BYTES_MAX, GUEST_TEXT_BYTES_MAX};
use proto::message::{Callee, ShareId};
use proto::payload::Payload;
use proto::schema::TypeSchema;

/// The shared inputs of a task or a batch.
pub(crate) type TaskShares = Option<Arc<[SharedInput]>>;

/// Returns their numbers in the guest's order.
pub(super) fn ids(shares: &TaskShares) -> Vec<ShareId> {
    shares.iter().flat_map(|shares| shares.iter()).map(SharedInput::id).collect()
}

/// The memory of a longer input is given back to the system, which takes its time.
const QUIET_INPUT_BYTES_MAX: usize = 64 * 1024;

/// One task, as it is kept until its end and sent to a worker, perhaps to several one after the other.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// It is the version of the module that was in force when the task was submitted; a later attempt has the same.
    pub(super) module: Arc<Loaded>,
    pub(super) callee: Callee,
    pub(super) limits: TaskLimits,
    pub(super) input: PanicGuard<Payload>,
    /// The input is the pool's own memory, so dropping it runs none of the caller's code.
    pub(super) owns_input: bool,
    pub(super) shares: TaskShares,
    /// The task may ask for this while it runs.
    pub(super) asks: Option<TaskAsks>,
}

impl Invocation {
    /// Returns the type of the task's own errors, where these are data.
    pub(super) fn error_schema(&self) -> Option<Arc<TypeSchema>> {
        let Callee::Task(index) = self.callee else { return None };
        let task = self.module.about.description.tasks.get(index.0 as usize)?;
        task.error.clone().map(Arc::new)
    }

    /// Returns whether dropping it takes no time, runs none of the caller's code and releases no module. If two tasks of a module
    /// without handles end at the same moment, each may see the other's count; the release then waits for nobody,
    /// as always (`Holder`).
    pub(super) fn is_quiet(&self) -> bool {
        let is_ours = self.owns_input && self.shares.is_none() && self.asks.is_none();
        let is_small = self.input.len() <= QUIET_INPUT_BYTES_MAX;
        is_ours && is_small && Arc::strong_count(&self.module) > 1
    }
}

/// Returns the most bytes of an answer's payload. Error texts are bounded, too, and a command has both stdout
/// and stderr.
pub(super) fn payload_bytes_max(callee: &Callee, limits: &TaskLimits) -> u64 {
    let outputs = match callee {
        Callee::Task(_) => 1,
        Callee::Command { .. } => 2,
    };
    let bytes = limits.output_bytes_max.saturating_mul(outputs);
    bytes.clamp(GUEST_TEXT_BYTES_MAX as u64, FRAME_PAYLOAD_BYTES_MAX)
}
