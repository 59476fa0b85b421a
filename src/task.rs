//! One task: what it may use, what it is given, and what it cost.
//!
//! The handles by which tasks are called are [`module`](crate::module)'s, their results
//! [`future`](crate::future)'s, and their failures [`error`](mod@crate::error)'s.

pub use crate::command::CommandInput;
pub use crate::options::{Isolation, TaskOptions};
pub use crate::policy::Retry;
pub use crate::report::{CommandOutput, PartialOutput, TaskReport};
pub use crate::shared_input::SharedInput;
#[doc(inline)]
pub use proto::task::{LogOverflow, Refusal, RefusalKind, Refusals, TaskId};
