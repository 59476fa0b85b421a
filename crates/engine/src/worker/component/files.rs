//! The streams of files: wasmtime's own, but on the thread that runs the task. Their calls that do not wait would start a
//! thread to read or write meanwhile, and a worker has none to start: a file is read and written at once.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use wasmtime::component::{LinkerInstance, Resource};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::types::{ErrorCode, HostDescriptor as _};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, FsResult, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use super::super::linker::TaskState;
use super::wasi::answer;

type StoreAt<'a> = StoreContextMut<'a, TaskState>;
type File = Resource<Descriptor>;

/// Replaces the functions that make a stream of a file.
///
/// # Errors
/// Wasmtime's; none is expected.
pub(super) fn define(files: &mut LinkerInstance<'_, TaskState>) -> Result<()> {
    files.func_wrap(
        "[method]descriptor.read-via-stream",
        |mut store: StoreAt<'_>, (file, offset): (File, u64)| {
            let mut view = store.data_mut().filesystem();
            let made = view.read_via_stream(file, offset).and_then(|stream| {
                let stream: DynInputStream = Box::new(AtOnce(view.table.delete(stream)?));
                Ok(view.table.push(stream)?)
            });
            answer(&mut view, made)
        },
    )?;
    files.func_wrap(
        "[method]descriptor.write-via-stream",
        |mut store: StoreAt<'_>, (file, offset): (File, u64)| {
            let mut view = store.data_mut().filesystem();
            let made = view.write_via_stream(file, offset);
            written_at_once(view, made)
        },
    )?;
    files.func_wrap("[method]descriptor.append-via-stream", |mut store: StoreAt<'_>, (file,): (File,)| {
        let mut view = store.data_mut().filesystem();
        let made = view.append_via_stream(file);
        written_at_once(view, made)
    })
}

type Writer = Resource<DynOutputStream>;

/// Puts a stream to a file in the place of one of wasmtime's.
fn written_at_once(
    mut view: WasiFilesystemCtxView<'_>,
    made: FsResult<Writer>,
) -> Result<(std::result::Result<Writer, ErrorCode>,)> {
    let made = made.and_then(|stream| {
        let stream: DynOutputStream = Box::new(AtOnce(view.table.delete(stream)?));
        Ok(view.table.push(stream)?)
    });
    answer(&mut view, made)
}

/// A stream of a file whose calls do all their work at once.
struct AtOnce<S>(S);

/// Runs a future that does not wait: files are read and written by the thread at hand, as the context of a task has it.
fn at_once<T>(work: impl Future<Output = StreamResult<T>>) -> StreamResult<T> {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => {
            Err(StreamError::Trap(wasmtime::format_err!("a file was not read or written at once")))
        }
    }
}

#[async_trait]
impl InputStream for AtOnce<DynInputStream> {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        match size {
            0 => Ok(Bytes::new()),
            size => at_once(self.0.blocking_read(size)),
        }
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.0.blocking_read(size).await
    }

    async fn cancel(&mut self) {
        self.0.cancel().await;
    }
}

#[async_trait]
impl OutputStream for AtOnce<DynOutputStream> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        at_once(self.0.blocking_write_and_flush(bytes))
    }

    fn flush(&mut self) -> StreamResult<()> {
        // Nothing is held back.
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.0.check_write()
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.blocking_write_and_flush(bytes).await
    }

    async fn cancel(&mut self) {
        self.0.cancel().await;
    }
}

#[async_trait]
impl Pollable for AtOnce<DynInputStream> {
    /// A file can be read at any time.
    async fn ready(&mut self) {}
}

#[async_trait]
impl Pollable for AtOnce<DynOutputStream> {
    async fn ready(&mut self) {}
}
