//! `--profile`: where guests spend their time, for [speedscope](https://www.speedscope.app).
//!
//! A thread asks every running task for its stack at a steady pace ([`Pool::sample`]); the stacks come as
//! log records, and a layer of the subscriber takes them out of the logs. A task says where it is when it
//! looks whether it is to stop, at loops and calls: what a long instruction takes counts where it ends.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::args::Target;
use super::console::Console;
use super::exit::Failure;
use files::{HostFiles, OutputFile};
use proto::refused::calling;
use proto::sync::Lock;
use wasmpool::Pool;

/// The target of tasks' stacks; see `src/host/logs.rs`.
pub(super) const STACK: &str = "wasmpool::stack";

/// The time between two questions.
const EVERY: Duration = Duration::from_millis(10);

/// Stacks that are kept, and different ones among them; later ones are counted only.
const SAMPLES_MAX: u64 = 10_000_000;
const STACKS_MAX: usize = 20_000;

/// There is one for the process, as there is one subscriber.
static IS_ON: AtomicBool = AtomicBool::new(false);
static SEEN: Mutex<Option<Seen>> = Mutex::new(None);

/// The stacks that were seen, and how often.
#[derive(Debug, Default)]
struct Seen {
    stacks: HashMap<String, u64>,
    samples: u64,
    dropped: u64,
}

fn seen() -> MutexGuard<'static, Option<Seen>> {
    SEEN.hold()
}

/// Returns whether an event is a stack that nobody is to be shown.
pub(super) fn is_sample(metadata: &Metadata<'_>) -> bool {
    metadata.target() == STACK && IS_ON.load(Ordering::Relaxed)
}

/// The subscriber's layer.
pub(super) struct Samples;

impl<S: Subscriber> Layer<S> for Samples {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if is_sample(event.metadata()) {
            let mut message = Message(String::new());
            event.record(&mut message);
            seen().iter_mut().for_each(|seen| seen.take(&message.0));
        }
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Seen {
    fn take(&mut self, stack: &str) {
        let is_new = !self.stacks.contains_key(stack);
        if self.samples >= SAMPLES_MAX || is_new && self.stacks.len() >= STACKS_MAX {
            self.dropped += 1;
            return;
        }
        self.samples += 1;
        *self.stacks.entry(stack.into()).or_default() += 1;
    }

    /// <https://www.speedscope.app/file-format-schema.json>: each stack once, outermost function first, with the
    /// time that its samples stand for.
    fn to_speedscope(&self, name: &str) -> serde_json::Value {
        let mut frames = Vec::new();
        let mut numbers = HashMap::new();
        // The place within a function does not count.
        let mut stacks = BTreeMap::<_, u64>::new();
        for (stack, count) in &self.stacks {
            *stacks.entry(functions(stack)).or_default() += count;
        }
        let mut samples = Vec::new();
        for functions in stacks.keys() {
            let number = |function: &&str| {
                *numbers.entry(function.to_string()).or_insert_with(|| {
                    frames.push(json!({ "name": function }));
                    frames.len() - 1
                })
            };
            samples.push(functions.iter().map(number).collect::<Vec<_>>());
        }
        let every = EVERY.as_millis() as u64;
        let weights: Vec<_> = stacks.values().map(|count| count * every).collect();
        json!({
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "exporter": concat!("wasmpool ", env!("CARGO_PKG_VERSION")),
            "name": name,
            "shared": { "frames": frames },
            "profiles": [{
                "type": "sampled",
                "name": format!("{name}: all tasks together, not in the order of time"),
                "unit": "milliseconds",
                "startValue": 0,
                "endValue": weights.iter().sum::<u64>(),
                "samples": samples,
                "weights": weights,
            }],
        })
    }
}

/// The functions of a stack as `crates/engine/src/worker/run_end.rs` shows it, outermost first, without the offsets of
/// their instructions.
fn functions(stack: &str) -> Vec<&str> {
    let stack = stack.strip_prefix("it is at ").unwrap_or(stack);
    let function = |frame: &'_ str| frame.rsplit_once(" (0x").map_or(frame.len(), |(name, _)| name.len());
    stack.rsplit(", called by ").map(|frame| &frame[..function(frame)]).collect()
}

/// A profile that is being made.
#[derive(Debug)]
pub(super) struct Profile {
    path: PathBuf,
    /// The file was opened before the tasks ran, so that a failure is reported early; it is written at the
    /// end.
    file: OutputFile,
    /// It is dropped to end the thread.
    goes_on: Sender<()>,
    thread: JoinHandle<()>,
}

impl Profile {
    /// Asks the pool's tasks from here on, if there is to be a profile.
    pub(super) fn begin(target: &Target, files: &HostFiles, pool: &Pool) -> Result<Option<Profile>, Failure> {
        let Some(path) = &target.profile else { return Ok(None) };
        let cannot = |error: io::Error| {
            Failure::Usage(format!("cannot write the profile {}: {error}", path.display()))
        };
        // A profile that cannot be written is reported before the tasks run.
        let file = files.replace(path, "the profile").map_err(|error| cannot(error.into()))?.file;
        *seen() = Some(Seen::default());
        IS_ON.store(true, Ordering::Relaxed);
        let (goes_on, ends) = bounded::<()>(0);
        let pool = pool.clone();
        let sample = move || {
            while ends.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                pool.sample();
            }
        };
        let thread = std::thread::Builder::new()
            .name("wasmpool-profile".into())
            .spawn(sample)
            .map_err(calling("start a thread"));
        let thread = thread.map_err(cannot)?;
        Ok(Some(Profile { path: path.clone(), file, goes_on, thread }))
    }

    /// Writes what was seen of a pool that is shut down.
    pub(super) fn end(self, name: &str, console: &Console) -> Result<(), Failure> {
        let Profile { path, mut file, goes_on, thread } = self;
        drop(goes_on);
        if thread.join().is_err() {
            return Err(Failure::Internal("the profile's thread panicked".into()));
        }
        let seen = seen().take().unwrap_or_default();
        let path = path.display();
        file.write_all(seen.to_speedscope(name).to_string().as_bytes())
            .map_err(|error| Failure::Internal(format!("cannot write the profile {path}: {error}")))?;
        if seen.samples == 0 {
            console.say(&format!(
                "warning: the profile {path} is empty: tasks are asked where they are every {EVERY:?}, and were shorter, \
                 or waited"
            ));
        }
        if seen.dropped > 0 {
            console.say(&format!("warning: {} stacks are missing in the profile {path}", seen.dropped));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_its_functions_outermost_first() {
        let stack = "it is at a::<b (c)>::d (0x1a), called by <function 7> (0x2), called by main";
        assert_eq!(functions(stack), ["main", "<function 7>", "a::<b (c)>::d"]);
    }

    #[test]
    fn stacks_are_counted_and_each_function_is_named_once() {
        let mut seen = Seen::default();
        for stack in
            ["it is at f (0x1), called by g (0x9)", "it is at f (0x3), called by g (0x9)", "it is at g (0x2)"]
        {
            seen.take(stack);
        }
        let profile = seen.to_speedscope("m");
        assert_eq!(profile["shared"]["frames"], json!([{ "name": "g" }, { "name": "f" }]));
        let one = &profile["profiles"][0];
        assert_eq!((&one["samples"], &one["weights"]), (&json!([[0], [0, 1]]), &json!([10, 20])));
        assert_eq!(one["endValue"], 30);
    }
}
