//! Counts what came of every directive, and lists what is known to fail, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Script;

/// The failures that are known: `path:line  reason`, one a line.
pub const KNOWN: &str = include_str!("known.txt");

/// The outcome of a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The directive ended as the specification says.
    Passed,
    /// The directive is no question that this pool can be asked.
    NotApplicable(Reason),
    /// Otherwise; the text is for a person.
    Failed(String),
}

/// Why a directive is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The text is what is malformed; a pool takes binaries.
    Text,
    /// The directive is about a custom section that engines may ignore.
    CustomSection,
    /// `register`: nothing is asserted.
    Registration,
    /// The module imports another instance's exports, or must fail to; a pool links nothing.
    Linking,
    /// Another module has imported from the instance, and may have changed it.
    Shared,
    /// The module needs what is not offered, and was refused as it must be.
    Refused,
    /// The module should have loaded and did not: that is counted, once, as a failure.
    NotLoaded,
    /// The module starts threads, or suspends.
    Threads,
}

impl Reason {
    const ALL: [Reason; 8] = [
        Reason::Text,
        Reason::CustomSection,
        Reason::Registration,
        Reason::Linking,
        Reason::Shared,
        Reason::Refused,
        Reason::NotLoaded,
        Reason::Threads,
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Text => "malformed text; a pool takes binaries",
            Reason::CustomSection => "about a custom section",
            Reason::Registration => "register: it asserts nothing",
            Reason::Linking => "about linking; a pool links nothing",
            Reason::Shared => "after another module imported from the instance",
            Reason::Refused => "its module was refused: the feature is not offered",
            Reason::NotLoaded => "its module failed to load, which is counted as one failure",
            Reason::Threads => "threads, suspension",
        })
    }
}

/// Outcomes by group.
#[derive(Debug, Default)]
pub struct Tally {
    groups: BTreeMap<String, Group>,
    paths: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Group {
    files: usize,
    passed: usize,
    not_applicable: BTreeMap<Reason, usize>,
    failed: BTreeMap<String, String>,
    failures: usize,
}

impl Tally {
    /// Adds what came of one script, by line.
    pub fn add(&mut self, script: &Script, outcomes: Vec<(usize, Outcome)>) {
        self.paths.insert(script.path());
        let group = self.groups.entry(script.group.clone()).or_default();
        group.files += 1;
        for (line, outcome) in outcomes {
            match outcome {
                Outcome::Passed => group.passed += 1,
                Outcome::NotApplicable(reason) => *group.not_applicable.entry(reason).or_default() += 1,
                Outcome::Failed(how) => {
                    group.failures += 1;
                    group.failed.insert(format!("{}:{line}", script.path()), how);
                }
            }
        }
    }

    /// Directives that were asked of the pool and answered as the specification says.
    pub fn passed(&self) -> usize {
        self.groups.values().map(|group| group.passed).sum()
    }

    /// `path:line` of what failed, and how.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        let failed = self.groups.values().flat_map(|group| &group.failed);
        failed.map(|(name, how)| (name.as_str(), how.as_str()))
    }

    /// Returns where the failures and the list of known ones differ, for the scripts that were run. The list
    /// is empty if all is as it should be.
    pub fn surprises(&self) -> Vec<String> {
        let known: BTreeMap<_, _> = KNOWN
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter_map(|line| line.split_once(char::is_whitespace))
            .filter(|(name, _)| name.rsplit_once(':').is_some_and(|(path, _)| self.paths.contains(path)))
            .collect();
        let failed: BTreeMap<_, _> = self.failed().collect();
        let new = failed
            .iter()
            .filter(|(name, _)| !known.contains_key(*name))
            .map(|(name, how)| format!("{name} failed: {how}"));
        let gone = known
            .iter()
            .filter(|(name, _)| !failed.contains_key(*name))
            .map(|(name, why)| format!("{name} is known to fail ({}), and did not", why.trim()));
        new.chain(gone).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<40} {:>5} {:>10} {:>8} {:>6} {:>6}",
            "group", "files", "directives", "passed", "n/a", "failed"
        )?;
        let mut sum = (0, 0, 0, 0);
        let mut reasons = BTreeMap::new();
        for (name, group) in &self.groups {
            let not_applicable = group.not_applicable.values().sum::<usize>();
            let all = group.passed + not_applicable + group.failures;
            writeln!(
                f,
                "{name:<40} {:>5} {all:>10} {:>8} {not_applicable:>6} {:>6}",
                group.files, group.passed, group.failures
            )?;
            sum.0 += group.files;
            sum.1 += group.passed;
            sum.2 += not_applicable;
            sum.3 += group.failures;
            for (reason, count) in &group.not_applicable {
                *reasons.entry(*reason).or_insert(0) += count;
            }
        }
        let all = sum.1 + sum.2 + sum.3;
        writeln!(f, "{:<40} {:>5} {all:>10} {:>8} {:>6} {:>6}", "all", sum.0, sum.1, sum.2, sum.3)?;
        writeln!(f, "\nnot applicable:")?;
        for reason in Reason::ALL {
            writeln!(f, "{:>8}  {reason}", reasons.get(&reason).unwrap_or(&0))?;
        }
        Ok(())
    }
}
