//! Modules with safepoints against the same modules without: whatever a module does, it does the same with them.
//!
//! The compiler puts safepoints into modules (`crates/engine/src/compile/safepoints.rs`). Each module is compiled
//! twice here, by engines that are set up as a worker has them: as its author wrote it, and with safepoints. Both are
//! instantiated and called in the same way. Results, traps with their stacks, exceptions, errors, and what the module
//! exports of its memories, globals and tables must be the same.
//!
//! The plain one counts fuel and runs first: what does not end within [`run::FUEL`] is not called again, so that the
//! other one, which nothing stops, ends as well.
//!
//! Each module is damaged as well, and what is not valid must not become so by safepoints.
//!
//! Beside that the bytes are compared ([`structure`]): safepoints stand where they are expected and nowhere else, and
//! each place of the one module is told as the right place of the other.

mod campaign;
pub mod cases;
mod engines;
mod run;
mod structure;
mod trial;
mod values;

pub use campaign::{Campaign, Settings, Summary};
pub use trial::{Outcome, Skipped, Trial, Validity};
