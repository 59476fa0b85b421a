//! The worker's own way to its orders, `proto::inbox`: payloads that are taken in parts, as the items
//! of a batch, or not at all.

use std::io;

use proto::inbox::{Inbound, Inbox, Input, Item};
use proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use proto::message::ToWorker;

use crate::targets::frames::{Expected, Pieces};

/// Most that is held of a payload at a time.
const PART_BYTES: u64 = 64 * 1024;

impl Inbound for Pieces<'_> {
    fn wait(&mut self) -> io::Result<()> {
        if self.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn wait_or_call(&mut self) -> io::Result<()> {
        self.wait()
    }

    fn has_more(&self) -> bool {
        !self.is_empty()
    }
}

/// Reads the stream to its end, and holds what comes to what is there; `choices` say what is done with
/// each payload.
pub(crate) fn run(stream: &[u8], most: usize, choices: u8) {
    let mut inbox = Inbox::new(Pieces::new(stream, most));
    let mut end = 0;
    for turn in 0.. {
        let (expected, len) = Expected::<ToWorker>::of(&stream[end..], FRAME_PAYLOAD_BYTES_MAX);
        let message = inbox.next_message();
        let (expected, payload) = match expected {
            Expected::Frame(message, payload) => (message, payload),
            // The head of a frame whose payload is cut off is a message: its end is seen behind it.
            Expected::Cut if message.is_ok() => return assert!(inbox.skip().is_err(), "it is cut off"),
            _ => return assert!(message.is_err(), "a message where there is none"),
        };
        let message = message.expect("a message");
        let encode = |message: &ToWorker| postcard::to_stdvec(message).expect("encodes");
        assert_eq!(encode(&message), encode(&expected));
        assert_eq!(inbox.left(), payload.len() as u64);
        match (choices >> (turn % 4 * 2)) % 4 {
            // The next message skips it.
            0 => {}
            1 => inbox.skip().expect("it is there"),
            2 => read(&mut inbox, payload),
            _ => items(&mut inbox, payload),
        }
        end += len;
    }
}

/// Reads it in parts, and leaves a little.
fn read(input: &mut dyn Input, payload: &[u8]) {
    let (mut at, mut part) = (0, Vec::new());
    while input.left() > 3 {
        part.resize(input.left().div_ceil(2).min(PART_BYTES) as usize, 0);
        input.read(&mut part).expect("it is there");
        assert_eq!(part, &payload[at..at + part.len()]);
        at += part.len();
    }
    assert_eq!(input.left() as usize, payload.len() - at);
}

/// Each item is what its length says, and none is longer than what is there.
fn items(inbox: &mut dyn Input, payload: &[u8]) {
    let mut rest = payload;
    for turn in 0.. {
        let expected = rest
            .split_first_chunk::<4>()
            .and_then(|(len, behind)| behind.split_at_checked(u32::from_le_bytes(*len) as usize));
        match (Item::next(inbox), expected) {
            (Ok(mut item), Some((bytes, behind))) => {
                assert_eq!(item.left(), bytes.len() as u64);
                if turn % 2 == 0 {
                    read(&mut item, bytes);
                }
                item.skip().expect("it is there");
                assert_eq!(item.left(), 0);
                rest = behind;
            }
            (Err(error), None) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                return;
            }
            (Ok(_), None) => panic!("an item where there is none"),
            (Err(error), Some(_)) => panic!("an item is refused: {error}"),
        }
    }
}
