//! What is done once the lock is released.

use std::sync::Arc;
use std::time::Duration;

use super::core::{Call, Core};
use super::link::Link;
use super::supervise::Job;
use crate::dispatch::KillReason;
use crate::error::DeathCause;
use crate::foreign::guarded;
use crate::future::{Cell, Labels};
use crate::text::Escaped;

pub(super) enum Effect {
    Job(Job),
    Flush { link: Arc<Link> },
    Interrupt { link: Arc<Link>, run: u64 },
    Kill { link: Arc<Link>, reason: KillReason },
    Terminate { link: Arc<Link> },
    Retire { link: Arc<Link> },
    Slow { labels: Arc<Labels>, pid: u32, after: Duration },
    Announce { cell: Arc<Cell>, call: Call },
    Stopped,
}

impl Effect {
    /// Does it, and returns what is then to be dropped.
    pub(super) fn perform(self, core: &Core) -> Option<Call> {
        match self {
            Effect::Job(job) => core.mailbox.post(job),
            Effect::Flush { link } => link.flush(),
            Effect::Interrupt { link, run } => link.interrupt(run),
            Effect::Kill { link, reason } => match reason {
                KillReason::Violation => {
                    link.kill_for(DeathCause::ProtocolViolation("an answer to no question".into()));
                }
                KillReason::StartTimeout => {
                    link.kill_for(DeathCause::StartTimeout(core.settings.start_timeout));
                }
                KillReason::Grace | KillReason::PoolEnds => link.kill(),
            },
            Effect::Terminate { link } => link.terminate(),
            Effect::Retire { link } => link.retire(),
            Effect::Slow { labels, pid, after } => guarded(|| {
                tracing::warn!(
                    task = %labels.task,
                    label = labels.label.as_deref().unwrap_or_default(),
                    name = %Escaped(&labels.name),
                    module = &*labels.module,
                    worker_pid = pid,
                    "a task has run for {after:?}"
                );
            }),
            Effect::Announce { cell, call } => {
                cell.announce();
                return Some(call);
            }
            Effect::Stopped => core.mailbox.wake(),
        }
        None
    }
}
