//! Guest text on its way to a person: terminals obey control characters, so none get through.

use std::fmt::{self, Write as _};

/// Shows `.0` with control characters, bidirectional overrides and line separators escaped.
/// Line feeds and tabs stay: they carry layout, and no terminal state.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: AsRef<str>> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.as_ref().chars() {
            if is_harmless(c) {
                f.write_char(c)?;
            } else {
                write!(f, "{}", c.escape_default())?;
            }
        }
        Ok(())
    }
}

/// Whether a terminal shows the character and does nothing else.
pub(crate) fn is_harmless(c: char) -> bool {
    if c == '\n' || c == '\t' {
        return true;
    }
    // Bidi controls reorder what a reader sees (CVE-2021-42574); U+2028/2029 break lines.
    let bidi =
        matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !bidi && c != '\u{feff}'
}

/// At most `max` bytes of `text`, cut at a character's end and marked.
pub(crate) fn truncated(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_string();
    }
    let end = (0..=max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}… ({} bytes cut)", &text[..end], text.len() - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sequences_and_bidi_overrides_are_escaped() {
        let shown = Escaped("a\u{1b}[31mred\u{202e}x\ny\r\u{9b}").to_string();
        assert_eq!(shown, "a\\u{1b}[31mred\\u{202e}x\ny\\r\\u{9b}");
    }

    #[test]
    fn truncation_keeps_whole_characters() {
        assert_eq!(truncated("ääää", 3), "ä… (6 bytes cut)");
        assert_eq!(truncated("ok", 3), "ok");
    }
}
