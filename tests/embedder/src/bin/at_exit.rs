//! This program has an exit handler that makes a system call which no worker may make, as coverage builds,
//! sanitizers and C++ have.

extern "C" fn at_exit() {
    let _ = rustix::process::getppid();
}

extern "C" fn install() {
    // SAFETY: it is a function of this program, and takes nothing.
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
