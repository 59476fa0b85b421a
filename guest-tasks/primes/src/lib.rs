//! Prime numbers: by the sieve of Eratosthenes, and one by one.

/// The number of primes up to and including `upto`.
#[wasmpool_guest::task]
pub fn count(upto: u64) -> u64 {
    let mut found = 0;
    each_prime(upto, |_| found += 1);
    found
}

/// The primes up to and including `upto`, in order.
#[wasmpool_guest::task]
pub fn list(upto: u64) -> Vec<u64> {
    let mut primes = Vec::new();
    each_prime(upto, |prime| primes.push(prime));
    primes
}

/// Is `n` a prime? Exact for every `n` (Miller and Rabin's test with twelve
/// bases).
#[wasmpool_guest::task]
pub fn is_prime(n: u64) -> bool {
    // These bases decide every n below 2^64 (Sorenson and Webster, 2015).
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if let Some(divisor) = BASES.iter().find(|&&base| n.is_multiple_of(base)) {
        return n == *divisor;
    }
    if n < 2 {
        return false;
    }
    let twos = (n - 1).trailing_zeros();
    let odd = (n - 1) >> twos;
    BASES.iter().all(|&base| {
        let mut power = power_modulo(base, odd, n);
        if power == 1 || power == n - 1 {
            return true;
        }
        (1..twos).any(|_| {
            power = multiply_modulo(power, power, n);
            power == n - 1
        })
    })
}

/// Calls `found` for each prime up to `upto`. Sieves one window after another,
/// so that memory grows with the square root of `upto` only.
fn each_prime(upto: u64, mut found: impl FnMut(u64)) {
    const WINDOW: u64 = 1 << 16;
    assert!(upto < 1 << 60, "the primes up to {upto} would take years to count");
    if upto >= 2 {
        found(2);
    }
    let root = upto.isqrt();
    let factors = small_primes(root);
    // Only odd numbers: the place p stands for low + 2p.
    let mut composite = vec![false; WINDOW as usize];
    let mut low = 3;
    while low <= upto {
        let places = ((upto - low) / 2 + 1).min(WINDOW);
        let high = low + 2 * (places - 1);
        composite.fill(false);
        for &factor in factors.iter().take_while(|&&f| f * f <= high) {
            let mut first = (factor * factor).max(low.div_ceil(factor) * factor);
            if first.is_multiple_of(2) {
                first += factor;
            }
            let mut place = (first - low) / 2;
            while place < places {
                composite[place as usize] = true;
                place += factor;
            }
        }
        for place in 0..places {
            if !composite[place as usize] {
                found(low + 2 * place);
            }
        }
        let Some(next) = high.checked_add(2) else {
            return;
        };
        low = next;
    }
}

/// The odd primes up to `upto`.
fn small_primes(upto: u64) -> Vec<u64> {
    let mut composite = vec![false; upto as usize + 1];
    let mut primes = Vec::new();
    for n in (3..=upto).step_by(2) {
        if !composite[n as usize] {
            primes.push(n);
            for multiple in (n * n..=upto).step_by(2 * n as usize) {
                composite[multiple as usize] = true;
            }
        }
    }
    primes
}

fn multiply_modulo(a: u64, b: u64, modulus: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(modulus)) as u64
}

fn power_modulo(mut base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let mut power = 1;
    base %= modulus;
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = multiply_modulo(power, base, modulus);
        }
        base = multiply_modulo(base, base, modulus);
        exponent >>= 1;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_the_tables() {
        for (upto, primes) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (3, 2),
            (10, 4),
            (1_000, 168),
            (131_073, 12_251),
            (1_000_000, 78_498),
            (10_000_000, 664_579),
        ] {
            assert_eq!(count(upto), primes, "up to {upto}");
        }
    }

    #[test]
    fn the_list_and_the_test_agree() {
        let listed = list(20_000);
        let tested: Vec<u64> = (0..=20_000).filter(|&n| is_prime(n)).collect();
        assert_eq!(listed, tested);
    }

    #[test]
    fn large_numbers_are_decided() {
        assert!(is_prime(18_446_744_073_709_551_557));
        assert!(!is_prime(u64::MAX));
        assert!(!is_prime(3_215_031_751)); // fools the bases 2, 3, 5 and 7
        assert!(is_prime(2_305_843_009_213_693_951));
    }
}
