//! Questions about a pool's state.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Core, TaskRecord};
use crate::error::BrokenPool;
use crate::host::link::Link;
use crate::host::observers::Subscription;
use crate::host::settings::PoolSettings;
use crate::observe::{EventKind, PoolStats, WorkerStats};
use proto::policy::SandboxReport;
use proto::sync::Lock;

impl Core {
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.hold().scheduler.is_stopped()
    }

    pub(crate) fn sandbox(&self) -> Option<Arc<SandboxReport>> {
        self.state.hold().sandbox.clone()
    }

    pub(crate) fn unresolved(&self) -> usize {
        self.state.hold().scheduler.unresolved()
    }

    /// The pool's number and settings: what requests are held to.
    pub(crate) fn bounds(&self) -> (u64, &PoolSettings) {
        (self.id, &self.settings)
    }

    pub(crate) fn workers_max(&self) -> usize {
        self.state.hold().scheduler.workers().1
    }

    pub(crate) fn broken(&self) -> Option<BrokenPool> {
        self.state.hold().broken.as_ref().map(|breakage| breakage.broken.clone())
    }

    /// Pids of the workers that live now.
    pub(crate) fn worker_pids(&self) -> Vec<u32> {
        let mut pids: Vec<_> = self.state.hold().links.values().map(|link| link.pid).collect();
        pids.sort_unstable();
        pids
    }

    /// The links of all workers.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.state.hold().links.values().cloned().collect()
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let state = self.state.hold();
        let now = self.now();
        let counts = state.scheduler.counts();
        let mut workers: Vec<_> = state
            .links
            .iter()
            .filter_map(|(key, link)| {
                let seen = state.scheduler.worker(*key)?;
                let task = seen.task.map(|(task, began)| (task, now.saturating_sub(began)));
                let domain = state.domains.of(*key);
                let shared = link.sent.shares();
                let modules = link.sent.modules();
                let pid = link.pid;
                let answered = seen.answered;
                Some(WorkerStats { pid, state: seen.state, domain, task, answered, shared, modules })
            })
            .collect();
        workers.sort_unstable_by_key(|worker| worker.pid);
        let (workers_min, workers_max) = state.scheduler.workers();
        let waiting =
            |record: &TaskRecord| record.batch.as_ref().map_or(0, |batch| batch.left().saturating_sub(1));
        let waiting: u64 = match state.batched {
            0 => 0,
            _ => state.records.values().map(waiting).sum(),
        };
        let pending = counts.pending + waiting as usize;
        let running = counts.running;
        let submitted = counts.accepted + state.batched;
        let mut ended = state.tally.ended;
        for batch in state.records.values().filter_map(|record| record.batch.as_ref()) {
            batch.count_answers(&mut ended);
        }
        PoolStats {
            workers_min,
            workers_max,
            pending,
            running,
            submitted,
            ended,
            workers,
            log_records_dropped: self.log_records_dropped.load(Ordering::Relaxed),
            ..state.tally.clone()
        }
    }

    pub(crate) fn subscribe(&self, capacity: usize) -> Subscription {
        let mut state = self.state.hold();
        let subscription = state.observers.subscribe(capacity);
        if state.scheduler.is_stopped() {
            let now = self.now();
            state.observers.tell(now, || EventKind::Stopped);
        }
        subscription
    }

    /// Waits until no process is left; `false` if the deadline came first.
    pub(crate) fn wait_stopped(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state.hold();
        while !state.scheduler.is_stopped() {
            let (woken, in_time) = self.sleep(state, deadline);
            state = woken;
            if !in_time {
                return state.scheduler.is_stopped();
            }
        }
        true
    }
}
