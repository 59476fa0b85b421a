//! The `wasmpool` command. In a process that a pool started, [`wasmpool::init`] does that
//! process's work and never comes back.

fn main() -> std::process::ExitCode {
    wasmpool::init();
    wasmpool::cli::main()
}
