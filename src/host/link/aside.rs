//! What a worker is told beside its rings: on its control socket, and by signals.

use std::io;
use std::time::Duration;

use rustix::process::Signal;

use super::Link;
use crate::error::DeathCause;
use crate::held::{Held, Holder};
use crate::host::asks::SendReply;
use crate::panic_guard::catch_panic;
use proto::message::{Reply, ToWorkerControl};

impl Link {
    /// Asks the worker to stop the run. A late request hits nothing.
    pub(in super::super) fn interrupt(&self, run: u64) {
        // If it cannot be delivered, the grace period ends with a SIGKILL.
        if let Err(error) = self.control.send(&ToWorkerControl::Interrupt { run }, &[]) {
            catch_panic(|| tracing::debug!(pid = self.pid, run, %error, "an interrupt could not be sent"));
        }
    }

    /// Tells the worker how long the run may compute. A late message hits nothing.
    pub(in super::super) fn limit(&self, run: u64, cpu: Duration) {
        let cpu_ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        // If it cannot be delivered, the host stops the run alone.
        if let Err(error) = self.control.send(&ToWorkerControl::Limit { run, cpu_ns }, &[]) {
            catch_panic(
                || tracing::debug!(pid = self.pid, run, %error, "a limit of CPU time could not be sent"),
            );
        }
    }

    /// Asks the worker where the run is. It goes on, and a late request hits nothing.
    pub(in super::super) fn sample(&self, run: u64) {
        if let Err(error) = self.control.send(&ToWorkerControl::Sample { run }, &[]) {
            catch_panic(
                || tracing::debug!(pid = self.pid, run, %error, "a run's stack could not be asked for"),
            );
        }
    }

    /// As [`sample`](Self::sample), of the run that the worker is at.
    pub(crate) fn sample_at_hand(&self) {
        if let Some(held) = self.at_hand() {
            self.sample(held.run);
        }
    }

    pub(in super::super) fn terminate(&self) {
        // It fails only for a process that is gone already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::TERM);
    }

    pub(crate) fn kill(&self) {
        // It fails only for a process that is gone already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    pub(crate) fn kill_for(&self, cause: DeathCause) {
        // The first reason is the reason.
        let _ = self.killed_for.set(cause);
        self.kill();
    }

    pub(in super::super) fn retire(&self) {
        // The worker's watcher sees the end of the stream and exits.
        let _ = rustix::net::shutdown(&self.control, rustix::net::Shutdown::Both);
    }
}

impl SendReply for Link {
    /// Answers a run's question. If the run has ended meanwhile, the worker drops the answer.
    fn reply(&self, run: u64, number: u64, reply: Reply) {
        let sent = self.control.send(&ToWorkerControl::Answer { run, number, reply }, &[]);
        // The worker asks one thing at a time, so there is room for its answer unless it does not read.
        if let Err(error) = sent
            && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            self.kill_for(DeathCause::ProtocolViolation(format!("an answer cannot be sent: {error}")));
        }
    }
}

impl Holder for Link {
    fn forget(&self, held: Held) {
        self.sent.forget(held, &self.control);
    }
}
