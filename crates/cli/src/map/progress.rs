//! Shows how far a map is: with a bar on a terminal, and with lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::Tally;
use super::watch;
use crate::args::{self, MapArgs};
use crate::console::Console;
use wasmpool::event::{PoolStats, WorkerState};
use wasmpool::task::TaskId;

/// The time between two looks at the pool.
const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// At most this many workers are shown one by one.
const WORKERS_SHOWN_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Progress {
    shown: Shown,
    /// A row for each worker, too.
    watches: bool,
    total: Option<u64>,
    began: Instant,
    next: Instant,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines,
}

impl Progress {
    pub(super) fn begin(args: &MapArgs, quiet: bool, total: Option<u64>, console: &Console) -> Progress {
        // A terminal that cannot move its cursor gets lines.
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_terminal = std::io::stderr().is_terminal() && !is_dumb;
        let shown = match args.progress {
            args::Progress::Never => Shown::Nothing,
            args::Progress::Auto if !args.watch && (quiet || !is_terminal) => Shown::Nothing,
            _ if is_terminal => Shown::Bar(bar(total, args.watch)),
            _ => Shown::Lines,
        };
        if let Shown::Bar(bar) = &shown {
            console.set_bar(Some(bar.clone()));
        }
        let began = Instant::now();
        Progress { shown, watches: args.watch, total, began, next: began }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns when it is to be told of the state of things again; `None` if never.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.shown {
            Shown::Nothing => None,
            Shown::Bar(_) | Shown::Lines => Some(self.next),
        }
    }

    /// Shows the state of things, if that is due.
    pub(super) fn show(
        &mut self,
        tally: &Tally,
        stats: impl FnOnce() -> PoolStats,
        label: impl Fn(TaskId) -> Option<String>,
        console: &Console,
    ) {
        let now = Instant::now();
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        let stats = stats();
        let line = self.line(tally, &stats);
        let table = self.watches.then(|| watch::table(&stats, label, watch::resident_bytes));
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                bar.set_position(tally.passed());
                bar.set_message(line);
                table.into_iter().for_each(|table| bar.set_prefix(table));
                self.next = now + BAR_INTERVAL;
            }
            Shown::Lines => {
                let table = table.map(|table| format!("\n{table}")).unwrap_or_default();
                console.say(&format!("progress: {}{table}", self.counted(tally, &line)));
                self.next = now + LINE_INTERVAL;
            }
        }
    }

    /// The last word, and no bar any more.
    pub(super) fn end(&mut self, tally: &Tally, stats: impl FnOnce() -> PoolStats, console: &Console) {
        console.set_bar(None);
        if matches!(self.shown, Shown::Lines) {
            self.next = Instant::now();
            self.show(tally, stats, |_| None, console);
        }
        self.shown = Shown::Nothing;
    }

    fn counted(&self, tally: &Tally, line: &str) -> String {
        match self.total {
            Some(total) => format!("{} of {total} done, {line}", tally.passed()),
            None => format!("{} done, {line}", tally.passed()),
        }
    }

    fn line(&self, tally: &Tally, stats: &PoolStats) -> String {
        let rate = (tally.ok + tally.failed) as f64 / self.elapsed().as_secs_f64().max(1e-6);
        let left = self.total.map(|total| total.saturating_sub(tally.passed()));
        let left = match left {
            Some(0) => ", 0s left".to_string(),
            Some(left) if rate > 0.0 => {
                let left = Duration::try_from_secs_f64(left as f64 / rate).unwrap_or(Duration::MAX);
                format!(", {} left", humantime::format_duration(Duration::from_secs(left.as_secs())))
            }
            _ => String::new(),
        };
        format!("{} failed, {rate:.0} tasks/s{left}, workers {}", tally.failed, workers(stats))
    }
}

/// A sign for each worker: busy, idle, starting, leaving.
fn workers(stats: &PoolStats) -> String {
    let signs = stats.workers.iter().take(WORKERS_SHOWN_MAX).map(|worker| match worker.state {
        WorkerState::Busy => '#',
        WorkerState::Idle => '.',
        WorkerState::Starting => '+',
        WorkerState::Leaving => '-',
        _ => '?',
    });
    let signs: String = signs.collect();
    match stats.workers.len() {
        0 => "none".into(),
        many if many > WORKERS_SHOWN_MAX => format!("{signs}… ({many})"),
        _ => signs,
    }
}

fn bar(total: Option<u64>, watches: bool) -> ProgressBar {
    let (bar, mut template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{elapsed_precise} {wide_bar} {human_pos}/{human_len}, {msg}".to_string(),
        ),
        None => {
            (ProgressBar::new_spinner(), "{elapsed_precise} {spinner} {human_pos} done, {msg}".to_string())
        }
    };
    if watches {
        template.push_str("\n{prefix}");
    }
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_styles_of_the_bar_are_templates() {
        for (total, watches) in [(None, false), (Some(3), false), (None, true), (Some(3), true)] {
            let bar = bar(total, watches);
            bar.set_message("words");
            assert_eq!(bar.length(), total);
            bar.finish_and_clear();
        }
    }

    #[test]
    fn what_is_left_is_told_where_the_number_of_inputs_is_known() {
        let began =
            Instant::now().checked_sub(Duration::from_secs(10)).expect("a machine up for ten seconds");
        let tally = Tally { ok: 90, failed: 10, before: 50, ..Tally::default() };
        let progress = |total| Progress { shown: Shown::Lines, watches: false, total, began, next: began };
        let line = progress(Some(250)).line(&tally, &PoolStats::default());
        assert_eq!(line, "10 failed, 10 tasks/s, 9s left, workers none".replace("9s", &eta(&line)));
        assert!(["9s", "10s"].contains(&&*eta(&line)), "{line}");
        assert!(!progress(None).line(&tally, &PoolStats::default()).contains("left"));
        assert!(progress(Some(250)).counted(&tally, "").starts_with("150 of 250 done"));
    }

    fn eta(line: &str) -> String {
        line.split(", ").find_map(|part| part.strip_suffix(" left")).unwrap_or_default().to_string()
    }
}
