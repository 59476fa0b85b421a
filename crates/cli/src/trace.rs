//! `--trace`: a timeline of the pool in Chrome's trace format, which Perfetto opens.
//!
//! | row | shows |
//! |---|---|
//! | `queue` | each task from its submission to its first worker |
//! | `worker PID` | its start; each task that it ran, as long as the host saw it run, and inside of that `run`, as long as the guest did: what is left on both sides is transfer |
//! | counters | tasks queued and running |
//!
//! The format is [Trace Event Format](https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU),
//! as an array of which the end may be missing: what stands there after a crash can be opened, too.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::Target;
use super::console::Console;
use super::exit::Failure;
use files::HostFiles;
use proto::refused::calling;
use proto::text::truncated;
use wasmpool::Pool;
use wasmpool::event::TaskOutcome;
use wasmpool::event::{EventKind, Events, PoolEvent};
use wasmpool::task::{TaskId, TaskReport};

/// The one process of the timeline; workers are its threads.
const PROCESS: u32 = 1;

/// The thread of what waits.
const QUEUE: u32 = 0;

/// A viewer that counts in nanoseconds may be wrong by this much at both ends of a slice.
const ROUNDING: Duration = Duration::from_nanos(2);

/// Bytes of a slice's name.
const NAME_BYTES_MAX: usize = 100;

/// Written by a thread of its own, until the pool has stopped.
#[derive(Debug)]
pub(super) struct Trace {
    path: PathBuf,
    thread: JoinHandle<io::Result<Ended>>,
}

#[derive(Debug, Default)]
struct Ended {
    /// Events that the thread was too slow for.
    dropped: u64,
    /// The timeline had as many bytes as it may have.
    is_full: bool,
}

impl Trace {
    /// Follows the pool from here on, if there is to be a timeline.
    pub(super) fn begin(target: &Target, files: &HostFiles, pool: &Pool) -> Result<Option<Trace>, Failure> {
        let Some(path) = &target.trace else { return Ok(None) };
        let bytes_max = target.trace_bytes;
        let cannot = |error: io::Error| {
            Failure::Usage(format!("cannot write the timeline {}: {error}", path.display()))
        };
        let file = files.replace(path, "the timeline").map_err(|error| cannot(error.into()))?.file;
        let events = pool.events();
        let thread = std::thread::Builder::new()
            .name("wasmpool-trace".into())
            .spawn(move || follow(events, BufWriter::new(file), bytes_max))
            .map_err(calling("start a thread"))
            .map_err(cannot)?;
        Ok(Some(Trace { path: path.clone(), thread }))
    }

    /// Waits for the last event of a pool that is shut down.
    pub(super) fn end(self, console: &Console) -> Result<(), Failure> {
        let path = self.path.display();
        let ended = match self.thread.join() {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => {
                return Err(Failure::Internal(format!("cannot write the timeline {path}: {error}")));
            }
            Err(_) => return Err(Failure::Internal("the timeline's thread panicked".into())),
        };
        if ended.dropped > 0 {
            console.say(&format!("warning: {} events are missing in the timeline {path}", ended.dropped));
        }
        if ended.is_full {
            console.say(&format!("warning: the timeline {path} is full: raise --trace-bytes, or run less"));
        }
        Ok(())
    }
}

fn follow(mut events: Events, out: impl Write, bytes_max: u64) -> io::Result<Ended> {
    let mut timeline = Timeline::new(out)?;
    let mut is_full = false;
    // The thread reads to the end, even if the buffer was full: the pool counts what its observers do not
    // read.
    let mut dropped = 0;
    while let Some(event) = events.next() {
        if events.dropped() > dropped {
            dropped = events.dropped();
            timeline.forget();
        }
        is_full |= timeline.bytes > bytes_max;
        if !is_full {
            timeline.tell(&event)?;
        }
    }
    timeline.finish()?;
    Ok(Ended { dropped: events.dropped(), is_full })
}

/// A task that is not done.
struct Open {
    name: String,
    /// The worker that runs it, and since when.
    running: Option<(u32, Duration)>,
}

struct Timeline<W> {
    out: W,
    bytes: u64,
    tasks: HashMap<TaskId, Open>,
    /// Workers that start, and since when.
    starting: HashMap<u32, Duration>,
    running: u64,
}

impl<W: Write> Timeline<W> {
    fn new(out: W) -> io::Result<Self> {
        let mut timeline =
            Timeline { out, bytes: 0, tasks: HashMap::new(), starting: HashMap::new(), running: 0 };
        let process =
            json!({"name": "process_name", "ph": "M", "pid": PROCESS, "args": {"name": "wasmpool"}});
        timeline.put("[\n", &process)?;
        timeline.name_row(QUEUE, "queue")?;
        Ok(timeline)
    }

    /// Events were missed, perhaps the ends of tasks that stand open here: from here on those count that are
    /// heard of, and what is open does not grow with what is missed.
    fn forget(&mut self) {
        self.tasks.clear();
        self.starting.clear();
        self.running = 0;
    }

