//! The log file's own thread: events become lines where they happen, and are written elsewhere.
//!
//! A disk that is slow, full or gone holds up no task: what does not fit into the queue is dropped and
//! counted, and the file says so as soon as it can.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::line;
use super::rotate::LogFile;
use crate::args::LogFormat;
use crate::console::Console;
use proto::refused::calling;
use proto::sync::Lock;

/// Lines that wait to be written.
const QUEUE_LINES_MAX: usize = 8192;

/// A layer of the subscriber, which hands lines in.
pub(super) struct ToFile {
    format: LogFormat,
    queue: Arc<Mutex<Option<Sender<String>>>>,
    dropped: Arc<AtomicU64>,
}

/// Writes what is left when it is dropped.
#[derive(Debug)]
pub(crate) struct FileWriter {
    queue: Arc<Mutex<Option<Sender<String>>>>,
    thread: Option<JoinHandle<()>>,
}

pub(super) fn start(
    file: LogFile,
    format: LogFormat,
    console: &Console,
) -> std::io::Result<(ToFile, FileWriter)> {
    if file.never_begins_anew() {
        console.say(
            "warning: the log file is a stream or a device, and never begins anew: --log-rotate does nothing",
        );
    }
    let (sender, lines) = bounded(QUEUE_LINES_MAX);
    let queue = Arc::new(Mutex::new(Some(sender)));
    let dropped = Arc::new(AtomicU64::new(0));
    let thread = std::thread::Builder::new().name("wasmpool-log-file".into()).spawn({
        let dropped = dropped.clone();
        let console = console.clone();
        move || write_all(file, format, &lines, &dropped, &console)
    });
    let thread = thread.map_err(calling("start a thread"))?;
    Ok((ToFile { format, queue: queue.clone(), dropped }, FileWriter { queue, thread: Some(thread) }))
}

impl<S: Subscriber> Layer<S> for ToFile {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = line::line(self.format, event);
        line.push('\n');
        let queue = self.queue.hold();
        if let Some(Err(TrySendError::Full(_))) = queue.as_ref().map(|queue| queue.try_send(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        self.queue.hold().take();
        // The thread writes what is in the queue, and has nothing else to wait for.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Writes until the queue is at its end. A failure is told once, and tried again with the next line.
fn write_all(
    mut file: LogFile,
    format: LogFormat,
    lines: &Receiver<String>,
    dropped: &AtomicU64,
    console: &Console,
) {
    let mut lost = 0;
    let mut told = false;
    for line in lines {
        lost += dropped.swap(0, Ordering::Relaxed);
        let now = SystemTime::now();
        let note = (lost > 0)
            .then(|| format!("{}\n", line::note(format, &format!("{lost} lines of this log were dropped"))));
        let noted = note.map_or(Ok(()), |note| file.write(&note, now));
        match noted {
            Ok(()) => lost = 0,
            Err(_) => {
                lost += 1;
                continue;
            }
        }
        let written = file.write(&line, now);
        if let Some(error) = file.trouble() {
            console.say(&format!("warning: the log file does not begin anew, and goes on: {error}"));
        }
        if let Err(error) = written {
            lost += 1;
            if !std::mem::replace(&mut told, true) {
                console.error(&format!("cannot write to the log file: {error}"));
            }
        }
    }
    lost += dropped.swap(0, Ordering::Relaxed);
    if lost > 0 {
        console.say(&format!("warning: {lost} lines of the log file were dropped"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::args::Rotation;
    use files::HostFiles;

    #[test]
    fn a_writer_that_is_dropped_has_written_everything() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let file = LogFile::open(&path, Rotation::Never, 1, &HostFiles::default()).expect("opens");
        let (layer, writer) = start(file, LogFormat::Json, &Console::new()).expect("starts");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            (0..1_000).for_each(|n| tracing::info!("line {n}"));
            drop(writer);
            tracing::info!("too late, and no reason to fail");
        });
        let text = std::fs::read_to_string(path).expect("reads");
        assert_eq!(text.lines().count(), 1_000);
        assert!(text.lines().last().is_some_and(|line| line.contains("\"line 999\"")));
    }

    #[test]
    fn lines_that_find_the_queue_full_are_counted_in_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let file = LogFile::open(&path, Rotation::Never, 1, &HostFiles::default()).expect("opens");
        let (sender, lines) = bounded(2);
        let dropped = Arc::new(AtomicU64::new(0));
        let layer = ToFile {
            format: LogFormat::Text,
            queue: Arc::new(Mutex::new(Some(sender))),
            dropped: dropped.clone(),
        };
        let queue = layer.queue.clone();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            (0..10).for_each(|n| tracing::info!("line {n}"));
        });
        drop(queue.lock().expect("locks").take());
        write_all(file, LogFormat::Text, &lines, &dropped, &Console::new());
        let text = std::fs::read_to_string(path).expect("reads");
        assert!(text.contains("8 lines of this log were dropped\n") && text.contains("line 1\n"), "{text}");
    }
}
