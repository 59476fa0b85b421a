//! One column's running statistics.

use std::fmt;

/// What is known of a column so far.
pub(crate) struct Column {
    pub(crate) name: String,
    count: u64,
    texts: u64,
    min: f64,
    max: f64,
    mean: f64,
    /// The sum of squared distances from the mean, by Welford's recurrence.
    squares: f64,
}

impl Column {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            count: 0,
            texts: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            mean: 0.0,
            squares: 0.0,
        }
    }

    /// Takes in one cell; false if it holds something that is not a number.
    pub(crate) fn add(&mut self, cell: &str) -> bool {
        let cell = cell.trim();
        if cell.is_empty() {
            return true;
        }
        match cell.parse::<f64>() {
            Ok(value) if value.is_finite() => {
                self.count += 1;
                self.min = self.min.min(value);
                self.max = self.max.max(value);
                let off = value - self.mean;
                self.mean += off / self.count as f64;
                self.squares += off * (value - self.mean);
                true
            }
            _ => {
                self.texts += 1;
                false
            }
        }
    }

    /// Some numbers, and nothing else.
    pub(crate) fn is_numeric(&self) -> bool {
        self.count > 0 && self.texts == 0
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}", self.name, self.count)?;
        if self.count == 0 {
            return f.write_str("\t\t\t\t");
        }
        // Of a sample: one value has no deviation.
        let deviation = (self.squares / (self.count.max(2) - 1) as f64).sqrt();
        for value in [self.min, self.max, self.mean, deviation] {
            // Six places, without the zeros at the end.
            let text = format!("{value:.6}");
            write!(f, "\t{}", text.trim_end_matches('0').trim_end_matches('.'))?;
        }
        Ok(())
    }
}
