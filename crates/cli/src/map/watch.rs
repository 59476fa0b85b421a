//! `--watch`: a row for each worker, what it runs, and what it takes.

use std::time::Duration;

use bytesize::ByteSize;

use proto::kernel::kernel_text;
use proto::text::{Name, truncated};
use wasmpool::event::PoolStats;
use wasmpool::task::TaskId;

/// The table has at most this many rows.
const ROWS_MAX: usize = 64;

/// Bytes of a label.
const LABEL_BYTES_MAX: usize = 40;

/// A heading, and a row for each worker. `label` names a task, `memory` says what a process holds.
pub(super) fn table(
    stats: &PoolStats,
    label: impl Fn(TaskId) -> Option<String>,
    memory: impl Fn(u32) -> Option<u64>,
) -> String {
    let mut lines = vec![format!(
        "{:>8}  {:<8}  {:>8}  {:>8}  {:>10}  task",
        "worker", "state", "for", "answered", "memory"
    )];
    for worker in stats.workers.iter().take(ROWS_MAX) {
        let state = worker.state.name();
        let (took, task) = match worker.task {
            None => ("-".into(), "-".into()),
            Some((task, took)) => {
                let name = label(task).unwrap_or_else(|| format!("task {task}"));
                (seconds(took), Name(truncated(&name, LABEL_BYTES_MAX)).to_string())
            }
        };
        let memory =
            memory(worker.pid).map_or("-".into(), |bytes| ByteSize::b(bytes).display().iec().to_string());
        let pid = worker.pid;
        let answered = worker.answered;
        lines.push(format!("{pid:>8}  {state:<8}  {took:>8}  {answered:>8}  {memory:>10}  {task}"));
    }
    if stats.workers.len() > ROWS_MAX {
        lines.push(format!("{:>8} more", stats.workers.len() - ROWS_MAX));
    }
    lines.join("\n")
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Returns how much memory a process holds now, its own and shared.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = kernel_text(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmpool::event::WorkerState;
    use wasmpool::event::WorkerStats;

    #[test]
    fn each_worker_has_a_row_with_its_task_by_the_inputs_name() {
        let worker = |pid, state, task| {
            let mut worker = WorkerStats::default();
            (worker.pid, worker.state, worker.task, worker.answered) = (pid, state, task, 7);
            worker
        };
        let one = TaskId(1);
        let two = TaskId(2);
        let mut stats = PoolStats::default();
        stats.workers = vec![
            worker(11, WorkerState::Idle, None),
            worker(12, WorkerState::Busy, Some((one, Duration::from_millis(1250)))),
            worker(13, WorkerState::Busy, Some((two, Duration::ZERO))),
        ];
        let label = |task| (task == one).then(|| "line 5\u{1b}\nand more".to_string());
        let text = table(&stats, label, |pid| (pid == 12).then_some(3 << 20));
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["11", "idle", "-", "7", "-", "-"]);
        assert_eq!(rows[2], ["12", "busy", "1.2", "s", "7", "3.0", "MiB", "line", "5\\u{1b}\\nand", "more"]);
        assert_eq!(rows[3][..6], ["13", "busy", "0.0", "s", "7", "-"]);
        assert_eq!((rows.len(), rows[3][6..].join(" ")), (4, "task 2".into()));
    }

    #[test]
    fn a_process_holds_some_memory_and_none_that_is_not_there() {
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
