//! The events that the readers of the workers' rings tell the core.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::vec;

use super::{Core, WorkerEnd};
use crate::error::Death;
use crate::future::Cell;
use crate::host::link::{Link, TaskEnd, WorkerEvents};
use crate::host::logs::Dropped;
use crate::observe::EventKind;
use crate::scheduler::{self, Event, Now, WorkerKey};
use proto::message::RunEnd;
use proto::sync::Lock;
use proto::task::TaskId;

impl WorkerEvents for Core {
    fn now(&self) -> Now {
        Core::now(self)
    }

    fn completed(&self, link: &Link, ended: vec::Drain<'_, TaskEnd>) {
        let resident_bytes =
            self.settings.workers.recycle.memory_bytes_max.and_then(|_| link.resident_bytes());
        let is_full = link.sent.modules() >= self.settings.workers.modules_max;
        let events = ended.map(|TaskEnd { task, unfinished, received }| {
            let report = scheduler::RunReport {
                unfinished,
                interrupted: received.completion.end == RunEnd::Interrupted,
                ran: Duration::from_nanos(received.completion.cost.run_ns),
                // The CPU time is measured later, under the lock.
                used: None,
                resident_bytes,
                is_full,
            };
            (Event::Done { worker: link.key, task, report }, Some(received))
        });
        let state = self.state.hold();
        self.drive(state, self.now(), events);
    }

    fn cell(&self, task: TaskId) -> Option<Arc<Cell>> {
        Core::cell(self, task)
    }

    fn log_record_dropped(&self) {
        self.log_records_dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn logs_dropped(&self, pid: u32, Dropped { records, bytes }: Dropped) {
        let now = self.now();
        self.state.hold().observers.tell(now, || EventKind::LogsDropped { pid, records, bytes });
    }

    fn died(&self, worker: WorkerKey, death: Death) {
        let mut state = self.state.hold();
        let expected = state.expected.remove(&worker) || state.scheduler.expects_death(worker);
        let computed = state.links.remove(&worker).and_then(|link| link.computed());
        state.unwanted.remove(&worker);
        let domain = state.domains.of(worker);
        state.domains.unbind(worker);
        let shortage = death.shortage();
        state.tally.workers_died += u64::from(!expected && shortage.is_none());
        let now = self.now();
        state.observers.tell(now, || EventKind::WorkerEnded { death: death.clone(), expected });
        state.deaths.insert(worker, WorkerEnd { death, domain, computed });
        let event = match shortage.is_some() {
            true => Event::NotStarted { worker },
            false => Event::Dead { worker },
        };
        state.shortage = shortage.or(state.shortage.take());
        self.drive(state, now, [(event, None)]);
        self.state.hold().deaths.remove(&worker);
    }
}
