//! The worker role: runs one task at a time, each in a fresh instance.
//!
//! Two threads. The main thread runs tasks and speaks on the rings. The watcher blocks on
//! the control socket: it receives modules, passes interrupts on, and ends the process
//! when the host is gone. The worker trusts nothing that a guest returns.

mod alarm;
mod arrivals;
mod asks;
mod assembly_script;
mod budget;
mod call;
mod clocks;
mod component;
mod cpu;
mod events;
mod exit;
mod faults;
mod instance;
mod task_log;
mod linker;
mod links;
mod loaded;
mod main_loop;
mod numbers;
mod json_codec;
pub mod memories;
mod open;
mod panic_frames;
mod poll;
mod polling_page;
mod random;
mod shares;
mod signals;
mod stack;
mod stdio;
mod stop_signal;
mod run_end;
mod samples;
mod wasi;
mod watcher;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::net::RecvFlags;
use rustix::process::{Resource, getrlimit};

use events::Reporter;
use memories::Memories;
use polling_page::PollingPage;
use wasi::TaskDir;

/// How the values of a component's tasks are put into it and read from there.
pub mod values {
    pub use super::component::{Arguments, Limit, Returned};
}

/// Tells the compiler which imports a worker gives to modules and components.
pub(crate) const PROVIDED: ProvidedBy =
    ProvidedBy { to_modules: linker::provided, to_component: component::check_imports };

use crate::ProvidedBy;
use crate::config::{Reserve, Running};
use crate::error::engine_error;
use proto::control::ControlSocket;
use proto::fingerprint;
use proto::inbox;
use proto::limits::DIRS_MAX;
use proto::message::{EventLevels, FromWorkerControl, ToWorkerControl};
use proto::policy::{SandboxReport, SandboxRequest};
use proto::preopen::{self, GuestDir};
use proto::probe::Probe;
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
            // The host has not heard these events. They go before the error, since the host keeps the end of
            // stderr.
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
    let Some(setup) = Setup::receive(&socket)? else { return Ok(()) };
    let profile = setup.profile();
    let Setup { request, pagemap_scan, wasm_stack_bytes, events, rings, dirs, mut granted, mut probe } =
        setup;
    let reporter = reporter.get_or_init(|| Reporter::new(events));
    reporter.install();
    let end = ring::open(rings.as_fd())?;
    let (producer, consumer) = end.split();
    let cannot_lock = |error: sandbox::LockdownError| {
        let message = error.to_string();
        // Nobody listens only if the host is gone, and then so are we.
        let wire = fingerprint::WIRE;
        let _ = socket.send(&FromWorkerControl::CannotLock { wire, message }, &[]);
        io::Error::from(error)
    };

    // The soft limit is the hard one by now.
    let reserve = Reserve::within(getrlimit(Resource::As).current);
    let running = Running { pagemap_scan, wasm_stack_bytes, reserve };
    stack::make_room(running.wasm_stack_bytes)?;
    wasmtime::Engine::tls_eager_initialize();
    let main = end.clone();
    let memories = Arc::new(Memories::new(reserve));
    let page = PollingPage::new(memories.polling_page());
    let watcher = Arc::new(watcher::WatcherState::new(move || main.wake_self(), page));
    let from_host = inbox::Ring::new(end.clone(), consumer, watcher.is_called.clone());
    let modules = || {
        loaded::Modules::new(watcher.clone(), running, &memories)
            .map_err(|error| engine_error("make the engines (reserve addresses)", &error))
    };
    // Engines that scan the page map are made while there is a /proc to open it. The others are made behind
    // the empty root: there, std cannot read the cgroup's quota each time a pool asks for the number of
    // processors, which made up a good part of a worker's start. They take as long as a network, beside which they
    // are made.
    let scanning = pagemap_scan.then(modules).transpose()?;
    // The kernel is asked for the size here, once; it is remembered.
    rustix::param::page_size();
    polling_page::serve(&watcher);
    let alarm = alarm::Alarm::new(&watcher);
    let make_modules = || scanning.map_or_else(modules, Ok);
    let (locked, modules) =
        entered.lock_beside(&request, profile, &mut granted, make_modules).map_err(cannot_lock)?;
    let modules = modules?;
    if !faults::are_handled() {
        return Err(io::Error::other("faults cannot be handled (sigaction)"));
    }
    let to_host = Arc::new(Mutex::new(producer));
    if let Some(probe) = &mut probe {
        probe.targets.dirs = granted.iter().map(|dir| dir.descriptor.as_raw_fd()).collect();
    }
    let dirs = dirs.into_iter().zip(granted).map(|(guest, granted)| TaskDir { guest, granted }).collect();
    let started = watcher::start(socket.clone(), watcher.clone(), alarm, end.clone(), reporter.clone())?;
    let runner = instance::Runner::new(modules, dirs, watcher, to_host.clone())?;
    let stops_by_signal = started.wait()?;
    let (locked, report) = locked.seal().map_err(cannot_lock)?;
    tell_missing(&report, reserve);
    tracing::debug!(policy = %report.policy, pagemap_scan, wasm_stack_bytes, "ready");
    let ready = FromWorkerControl::Ready { wire: fingerprint::WIRE, sandbox: report, stops_by_signal };
    socket.send(&ready, &[])?;
    if let Some(probe) = probe {
        attack(&probe, &socket)?;
    }
    reporter.connect(to_host.clone());
    main_loop::run(&locked, from_host, &to_host, reporter, runner, &end)
}

