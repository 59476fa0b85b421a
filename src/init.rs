//! One executable, several roles: [`init`] diverts a re-executed child into its own.

use std::sync::atomic::{AtomicBool, Ordering};

use proto::role;

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Returns whether a child that is started from this executable would do a child's work.
pub(crate) fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::SeqCst)
}

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
    INITIALIZED.store(true, Ordering::SeqCst);
    role::ignore_file_size_signal();
    #[cfg(feature = "engine")]
    engine::serve_if_child();
    #[cfg(not(feature = "engine"))]
    refuse_if_child();
}

/// Ends a process that a pool started as its child: there is no engine here that could do the work.
#[cfg(not(feature = "engine"))]
fn refuse_if_child() {
    if role::Role::of_this_process().is_some() {
        eprintln!(
            "this program was built without the feature `engine` of wasmpool: it cannot be a pool's worker_program"
        );
        std::process::exit(2);
    }
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
