//! The control socket: messages with descriptors, and the end of the stream as a death signal.
//!
//! A `SOCK_SEQPACKET` pair keeps message boundaries, so there is nothing to reassemble.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::{CONTROL_BYTES_MAX, DIRS_MAX};
use crate::refused::calling;

/// Most descriptors of one message: a module's three files, or a worker's rings and directories.
const DESCRIPTORS_MAX: usize = 1 + DIRS_MAX;

/// A connected pair.
///
/// # Errors
/// An error of socketpair.
pub fn pair() -> io::Result<(ControlSocket, OwnedFd)> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(calling("socketpair"))?;
    Ok((ControlSocket(ours), theirs))
}

/// The signal by which the host has a worker stop a run ([`End::ask_to_stop`](super::ring::End::ask_to_stop)). A process
/// that does not handle it ignores it.
pub const STOP_SIGNAL: Signal = Signal::URG;

/// One end of a control socket.
#[derive(Debug)]
pub struct ControlSocket(pub OwnedFd);

impl ControlSocket {
    /// Sends one message with its descriptors, and does not wait.
    ///
    /// # Errors
    /// `WouldBlock` if the peer does not read, `BrokenPipe` if it is gone.
    pub fn send<M: Serialize>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
        if bytes.len() > CONTROL_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a control message is too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, flags)
        })?;
        Ok(())
    }

    /// Returns whether the peer is gone, even if something that it sent is still to be received.
    ///
    /// # Errors
    /// An error of poll(2).
    pub fn is_hung_up(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec::default();
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&now)))?;
        Ok(fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
    }

    /// Receives one message and at most `descriptors_max` descriptors; `None` if the peer is gone.
    ///
    /// # Errors
    /// `InvalidData` for what is no such message, or brings more descriptors than allowed;
    /// `WouldBlock` with `DONTWAIT`.
    pub fn receive<M: DeserializeOwned>(
        &self,
        descriptors_max: usize,
        flags: RecvFlags,
    ) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        loop {
            match self.receive_unless_interrupted(descriptors_max, flags) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return received,
            }
        }
    }

    /// Does the same as [`receive`](Self::receive), until a signal's handler has run.
    ///
    /// # Errors
    /// The same as those of [`receive`](Self::receive), and `Interrupted`.
    pub fn receive_unless_interrupted<M: DeserializeOwned>(
        &self,
        descriptors_max: usize,
        flags: RecvFlags,
    ) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; CONTROL_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        // There is no room for descriptors where none are allowed; the kernel then drops them and says so.
        let room = if descriptors_max == 0 { 0 } else { space.len() };
        let mut ancillary = RecvAncillaryBuffer::new(&mut space[..room]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received =
            rustix::net::recvmsg(&self.0, &mut slices, &mut ancillary, flags | RecvFlags::CMSG_CLOEXEC);
        let received = match received {
            Err(error) if error == rustix::io::Errno::CONNRESET => return Ok(None),
            other => other?,
        };
        let descriptors: Vec<OwnedFd> = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
            || descriptors.len() > descriptors_max
        {
            return invalid("a control message is too long or brings descriptors");
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        match postcard::take_from_bytes(&bytes[..received.bytes]) {
            Ok((message, [])) => Ok(Some((message, descriptors))),
            _ => invalid("a control message is malformed"),
        }
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_seen_before_what_was_sent_is_received() {
        let (ours, theirs) = pair().expect("socketpair");
        let theirs = ControlSocket(theirs);
        ours.send(&7u32, &[]).expect("sends");
        assert!(!theirs.is_hung_up().expect("polls"));
        drop(ours);
        assert!(theirs.is_hung_up().expect("polls"));
        assert!(theirs.receive::<u32>(0, RecvFlags::empty()).expect("receives").is_some());
    }

    #[test]
    fn descriptors_arrive_with_their_message_and_the_end_is_none() {
        let (ours, theirs) = pair().expect("socketpair");
        let theirs = ControlSocket(theirs);
        ours.send(&7u32, &[ours.as_fd()]).expect("sends");
        let (number, descriptors) =
            theirs.receive::<u32>(1, RecvFlags::empty()).expect("receives").expect("some");
        assert_eq!((number, descriptors.len()), (7, 1));
        drop((ours, descriptors));
        assert!(theirs.receive::<u32>(1, RecvFlags::empty()).expect("the end").is_none());
    }

    #[test]
    fn descriptors_are_refused_where_none_are_allowed() {
        let (ours, theirs) = pair().expect("socketpair");
        ControlSocket(theirs).send(&7u32, &[ours.as_fd()]).expect("sends");
        let error = ours.receive::<u32>(0, RecvFlags::empty()).expect_err("a descriptor");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
