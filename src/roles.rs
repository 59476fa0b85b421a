//! One executable, several roles: [`init`] diverts a re-executed child into its own.

use crate::role::{self, Role};

/// Makes this executable able to serve as the pool's workers: the first line of `main`.
///
/// In the host it only notes that it was called. In a process that a pool started, it
/// does that process's work and exits; it does not return. Threads, files and environment
/// of the program's own belong after it. It is the counterpart of Python's
/// `if __name__ == "__main__"`, which guards the same hole.
///
/// A crate's tests have no `main`: there, [`init_at_load!`](crate::init_at_load) does the same.
///
/// From here on a write beyond `RLIMIT_FSIZE` is an error (`EFBIG`), as in Python, and does not end the
/// process: SIGXFSZ is ignored, unless the program has chosen otherwise before.
pub fn init() {
    role::set_initialized();
    role::ignore_file_size_signal();
    match Role::of_this_process() {
        None => {}
        Some(Role::Worker) => leave(crate::worker::main()),
        Some(Role::Compiler) => leave(crate::compile::main(crate::worker::provided)),
    }
}

/// Ends a child without `exit`, since handlers of the embedder's (a coverage build's, a sanitizer's, C++'s)
/// would make system calls that the filter does not allow. Nothing is lost, since a child buffers nothing.
fn leave(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Calls [`init`](crate::init) when the executable is loaded, before `main`: for test
/// crates, which have no `main` of their own. Once per executable, at the top level of
/// any of its modules. Linux and other ELF systems with glibc.
///
/// ```
/// wasmpool::init_at_load!();
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! init_at_load {
    () => {
        const _: () = {
            extern "C" fn wasmpool_init_at_load() {
                $crate::init();
            }
            // SAFETY: `.init_array` holds pointers to functions of this signature, which the
            // loader calls once, after those of std (which come at a higher priority).
            #[used]
            #[unsafe(link_section = ".init_array")]
            static WASMPOOL_INIT_AT_LOAD: extern "C" fn() = wasmpool_init_at_load;
        };
    };
}
