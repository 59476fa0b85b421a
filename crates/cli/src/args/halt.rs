//! When a map ends before its inputs do: GNU parallel's `--halt`.

use std::str::FromStr;

/// `never`, or `soon,fail=1` and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Halt(Option<Rule>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    stop: Stop,
    what: What,
    count: u64,
}

/// How far a map has been stopped. It only ever increases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    No,
    /// Nothing more is begun.
    Soon,
    /// Running tasks are ended.
    Now,
}

/// The ends that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Fail,
    Success,
    Done,
}

impl Halt {
    /// Returns what is to happen after so many successes and failures.
    pub(crate) fn after(&self, ok: u64, failed: u64) -> Stop {
        let Some(rule) = self.0 else { return Stop::No };
        let seen = match rule.what {
            What::Fail => failed,
            What::Success => ok,
            What::Done => ok + failed,
        };
        if seen >= rule.count { rule.stop } else { Stop::No }
    }

    /// Whether that end is what was asked for, and no failure.
    pub(crate) fn is_success(&self) -> bool {
        self.0.is_some_and(|rule| rule.what == What::Success)
    }
}

impl FromStr for Halt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Halt(None));
        }
        let form = || "it must be never, or soon or now with what to count, such as soon,fail=1".to_string();
        let (when, what) = text.split_once(',').ok_or_else(form)?;
        let (what, count) = what.split_once('=').ok_or_else(form)?;
        let stop = match when {
            "soon" => Stop::Soon,
            "now" => Stop::Now,
            other => return Err(format!("`{other}` is no time to end: use soon or now")),
        };
        let what = match what {
            "fail" => What::Fail,
            "success" => What::Success,
            "done" => What::Done,
            other => return Err(format!("`{other}` cannot be counted: use fail, success or done")),
        };
        let count = count.parse().ok().filter(|count| *count > 0);
        let count =
            count.ok_or_else(|| "N must be a number from 1 (percentages are not known)".to_string())?;
        Ok(Halt(Some(Rule { stop, what, count })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_count_what_they_name() {
        let after = |text: &str, ok, failed| text.parse::<Halt>().expect(text).after(ok, failed);
        assert_eq!(after("never", 9, 9), Stop::No);
        assert_eq!(after("soon,fail=2", 9, 1), Stop::No);
        assert_eq!(after("soon,fail=2", 0, 2), Stop::Soon);
        assert_eq!(after("now,success=1", 0, 9), Stop::No);
        assert_eq!(after("now,success=1", 1, 0), Stop::Now);
        assert_eq!(after("now,done=3", 1, 2), Stop::Now);
    }

    #[test]
    fn what_is_no_rule_is_refused_with_what_would_be_one() {
        for (text, words) in [
            ("soon", "soon,fail=1"),
            ("later,fail=1", "soon or now"),
            ("now,errors=1", "fail, success or done"),
            ("now,fail=0", "from 1"),
            ("now,fail=10%", "percentages"),
        ] {
            let message = text.parse::<Halt>().expect_err(text);
            assert!(message.contains(words), "{message}");
        }
    }
}
