//! Names: which texts are the name of a function, and which field or variant a label means.

use std::borrow::Cow;
use std::ops::Range;

use wasm_wave::lex::{Lexer, Token};

/// Returns whether a text may be the name of a function: its own, or that of an interface, `#` and its own.
pub(super) fn is_function_name(text: &str) -> bool {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_alphanumeric() || "_-.$".contains(c))
    };
    let is_interface = |name: &str| {
        name.starts_with(char::is_alphabetic)
            && name.chars().all(|c| c.is_alphanumeric() || "_-.:/@+".contains(c))
    };
    match text.split_once('#') {
        Some((interface, name)) => is_interface(interface) && is_name(name),
        None => is_name(text),
    }
}

/// Returns the index of the name that a label means: the very same one, else the only one that has the same letters
/// and digits.
pub(super) fn position<T>(named: &[(String, T)], label: &str) -> Option<usize> {
    let exact = named.iter().position(|(name, _)| name == label);
    exact.or_else(|| {
        let mut similar = named.iter().enumerate().filter(|(_, (name, _))| is_same_word(name, label));
        match (similar.next(), similar.next()) {
            (Some((index, _)), None) => Some(index),
            _ => None,
        }
    })
}

/// Returns whether two names differ in nothing but their case: `must-have`, `must_have`, `MustHave`.
fn is_same_word(one: &str, other: &str) -> bool {
    fn letters(name: &str) -> impl Iterator<Item = u8> {
        name.bytes().filter(|byte| !b"-_".contains(byte)).map(|byte| byte.to_ascii_lowercase())
    }
    letters(one).eq(letters(other))
}

/// Writes names in snake case and in camel case as WAVE's lexer takes them, in as many bytes, so that each place in
/// the text stays what it is: `must_have` as `must-have`, `MustHave` as `musthave`.
///
/// The lexer itself says where such names are, since it takes them for several words without a space between them. No
/// text of WAVE has such words, so none is changed.
pub(super) fn in_kebab_case(source: &str) -> Cow<'_, str> {
    if !source.bytes().any(|byte| byte == b'_' || byte.is_ascii_uppercase()) {
        return source.into();
    }
    let mut bytes = source.as_bytes().to_vec();
    let mut last: Option<Range<usize>> = None;
    for (token, span) in Lexer::new(source).spanned() {
        let is_label = token == Ok(Token::LabelOrKeyword);
        let is_part = is_label || token == Ok(Token::Number) || source.get(span.clone()) == Some("_");
        match last {
            Some(before) if is_part && before.end == span.start => {
                rewrite(&mut bytes[before.start..span.end]);
                last = Some(span);
            }
            _ => last = is_label.then_some(span),
        }
    }
    String::from_utf8(bytes).map_or(source.into(), Cow::Owned)
}

fn rewrite(name: &mut [u8]) {
    for byte in name {
        *byte = if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    }
}
