//! Pools as the corpora want them.

use std::time::{Duration, Instant};

use wasmpool::{OnWorkerDeath, Pool, PoolBuilder, WorkerState};

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
        std::thread::yield_now();
    }
}

/// The workers that live, by pid.
pub fn sorted_pids(pool: &Pool) -> Vec<u32> {
    let mut pids = pool.worker_pids();
    pids.sort_unstable();
    pids
}

/// Raises the limit of open descriptors as far as this process may: a pool keeps two for each module.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, the run says where it ended.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
