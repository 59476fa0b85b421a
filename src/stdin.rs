//! A command's stdin that is not in memory: a reader or a descriptor of the caller's, which is read as the
//! command asks for it.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::panic_guard::PanicGuard;
use proto::sync::Lock;

/// A source of stdin. Its calls may block, so a thread of its own makes them.
pub(crate) trait ReadStdin: Send {
    /// Does what [`Read::read`] does.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Returns once a read would not wait, if that can be known.
    fn wait(&mut self) -> io::Result<()>;
}

/// The source is guarded, since its destructor may be the caller's code.
pub(crate) type Source = PanicGuard<Box<dyn ReadStdin>>;

/// A source that only the first task gets: the same input can be submitted twice, but read once.
#[derive(Clone)]
pub(crate) struct StdinSource(Arc<Mutex<Option<Source>>>);

impl StdinSource {
    pub(crate) fn of_reader(reader: impl Read + Send + 'static) -> Self {
        StdinSource::new(Box::new(FromReader(reader)))
    }

    pub(crate) fn of_descriptor(descriptor: OwnedFd) -> Self {
        StdinSource::new(Box::new(FromDescriptor(descriptor)))
    }

    fn new(source: Box<dyn ReadStdin>) -> Self {
        StdinSource(Arc::new(Mutex::new(Some(PanicGuard::new(source)))))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Source>> {
        self.0.hold()
    }

    /// Lends the source to one task; returns `None` if another has it.
    pub(crate) fn lend(&self) -> Option<Lent> {
        let source = self.lock().take()?;
        Some(Lent { source: Some(source), of: self.clone() })
    }
}

impl fmt::Debug for StdinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StdinSource")
    }
}

impl PartialEq for StdinSource {
    /// Two are equal if they are the same source.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for StdinSource {}

/// A source that was lent to a task. It goes back untouched if the task never asks for it.
pub(crate) struct Lent {
    source: Option<Source>,
    of: StdinSource,
}

impl Lent {
    /// Puts the source back, so that it can be lent again. This runs none of the caller's code and may be
    /// called under a lock, since `of` keeps the place alive.
    pub(crate) fn give_back(&mut self) {
        if let Some(source) = self.source.take() {
            *self.of.lock() = Some(source);
        }
    }

    /// Takes the source to read from it.
    pub(crate) fn take(mut self) -> Option<Source> {
        self.source.take()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent")
    }
}

struct FromReader<R>(R);

impl<R: Read + Send> ReadStdin for FromReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A reader may claim more than fits, and is not believed.
                read => return read.map(|len| len.min(into.len())),
            }
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// It reads by single `read(2)` calls without a buffer, so that what is not asked for stays where it is.
struct FromDescriptor(OwnedFd);

impl ReadStdin for FromDescriptor {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.0, &mut *into) {
                Err(Errno::INTR) => {}
                // Somebody who shares the open file has made it non-blocking.
                Err(Errno::AGAIN) => self.wait()?,
                read => return Ok(read?),
            }
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut ready, None))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn one_task_at_a_time_has_a_source_and_what_is_not_taken_goes_back() {
        let source = StdinSource::of_reader(&b"x"[..]);
        let lent = source.lend().expect("it is there");
        assert!(source.lend().is_none() && source.clone().lend().is_none());
        drop(lent);
        let mut taken = source.lend().expect("it is back").take().expect("it is there");
        assert_eq!(taken.read(&mut [0; 4]).expect("reads"), 1);
        drop(taken);
        assert!(source.lend().is_none(), "it has been read from");
    }

    #[test]
    fn a_descriptor_that_does_not_block_is_waited_for() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).expect("a pipe");
        let mut source = FromDescriptor(reader);
        std::thread::scope(|scope| {
            let read = scope.spawn(move || {
                let mut bytes = [0; 8];
                let len = source.read(&mut bytes).expect("reads");
                (bytes[..len].to_vec(), source.read(&mut bytes).expect("the end"))
            });
            std::fs::File::from(writer).write_all(b"late").expect("writes");
            assert_eq!(read.join().expect("ends"), (b"late".to_vec(), 0));
        });
    }
}
