//! An embedder's library: it uses a pool and knows nothing of its processes.

use wasmpool::Pool;

/// The prebuilt module that the examples use.
pub const PRIMES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guest-tasks/prebuilt/primes.wasm");

/// The prebuilt module whose tasks go wrong.
pub const FAULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guest-tasks/prebuilt/faults.wasm");

/// Primes up to `upto`, counted in a worker.
///
/// # Errors
/// Anything that the pool, the module or the task says.
pub fn count_primes(pool: &Pool, upto: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let module = pool.load_file(PRIMES)?;
    let count = module.task::<u64, u64>("count")?;
    Ok(pool.submit(&count, &upto)?.result()?)
}

/// Makes a pool compile modules, run tasks, fail tasks and replace workers, and returns what it counted.
/// Every worker and compiler must end by itself: a death that nobody asked for is an error.
///
/// # Errors
/// Any other outcome.
pub fn use_a_pool() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::builder().workers(2).without_cache().recycle_after_tasks(20).build()?;
    println!("{}", count_primes(&pool, 1000)?);
    let primes = pool.load_file(PRIMES)?.task::<u64, u64>("count")?;
    let counted: Result<Vec<_>, _> = pool.map(&primes, 1..=200u64).collect();
    println!("{}", counted?.iter().sum::<u64>());
    let faults = pool.load_file(FAULTS)?;
    let bomb = faults.task::<(), ()>("memory_bomb");
    if let Ok(bomb) = bomb {
        // The bomb may fail or be refused memory, but the worker must live on.
        let _ = pool.submit(&bomb, &())?.result();
    }
    println!("{}", count_primes(&pool, 100)?);
    let died = pool.stats().workers_died;
    if died > 0 {
        return Err(format!("{died} workers have died").into());
    }
    pool.shutdown(wasmpool::pool::ShutdownMode::Finish);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // A crate's unit tests have no `main`: one line makes their executable a worker, too.
    wasmpool::init_at_load!();

    #[test]
    fn an_embedders_unit_test_can_use_a_pool() {
        let pool = Pool::builder().workers(1).build().expect("builds");
        assert_eq!(count_primes(&pool, 100).expect("counts"), 25);
    }
}
