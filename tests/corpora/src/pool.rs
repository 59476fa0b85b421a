//! Pools as the corpora want them.

use std::time::{Duration, Instant};

use wasmpool::event::WorkerState;
use wasmpool::pool::OnWorkerDeath;
use wasmpool::{Pool, PoolBuilder};

/// A pool without cache whose workers have all said their first word. An unexpected death of one
/// breaks it.
///
/// # Errors
/// What the pool says, or workers that do not come up within a minute.
pub fn steady(
    workers: usize,
    with: impl FnOnce(PoolBuilder) -> PoolBuilder,
) -> Result<Pool, Box<dyn std::error::Error>> {
    let builder = Pool::builder()
        .workers(workers)
        .workers_min(workers)
        .without_cache()
        .on_worker_death(OnWorkerDeath::Break)
        .start_timeout(Duration::from_secs(60));
    let pool = with(builder).build()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stats = pool.stats();
        if stats.workers.iter().filter(|worker| worker.state == WorkerState::Idle).count() == workers {
            return Ok(pool);
        }
        if Instant::now() > deadline {
            return Err(format!("the workers did not start: {stats:?}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns whether nothing has died unexpectedly or been killed, and every worker that is not one of the
/// first took the place of one that was recycled: a worker holds a bounded number of modules.
///
/// # Errors
/// What is different, for a person.
pub fn check(pool: &Pool) -> Result<(), String> {
    if let Some(broken) = pool.broken() {
        return Err(broken.to_string());
    }
    let stats = pool.stats();
    let first = stats.workers_started - stats.workers_recycled;
    if stats.workers_died != 0 || first != stats.workers_max as u64 {
        return Err(format!("workers are gone that should not be: {stats:?}"));
    }
    Ok(())
}

/// Raises the limit of open descriptors as far as this process may, and returns how many modules one
/// pool can have loaded then: it keeps two for each, as long as it lives.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let descriptors = if raised.is_ok() { limit.maximum } else { limit.current };
    // A few hundred are for everything else.
    descriptors.unwrap_or(u64::MAX).saturating_sub(400) / 2
}

/// The memory that a process holds.
#[derive(Debug, Clone, Copy)]
pub struct Resident {
    /// Bytes of memory now.
    pub bytes: u64,
    /// Most bytes of memory ever.
    pub peak_bytes: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

impl Resident {
    /// Reads what a live process of this user's holds.
    pub fn of(pid: u32) -> Option<Resident> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Some(Resident {
            bytes: kib("VmRSS:")? * 1024,
            peak_bytes: kib("VmHWM:")? * 1024,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        })
    }
}
