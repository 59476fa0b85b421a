//! Where a command's stdin comes from, if not from memory: a reader or a descriptor of the caller's, read
//! as the command asks for it.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::foreign::Foreign;

/// Something that a command reads from. It may block: a thread of its own calls it.
pub(crate) trait ReadStdin: Send {
    /// The same as [`Read::read`].
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Returns once a read would not wait, where that can be known.
    fn wait(&mut self) -> io::Result<()>;
}

/// Its destructor may be the caller's code.
pub(crate) type Source = Foreign<Box<dyn ReadStdin>>;

/// A source that whoever runs first takes: the same input can be submitted twice, but read once.
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
        StdinSource(Arc::new(Mutex::new(Some(Foreign::new(source)))))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Source>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For one task; `None` if another has it.
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
    /// Whether it is the same one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for StdinSource {}

/// A source that a task may ask for. If it never does, the source goes back untouched.
pub(crate) struct Lent {
    source: Option<Source>,
    of: StdinSource,
}

impl Lent {
    /// Back to where it can be lent again. Runs nobody's code, so this may be called under a lock: who else held the
    /// source may be gone, but this holds it still.
    pub(crate) fn give_back(&mut self) {
        if let Some(source) = self.source.take() {
            *self.of.lock() = Some(source);
        }
    }

    /// To be read from.
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
                // It says how much there is, and is not believed.
                read => return read.map(|len| len.min(into.len())),
            }
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Read by one `read(2)` each, without a buffer: what is not asked for stays where it is.
struct FromDescriptor(OwnedFd);

impl ReadStdin for FromDescriptor {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.0, &mut *into) {
                Err(Errno::INTR) => {}
                // Somebody who shares it has made it so.
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
