//! Estimates by random sampling. Each takes its seed, so that the same input
//! gives the same output on every machine.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

/// The right of an option's holder.
#[wasmpool_guest::data]
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Right {
    /// To buy at the strike price.
    Call,
    /// To sell at the strike price.
    Put,
}

/// A European option, and how to sample it.
#[wasmpool_guest::data]
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// The right of the holder.
    pub right: Right,
    /// The price of the underlying today.
    pub spot: f64,
    /// The price agreed upon.
    pub strike: f64,
    /// The risk-free rate a year, compounded continuously: 0.05 is 5 %.
    pub rate: f64,
    /// The volatility a year: 0.2 is 20 %.
    pub volatility: f64,
    /// The time to expiry in years.
    pub years: f64,
    /// How many final prices to draw.
    pub samples: u64,
    /// Of the random numbers.
    pub seed: u64,
}

/// An estimate and how far to trust it.
#[wasmpool_guest::data]
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    /// The estimate.
    pub price: f64,
    /// One standard deviation of the estimate.
    pub standard_error: f64,
}

/// Estimates π: the share of random points of a square that lie in its circle.
#[wasmpool_guest::task]
pub fn pi(samples: u64, seed: u64) -> f64 {
    let mut random = Uniform::new(seed);
    let inside = (0..samples)
        .filter(|_| {
            let (x, y) = (random.next(), random.next());
            x * x + y * y <= 1.0
        })
        .count();
    4.0 * inside as f64 / samples as f64
}

/// Prices a European option under geometric Brownian motion.
///
/// Draws are paired with their opposites, which halves the variance or better.
#[wasmpool_guest::task]
pub fn option_price(contract: Contract) -> Result<Price, String> {
    let Contract { right, spot, strike, rate, volatility, years, samples, seed } = contract;
    for (name, value) in [("spot", spot), ("strike", strike), ("volatility", volatility), ("years", years)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(format!("{name} must be positive, not {value}"));
        }
    }
    if !rate.is_finite() {
        return Err(format!("rate must be a number, not {rate}"));
    }
    let pairs = samples.div_ceil(2);
    if pairs < 2 {
        return Err(format!("{samples} samples are too few: take 3 or more"));
    }

    let drift = (rate - volatility * volatility / 2.0) * years;
    let spread = volatility * years.sqrt();
    let discount = (-rate * years).exp();
    let payoff = |normal: f64| {
        let end = spot * (drift + spread * normal).exp();
        let gain = match right {
            Right::Call => end - strike,
            Right::Put => strike - end,
        };
        discount * gain.max(0.0)
    };

    let mut random = Uniform::new(seed);
    let (mut mean, mut squares) = (0.0, 0.0);
    for n in 1..=pairs {
        let draw = normal(&mut random);
        let value = f64::midpoint(payoff(draw), payoff(-draw));
        // Welford's recurrence: no sum of squares to cancel.
        let off = value - mean;
        mean += off / n as f64;
        squares += off * (value - mean);
    }
    let variance = squares / (pairs - 1) as f64;
    Ok(Price { price: mean, standard_error: (variance / pairs as f64).sqrt() })
}

/// Draws from [0, 1).
///
/// The generator has shifts and additions of 64 bits only. Those that multiply to 128 bits (PCG, wyrand) are one
/// instruction on most processors and some ten in WebAssembly: with PCG this task took 3.2 times as long as
/// native code does.
struct Uniform(Xoshiro256PlusPlus);

impl Uniform {
    fn new(seed: u64) -> Self {
        Uniform(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    fn next(&mut self) -> f64 {
        // As many bits as a number of this size has.
        (self.0.next_u64() >> 11) as f64 * (f64::EPSILON / 2.0)
    }
}

/// A draw from the standard normal distribution (Box and Muller's transform).
fn normal(random: &mut Uniform) -> f64 {
    // The logarithm wants (0, 1], the generator gives [0, 1).
    let radius = (-2.0 * (1.0 - random.next()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.next()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract(right: Right) -> Contract {
        Contract {
            right,
            spot: 100.0,
            strike: 105.0,
            rate: 0.05,
            volatility: 0.2,
            years: 1.0,
            samples: 200_000,
            seed: 1,
        }
    }

    #[test]
    fn pi_is_near_and_repeatable() {
        let estimate = pi(1_000_000, 7);
        assert!((estimate - std::f64::consts::PI).abs() < 0.01, "{estimate}");
        assert_eq!(estimate, pi(1_000_000, 7));
        assert_ne!(estimate, pi(1_000_000, 8));
    }

    #[test]
    fn option_prices_agree_with_black_and_scholes() {
        for (right, exact) in [(Right::Call, 8.021_352), (Right::Put, 7.900_442)] {
            let found = option_price(contract(right)).unwrap();
            let off = (found.price - exact).abs();
            assert!(off < 4.0 * found.standard_error, "{found:?} for {exact}");
            assert!(found.standard_error < 0.05);
        }
    }

    #[test]
    fn senseless_contracts_are_refused() {
        let mut bad = contract(Right::Call);
        bad.spot = -1.0;
        assert!(option_price(bad).unwrap_err().contains("spot"));
        let mut bad = contract(Right::Put);
        bad.samples = 2;
        assert!(option_price(bad).is_err());
    }
}
