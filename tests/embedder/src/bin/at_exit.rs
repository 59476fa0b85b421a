//! Has a handler for its exit that makes a system call which no worker may make: as coverage builds, sanitizers
//! and C++ have.

extern "C" fn at_exit() {
    let _ = rustix::process::getppid();
}

extern "C" fn install() {
    // SAFETY: a function of this program, which takes nothing.
    unsafe { libc::atexit(at_exit) };
}

// SAFETY: `.init_array` holds pointers to functions, which the loader calls once.
#[used]
#[unsafe(link_section = ".init_array")]
static INSTALL: extern "C" fn() = install;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    wasmpool::init();
    embedder::use_a_pool()
}
