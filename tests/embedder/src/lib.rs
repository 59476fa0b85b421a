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