    /// Writes what an event shows. `wasmpool` may come to know more kinds of events, of which a timeline shows
    /// nothing.
    fn tell(&mut self, event: &PoolEvent) -> io::Result<()> {
        let at = event.at;
        match &event.kind {
            EventKind::WorkerStarted { .. }
            | EventKind::WorkerReady { .. }
            | EventKind::WorkerLeaving { .. }
            | EventKind::WorkerEnded { .. }
            | EventKind::WorkerBound { .. }
            | EventKind::LogsDropped { .. } => self.tell_of_worker(&event.kind, at),
            EventKind::TaskQueued { task, name, label, .. } => {
                let name = truncated(label.as_deref().unwrap_or(name), NAME_BYTES_MAX);
                self.tasks.insert(*task, Open { name, running: None });
                self.wait(*task, "b", at)?;
                self.count(at)
            }
            EventKind::TaskStarted { task, pid, attempt } => self.task_started(*task, *pid, *attempt, at),
            EventKind::TaskSlow { task, pid } => self.instant("slow", *pid, at, json!({"task": task.get()})),
            EventKind::TaskRetried { task, outcome } => {
                let args = json!({"task": task.get(), "outcome": format!("{outcome:?}"), "retried": true});
                self.stop_running(*task, at, None, args)
            }
            EventKind::TaskFinished { task, outcome, report } => {
                self.task_finished(*task, *outcome, report, at)
            }
            EventKind::Broken { death } => {
                self.instant("broken", QUEUE, at, json!({"by": death.to_string()}))
            }
            EventKind::WorkersShort { workers, shortage } => {
                let args = json!({"workers": workers, "of": shortage.to_string()});
                self.instant("short of workers", QUEUE, at, args)
            }
            EventKind::ModuleLoaded { module, from_cache } => {
                let args = json!({"module": &**module, "from_cache": from_cache});
                self.instant("loaded", QUEUE, at, args)
            }
            _ => Ok(()),
        }
    }

    /// Writes what stands on the row of one worker, apart from its tasks.
    fn tell_of_worker(&mut self, kind: &EventKind, at: Duration) -> io::Result<()> {
        match kind {
            EventKind::WorkerStarted { pid } => {
                self.starting.insert(*pid, at);
                self.name_row(*pid, &format!("worker {pid}"))
            }
            EventKind::WorkerReady { pid, sandbox } => {
                let began = self.starting.remove(pid).unwrap_or(at);
                let args = json!({"sandbox": sandbox.policy.to_string()});
                self.slice(("start", "worker"), *pid, began, at.saturating_sub(began), args)
            }
            EventKind::WorkerLeaving { pid, reason } => {
                self.instant("leaves", *pid, at, json!({"reason": format!("{reason:?}")}))
            }
            EventKind::WorkerEnded { death, expected } => {
                self.starting.remove(&death.pid);
                let name = if *expected { "ended" } else { "died" };
                self.instant(name, death.pid, at, json!({"how": death.to_string()}))
            }
            EventKind::WorkerBound { pid, domain } => {
                self.instant("bound", *pid, at, json!({"domain": &**domain}))
            }
            EventKind::LogsDropped { pid, records, bytes } => {
                self.instant("logs dropped", *pid, at, json!({"records": records, "bytes": bytes}))
            }
            _ => Ok(()),
        }
    }

    fn task_started(&mut self, task: TaskId, pid: u32, attempt: u32, at: Duration) -> io::Result<()> {
        let Some(open) = self.tasks.get_mut(&task) else { return Ok(()) };
        open.running = Some((pid, at));
        self.running += 1;
        if attempt == 1 {
            self.wait(task, "e", at)?;
        }
        self.count(at)
    }

    fn task_finished(
        &mut self,
        task: TaskId,
        outcome: TaskOutcome,
        report: &TaskReport,
        at: Duration,
    ) -> io::Result<()> {
        let args = json!({
            "task": task.get(),
            "outcome": format!("{outcome:?}"),
            "queued_us": micros(report.queued),
            "run_us": micros(report.run),
            "transfer_us": micros(report.transfer()),
            "cpu_us": report.cpu.map(micros),
            "peak_memory_bytes": report.peak_memory_bytes,
        });
        self.stop_running(task, at, Some(report), args)?;
        if report.attempts == 0 {
            self.wait(task, "e", at)?;
        }
        self.tasks.remove(&task);
        self.count(at)
    }

    /// The task's slice on its worker's row, if it ran.
    fn stop_running(
        &mut self,
        task: TaskId,
        at: Duration,
        report: Option<&TaskReport>,
        args: Value,
    ) -> io::Result<()> {
        let Some(open) = self.tasks.get_mut(&task) else { return Ok(()) };
        let Some((pid, began)) = open.running.take() else { return Ok(()) };
        let name = open.name.clone();
        self.running = self.running.saturating_sub(1);
        let took = at.saturating_sub(began);
        self.slice((&name, "task"), pid, began, took, args)?;
        match report {
            // The time that is not the guest's lies on both sides of the guest's time.
            Some(report) if !report.run.is_zero() => {
                let run = report.run.min(took);
                self.slice(("run", "guest"), pid, began + (took - run) / 2, run, json!({"task": task.get()}))
            }
            _ => Ok(()),
        }
    }

