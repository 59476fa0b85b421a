//! The children of a pool: the worker, which runs tasks, and the compiler, which makes machine code of modules.
//!
//! The only part that names wasmtime. It knows the wire and the sandbox, and neither the pool nor its futures: a child
//! is asked by frames and answers by frames.
//!
//! Inside, `compile` and `worker` do not know each other. What they share stands at the root: the configuration of
//! engines ([`config`]), their errors, and the list of functions that a worker provides to modules.

#[cfg(not(target_os = "linux"))]
compile_error!("wasmpool needs Linux: memfd, pidfd and futexes across processes");

mod error;
pub mod config;
#[doc(hidden)]
pub mod compile;
mod worker;

use std::collections::HashMap;

use proto::role::{self, Role};

pub use config::MACHINE_CODE;
pub use worker::memories;
#[doc(hidden)]
pub use worker::values;

/// The functions that a worker provides to modules, by the names of module and function.
pub(crate) type Provided = HashMap<(String, String), wasmtime::FuncType>;

/// Tells the compiler what a worker whose engine is like its own gives to modules.
#[derive(Clone, Copy)]
pub(crate) struct ProvidedBy {
    pub(crate) to_modules: fn(&wasmtime::Engine) -> wasmtime::Result<Provided>,
    /// Fails if a component wants what a worker does not give to it.
    pub(crate) to_component: fn(&wasmtime::component::Component) -> wasmtime::Result<()>,
}

/// Does the work of a child, if a pool started this process as one, and exits. Returns in any other process.
pub fn serve_if_child() {
    match Role::of_this_process() {
        None => {}
        Some(Role::Worker) => leave(worker::main()),
        Some(Role::Compiler) => leave(compile::main(worker::PROVIDED)),
    }
}

/// The program `wasmpool-worker`: it is a child and nothing else.
pub fn main() -> ! {
    role::ignore_file_size_signal();
    serve_if_child();
    eprintln!("wasmpool-worker is started by a pool: name it with PoolBuilder::worker_program");
    leave(2)
}

/// Ends a child without `exit`, since handlers of the embedder's (a coverage build's, a sanitizer's, C++'s)
/// would make system calls that the filter does not allow. Nothing is lost, since a child buffers nothing.
fn leave(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}
