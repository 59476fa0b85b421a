//! One work: its sides, each of which runs once a round, and what its figures have to be.

use std::time::Instant;

/// Runs its side once; the figure is in seconds, or in the unit itself if it is no time.
pub(crate) type Measure<'a> = Box<dyn FnMut() -> anyhow::Result<f64> + 'a>;

/// The unit that a figure is given in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    /// The factor from what is measured to what is shown.
    pub(crate) scale: f64,
    /// Larger figures are better.
    pub(crate) is_rate: bool,
}

const fn unit(name: &'static str, scale: f64, is_rate: bool) -> Unit {
    Unit { name, scale, is_rate }
}

pub(crate) const MICROS: Unit = unit("µs", 1e6, false);
pub(crate) const MILLIS: Unit = unit("ms", 1e3, false);
pub(crate) const TASKS: Unit = unit("tasks/s", 1.0, true);
pub(crate) const MIB_PER_SECOND: Unit = unit("MiB/s", 1.0, true);
pub(crate) const MIB: Unit = unit("MiB", 1.0, false);
pub(crate) const PERCENT: Unit = unit("%", 1.0, false);
/// A multiple of one worker's throughput.
pub(crate) const TIMES: Unit = unit("×", 1.0, true);
pub(crate) const PER_TASK: Unit = unit("a task", 1.0, false);

/// A goal for the ratio to the first floor or the first peer, or for the figure itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// The figure is at most this many times the floor.
    FloorMost(f64),
    /// The rate is at least this share of the floor's.
    FloorLeast(f64),
    /// The figure exceeds the floor by at most this much.
    FloorAndMost(f64),
    /// The figure is at least this many times better than the peer's.
    PeerLeast(f64),
    /// The figure is at most this, in the unit shown.
    Most(f64),
    /// The figure is at least this, in the unit shown.
    Least(f64),
}

/// The one of all rounds' figures that counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Statistic {
    Median,
    P99,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Role {
    Ours,
    Floor,
    Peer,
}

/// One of those that do the work. A side that cannot run says why.
pub(crate) struct Side<'a> {
    pub(crate) role: Role,
    pub(crate) label: String,
    pub(crate) run: Result<Measure<'a>, String>,
    pub(crate) seen: Vec<f64>,
}

pub(crate) struct Work<'a> {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) statistic: Statistic,
    pub(crate) goals: Vec<Goal>,
    pub(crate) sides: Vec<Side<'a>>,
    rounds_least: usize,
}

impl<'a> Work<'a> {
    pub(crate) fn new(name: impl Into<String>, title: impl Into<String>, unit: Unit) -> Work<'a> {
        Work {
            name: name.into(),
            title: title.into(),
            unit,
            statistic: Statistic::Median,
            goals: Vec::new(),
            sides: Vec::new(),
            rounds_least: 0,
        }
    }

    pub(crate) fn side(
        mut self,
        role: Role,
        label: impl Into<String>,
        run: Result<Measure<'a>, String>,
    ) -> Self {
        self.sides.push(Side { role, label: label.into(), run, seen: Vec::new() });
        self
    }

    pub(crate) fn ours(self, measure: impl FnMut() -> anyhow::Result<f64> + 'a) -> Self {
        self.side(Role::Ours, "wasmpool", Ok(Box::new(measure)))
    }

    pub(crate) fn floor(
        self,
        label: impl Into<String>,
        measure: impl FnMut() -> anyhow::Result<f64> + 'a,
    ) -> Self {
        self.side(Role::Floor, label, Ok(Box::new(measure)))
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    /// Asks for more rounds, where figures vary more from one time to the next than a median of few would
    /// bear.
    pub(crate) fn rounds_least(mut self, rounds: usize) -> Self {
        self.rounds_least = rounds;
        self
    }

    pub(crate) fn p99(mut self) -> Self {
        self.statistic = Statistic::P99;
        self
    }

    /// Each round runs every side once, every other round in reverse order: whatever else the
    /// machine does falls on all alike. A side that fails is missing from there on.
    pub(crate) fn run(&mut self, rounds: usize) {
        // The first time maps modules and touches buffers; peers are warm when they answer at all.
        for side in self.sides.iter_mut().filter(|side| side.role != Role::Peer) {
            side.once();
            side.seen.clear();
        }
        for round in 0..rounds.max(self.rounds_least) {
            if round % 2 == 0 {
                self.sides.iter_mut().for_each(Side::once);
            } else {
                self.sides.iter_mut().rev().for_each(Side::once);
            }
        }
    }
}

impl Side<'_> {
    fn once(&mut self) {
        let Ok(measure) = &mut self.run else { return };
        match measure() {
            Ok(value) => self.seen.push(value),
            Err(error) => self.run = Err(format!("{error:#}")),
        }
    }
}

/// Seconds of the middle one of so many.
pub(crate) fn p50(count: usize, mut once: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        once()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(count / 2).map_or(0.0, |time| time.as_secs_f64()))
}

/// Seconds of all of it.
pub(crate) fn seconds(once: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    once()?;
    Ok(began.elapsed().as_secs_f64())
}
