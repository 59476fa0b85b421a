//! The compiler role: wasm bytes in, machine code and a description out, then gone.
//!
//! The only place, with `worker`, that knows wasmtime. It runs in a process of its own, so
//! that a module that makes the compiler explode takes nothing else along.

pub(crate) mod cache;
mod describe;
mod diagnose;
mod section;
pub(crate) mod settings;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::net::RecvFlags;

use crate::error::ModuleError;
use crate::limits::MODULE_BYTES_MAX;
use crate::sandbox::{self, LockedDown, Profile};
use crate::wire::control::ControlSocket;
use crate::wire::fingerprint;
use crate::wire::message::{CompileReply, CompileRequest};

/// The compiler process, from its first line to its exit code.
pub(crate) fn main() -> i32 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("wasmpool compiler: {error}");
            1
        }
    }
}

fn serve() -> io::Result<()> {
    let (socket, entered) = sandbox::enter()?;
    let socket = ControlSocket(socket);
    // The end of the stream: the host is gone, or has changed its mind.
    let Some((request, files)) = socket.receive::<CompileRequest>(3, RecvFlags::empty())? else {
        return Ok(());
    };
    if request.build != fingerprint::BUILD {
        return Err(io::Error::other("the host was built from another version of wasmpool"));
    }
    let Ok([wasm, artifact, description]) = <[OwnedFd; 3]>::try_from(files) else {
        return Err(io::Error::other("the host sent too few files"));
    };
    // Rayon would read it from /proc, which is out of reach by then.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: this is the only thread.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    let refused = |error: io::Error| {
        let reply: CompileReply = Err(ModuleError::Compiler { message: error.to_string() });
        socket.send(&reply, &[])
    };
    // Engines look around in /proc while they are made.
    let config = settings::config(request.metered, false);
    let engine = match config.and_then(|config| wasmtime::Engine::new(&config)) {
        Ok(engine) => engine,
        Err(error) => return refused(io::Error::other(format!("{error:#}"))),
    };
    let locked = match entered.lock(&request.sandbox, Profile::Compiler).and_then(sandbox::Locked::seal) {
        Ok((locked, _)) => locked,
        Err(error) => return refused(error.into()),
    };
    let mut bytes = Vec::new();
    File::from(wasm).take(MODULE_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    let reply: CompileReply = match compile(&locked, &engine, &bytes, request.metered) {
        Ok((machine_code, file)) => {
            File::from(artifact).write_all(&machine_code)?;
            File::from(description).write_all(&file)?;
            Ok(())
        }
        Err(error) => Err(error),
    };
    socket.send(&reply, &[])
}

/// The artifact, and the file that describes it.
fn compile(
    _: &LockedDown,
    engine: &wasmtime::Engine,
    wasm: &[u8],
    metered: bool,
) -> Result<(Vec<u8>, Vec<u8>), ModuleError> {
    diagnose::shape(wasm)?;
    let artifact = engine.precompile_module(wasm).map_err(|error| diagnose::failure(wasm, &error))?;
    // SAFETY: the bytes come from this very engine, a line above.
    let module = unsafe { wasmtime::Module::deserialize(engine, &artifact) }
        .map_err(|error| diagnose::too_large_for_the_pool(&error))?;
    let description = describe::describe(engine, &module, wasm, &artifact, metered)?;
    let file = cache::describe_artifact(description, &artifact)
        .map_err(|error| ModuleError::Compiler { message: error.to_string() })?;
    Ok((artifact, file))
}
