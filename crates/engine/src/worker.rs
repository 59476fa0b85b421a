//! The worker role: runs one task at a time, each in a fresh instance.
//!
//! Two threads. The main thread runs tasks and speaks on the rings. The watcher blocks on
//! the control socket: it receives modules, passes interrupts on, and ends the process
//! when the host is gone. The worker trusts nothing that a guest returns.

mod alarm;
mod arrivals;
mod asks;
mod budget;
mod call;
mod clocks;
mod cpu;
mod events;
mod exit;
mod instance;
mod task_log;
mod linker;
mod links;
mod loaded;
mod main_loop;
pub mod memories;
mod open;
mod poll;
mod random;
mod shares;
mod stack;
mod stdio;
mod run_end;
mod wasi;
mod watcher;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::net::RecvFlags;
use rustix::process::{Resource, getrlimit};

use events::Reporter;
use memories::Memories;
use wasi::TaskDir;

pub(crate) use linker::provided;

use crate::error::engine_error;
use crate::settings::{Reserve, Running};
use proto::control::ControlSocket;
use proto::fingerprint;
use proto::inbox;
use proto::limits::DIRS_MAX;
use proto::message::{FromWorkerControl, ToWorkerControl};
use proto::preopen;
use proto::ring;
use proto::shortage::Shortage;
use proto::slice;
use sandbox::{self, Granted, Profile};

/// The worker process, from its first line to its exit code.
pub(crate) fn main() -> i32 {
    slice::be_usual();
    let reporter = OnceLock::new();
    match serve(&reporter) {
        Ok(()) => 0,
        Err(error) => {
            // What nobody heard; of stderr the end is kept.
            let unheard = reporter.get().map(|reporter| reporter.rest()).unwrap_or_default();
            unheard.iter().for_each(|event| eprintln!("wasmpool worker: {event}"));
            eprintln!("wasmpool worker: {error}");
            Shortage::exit_code(&error).unwrap_or(1)
        }
    }
}

fn serve(reporter: &OnceLock<Arc<Reporter>>) -> io::Result<()> {
    let (socket, entered) = sandbox::enter()?;
    let socket = Arc::new(ControlSocket(socket));
    let Some((setup, mut files)) = socket.receive::<ToWorkerControl>(1 + DIRS_MAX, RecvFlags::empty())?
    else {
        return Ok(());
    };
    let ToWorkerControl::Setup {
        wire: fingerprint::WIRE,
        sandbox: request,
        pagemap_scan,
        wasm_stack_bytes,
        events,
        dirs,
        mut probe,
    } = setup
    else {
        return Err(io::Error::other("the host was built from another version of wasmpool"));
    };
    let reporter = reporter.get_or_init(|| Reporter::new(events));
    reporter.install();
    if files.len() != 1 + dirs.len() {
        return Err(io::Error::other("the host sent no rings, or not every directory"));
    }
    let mut granted: Vec<_> = files
        .drain(1..)
        .zip(&dirs)
        .map(|(descriptor, dir)| Granted { descriptor, access: dir.access })
        .collect();
    let rings = &files[0];
    let end = ring::open(rings.as_fd())?;
    let (producer, consumer) = end.split();
    let cannot_lock = |refused: sandbox::Refused| {
        let message = refused.to_string();
        // Nobody listens only if the host is gone, and then so are we.
        let wire = fingerprint::WIRE;
        let _ = socket.send(&FromWorkerControl::CannotLock { wire, message }, &[]);
        io::Error::from(refused)
    };

    // The soft limit is the hard one by now.
    let reserve = Reserve::within(getrlimit(Resource::As).current);
    let running = Running { pagemap_scan, wasm_stack_bytes: wasm_stack_bytes as usize, reserve };
    stack::make_room(running.wasm_stack_bytes)?;
    wasmtime::Engine::tls_eager_initialize();
    let main = end.clone();
    let shared = Arc::new(watcher::WatcherState::new(move || main.wake_self()));
    let from_host = inbox::Ring::new(end.clone(), consumer, shared.is_called.clone());
    let memories = Arc::new(Memories::new(reserve));
    let modules = || {
        loaded::Modules::new(shared.clone(), running, &memories)
            .map_err(|error| engine_error("make the engines (reserve addresses)", &error))
    };
    // Engines that scan the page map are made while there is a /proc to open it. The others are made behind
    // the empty root: there, std cannot read the cgroup's quota each time a pool asks for the number of
    // processors, which made up a good part of a worker's start.
    let scanning = pagemap_scan.then(modules).transpose()?;
    // Asked for once, of the kernel, and remembered.
    rustix::param::page_size();
    let profile = match &probe {
        Some(probe) if probe.as_compiler => Profile::Compiler,
        _ if let Some(access) = preopen::most(dirs.iter().map(|dir| dir.access)) => {
            Profile::WithDirectories { access, scans: pagemap_scan }
        }
        _ if pagemap_scan => Profile::ScanningWorker,
        _ => Profile::Worker,
    };
    let alarm = alarm::Alarm::new(&shared);
    let locked = entered.lock(&request, profile, &mut granted).map_err(cannot_lock)?;
    let modules = scanning.map_or_else(modules, Ok)?;
    let to_host = Arc::new(Mutex::new(producer));
    if let Some(probe) = &mut probe {
        probe.targets.dirs = granted.iter().map(|dir| dir.descriptor.as_raw_fd()).collect();
    }
    let dirs = dirs.into_iter().zip(granted).map(|(guest, granted)| TaskDir { guest, granted }).collect();
    let runner = instance::Runner::new(modules, dirs, shared.clone(), to_host.clone())?;
    watcher::start(socket.clone(), shared, alarm, reporter.clone())?;
    let (locked, report) = locked.seal().map_err(cannot_lock)?;
    let missing: Vec<_> = report.missing().map(|report| report.layer.name()).collect();
    if !missing.is_empty() {
        tracing::info!(missing = missing.join(", "), "layers of the sandbox do not stand");
    }
    if reserve == Reserve::None {
        tracing::info!("few addresses are allowed (RLIMIT_AS): memories are reserved for each instance anew");
    }
    tracing::debug!(policy = %report.policy, pagemap_scan, wasm_stack_bytes, "ready");
    socket.send(&FromWorkerControl::Ready { wire: fingerprint::WIRE, sandbox: report }, &[])?;
    if let Some(probe) = probe {
        let outcome = sandbox::attacks::attempt(&probe);
        socket.send(&FromWorkerControl::Probed { outcome }, &[])?;
        // The process stays alive, since the doctor may look at what it holds; the watcher ends it with the
        // doctor.
        loop {
            std::thread::park();
        }
    }
    reporter.connect(to_host.clone());
    main_loop::run(&locked, from_host, &to_host, reporter, runner, &end)
}