/// The host's first message, with the descriptors that came with it.
struct Setup {
    request: SandboxRequest,
    pagemap_scan: bool,
    wasm_stack_bytes: usize,
    events: EventLevels,
    rings: OwnedFd,
    dirs: Vec<GuestDir>,
    /// The descriptors of `dirs`, in their order.
    granted: Vec<Granted>,
    /// The attack that this process is there for, if the doctor has started it.
    probe: Option<Box<Probe>>,
}

impl Setup {
    /// Returns `None` if the host is gone.
    fn receive(socket: &ControlSocket) -> io::Result<Option<Setup>> {
        let Some((setup, mut files)) = socket.receive::<ToWorkerControl>(1 + DIRS_MAX, RecvFlags::empty())?
        else {
            return Ok(None);
        };
        let ToWorkerControl::Setup {
            wire: fingerprint::WIRE,
            sandbox: request,
            pagemap_scan,
            wasm_stack_bytes,
            events,
            dirs,
            probe,
        } = setup
        else {
            return Err(io::Error::other("the host was built from another version of wasmpool"));
        };
        if files.len() != 1 + dirs.len() {
            return Err(io::Error::other("the host sent no rings, or not every directory"));
        }
        let rings = files.remove(0);
        let granted = files
            .into_iter()
            .zip(&dirs)
            .map(|(descriptor, dir)| Granted { descriptor, access: dir.access })
            .collect();
        let wasm_stack_bytes = wasm_stack_bytes as usize;
        Ok(Some(Setup { request, pagemap_scan, wasm_stack_bytes, events, rings, dirs, granted, probe }))
    }

    /// Returns what system calls this process needs.
    fn profile(&self) -> Profile {
        match &self.probe {
            Some(probe) if probe.as_compiler => Profile::Compiler,
            _ if let Some(access) = preopen::most(self.dirs.iter().map(|dir| dir.access)) => {
                Profile::WithDirectories { access, scans: self.pagemap_scan }
            }
            _ if self.pagemap_scan => Profile::ScanningWorker,
            _ => Profile::Worker,
        }
    }
}

/// Tells of what the worker does without.
fn tell_missing(report: &SandboxReport, reserve: Reserve) {
    let missing: Vec<_> = report.missing().map(|report| report.layer.name()).collect();
    if !missing.is_empty() {
        tracing::info!(missing = missing.join(", "), "layers of the sandbox do not stand");
    }
    if reserve == Reserve::None {
        tracing::info!("few addresses are allowed (RLIMIT_AS): memories are reserved for each instance anew");
    }
}

/// Tries an attack, tells the doctor what came of it, and never returns, since the doctor may look at what this process
/// holds. The watcher ends the process with the doctor.
///
/// # Errors
/// If the doctor is gone.
fn attack(probe: &Probe, socket: &ControlSocket) -> io::Result<Infallible> {
    let outcome = sandbox::attacks::attempt(probe);
    socket.send(&FromWorkerControl::Probed { outcome }, &[])?;
    loop {
        std::thread::park();
    }
}
