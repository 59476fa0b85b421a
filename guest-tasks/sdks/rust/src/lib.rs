//! Three tasks: the words of a text, the sum of numbers, and a picture turned into its negative.

use std::collections::BTreeMap;

/// A word, and how often it occurs.
#[wasmpool_guest::data]
#[derive(Debug, PartialEq)]
pub struct Count {
    /// As it stands between spaces.
    pub word: String,
    /// At least once.
    pub times: u32,
}

/// How often each word occurs, the commonest first.
#[wasmpool_guest::task(name = "count-words")]
fn count_words(text: String) -> Vec<Count> {
    let mut times = BTreeMap::new();
    for word in text.split_whitespace() {
        *times.entry(word).or_default() += 1;
    }
    let mut counts: Vec<_> =
        times.into_iter().map(|(word, times)| Count { word: word.into(), times }).collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.times));
    counts
}

/// The sum of the numbers; of none there is an error.
#[wasmpool_guest::task]
fn total(values: Vec<f64>) -> Result<f64, String> {
    if values.is_empty() {
        return Err("total of no numbers".into());
    }
    Ok(values.iter().sum())
}

/// The negative of a grey picture (PGM, P5).
#[wasmpool_guest::task(raw)]
fn invert(picture: &[u8]) -> Result<Vec<u8>, String> {
    // The head is `P5`, width, height and maximum, and one space behind them.
    if !picture.starts_with(b"P5") {
        return Err("not a PGM picture".into());
    }
    let mut spaces = picture.iter().enumerate().filter(|(_, byte)| byte.is_ascii_whitespace());
    let head = spaces.nth(3).map_or(picture.len(), |(at, _)| at + 1);
    let mut negative = picture.to_vec();
    negative[head..].iter_mut().for_each(|grey| *grey = 255 - *grey);
    Ok(negative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_the_commonest_first() {
        let counts = count_words("a b a".into());
        assert_eq!((&*counts[0].word, counts[0].times, counts.len()), ("a", 2, 2));
    }

    #[test]
    fn of_no_numbers_there_is_no_sum() {
        assert_eq!(total(vec![1.0, 2.5]), Ok(3.5));
        assert!(total(Vec::new()).is_err());
    }

    #[test]
    fn a_picture_is_inverted_behind_its_head() {
        assert_eq!(invert(b"P5 2 1 255\n\x01\xfe"), Ok(b"P5 2 1 255\n\xfe\x01".to_vec()));
        assert!(invert(b"GIF").is_err());
    }
}
