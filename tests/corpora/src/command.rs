//! The parts that the programs of both campaigns share: which modules of a sequence are run, and how that is shown.

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

/// The modules of a sequence that are run.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Modules {
    /// Names the sequence of modules.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The first module of the sequence.
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// The number of modules.
    #[arg(long, default_value_t = 1000)]
    pub count: u64,
}

impl Modules {
    /// Runs a campaign, which says when a module is done, prints what came of it, and fails if that is `wrong`.
    ///
    /// # Errors
    /// The campaign's.
    pub fn watch<S: Display>(
        self,
        campaign: impl FnOnce(&(dyn Fn() + Sync)) -> Result<S, Box<dyn Error>>,
        wrong: impl FnOnce(&S) -> Option<String>,
    ) -> Result<ExitCode, Box<dyn Error>> {
        let bar = ProgressBar::new(self.count);
        bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed}, {per_sec}, {eta} left")?);
        let summary = campaign(&|| {
            bar.inc(1);
            // A log has no bar.
            if bar.is_hidden() && bar.position().is_multiple_of(1000) {
                eprintln!("{} of {}, {:.0} s", bar.position(), self.count, bar.elapsed().as_secs_f64());
            }
        })?;
        bar.finish_and_clear();
        println!("{summary}");
        Ok(match wrong(&summary) {
            None => ExitCode::SUCCESS,
            Some(wrong) => {
                println!("{wrong}");
                ExitCode::FAILURE
            }
        })
    }
}
