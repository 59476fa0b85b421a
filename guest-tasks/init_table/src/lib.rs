//! Work that comes before every task: the initialiser sieves a table, and every
//! task of the instance finds it ready.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// The table ends here: 800 kB.
const END: u32 = 200_000;

/// The smallest prime factor of each number; empty before the initialiser ran.
static FACTORS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static RUNS: AtomicU32 = AtomicU32::new(0);

/// Sieves the smallest prime factor of each number below 200,000.
#[wasmpool_guest::init]
pub fn sieve() -> Result<(), String> {
    RUNS.fetch_add(1, Ordering::Relaxed);
    let mut factors: Vec<u32> = (0..END).collect();
    for n in (2..).take_while(|n| n * n < END) {
        if factors[n as usize] == n {
            for multiple in (n * n..END).step_by(n as usize) {
                let factor = &mut factors[multiple as usize];
                *factor = n.min(*factor);
            }
        }
    }
    *FACTORS.lock().map_err(|error| error.to_string())? = factors;
    Ok(())
}

/// The prime factors of `n` in order, read from the table.
#[wasmpool_guest::task]
pub fn lookup(n: u32) -> Result<Vec<u32>, String> {
    let factors = FACTORS.lock().map_err(|error| error.to_string())?;
    if factors.is_empty() {
        return Err("the initialiser has not run".into());
    }
    if n == 0 || n >= END {
        return Err(format!("{n} is not in the table: 1 to {}", END - 1));
    }
    let mut found = Vec::new();
    let mut left = n;
    while left > 1 {
        let factor = factors[left as usize];
        found.push(factor);
        left /= factor;
    }
    Ok(found)
}

/// How often the initialiser ran in this instance: 1, before the first task there.
#[wasmpool_guest::task]
pub fn init_runs() -> u32 {
    RUNS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_answers_once_it_is_sieved() {
        assert!(lookup(12).unwrap_err().contains("initialiser"));
        sieve().unwrap();
        assert_eq!(init_runs(), 1);
        assert_eq!(lookup(12), Ok(vec![2, 2, 3]));
        assert_eq!(lookup(1), Ok(vec![]));
        assert_eq!(lookup(199_999), Ok(vec![199_999]));
        assert_eq!(lookup(199_998), Ok(vec![2, 3, 3, 41, 271]));
        assert!(lookup(0).is_err());
        assert!(lookup(END).is_err());
    }
}
