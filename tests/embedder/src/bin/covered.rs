//! CI builds it with `-C instrument-coverage`: counters, and a file that is written at exit.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    wasmpool::init();
    embedder::use_a_pool()
}
