//! CI builds this program with `-C instrument-coverage`, which adds counters and writes a file at exit.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    wasmpool::init();
    embedder::use_a_pool()
}
