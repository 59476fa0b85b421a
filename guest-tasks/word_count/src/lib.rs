//! Counts lines, words and bytes of a text, and finds its commonest words.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What [`count`] found.
#[wasmpool_guest::data]
#[derive(Debug, PartialEq)]
pub struct Counts {
    /// Line feeds, as `wc -l` counts them.
    pub lines: u64,
    /// Runs of characters between white space.
    pub words: u64,
    /// The length of the text.
    pub bytes: u64,
    /// How many words differ from each other.
    pub distinct: u64,
    /// The commonest words, the most frequent first, equals in order of text.
    pub top: Vec<(String, u64)>,
}

/// How many of the commonest words are returned.
const TOP: usize = 10;

/// Counts lines, words and bytes, and finds the ten commonest words.
///
/// The text is UTF-8; what is not is replaced, never refused. Words are told
/// apart as they are written: no case folding, no punctuation stripped.
#[wasmpool_guest::task]
pub fn count(text: Vec<u8>) -> Counts {
    let text = String::from_utf8_lossy(&text);
    let mut frequencies: HashMap<&str, u64, BuildHasherDefault<Fast>> = HashMap::default();
    let mut words = 0;
    for word in text.split_whitespace() {
        *frequencies.entry(word).or_default() += 1;
        words += 1;
    }
    let distinct = frequencies.len() as u64;
    let mut top: Vec<(&str, u64)> = frequencies.into_iter().collect();
    let order = |a: &(&str, u64), b: &(&str, u64)| b.1.cmp(&a.1).then(a.0.cmp(b.0));
    if top.len() > TOP {
        top.select_nth_unstable_by(TOP, order);
        top.truncate(TOP);
    }
    top.sort_unstable_by(order);
    Counts {
        lines: text.bytes().filter(|&byte| byte == b'\n').count() as u64,
        words,
        bytes: text.len() as u64,
        distinct,
        top: top.into_iter().map(|(w, n)| (w.to_owned(), n)).collect(),
    }
}

/// A multiplicative hash. It resists no attack: the instance lives for one text,
/// and a hostile text costs its sender's own time.
#[derive(Default)]
struct Fast(u64);

impl Fast {
    fn mix(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Fast {
    fn write(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.mix(u64::from_le_bytes(*chunk));
        }
        let mut tail = rest.len() as u64;
        for &byte in rest {
            tail = (tail << 8) | u64::from(byte);
        }
        self.mix(tail);
    }

    fn write_u8(&mut self, _: u8) {
        // The end mark of a string: there is only one string here.
    }

    fn finish(&self) -> u64 {
        // The table takes its bits from both ends.
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_text_is_counted() {
        let counts = count(b"one two\ntwo three three\nthree\n".to_vec());
        assert_eq!(
            counts,
            Counts {
                lines: 3,
                words: 6,
                bytes: 30,
                distinct: 3,
                top: vec![("three".into(), 3), ("two".into(), 2), ("one".into(), 1)],
            }
        );
    }

    #[test]
    fn an_empty_text_has_nothing() {
        let counts = count(Vec::new());
        assert_eq!((counts.words, counts.bytes, counts.distinct), (0, 0, 0));
        assert!(counts.top.is_empty());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        let counts = count(b"\xff \xff ok".to_vec());
        assert_eq!(counts.top[0], ("\u{fffd}".into(), 2));
    }

    #[test]
    fn the_top_is_cut_and_sorted() {
        let text: Vec<String> = (0..100_u32).flat_map(|n| vec![format!("w{n:02}"); n as usize]).collect();
        let counts = count(text.join(" ").into_bytes());
        assert_eq!(counts.distinct, 99);
        assert_eq!(counts.top.len(), TOP);
        assert_eq!(counts.top[0], ("w99".into(), 99));
        assert_eq!(counts.top[9], ("w90".into(), 90));
    }
}
