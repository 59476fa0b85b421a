//! A running task asks, and its host replies: one question at a time, each with a number of its own.
//!
//! ```text
//!  worker                       host: whoever reads the ring      host: a thread of the task's own
//!  Ask { run, number, … } ────► checks it, and hands it on ─────► reads, which may take for ever
//!                               ◄──────────────────────────────── Reply { run, number, … }
//! ```
//! A thread of the task's own reads the source, since a read may take for ever and nobody else may wait for
//! it. The thread starts with the first question, so a task that asks for nothing costs nothing. It ends
//! after its current read once the task has ended, however it did.
//!
//! Questions are numbered from 1 without a gap, and each comes only after the reply to the one before. So
//! nothing here grows, whatever a worker sends; a worker that breaks this rule is killed.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::panic_guard::catch_panic;
use crate::stdin::{Lent, Source};
use proto::limits::ASK_BYTES_MAX;
use proto::message::{Chunk, Question, Reply};
use proto::refused::calling;
use proto::sync::Lock;

/// Everything that one task may ask for.
pub(crate) struct Asks {
    state: Mutex<State>,
    /// Each reply is filled with as many bytes as were asked for, until the end: what a deterministic task
    /// reads must not depend on how fast it comes.
    fills: bool,
    /// The number of bytes that were sent in replies.
    bytes: AtomicU64,
}

struct State {
    /// The number of the last question.
    asked: u64,
    has_reply: bool,
    is_at_end: bool,
    stdin: Stdin,
}

enum Stdin {
    /// The task has not asked yet.
    Untouched(Lent),
    /// A thread reads it, and takes questions from this channel.
    Read(Sender<Asked>),
    /// The thread could not be started.
    Unreadable,
    /// The task has ended. An untouched source was given back; it is dropped later, with the task, since that
    /// may run the caller's code.
    Closed(#[expect(dead_code, reason = "it is held, not read")] Option<Lent>),
}

/// Brings a reply to the worker that asked.
pub(super) trait SendReply: Send + Sync {
    fn reply(&self, run: u64, number: u64, reply: Reply);
}

/// A question on its way to the reading thread.
struct Asked {
    to: Weak<dyn SendReply>,
    run: u64,
    number: u64,
    bytes_max: usize,
}

impl Asks {
    /// Passes a valid question on, or says why the worker may not ask it.
    pub(super) fn ask(
        self: &Arc<Self>,
        to: &Weak<dyn SendReply>,
        run: u64,
        number: u64,
        question: Question,
    ) -> Result<(), String> {
        let Question::Stdin { bytes_max } = question;
        let mut state = self.state.hold();
        if !state.has_reply {
            return Err("it asked again before it had its answer".into());
        }
        if number != state.asked + 1 {
            return Err(format!("its question {} had the number {number}", state.asked + 1));
        }
        if state.is_at_end {
            return Err("it asked for more after the end".into());
        }
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        if bytes_max > ASK_BYTES_MAX {
            return Err(format!("it asked for {bytes_max} bytes at once, the limit is {ASK_BYTES_MAX}"));
        }
        state.asked = number;
        state.has_reply = false;
        let asked = Asked { to: to.clone(), run, number, bytes_max };
        state.stdin = match std::mem::replace(&mut state.stdin, Stdin::Closed(None)) {
            Stdin::Untouched(lent) => self.begin(lent).map_or(Stdin::Unreadable, Stdin::Read),
            other => other,
        };
        match &state.stdin {
            // The channel has room, since the question before has its reply.
            Stdin::Read(sender) => drop(sender.try_send(asked)),
            Stdin::Unreadable => {
                drop(state);
                self.reply(&asked, Reply::Failed { os_error: None });
            }
            // The task has ended, and the worker has not heard of it yet.
            Stdin::Closed(_) | Stdin::Untouched(_) => {}
        }
        Ok(())
    }

    /// Starts the reading thread, or returns `None` if the system refuses.
    fn begin(self: &Arc<Self>, lent: Lent) -> Option<Sender<Asked>> {
        let (sender, receiver) = bounded(1);
        let asks = self.clone();
        let read = move || {
            if let Some(source) = lent.take() {
                asks.serve(source, &receiver);
            }
        };
        match std::thread::Builder::new().name("wasmpool-stdin".into()).spawn(read) {
            Ok(_) => Some(sender),
            Err(error) => {
                let error = calling("start a thread")(error);
                catch_panic(
                    || tracing::error!(%error, "the thread that reads a task's stdin cannot be started"),
                );
                None
            }
        }
    }

