//! Asks the pool, and compares.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wasmpool::error::ModuleError;
use wasmpool::{Pool, TaskError, TaskFailure, TaskOptions};

use super::plan::{Check, Ends, Job, Refusal};
use super::replay::TASK;
use super::tally::{Outcome, Reason, Tally};
use super::{Plan, Script};

/// No task of the suite needs so long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The suite declares memories of up to 4 GiB and touches little of them.
const MEMORY_BYTES_MAX: usize = 16 << 30;

/// A pool with room for what the suite declares. The death of one worker breaks it.
///
/// # Errors
/// What the pool says, or workers that do not come up.
pub fn pool(workers: usize) -> Result<Pool, Box<dyn std::error::Error>> {
    crate::pool::steady(workers, |builder| builder.timeout(TIMEOUT).memory_bytes_max(MEMORY_BYTES_MAX))
}

/// Runs scripts, `threads` at a time. `done` is told of each one when it is done.
pub fn run(pool: &Pool, scripts: &[Script], threads: usize, done: impl Fn(&Script) + Sync) -> Tally {
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(script) = scripts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcomes = match Plan::of(script) {
                        Ok(plan) => ask(pool, plan),
                        Err(error) => vec![(0, Outcome::Failed(error))],
                    };
                    tally.lock().expect("nobody panics with it").add(script, outcomes);
                    done(script);
                }
            });
        }
    });
    tally.into_inner().expect("nobody panics with it")
}

fn ask(pool: &Pool, plan: Plan) -> Vec<(usize, Outcome)> {
    let mut outcomes = plan.settled;
    for job in plan.jobs {
        match job {
            Job::Refuse { line, wasm, refusal } => outcomes.push((line, refuse(pool, &wasm, refusal))),
            Job::Accept { line, wasm } => outcomes.push((line, accept(pool, &wasm))),
            Job::Run { wasm, original, checks } => {
                let original = original.map_or(Outcome::Passed, |wasm| accept(pool, &wasm));
                let mut outcomes_here = replay(pool, &wasm, &checks);
                if original != Outcome::Passed {
                    outcomes_here[0].1 = original;
                }
                outcomes.append(&mut outcomes_here);
            }
        }
    }
    outcomes
}

fn refuse(pool: &Pool, wasm: &[u8], refusal: Refusal) -> Outcome {
    match (pool.load(wasm), refusal) {
        // Imports are checked before the rest of the module is validated.
        (Err(ModuleError::Unsupported { .. } | ModuleError::UnknownImports { .. }), _) => Outcome::Passed,
        // The compiler's limits are looked at before the module is validated.
        (Err(ModuleError::Invalid { .. } | ModuleError::CompileLimit { .. }), Refusal::Invalid) => {
            Outcome::Passed
        }
        (Err(error), _) => Outcome::Failed(format!("refused in another way: {error}")),
        (Ok(_), _) => Outcome::Failed("it was loaded".into()),
    }
}

fn accept(pool: &Pool, wasm: &[u8]) -> Outcome {
    match pool.load(wasm) {
        Ok(_) => Outcome::Passed,
        Err(error) => Outcome::Failed(format!("refused: {error}")),
    }
}

fn replay(pool: &Pool, wasm: &[u8], checks: &[Check]) -> Vec<(usize, Outcome)> {
    // The first check is the instantiation: if there is none, there is nothing else to ask.
    let none = |how: String| {
        let outcomes = std::iter::once(Outcome::Failed(how))
            .chain(std::iter::repeat(Outcome::NotApplicable(Reason::NotLoaded)));
        checks.iter().map(|check| check.line).zip(outcomes).collect()
    };
    let task = match pool.load(wasm).and_then(|module| module.raw_task(TASK)) {
        Ok(task) => task,
        Err(error) => return none(format!("refused: {error}")),
    };
    let mut futures = Vec::new();
    for check in checks {
        let options = TaskOptions::new().label(format!("line {}", check.line));
        match pool.submit_with(&task, &check.step.to_le_bytes().to_vec(), options) {
            Ok(future) => futures.push(future),
            Err(error) => return none(error.to_string()),
        }
    }
    let judged = checks.iter().zip(futures).map(|(check, future)| {
        let ran = future.result().map(|output| output.to_vec());
        (check.line, judge(check, &ran))
    });
    judged.collect()
}

fn judge(check: &Check, ran: &Result<Vec<u8>, TaskFailure>) -> Outcome {
    let failed = |got: String| Outcome::Failed(format!("{}: {got}", check.shown));
    match (check.ends, ran) {
        (Ends::Well, Ok(output)) if *output == check.step.to_le_bytes() => Outcome::Passed,
        (_, Ok(output)) => failed(format!("it answered with {output:02x?}")),
        (Ends::InTrap(expected), Err(failure)) => match failure.error() {
            TaskError::Trap { code, .. } if expected.contains(code) => Outcome::Passed,
            error => failed(format!("expected {expected:?}, got {error}")),
        },
        (Ends::Well, Err(failure)) => failed(failure.error().to_string()),
    }
}
