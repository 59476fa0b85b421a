//! A table that many tasks share: sorted lines, of which each task reads the few that
//! a binary search leads to.

use wasmpool_guest::{Shared, shared};

/// Bytes that are read at once: most lines are shorter.
const PIECE: usize = 128;

/// The value of `key` in the first shared input: lines `key<TAB>value`, sorted by the
/// bytes of their keys.
#[wasmpool_guest::task]
pub fn find(key: String) -> Result<Option<String>, String> {
    let table = table()?;
    // The line, if there is one, begins at one of these.
    let (mut from, mut to) = (0, table.len());
    while from < to {
        let middle = from + (to - from) / 2;
        // Where the first line begins that does so at the middle or behind it.
        let start = match middle {
            _ if middle == from => from,
            _ => middle - 1 + line_at(&table, middle - 1).len() as u64 + 1,
        };
        if start >= to {
            to = middle;
            continue;
        }
        let line = line_at(&table, start);
        let (found, value) = split(&line);
        match found.cmp(key.as_bytes()) {
            std::cmp::Ordering::Equal => return Ok(Some(String::from_utf8_lossy(value).into_owned())),
            std::cmp::Ordering::Less => from = start + line.len() as u64 + 1,
            std::cmp::Ordering::Greater => to = middle,
        }
    }
    Ok(None)
}

/// How many lines the table has. It reads all of it.
#[wasmpool_guest::task]
pub fn lines() -> Result<u64, String> {
    Ok(table()?.to_vec().iter().filter(|byte| **byte == b'\n').count() as u64)
}

fn table() -> Result<Shared, String> {
    shared(0).ok_or_else(|| "no table is shared with this task".into())
}

/// What stands from `offset` to the end of the line, without that.
fn line_at(table: &Shared, offset: u64) -> Vec<u8> {
    let mut line = Vec::new();
    let mut piece = [0; PIECE];
    loop {
        let len = table.read_at(offset + line.len() as u64, &mut piece);
        let read = &piece[..len];
        match read.iter().position(|byte| *byte == b'\n') {
            Some(end) => line.extend_from_slice(&read[..end]),
            None => line.extend_from_slice(read),
        }
        if len < PIECE || read.contains(&b'\n') {
            return line;
        }
    }
}

fn split(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b'\t') {
        Some(tab) => (&line[..tab], &line[tab + 1..]),
        None => (line, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(lines: &[(String, String)], last_newline: bool) {
        let mut text: String = lines.iter().map(|(key, value)| format!("{key}\t{value}\n")).collect();
        if !last_newline {
            text.pop();
        }
        wasmpool_guest::set_shared([text.into_bytes()]);
    }

    #[test]
    fn every_key_is_found_and_nothing_else_is() {
        for count in [0, 1, 2, 3, 10, 1000] {
            for last_newline in [true, false] {
                let table: Vec<_> = (0..count)
                    .map(|n| (format!("{:05}", n * 2), "v".repeat(n % 300) + &n.to_string()))
                    .collect();
                share(&table, last_newline);
                for (key, value) in &table {
                    assert_eq!(find(key.clone()).as_ref(), Ok(&Some(value.clone())), "{key} of {count}");
                }
                for n in 0..=count {
                    let odd = format!("{:05}", n * 2 + 1);
                    assert_eq!(find(odd.clone()), Ok(None), "{odd} of {count}");
                }
                assert_eq!(find(String::new()), Ok(None));
                if last_newline {
                    assert_eq!(lines(), Ok(count as u64));
                }
            }
        }
    }

    #[test]
    fn without_a_table_it_says_so() {
        wasmpool_guest::set_shared([]);
        assert!(find("a".into()).unwrap_err().contains("no table"));
        assert!(lines().is_err());
    }
}
