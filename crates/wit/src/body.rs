//! The text before it is parsed: whether it is a whole file or the body of an interface, and how deep its types are nested.

use wit_parser::Span;

use super::WitError;
use proto::limits::{SCHEMA_DEPTH_MAX, TASK_TYPES_BYTES_MAX};

/// The words with which a whole file begins.
const FILE_WORDS: [&str; 3] = ["package", "interface", "world"];

const PACKAGE: &str = "package wasmpool:module; ";
const INTERFACE: &str = "interface tasks { ";

/// A text as the parser gets it.
pub(super) struct Document {
    pub(super) whole: String,
    /// The bytes that stand before the author's text, on its first line.
    added: usize,
    /// The author's text ends here.
    end: usize,
}

impl Document {
    /// # Errors
    /// [`WitError::TooLong`], [`WitError::TooDeep`].
    pub(super) fn of(text: &str) -> Result<Document, WitError> {
        if text.len() > TASK_TYPES_BYTES_MAX {
            return Err(WitError::TooLong { bytes: text.len() });
        }
        let code = without_comments(text);
        check_depth(&code)?;
        // A `package` need not be there: nobody imports these types.
        let (before, after) = match first_word(&code) {
            Some("package") => (String::new(), ""),
            Some(word) if FILE_WORDS.contains(&word) => (PACKAGE.to_string(), ""),
            _ => (format!("{PACKAGE}{INTERFACE}"), "\n}\n"),
        };
        let added = before.len();
        let end = added + text.trim_end().len();
        Ok(Document { whole: format!("{before}{text}{after}"), added, end })
    }

    /// An error at a place of the text as its author has it.
    pub(super) fn wrong(&self, span: Span, message: String) -> WitError {
        let at = if span.is_known() { span.start() as usize } else { self.added };
        // What is put behind the text is none of its author's.
        let message = match at > self.end {
            true => message.replace("found '}'", "found the end of the text"),
            false => message,
        };
        let before = self.whole.as_bytes().get(..at.min(self.end)).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let added = if line == 1 { self.added } else { 0 };
        let column = 1 + (before.len() - line_start).saturating_sub(added);
        WitError::Syntax { line, column, message }
    }
}

/// Returns the text with spaces in place of comments, so that lines and columns stay.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    // Comments between `/*` and `*/` can be nested.
    let mut depth = 0_usize;
    let mut in_line = false;
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        match (c, next) {
            ('\n', _) => in_line = false,
            _ if in_line => {}
            ('/', Some('*')) => {
                depth += 1;
                chars.next();
                code.push(' ');
            }
            ('*', Some('/')) if depth > 0 => {
                depth -= 1;
                chars.next();
                code.push_str("  ");
                continue;
            }
            ('/', Some('/')) if depth == 0 => in_line = true,
            _ => {}
        }
        code.push(if (in_line || depth > 0) && c != '\n' { ' ' } else { c });
    }
    code
}

/// Holds the nesting to what a schema may have: the parser calls itself for each level.
fn check_depth(code: &str) -> Result<(), WitError> {
    // A function's result and what is around a type add some levels that are none of a schema's.
    let depth_max = SCHEMA_DEPTH_MAX + 4;
    let mut depth = 0_usize;
    let mut last = ' ';
    let mut line = 1;
    for c in code.chars() {
        match c {
            '\n' => line += 1,
            '<' | '(' | '{' => depth += 1,
            // The arrow before a result closes nothing.
            '>' if last == '-' => {}
            '}' if depth == 0 => return Err(closes_nothing(line)),
            '>' | ')' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > depth_max {
            return Err(WitError::TooDeep { line });
        }
        last = c;
    }
    Ok(())
}

/// Without this, a text could end the interface that is put around it.
fn closes_nothing(line: usize) -> WitError {
    WitError::Syntax { line, column: 1, message: "a `}` closes nothing".into() }
}

fn first_word(code: &str) -> Option<&str> {
    let code = code.trim_start();
    let end = code.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(code.len());
    // `package: func()` is a function, which WIT has as `%package`; a keyword is followed by a name.
    code.get(..end).filter(|_| !code[end..].trim_start().starts_with(':'))
}