    /// Replies to questions until the task has ended.
    fn serve(&self, source: Source, questions: &Receiver<Asked>) {
        let mut source = Some(source);
        for asked in questions {
            let reply = match &mut source {
                None => Reply::End,
                Some(reader) => {
                    let read = || read(reader, asked.bytes_max, self.fills);
                    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
                        catch_panic(|| tracing::error!("the reader of a task's stdin panicked"));
                        Reply::Failed { os_error: None }
                    })
                }
            };
            // A reader that has ended or panicked is not read again.
            if matches!(reply, Reply::End | Reply::Failed { os_error: None }) {
                source = None;
            }
            self.reply(&asked, reply);
        }
    }

    fn reply(&self, asked: &Asked, reply: Reply) {
        let mut state = self.state.hold();
        // This is set before the reply is sent, since the worker may ask again as soon as it has it.
        state.has_reply = true;
        state.is_at_end |= reply == Reply::End;
        let is_closed = matches!(state.stdin, Stdin::Closed(_));
        drop(state);
        if let Reply::Bytes(bytes) = &reply {
            self.bytes.fetch_add(bytes.0.len() as u64, Ordering::Relaxed);
        }
        if let Some(to) = asked.to.upgrade().filter(|_| !is_closed) {
            to.reply(asked.run, asked.number, reply);
        }
    }
}

/// Reads once, or until all that was asked for is there. A question for no bytes waits until there are some.
fn read(source: &mut Source, bytes_max: usize, fills: bool) -> Reply {
    let failed =
        |error: std::io::Error| Reply::Failed { os_error: Some(error.raw_os_error().unwrap_or(EIO)) };
    if bytes_max == 0 {
        return source.wait().map_or_else(failed, |()| Reply::Bytes(Chunk(Vec::new())));
    }
    let mut bytes = vec![0; bytes_max];
    let mut len = 0;
    while len == 0 || fills && len < bytes_max {
        match source.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if len == 0 => return failed(error),
            // The error comes again with the next question.
            Err(_) => break,
        }
    }
    bytes.truncate(len);
    if len == 0 { Reply::End } else { Reply::Bytes(Chunk(bytes)) }
}

/// The guest sees an error that is not the system's as this one.
const EIO: i32 = 5;

/// A task owns this until it is resolved; once it is gone, no reply is sent any more.
pub(crate) struct TaskAsks(Arc<Asks>);

impl TaskAsks {
    pub(crate) fn new(stdin: Lent, fills: bool) -> Self {
        let stdin = Stdin::Untouched(stdin);
        let state = State { asked: 0, has_reply: true, is_at_end: false, stdin };
        TaskAsks(Arc::new(Asks { state: Mutex::new(state), fills, bytes: AtomicU64::new(0) }))
    }

    /// Returns a copy for the worker's link.
    pub(super) fn asks(&self) -> Arc<Asks> {
        self.0.clone()
    }

    /// Ends all replies, because the task has ended; an untouched source can be given to another task. This
    /// runs none of the caller's code, so it may be called under a lock.
    pub(super) fn close(&self) {
        let mut state = self.0.state.hold();
        state.stdin = match std::mem::replace(&mut state.stdin, Stdin::Closed(None)) {
            Stdin::Untouched(mut lent) => {
                lent.give_back();
                Stdin::Closed(Some(lent))
            }
            closed @ Stdin::Closed(_) => closed,
            Stdin::Read(_) | Stdin::Unreadable => Stdin::Closed(None),
        };
    }

    /// Returns how many bytes were sent in replies so far.
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for TaskAsks {
    fn drop(&mut self) {
        let stdin = std::mem::replace(&mut self.0.state.hold().stdin, Stdin::Closed(None));
        // It is dropped outside of the lock: a source that nobody else holds ends here, and that may run the
        // caller's code.
        drop(stdin);
    }
}

impl fmt::Debug for TaskAsks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskAsks")
    }
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asks")
    }
}
