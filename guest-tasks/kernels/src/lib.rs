//! Small programs that only compute, each of another kind: what the benches measure compiled code by.
//!
//! Each takes a size and returns a number that depends on all that it did. The benches compile this very file for the
//! machine itself as well.

use sha2::{Digest, Sha256};

/// A generator of numbers that look random (xorshift64*, by Sebastiano Vigna).
struct Numbers(u64);

impl Numbers {
    fn new() -> Numbers {
        Numbers(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// The number of primes below `upto`, by one sieve in memory.
#[wasmpool_guest::task]
pub fn sieve(upto: u32) -> u64 {
    let mut composite = vec![false; upto as usize];
    let mut primes = 0;
    for n in 2..composite.len() {
        if !composite[n] {
            primes += 1;
            let mut multiple = n * n;
            while multiple < composite.len() {
                composite[multiple] = true;
                multiple += n;
            }
        }
    }
    primes
}

/// The trace of the product of two matrices of so many rows.
#[wasmpool_guest::task]
pub fn matrix(rows: u32) -> u64 {
    let n = rows as usize;
    let mut numbers = Numbers::new();
    let mut filled = || (0..n * n).map(|_| (numbers.next() >> 40) as f64 / 1e6).collect::<Vec<_>>();
    let (a, b) = (filled(), filled());
    let mut product = vec![0.0; n * n];
    for (row, of_a) in product.chunks_exact_mut(n).zip(a.chunks_exact(n)) {
        for (factor, of_b) in of_a.iter().zip(b.chunks_exact(n)) {
            for (sum, other) in row.iter_mut().zip(of_b) {
                *sum += factor * other;
            }
        }
    }
    (0..n).map(|at| product[at * n + at]).sum::<f64>() as u64
}

/// A part of the SHA-256 of so many kibibytes.
#[wasmpool_guest::task]
pub fn sha256(kibibytes: u32) -> u64 {
    let mut hash = Sha256::new();
    let mut numbers = Numbers::new();
    for _ in 0..kibibytes {
        let mut block = [0; 1024];
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&numbers.next().to_le_bytes());
        }
        hash.update(block);
    }
    let hash = hash.finalize();
    hash.iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Sorts so many numbers, and returns the one in the middle.
#[wasmpool_guest::task]
pub fn sort(count: u32) -> u64 {
    let mut numbers = Numbers::new();
    let mut list: Vec<_> = (0..count.max(1)).map(|_| numbers.next()).collect();
    list.sort_unstable();
    list[list.len() / 2]
}

/// Reads a JSON text of so many records, and adds up what they hold.
#[wasmpool_guest::task]
pub fn json(records: u32) -> u64 {
    let mut numbers = Numbers::new();
    let mut text = String::from("[");
    for id in 0..records {
        let n = numbers.next();
        let comma = if id == 0 { "" } else { "," };
        text += &format!(
            r#"{comma}{{"id":{id},"name":"record {n:x}","tags":["a","bc","\u00e9"],"value":{}.5,"on":{}}}"#,
            n % 1000,
            n.is_multiple_of(2)
        );
    }
    text.push(']');
    let read: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    read.as_array().into_iter().flatten().fold(0, |sum, record| {
        let value = record["value"].as_f64().unwrap_or_default();
        sum + record["id"].as_u64().unwrap_or_default() + (value * 2.0) as u64
    })
}

/// Searches so many lines for words and dates.
#[wasmpool_guest::task]
pub fn search(lines: u32) -> u64 {
    let mut numbers = Numbers::new();
    let pattern = regex::Regex::new(r"(\d{4})-(\d{2})-(\d{2})|er(?:ror|r)\w*|\b[a-f0-9]{12,}\b");
    let pattern = pattern.expect("it is a pattern");
    (0..lines).fold(0, |found, _| {
        let n = numbers.next();
        let line = format!(
            "{} {:x} a line of text with error{} in it, 20{:02}-0{}-1{}",
            n,
            n,
            n % 7,
            n % 100,
            n % 9 + 1,
            n % 10
        );
        found + pattern.find_iter(&line).map(|found| found.len() as u64).sum::<u64>()
    })
}

/// The instructions of a small machine with a stack, which [`interpret`] runs.
#[derive(Debug, Clone, Copy)]
enum Instruction {
    Push(u64),
    Load(u8),
    Store(u8),
    Add,
    Multiply,
    Xor,
    ShiftRight(u8),
    JumpIfLess { target: u16 },
    Halt,
}

/// Runs a loop of so many turns in an interpreter of bytecode.
#[wasmpool_guest::task]
pub fn interpret(turns: u32) -> u64 {
    use Instruction::{Add, Halt, JumpIfLess, Load, Multiply, Push, ShiftRight, Store, Xor};
    // a = a * 31 ^ (a >> 7) + i; i = i + 1; while i < turns
    let program = [
        Load(0),
        Push(31),
        Multiply,
        Load(0),
        ShiftRight(7),
        Xor,
        Load(1),
        Add,
        Store(0),
        Load(1),
        Push(1),
        Add,
        Store(1),
        Load(1),
        Push(u64::from(turns)),
        JumpIfLess { target: 0 },
        Halt,
    ];
    let mut variables = [1u64, 0];
    let mut stack = Vec::with_capacity(16);
    let mut at = 0;
    loop {
        let instruction = std::hint::black_box(&program)[at];
        at += 1;
        let mut pop = || stack.pop().unwrap_or(0);
        match instruction {
            Push(value) => stack.push(value),
            Load(variable) => stack.push(variables[variable as usize]),
            Store(variable) => variables[variable as usize] = pop(),
            Add => {
                let value = pop().wrapping_add(pop());
                stack.push(value);
            }
            Multiply => {
                let value = pop().wrapping_mul(pop());
                stack.push(value);
            }
            Xor => {
                let value = pop() ^ pop();
                stack.push(value);
            }
            ShiftRight(bits) => {
                let value = pop() >> bits;
                stack.push(value);
            }
            JumpIfLess { target } => {
                let (right, left) = (pop(), pop());
                if left < right {
                    at = target as usize;
                }
            }
            Halt => return variables[0],
        }
    }
}

/// Calls itself: the Fibonacci number at this place.
#[wasmpool_guest::task]
pub fn fibonacci(place: u32) -> u64 {
    fn at(place: u32) -> u64 {
        if place < 2 { u64::from(place) } else { at(place - 1) + at(place - 2) }
    }
    at(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_returns_what_it_should() {
        assert_eq!(sieve(100), 25);
        assert_eq!(fibonacci(20), 6765);
        // As a program in Python gives them.
        assert_eq!(matrix(20), 28_138);
        assert_eq!(sort(1001), 9_507_956_681_331_105_741);
        assert_eq!(json(50), 50_019);
        assert_eq!(search(40), 2_041);
        assert_eq!(interpret(100), 7_451_838_693_186_929_319);
        assert_eq!(sha256(2), 6_395_727_160_629_617_838);
    }
}
