//! The worker role: runs one task at a time, each in a fresh instance.
//!
//! Two threads. The main thread runs tasks and speaks on the rings. The watcher blocks on
//! the control socket: it receives modules, passes interrupts on, and ends the process
//! when the host is gone. The worker trusts nothing that a guest returns.

mod abi;
mod budget;
mod call;
mod clocks;
mod cpu;
mod inbox;
mod instance;
mod journal;
mod linker;
mod loaded;
mod main_loop;
mod poll;
mod random;
mod stdio;
mod verdict;
mod wasi;
mod watcher;

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use rustix::net::RecvFlags;

pub(crate) use linker::{TaskState, WASI_MODULE, linker};

use crate::sandbox::{self, Profile};
use crate::wire::control::ControlSocket;
use crate::wire::fingerprint;
use crate::wire::message::{FromWorkerControl, ToWorkerControl};
use crate::wire::ring;

/// The worker process, from its first line to its exit code.
pub(crate) fn main() -> i32 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("wasmpool worker: {error}");
            1
        }
    }
}

fn serve() -> io::Result<()> {
    let (socket, entered) = sandbox::enter()?;
    let socket = Arc::new(ControlSocket(socket));
    let Some((setup, files)) = socket.receive::<ToWorkerControl>(1, RecvFlags::empty())? else {
        return Ok(());
    };
    let ToWorkerControl::Setup { build: fingerprint::BUILD, sandbox: request, pagemap_scan, probe } = setup
    else {
        return Err(io::Error::other("the host was built from another version of wasmpool"));
    };
    let rings = files.first().ok_or_else(|| io::Error::other("the host sent no rings"))?;
    let end = ring::open(rings.as_fd())?;
    let (producer, consumer) = end.split();
    let from_host = inbox::Ring::new(end.clone(), consumer);
    let cannot_lock = |refused: sandbox::Refused| {
        let message = refused.to_string();
        // Nobody listens only if the host is gone, and then so are we.
        let _ = socket.send(&FromWorkerControl::CannotLock { build: fingerprint::BUILD, message }, &[]);
        io::Error::from(refused)
    };

    // Engines look around in /proc while they are made, and keep what they opened there.
    wasmtime::Engine::tls_eager_initialize();
    let shared = Arc::new(watcher::Shared::new());
    let modules = loaded::Modules::new(shared.clone(), pagemap_scan).map_err(io::Error::other)?;
    // Asked for once, of the kernel, and remembered.
    rustix::param::page_size();
    let profile = match &probe {
        Some(probe) if probe.as_compiler => Profile::Compiler,
        _ if pagemap_scan => Profile::ScanningWorker,
        _ => Profile::Worker,
    };
    let locked = entered.lock(&request, profile).map_err(cannot_lock)?;
    let to_host = Arc::new(Mutex::new(producer));
    let runner = instance::Runner::new(modules, shared.clone(), to_host.clone())?;
    watcher::start(socket.clone(), shared)?;
    let (locked, report) = locked.seal().map_err(cannot_lock)?;
    socket.send(&FromWorkerControl::Ready { build: fingerprint::BUILD, sandbox: report }, &[])?;
    if let Some(probe) = probe {
        let outcome = sandbox::attacks::attempt(&probe);
        return socket.send(&FromWorkerControl::Probed { outcome }, &[]);
    }
    main_loop::run(&locked, from_host, &to_host, runner, |index, run| end.claim(index, run))
}
