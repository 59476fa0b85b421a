//! This program's allocator reserves a gigabyte before `main`, names its mappings, and gives memory back in
//! ways of its own.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    wasmpool::init();
    embedder::use_a_pool()
}
