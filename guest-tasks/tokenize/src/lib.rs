//! Two small steps of preparing data: text into tokens, numbers into z-scores.

/// What a token is made of.
#[wasmpool_guest::data]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Letters and digits, beginning with a letter.
    Word,
    /// Digits, with at most one point between them.
    Number,
    /// One character of anything else that is not white space.
    Mark,
}

/// A piece of a text.
#[wasmpool_guest::data]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is made of.
    pub kind: Kind,
    /// The piece itself.
    pub text: String,
    /// Where it begins, in bytes.
    pub start: u64,
}

/// Splits a text into words, numbers and single marks.
#[wasmpool_guest::task]
pub fn tokenize(text: String) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let (kind, length) = if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
            continue;
        } else if first.is_alphabetic() || first == '_' {
            (Kind::Word, run(rest, |c| c.is_alphanumeric() || c == '_' || c == '\''))
        } else if first.is_ascii_digit() {
            (Kind::Number, number(rest))
        } else {
            (Kind::Mark, first.len_utf8())
        };
        let (piece, after) = rest.split_at(length);
        tokens.push(Token { kind, text: piece.to_owned(), start: (text.len() - rest.len()) as u64 });
        rest = after;
    }
    tokens
}

/// Scales numbers to a mean of zero and a standard deviation of one.
///
/// Fails where that has no meaning: no numbers, numbers that are not finite, or
/// all of them the same.
#[wasmpool_guest::task]
pub fn normalize(values: Vec<f64>) -> Result<Vec<f64>, String> {
    if values.is_empty() {
        return Err("there are no values to normalize".into());
    }
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(format!("value {at} is {}", values[at]));
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
    if variance == 0.0 {
        return Err("all values are the same: their variance is zero".into());
    }
    let deviation = variance.sqrt();
    Ok(values.iter().map(|v| (v - mean) / deviation).collect())
}

/// The length of the longest start of `text` that `belongs`, in bytes.
fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

fn number(text: &str) -> usize {
    let digits = |text| run(text, |c| c.is_ascii_digit());
    let whole = digits(text);
    match text[whole..].strip_prefix('.') {
        Some(fraction) if digits(fraction) > 0 => whole + 1 + digits(fraction),
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_split() {
        let tokens = tokenize("Don't pay 3.50€, pay 4. Größe_2!".into());
        let pieces: Vec<_> = tokens.iter().map(|t| (t.kind, t.text.as_str())).collect();
        use Kind::{Mark, Number, Word};
        assert_eq!(
            pieces,
            [
                (Word, "Don't"),
                (Word, "pay"),
                (Number, "3.50"),
                (Mark, "€"),
                (Mark, ","),
                (Word, "pay"),
                (Number, "4"),
                (Mark, "."),
                (Word, "Größe_2"),
                (Mark, "!"),
            ]
        );
        assert_eq!(tokens[3].start, 14);
        assert_eq!(tokens[4].start, 17);
    }

    #[test]
    fn an_empty_text_has_no_tokens() {
        assert!(tokenize(" \n\t".into()).is_empty());
    }

    #[test]
    fn z_scores_have_mean_zero_and_deviation_one() {
        let scores = normalize(vec![2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!(scores, [-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn values_without_a_spread_are_refused() {
        assert!(normalize(vec![]).unwrap_err().contains("no values"));
        assert!(normalize(vec![3.0, 3.0]).unwrap_err().contains("variance"));
        let error = normalize(vec![1.0, f64::NAN]).unwrap_err();
        assert_eq!(error, "value 1 is NaN");
    }
}
