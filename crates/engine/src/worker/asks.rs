//! A running task asks its host for its stdin, if that was not sent with the task.
//!
//! A question goes out on the ring. Its reply comes on the control socket, where it need not wait behind the
//! inputs of runs that were sent meanwhile, and the watcher stores it here. The task waits as in any other
//! host call: it sleeps, takes no CPU time, and an interrupt ends it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use wasmtime_wasi::cli::{IsTerminal, StdinStream};
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};

use super::watcher::WatcherState;
use proto::frame::write_frame;
use proto::limits::ASK_BYTES_MAX;
use proto::message::{FromWorker, Question, Reply};
use proto::sync::Lock;
use proto::task::TaskId;

/// A poll with a timeout of 0 still waits this long for the first reply, since a question and its reply take
/// a while on a busy machine: otherwise a program that only polls would never see its stdin.
const WORD_WITHIN: Duration = Duration::from_millis(10);

/// The one reply that is awaited; the watcher brings it to the main thread.
#[derive(Default)]
pub(super) struct Replies {
    awaited: Mutex<Option<Awaited>>,
    arrived: Notify,
}

struct Awaited {
    run: u64,
    number: u64,
    reply: Option<Reply>,
}

impl Replies {
    /// The watcher calls this. A reply that nobody awaits is dropped, since its run has ended.
    pub(super) fn arrive(&self, run: u64, number: u64, reply: Reply) {
        if let Some(awaited) = &mut *self.awaited.hold()
            && (awaited.run, awaited.number) == (run, number)
            && awaited.reply.is_none()
        {
            awaited.reply = Some(reply);
            self.arrived.notify_one();
        }
    }

    fn expect(&self, run: u64, number: u64) {
        *self.awaited.hold() = Some(Awaited { run, number, reply: None });
    }

    fn take(&self) -> Option<Reply> {
        self.awaited.hold().as_mut()?.reply.take()
    }

    async fn wait(&self) -> Reply {
        loop {
            if let Some(reply) = self.take() {
                return reply;
            }
            self.arrived.notified().await;
        }
    }
}

/// Holds what is needed to ask the host for one run.
pub(super) struct Asker {
    pub(super) task: TaskId,
    pub(super) run: u64,
    pub(super) watcher: Arc<WatcherState>,
    pub(super) to_host: Arc<Mutex<dyn Write + Send>>,
}

/// A stdin that is read by asking the host. Clones are the same stdin.
#[derive(Clone)]
pub(super) struct AskedStdin(Arc<tokio::sync::Mutex<Stdin>>);

struct Stdin {
    asker: Asker,
    /// The number of questions so far; it numbers the next one.
    asked: u64,
    known: Known,
}

/// This is what the worker knows of the next read.
#[derive(Clone, PartialEq, Eq)]
enum Known {
    Nothing,
    /// The host was asked whether there is something, and has not replied yet.
    Asked,
    /// A read that does not wait has asked the host for bytes, which has not replied yet.
    Reading,
    /// A read would return at once.
    Ready,
    /// The host has replied to a read that did not wait.
    Arrived(bytes::Bytes),
    Failed {
        os_error: Option<i32>,
    },
    End,
}

impl Known {
    fn of(reply: Reply) -> Known {
        match reply {
            Reply::Bytes(bytes) => Known::Arrived(bytes.0.into()),
            Reply::Failed { os_error } => Known::Failed { os_error },
            Reply::End => Known::End,
        }
    }
}

impl Stdin {
    /// Sends a question; the caller then waits for its reply.
    fn ask(&mut self, bytes_max: usize) -> io::Result<()> {
        let Asker { task, run, watcher, to_host } = &self.asker;
        self.asked += 1;
        let task = *task;
        let run = *run;
        let number = self.asked;
        watcher.replies.expect(run, number);
        let question = Question::Stdin { bytes_max: bytes_max as u32 };
        let mut to_host = to_host.hold();
        let ask = FromWorker::Ask { task, run, number, question };
        write_frame(&mut *to_host, &mut Vec::new(), &ask, &[]).map(drop)
    }