    fn name_row(&mut self, thread: u32, name: &str) -> io::Result<()> {
        let row =
            json!({"name": "thread_name", "ph": "M", "pid": PROCESS, "tid": thread, "args": {"name": name}});
        self.put(",\n", &row)
    }

    fn slice(
        &mut self,
        (name, category): (&str, &str),
        thread: u32,
        began: Duration,
        took: Duration,
        args: Value,
    ) -> io::Result<()> {
        // Viewers round: what begins at the very end of this one is to lie beside it, not inside.
        let ts = micros(began);
        let dur = micros(took.saturating_sub(ROUNDING));
        let slice = json!({
            "name": name, "cat": category, "ph": "X", "ts": ts, "dur": dur, "pid": PROCESS, "tid": thread, "args": args,
        });
        self.put(",\n", &slice)
    }

    fn instant(&mut self, name: &str, thread: u32, at: Duration, args: Value) -> io::Result<()> {
        let ts = micros(at);
        let instant = json!({
            "name": name, "cat": "pool", "ph": "i", "s": "t", "ts": ts, "pid": PROCESS, "tid": thread, "args": args,
        });
        self.put(",\n", &instant)
    }

    /// The beginning or the end of a task's wait.
    fn wait(&mut self, task: TaskId, phase: &str, at: Duration) -> io::Result<()> {
        let name = self.tasks.get(&task).map_or("", |open| &open.name);
        let wait = json!({
            "name": name, "cat": "queued", "ph": phase, "id": task.get(), "ts": micros(at), "pid": PROCESS, "tid": QUEUE,
        });
        self.put(",\n", &wait)
    }

    fn count(&mut self, at: Duration) -> io::Result<()> {
        let queued = (self.tasks.len() as u64).saturating_sub(self.running);
        let count = json!({
            "name": "tasks", "ph": "C", "ts": micros(at), "pid": PROCESS,
            "args": {"queued": queued, "running": self.running},
        });
        self.put(",\n", &count)
    }

    fn put(&mut self, before: &str, value: &Value) -> io::Result<()> {
        let mut text = before.to_string();
        json::push_value(&mut text, value);
        self.out.write_all(text.as_bytes())?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.out.write_all(b"\n]\n")?;
        self.out.flush()
    }
}

/// The number has fractions, since many tasks take less than one microsecond.
fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use wasmpool::event::TaskOutcome;

    fn at(micros: u64, kind: EventKind) -> PoolEvent {
        PoolEvent::new(Duration::from_micros(micros), kind)
    }

    fn queued(number: u64) -> EventKind {
        let name: Arc<str> = "name".into();
        EventKind::TaskQueued { task: TaskId(number), module: name.clone(), name, label: None }
    }

    #[test]
    fn what_is_open_does_not_grow_with_events_that_were_missed() {
        let mut timeline = Timeline::new(Vec::new()).expect("writes");
        for number in 1..=10 {
            timeline.tell(&at(number, queued(number))).expect("writes");
        }
        timeline.tell(&at(11, EventKind::WorkerStarted { pid: 7 })).expect("writes");
        assert_eq!(timeline.tasks.len(), 10);
        timeline.forget();
        assert!(timeline.tasks.is_empty() && timeline.starting.is_empty());
        // The end of one that was forgotten is nothing that could not be.
        let task = TaskId(3);
        let outcome = TaskOutcome::Succeeded;
        let report = TaskReport::default();
        timeline.tell(&at(12, EventKind::TaskFinished { task, outcome, report })).expect("writes");
        let text = String::from_utf8(timeline.out).expect("text");
        assert!(text.ends_with(r#"{"queued":0,"running":0}}"#), "{text}");
    }

    #[test]
    fn a_task_that_begins_as_another_ends_lies_beside_it() {
        let mut timeline = Timeline::new(Vec::new()).expect("writes");
        for number in [1, 2] {
            timeline.tell(&at(0, queued(number))).expect("writes");
        }
        let started = |number| EventKind::TaskStarted { task: TaskId(number), pid: 7, attempt: 1 };
        timeline.tell(&at(1, started(1))).expect("writes");
        timeline.tell(&at(1001, started(2))).expect("writes");
        let task = TaskId(1);
        let outcome = TaskOutcome::Succeeded;
        let report = TaskReport::default();
        timeline.tell(&at(1001, EventKind::TaskFinished { task, outcome, report })).expect("writes");
        let text = String::from_utf8(timeline.out).expect("text");
        assert!(text.contains(r#""ts":1.0,"dur":999.998,"#), "{text}");
    }
}
