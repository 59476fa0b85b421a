//! Performs the effects once the lock is released.

use std::sync::Arc;
use std::time::Duration;

use super::invocation::Invocation;
use super::link::Link;
use super::requests::{SupervisorHandle, SupervisorRequest};
use crate::error::DeathCause;
use crate::future::Cell;
use crate::panic_guard::catch_panic;
use proto::shortage::Shortage;
use proto::text::Name;

pub(super) enum Effect {
    /// The request is here until it is sent.
    Request(Option<SupervisorRequest>),
    Flush {
        link: Arc<Link>,
    },
    Interrupt {
        link: Arc<Link>,
        run: u64,
    },
    Limit {
        link: Arc<Link>,
        run: u64,
        cpu: Duration,
    },
    Kill {
        link: Arc<Link>,
        /// Says what its death is reported as, if the kill itself is not the reason.
        cause: Option<DeathCause>,
    },
    Terminate {
        link: Arc<Link>,
    },
    Retire {
        link: Arc<Link>,
    },
    Short {
        workers: usize,
        shortage: Shortage,
    },
    Slow {
        cell: Arc<Cell>,
        link: Arc<Link>,
        run: u64,
        after: Duration,
    },
    /// The call is dropped with the effect. It is in a box, since effects are moved about, and is not here if it
    /// could be dropped at once.
    Announce {
        cell: Arc<Cell>,
        _call: Option<Box<Invocation>>,
    },
    Stopped,
}

impl Effect {
    /// Performs the effect. What is dropped with it may be the caller's.
    pub(super) fn perform(&mut self, supervisor: &SupervisorHandle) {
        match self {
            Effect::Request(request) => {
                request.take().into_iter().for_each(|request| supervisor.send(request))
            }
            Effect::Flush { link } => link.flush(),
            Effect::Interrupt { link, run } => link.interrupt(*run),
            Effect::Limit { link, run, cpu } => link.limit(*run, *cpu),
            Effect::Kill { link, cause } => match cause.take() {
                Some(cause) => link.kill_for(cause),
                None => link.kill(),
            },
            Effect::Terminate { link } => link.terminate(),
            Effect::Retire { link } => link.retire(),
            Effect::Short { workers, shortage } => catch_panic(|| match workers {
                0 => tracing::warn!("no worker can be started, and it is tried again: {shortage}"),
                _ => tracing::warn!(
                    "no further worker can be started beside {workers}, which go on: {shortage}"
                ),
            }),
            Effect::Slow { cell, link, run, after } => {
                let labels = cell.labels();
                catch_panic(|| {
                    tracing::warn!(
                        task = %labels.task,
                        label = labels.label.as_deref().unwrap_or_default(),
                        name = %Name(&labels.name),
                        module = &*labels.module,
                        worker_pid = link.pid,
                        "a task has run for {after:?}"
                    );
                });
                // The stack comes back as a log record of the task.
                link.sample(*run);
            }
            Effect::Announce { cell, .. } => cell.announce(),
            Effect::Stopped => supervisor.wake(),
        }
    }
}
