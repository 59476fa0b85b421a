//! Shows strangers' text to a person. Terminals obey control characters, readers do not see format characters, and
//! a line feed begins what looks like a line of ours. Such text is therefore never shown raw, but by one of three
//! types:
//!
//! | type | for | line feeds |
//! |---|---|---|
//! | [`Name`] | names, paths, labels: what stands inside of a sentence or a table | escaped |
//! | [`Words`] | messages, which may have several lines | each further line is indented |
//! | [`Escaped`] | whole pages, laid out already | stay |

use std::fmt;

/// Shows `.0` with everything escaped that a terminal would obey or a reader would not see. Line feeds and
/// tabs stay, since they carry layout and do not change a terminal's state.
pub struct Escaped<T>(pub T);

/// Shows `.0` on one line, whatever is in it.
pub struct Name<T>(pub T);

/// Shows `.0` so that no line of it can be taken for one of ours.
pub struct Words<T>(pub T);

/// This stands before each line of a stranger's message but the first.
const MARK: &str = "\n    ";

impl<T: AsRef<str>> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0.as_ref(), is_harmless)
    }
}

impl<T: AsRef<str>> fmt::Display for Name<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0.as_ref(), |c| is_harmless(c) && c != '\n' && c != '\t')
    }
}

impl<T: AsRef<str>> fmt::Display for Words<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.0.as_ref().trim_end_matches(['\r', '\n']).split('\n').enumerate() {
            if index > 0 {
                f.write_str(MARK)?;
            }
            write_escaped(f, line.strip_suffix('\r').unwrap_or(line), is_harmless)?;
        }
        Ok(())
    }
}

fn write_escaped(out: &mut impl fmt::Write, text: &str, is_shown: fn(char) -> bool) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.find(|c| !is_shown(c)) {
        let (plain, escaped) = rest.split_at(at);
        out.write_str(plain)?;
        let mut chars = escaped.chars();
        if let Some(c) = chars.next() {
            write!(out, "{}", c.escape_default())?;
        }
        rest = chars.as_str();
    }
    out.write_str(rest)
}

/// Returns whether a terminal only shows the character, and a reader sees it.
pub fn is_harmless(c: char) -> bool {
    c == '\n' || c == '\t' || !(c.is_control() || is_unseen(c))
}

/// Matches characters that a reader does not see: Unicode 16's general category Cf, its property
/// Default_Ignorable_Code_Point, and both line separators. Bidirectional controls reorder text
/// (CVE-2021-42574); tags and joiners hide text, or make two names look the same.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Returns whether a reader sees nothing where the text stands: it is empty, or has spaces and the like alone.
pub fn is_blank(text: &str) -> bool {
    // The two are Braille's pattern without a dot, and a note without a head.
    text.chars().all(|c| c.is_whitespace() || !is_harmless(c) || matches!(c, '\u{2800}' | '\u{1d159}'))
}

/// Returns at most `max` bytes of `text`, cut at a character's end and marked.
pub fn truncated(text: &str, max: usize) -> String {
    quoted(text.as_bytes(), max)
}

/// Does the same with bytes that may be no text and very many. It looks at no more of them than it shows, and
/// counts what it cuts from all of them. All that an error quotes goes through here.
pub fn quoted(bytes: &[u8], max: usize) -> String {
    let start = &bytes[..bytes.len().min(max)];
    let is_whole = start.len() == bytes.len();
    let mut shown = String::new();
    let mut used = 0;
    for chunk in start.utf8_chunks() {
        let room = max - shown.len();
        let valid = chunk.valid();
        let end = (0..=valid.len().min(room)).rev().find(|&end| valid.is_char_boundary(end)).unwrap_or(0);
        shown.push_str(&valid[..end]);
        used += end;
        let invalid = chunk.invalid();
        // The invalid bytes at the cut may be the first half of a character.
        let is_cut = !is_whole && used + invalid.len() == start.len();
        if end < valid.len() || invalid.is_empty() || is_cut || shown.len() + REPLACEMENT.len() > max {
            break;
        }
        shown.push_str(REPLACEMENT);
        used += invalid.len();
    }
    match bytes.len() - used {
        0 => shown,
        cut => format!("{shown}… ({cut} bytes cut)"),
    }
}

/// This stands for bytes that are no text.
const REPLACEMENT: &str = "\u{fffd}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sequences_and_bidi_overrides_are_escaped() {
        let shown = Escaped("a\u{1b}[31mred\u{202e}x\ny\r\u{9b}").to_string();
        assert_eq!(shown, "a\\u{1b}[31mred\\u{202e}x\ny\\r\\u{9b}");
    }

    #[test]
    fn what_a_reader_would_not_see_is_escaped() {
        for c in "\u{200b}\u{ad}\u{e0041}\u{fe0f}\u{e0100}\u{2060}\u{200d}\u{34f}\u{115f}\u{3164}\u{180e}\u{feff}\u{2028}\u{85}".chars() {
            let shown = Escaped(format!("a{c}b")).to_string();
            assert_eq!(shown, format!("a{}b", c.escape_default()));
        }
        let seen = "aä漢字\u{e9}e\u{301} 😀\u{a0}\u{3000}";
        assert_eq!(Escaped(seen).to_string(), seen);
    }

    #[test]
    fn a_name_is_on_one_line_and_further_lines_of_a_message_are_indented() {
        assert_eq!(Name("a\n\tb\u{1b}").to_string(), "a\\n\\tb\\u{1b}");
        assert_eq!(Words("a\r\nerror: b\n\n    0: f\n").to_string(), "a\n    error: b\n    \n        0: f");
    }

    #[test]
    fn what_is_quoted_is_short_and_what_is_cut_is_counted_from_the_whole() {
        for (what, shown) in [(&b"x"[..], 100), ("ä".as_bytes(), 100), (b"\xff", 33)] {
            let many = what.repeat(200_000_000 / what.len());
            let quote = quoted(&many, 100);
            let cut = many.len() - shown;
            assert!(quote.ends_with(&format!("… ({cut} bytes cut)")), "{quote}");
            assert!(quote.len() < 200, "{quote}");
        }
        assert_eq!(quoted(b"a\xffb", 10), "a\u{fffd}b");
        assert_eq!(quoted(b"a\xffb", 3), "a… (2 bytes cut)");
        assert_eq!(quoted("aä".as_bytes(), 2), "a… (2 bytes cut)");
        assert_eq!(quoted(b"a\xc3", 2), "a… (1 bytes cut)");
    }

    #[test]
    fn truncation_keeps_whole_characters() {
        assert_eq!(truncated("ääää", 3), "ä… (6 bytes cut)");
        assert_eq!(truncated("ok", 3), "ok");
        assert_eq!(truncated("", 0), "");
        assert_eq!(truncated("a", 0), "… (1 bytes cut)");
    }
}
