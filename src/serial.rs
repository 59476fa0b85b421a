//! Serialises reports, numbers and events: durations as whole microseconds, in fields whose names end in
//! `_us`, as the command's JSON has them; what is shared as what it is.

use std::sync::Arc;
use std::time::Duration;

use proto::task::TaskId;
use serde::{Serialize, Serializer};

fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn micros<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(whole(*duration))
}

pub(crate) fn micros_if_any<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    duration.map(whole).serialize(to)
}

/// A task and a duration.
pub(crate) fn task_micros<S: Serializer>(
    task: &Option<(TaskId, Duration)>,
    to: S,
) -> Result<S::Ok, S::Error> {
    task.map(|(task, duration)| (task, whole(duration))).serialize(to)
}

pub(crate) fn arc<T: Serialize + ?Sized, S: Serializer>(value: &Arc<T>, to: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(to)
}

pub(crate) fn arc_if_any<T: Serialize + ?Sized, S: Serializer>(
    value: &Option<Arc<T>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    value.as_deref().serialize(to)
}