    /// Waits until a read would return at once.
    async fn ready(&mut self) -> io::Result<()> {
        if self.known == Known::Nothing {
            self.ask(0)?;
            self.known = Known::Asked;
        }
        if self.known == Known::Asked {
            // A failed stdin counts as ready: the read reports the failure.
            let reply = self.asker.watcher.replies.wait().await;
            self.known = if reply == Reply::End { Known::End } else { Known::Ready };
        }
        if self.known == Known::Reading {
            self.known = Known::of(self.asker.watcher.replies.wait().await);
        }
        Ok(())
    }

    async fn read(&mut self, size: usize) -> StreamResult<bytes::Bytes> {
        let gone = |error: io::Error| StreamError::Trap(error.into());
        if matches!(self.known, Known::Asked | Known::Reading) {
            self.ready().await.map_err(gone)?;
        }
        // A read of zero bytes asks for nothing.
        if size == 0 {
            return Err(StreamError::Closed);
        }
        if matches!(self.known, Known::Nothing | Known::Ready) {
            self.ask(size.min(ASK_BYTES_MAX)).map_err(gone)?;
            self.known = Known::of(self.asker.watcher.replies.wait().await);
        }
        self.take(size)
    }

    /// Reads what is there, and nothing if the host has to be asked for it: it is asked then.
    fn read_at_once(&mut self, size: usize) -> StreamResult<bytes::Bytes> {
        let gone = |error: io::Error| StreamError::Trap(error.into());
        if size == 0 {
            return Ok(bytes::Bytes::new());
        }
        if matches!(self.known, Known::Nothing | Known::Ready) {
            self.ask(size.min(ASK_BYTES_MAX)).map_err(gone)?;
            self.known = Known::Reading;
        }
        if self.known == Known::Reading
            && let Some(reply) = self.asker.watcher.replies.take()
        {
            self.known = Known::of(reply);
        }
        self.take(size)
    }

    /// Takes what has arrived, up to so many bytes.
    fn take(&mut self, size: usize) -> StreamResult<bytes::Bytes> {
        match &mut self.known {
            Known::Arrived(bytes) => {
                let taken = bytes.split_to(size.min(bytes.len()));
                if bytes.is_empty() {
                    self.known = Known::Nothing;
                }
                Ok(taken)
            }
            Known::Failed { os_error } => {
                let error = os_error.map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error);
                self.known = Known::Nothing;
                Err(StreamError::LastOperationFailed(error.into()))
            }
            Known::End => Err(StreamError::Closed),
            Known::Nothing | Known::Asked | Known::Reading | Known::Ready => Ok(bytes::Bytes::new()),
        }
    }
}

impl AskedStdin {
    pub(super) fn new(asker: Asker) -> Self {
        AskedStdin(Arc::new(tokio::sync::Mutex::new(Stdin { asker, asked: 0, known: Known::Nothing })))
    }

    /// Waits at most this long for a read to be possible at once; returns `false` if it is not.
    ///
    /// # Errors
    /// If the host is gone.
    pub(super) async fn is_ready_within(&self, at_most: Duration) -> io::Result<bool> {
        let mut stdin = self.0.lock().await;
        let at_most = if stdin.known == Known::Nothing { at_most.max(WORD_WITHIN) } else { at_most };
        match tokio::time::timeout(at_most, stdin.ready()).await {
            Ok(ready) => ready.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

impl IsTerminal for AskedStdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for AskedStdin {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncRead + Send + Sync> {
        // Only WASI 0.3 calls this, and it is not linked.
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for AskedStdin {
    fn read(&mut self, size: usize) -> StreamResult<bytes::Bytes> {
        match self.0.try_lock() {
            Ok(mut stdin) => stdin.read_at_once(size),
            // Somebody waits for it, so there is nothing yet.
            Err(_) => Ok(bytes::Bytes::new()),
        }
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<bytes::Bytes> {
        self.0.lock().await.read(size).await
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for AskedStdin {
    async fn ready(&mut self) {
        // The error means that the host is gone, and then this process ends, too.
        let _ = self.0.lock().await.ready().await;
    }
}
