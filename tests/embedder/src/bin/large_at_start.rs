//! This program maps more private memory before `main` than a worker or a compiler may take, and touches none of it, as
//! allocators, sanitizers and large tables do.

use rustix::mm::{MapFlags, ProtFlags};

/// This is more than the defaults of workers (4 GiB) and compilers (6 GiB) together.
const BYTES: usize = 16 << 30;

extern "C" fn reserve() {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: it makes a new mapping wherever there is room, and nobody uses it.
    let mapped = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), BYTES, protection, flags) };
    if mapped.is_err() {
        std::process::abort();
    }
}

// SAFETY: `.init_array` holds pointers to functions, which the loader calls once.
#[used]
#[unsafe(link_section = ".init_array")]
static RESERVE: extern "C" fn() = reserve;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    wasmpool::init();
    embedder::use_a_pool()
}
