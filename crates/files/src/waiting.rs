//! Streams that are waited for, where the system would not.
//!
//! Whoever opened a stream may have made it non-blocking. This is a property of the open file and not of this
//! process: another program at the same pipe or terminal sets it for all. A call that would wait then fails
//! with EAGAIN, which is no error: these streams wait themselves, and go on.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use proto::refused::explained;

/// A stream whose calls wait, even if the open file is non-blocking. It has no buffer.
#[derive(Debug)]
pub struct Waiting<S>(pub S);

impl<S: AsFd> Waiting<S> {
    pub fn retried<T>(
        &self,
        event: PollFlags,
        mut call: impl FnMut(&S) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call(&self.0) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // The next call says why a poll fails.
                    let _ = rustix::event::poll(&mut [PollFd::new(&self.0, event)], None);
                }
                done => return done.map_err(explained),
            }
        }
    }
}

impl<S: AsFd> io::Read for Waiting<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.retried(PollFlags::IN, |stream| rustix::io::read(stream, &mut *into))
    }
}

impl<S: AsFd> io::Write for Waiting<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retried(PollFlags::OUT, |stream| rustix::io::write(stream, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_block_is_waited_for() {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        for end in [&reader, &writer] {
            rustix::io::ioctl_fionbio(end, true).expect("it is a pipe");
        }
        let data: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        let read = std::thread::scope(|scope| {
            let reads = scope.spawn(|| {
                let mut all = Vec::new();
                while all.len() < data.len() {
                    let read = Waiting(&reader).retried(PollFlags::IN, |fd| {
                        let mut piece = vec![0; 4096];
                        rustix::io::read(fd, &mut piece[..]).map(|len| piece[..len].to_vec())
                    });
                    all.extend(read.expect("it waits"));
                }
                all
            });
            let mut from = 0;
            while from < data.len() {
                let written =
                    Waiting(&writer).retried(PollFlags::OUT, |fd| rustix::io::write(fd, &data[from..]));
                from += written.expect("it waits");
            }
            reads.join().expect("it reads")
        });
        assert_eq!(read, data);
    }
}
