//! Counts what has become of the inputs so far.

use std::time::Duration;

use crate::exit::Exit;

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) ok: u64,
    pub(super) failed: u64,
    /// These inputs were done by an earlier run.
    pub(super) before: u64,
    /// Read, and not run to their end.
    pub(super) stopped: u64,
    pub(super) retried: u64,
    /// Log records over the workers' rate.
    pub(super) logs_dropped: u64,
    /// Bytes of tasks' logs over their limit.
    pub(super) log_bytes_dropped: u64,
    pub(super) pool_lost: bool,
    /// There was no worker, and none could be started.
    pub(super) no_worker: bool,
    /// The exit code, if a signal asked for the end.
    pub(super) interrupted: Option<u8>,
    /// The map ended early because enough was done, as was asked for.
    pub(super) sufficed: bool,
}

impl Tally {
    /// Inputs that need no more work.
    pub(super) fn passed(&self) -> u64 {
        self.ok + self.failed + self.before
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Tally { interrupted: Some(code), .. } => Exit::Interrupted(*code),
            Tally { pool_lost: true, .. } => Exit::Internal,
            Tally { sufficed: true, .. } | Tally { failed: 0, .. } => Exit::Success,
            _ => Exit::PartialFailure,
        }
    }

    pub(super) fn summary(&self, elapsed: Duration, workers: usize) -> String {
        let Tally { ok, failed, .. } = self;
        let inputs = ok + failed;
        let seconds = elapsed.as_secs_f64();
        let rate = inputs as f64 / seconds.max(1e-6);
        let extras = [
            (self.retried, "retried"),
            (self.before, "done before"),
            (self.stopped, "stopped"),
            (self.logs_dropped, "log records dropped"),
            (self.log_bytes_dropped, "bytes of logs over --log-limit dropped"),
        ];
        let extras: String = extras
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!(", {count} {what}"))
            .collect();
        let inputs = counted(inputs, "input");
        let workers = counted(workers as u64, "worker");
        format!("{inputs}: {ok} ok, {failed} failed{extras}; {seconds:.2} s, {rate:.1} tasks/s, {workers}")
    }
}

fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_pool_counts_for_more_than_failed_inputs_and_a_signal_for_more_than_both() {
        let tally = |failed, pool_lost| Tally { ok: 1, failed, pool_lost, ..Tally::default() };
        assert_eq!(
            [tally(0, false), tally(2, false), tally(2, true)].map(|tally| tally.exit()),
            [Exit::Success, Exit::PartialFailure, Exit::Internal]
        );
        assert_eq!(Tally { interrupted: Some(130), ..tally(2, true) }.exit(), Exit::Interrupted(130));
        assert_eq!(Tally { sufficed: true, ..tally(2, false) }.exit(), Exit::Success);
    }

    #[test]
    fn the_summary_says_how_many_and_how_fast_and_what_is_unusual() {
        let tally = Tally { ok: 3, failed: 1, ..Tally::default() };
        let summary = tally.summary(Duration::from_secs(2), 1);
        assert_eq!(summary, "4 inputs: 3 ok, 1 failed; 2.00 s, 2.0 tasks/s, 1 worker");
        let tally = Tally { before: 5, stopped: 2, ..tally };
        let summary = tally.summary(Duration::from_secs(2), 2);
        assert_eq!(
            summary,
            "4 inputs: 3 ok, 1 failed, 5 done before, 2 stopped; 2.00 s, 2.0 tasks/s, 2 workers"
        );
    }
}
