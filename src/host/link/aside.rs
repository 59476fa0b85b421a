//! The messages to a worker that do not go by its rings, but by its control socket and by signals.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Link;
use crate::error::DeathCause;
use crate::held::{Held, Holder};
use crate::host::asks::SendReply;
use crate::panic_guard::catch_panic;
use proto::control::STOP_SIGNAL;
use proto::limits::UNSENT_AFTER;
use proto::message::{Reply, ToWorkerControl};
use proto::shortage::Shortage;

impl Link {
    /// Notes how the worker stops runs, as it has said when it was ready.
    pub(in super::super) fn note_ready(&self, stops_by_signal: bool) {
        self.stops_by_signal.store(stops_by_signal, Ordering::Relaxed);
    }

    /// Asks the worker to stop the run. A late request hits nothing.
    pub(in super::super) fn interrupt(&self, run: u64) {
        if self.stops_by_signal.load(Ordering::Relaxed) {
            self.end.ask_to_stop(run);
            if rustix::process::pidfd_send_signal(&self.pidfd, STOP_SIGNAL).is_ok() {
                return;
            }
        }
        // An interrupt that cannot be delivered is followed by a SIGKILL at the end of the grace period.
        if let Err(error) = self.control.send(&ToWorkerControl::Interrupt { run }, &[]) {
            catch_panic(|| tracing::debug!(pid = self.pid, run, %error, "an interrupt could not be sent"));
        }
    }

    /// Tells the worker how long the run may compute. A late message hits nothing.
    pub(in super::super) fn limit(&self, run: u64, cpu: Duration) {
        let cpu_ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        // The host stops the run alone if this cannot be delivered.
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

    /// Does the same as [`sample`](Self::sample), for the run that the worker is at.
    pub(crate) fn sample_at_hand(&self) {
        if let Some(held) = self.at_hand() {
            self.sample(held.run);
        }
    }

    pub(in super::super) fn terminate(&self) {
        // The signal fails only for a process that is gone already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::TERM);
    }

    pub(crate) fn kill(&self) {
        // The signal fails only for a process that is gone already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    pub(crate) fn kill_for(&self, cause: DeathCause) {
        // The first reason counts.
        let _ = self.killed_for.set(cause);
        self.kill();
    }

    pub(in super::super) fn retire(&self) {
        // The worker's watcher sees the end of the stream and exits.
        let _ = rustix::net::shutdown(&self.control, rustix::net::Shutdown::Both);
    }

    /// Returns whether it was sent. If the worker's socket is full or the system has no room, the link's thread
    /// tries again; after a while such a worker is killed.
    pub(super) fn has_been_sent(
        &self,
        what: &str,
        sent: io::Result<()>,
        since: &mut Option<Instant>,
    ) -> bool {
        let Err(error) = sent else {
            *since = None;
            return true;
        };
        match error.kind() {
            // A worker that is gone is reported by its death.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {}
            _ if Shortage::of(&error).is_some() => {
                let since = *since.get_or_insert_with(Instant::now);
                if since.elapsed() >= UNSENT_AFTER {
                    let what = format!("{what} could not be sent to it for {UNSENT_AFTER:?}: {error}");
                    self.kill_for(DeathCause::Unreachable(what));
                }
            }
            _ => self.kill_for(DeathCause::Unreachable(format!("{what} cannot be sent to it: {error}"))),
        }
        false
    }
}

impl SendReply for Link {
    /// Replies to a run's question. If the run has ended meanwhile, the worker drops the reply.
    fn reply(&self, run: u64, number: u64, reply: Reply) {
        let sent = self.control.send(&ToWorkerControl::Reply { run, number, reply }, &[]);
        // The worker asks one thing at a time, so there is room for the reply unless it does not read.
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
