//! The supervisor: one thread that starts, watches and reaps the pool's processes.
//!
//! It lives as long as the pool, since children die with the thread that started them.
//! It sleeps in one poll over a wake-up descriptor and, for each worker, its pidfd, its
//! control socket and its stderr; the timeout of that poll is the pool's only timer.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use super::cgroup::{Cgroups, Group};
use super::core::Core;
use super::descriptors;
use super::link::WorkerEvents as _;
use super::link::{self, Link};
use super::poll_set::{self, PollSet, Ready};
use super::requests::{SupervisorRequest, SupervisorRequests};
use super::resident::{self, Looks};
use super::spawn::{self, Program, StderrTail};
use super::usage;
use crate::error::{Death, DeathCause, Phase};
use crate::panic_guard::catch_panic;
use crate::scheduler::{Event, WorkerKey};
use proto::control;
use proto::fingerprint;
use proto::limits::{DESCRIPTORS_LEFT_MIN, GUEST_TEXT_BYTES_MAX};
use proto::message::{FromWorkerControl, ToWorkerControl};
use proto::policy::{SandboxLayer, SandboxReport, SandboxRequest};
use proto::refused::calling;
use proto::ring;
use proto::role::Role;
use proto::shortage::Shortage;
use proto::slice;
use proto::text::truncated;

/// While the timer goes off every few moments, processes are polled this often: with many of them, a poll costs more than
/// what is then to be done.
const POLLED_EVERY: Duration = Duration::from_millis(1);

/// A worker under watch.
struct Supervised {
    link: Arc<Link>,
    reader: JoinHandle<()>,
    stderr: StderrTail,
    /// Removed with the worker, after the process was reaped.
    group: Option<Group>,
    /// Cleared at the end of that stream, which would poll as readable for ever.
    stderr_open: bool,
    ready: bool,
    /// The CPU time that the process had used when its memory was looked at.
    looked_at: Option<Duration>,
    /// Cleared at the end of the control stream, which would poll as readable for ever.
    control_open: bool,
}

/// The supervisor's thread: returns when the pool has stopped.
pub(crate) fn run(core: &Arc<Core>, requests: &SupervisorRequests, program: &Program) {
    super::become_io_thread();
    // A limit of CPU time is exceeded for as long as this thread waits for its turn.
    slice::be_brief();
    // The kernel's usual slack is half of what a task waits at most behind a long one. If the slack cannot be set, it
    // waits for that much longer.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1_000));
    let mut supervisor = Supervisor {
        core,
        program,
        cgroups: Cgroups::new(&core.settings.sandbox.cgroup, core.settings.sandbox.request.memory_bytes_max),
        workers: Vec::new(),
        compilers: Vec::new(),
        leaving: Vec::new(),
        looks: Looks::new(),
        polled_at: Instant::now(),
    };
    loop {
        let mut timeout = core.arm();
        if let Some(left) = supervisor.look_at_memory_if_due() {
            timeout = Some(timeout.map_or(left, |timeout| timeout.min(left)));
        }
        if core.is_stopped() && supervisor.workers.is_empty() {
            supervisor.leaving.into_iter().for_each(join);
            return;
        }
        if !requests.is_empty() {
            timeout = Some(Duration::ZERO);
        }
        supervisor.wait(requests, timeout);
        requests.clear_wake();
        // One request is taken a turn: starting a process takes a while, and nothing else may wait for many.
        if let Some(request) = requests.next() {
            supervisor.fulfil(request);
        }
    }
}

/// The processes that the supervisor watches, and what it starts them with.
struct Supervisor<'a> {
    core: &'a Arc<Core>,
    program: &'a Program,
    cgroups: Cgroups,
    workers: Vec<Supervised>,
    compilers: Vec<RunningCompiler>,
    /// Threads of workers that are gone, to be joined.
    leaving: Vec<JoinHandle<()>>,
    looks: Looks,
    /// All processes were polled last at this time.
    polled_at: Instant,
}

impl Supervisor<'_> {
    /// Looks at the memory of all processes where that is due, and returns how long the next look has time. Returns
    /// `None` while nothing is to be looked at.
    fn look_at_memory_if_due(&mut self) -> Option<Duration> {
        let has_processes = !(self.workers.is_empty() && self.compilers.is_empty());
        if !has_processes || !self.core.settings.sandbox.request.requests(SandboxLayer::ResourceLimits) {
            return None;
        }
        let is_busy = self.core.unresolved() > 0 || !self.compilers.is_empty();
        if self.looks.are_due(is_busy) {
            look_at_memory(self.core, &mut self.workers, &self.compilers);
        }
        Some(self.looks.left(is_busy))
    }

    /// Waits until a process has something to say or has ended, a request comes or the time is over; then hears the
    /// processes, and reports those that are gone.
    fn wait(&mut self, requests: &SupervisorRequests, timeout: Option<Duration>) {
        let ready = self.poll(requests, timeout);
        // Deaths are handled last, since what a worker said before it died comes first.
        for watched in ready.names() {
            match watched {
                Watched::Stderr(index) => {
                    let worker = &mut self.workers[index];
                    worker.stderr_open = worker.stderr.drain();
                }
                Watched::Control(index) => listen(self.core, &mut self.workers[index]),
                Watched::Wake | Watched::Process(_) | Watched::Compiler(_) => {}
            }
        }
        // The order is from the last to the first, since what is removed gives its place to the last one.
        for watched in ready.names().rev() {
            match watched {
                Watched::Process(index) => self.leaving.push(report_exit(self.workers.swap_remove(index))),
                // Each entry holds a descriptor, and hundreds may pile up between two looks at memory.
                Watched::Compiler(index) => drop(self.compilers.swap_remove(index)),
                Watched::Wake | Watched::Stderr(_) | Watched::Control(_) => {}
            }
        }
        for index in (0..self.leaving.len()).rev() {
            if self.leaving[index].is_finished() {
                join(self.leaving.swap_remove(index));
            }
        }
    }

    fn poll(&mut self, requests: &SupervisorRequests, timeout: Option<Duration>) -> Ready<Watched> {
        let mut set = PollSet::new();
        set.watch(Watched::Wake, requests.wake_fd().as_fd());
        let now = Instant::now();
        let until = timeout.and_then(|timeout| now.checked_add(timeout));
        if until.is_some_and(|until| until < self.polled_at + POLLED_EVERY) {
            return set.wait(timeout);
        }
        self.polled_at = now;
        for (index, worker) in self.workers.iter().enumerate() {
            set.watch(Watched::Process(index), worker.link.pidfd());
            if worker.control_open {
                set.watch(Watched::Control(index), worker.link.control.as_fd());
            }
            if worker.stderr_open {
                set.watch(Watched::Stderr(index), worker.stderr.pipe.as_fd());
            }
        }
        for (index, compiler) in self.compilers.iter().enumerate() {
            set.watch(Watched::Compiler(index), compiler.pidfd.as_fd());
        }
        set.wait(timeout)
    }

    fn fulfil(&mut self, request: SupervisorRequest) {
        match request {
            SupervisorRequest::Spawn(worker) => {
                let is_first = self.workers.is_empty();
                self.workers.extend(start(self.core, worker, self.program, &self.cgroups, is_first));
            }
            SupervisorRequest::SpawnCompiler { socket, memory_bytes_max, limit_bytes, reply } => {
                let mut child = spawn::spawn(self.program, Role::Compiler, socket);
                if let Ok(child) = &mut child {
                    let pid = child.pid;
                    let name = group_name(self.core, pid);
                    child.group = self.cgroups.hold_to(memory_bytes_max, &name, pid).0;
                    let pidfd = child.pidfd.try_clone().ok();
                    self.compilers.extend(pidfd.map(|pidfd| RunningCompiler { pid, pidfd, limit_bytes }));
                }
                if let Err(unsent) = reply.send(child)
                    && let Ok(child) = unsent.into_inner()
                {
                    // The loader has given up; its socket is closed, so the child exits.
                    spawn::kill(&child.pidfd);
                    spawn::reap(child.pidfd.as_fd());
                }
            }
        }
    }
}

/// The descriptors that the supervisor waits for; workers and compilers go by their index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    Wake,
    Process(usize),
    Control(usize),
    Stderr(usize),
    Compiler(usize),
}

/// A compiler whose end another thread waits for.
struct RunningCompiler {
    pid: u32,
    pidfd: OwnedFd,
    limit_bytes: u64,
}

/// Kills each process that holds more memory than it may, however it got it.
fn look_at_memory(core: &Core, workers: &mut [Supervised], compilers: &[RunningCompiler]) {
    let limit_bytes = core.settings.sandbox.request.memory_bytes_max;
    for worker in workers {
        // A process that has not computed since holds no more than it did, and an idle pool costs nothing. The clock is
        // read before the look: what is filled in between shows at the next one.
        let computed = worker.link.clock.read();
        if computed.is_some() && computed == worker.looked_at {
            continue;
        }
        worker.looked_at = computed;
        if let Some(seen_bytes) = resident::excess(worker.link.pid, limit_bytes) {
            worker.link.kill_for(DeathCause::MemoryExceeded { limit_bytes, seen_bytes });
        }
    }
    for compiler in compilers.iter().filter(|compiler| compiler.lives()) {
        if resident::excess(compiler.pid, compiler.limit_bytes).is_some() {
            // The thread that waits for the compiler sees the reason in the memory that it had used.
            spawn::kill(&compiler.pidfd);
        }
    }
}

impl RunningCompiler {
    fn lives(&self) -> bool {
        !poll_set::is_ready(&self.pidfd, Duration::ZERO)
    }
}

/// A name that no other child of this host has.
fn group_name(core: &Core, pid: u32) -> String {
    format!("wasmpool-{}-{}-{pid}", std::process::id(), core.id)
}

/// Starts a worker. A failure is reported at once. Workers beyond the first are not started with the last
/// descriptors: this process needs some to load a module or to open the next input.
fn start(
    core: &Arc<Core>,
    worker: WorkerKey,
    program: &Program,
    cgroups: &Cgroups,
    is_first: bool,
) -> Option<Supervised> {
    if !core.wants(worker) {
        core.died(worker, Death::new(0, DeathCause::Killed, Phase::Start, String::new()));
        return None;
    }
    let started = match is_first || descriptors::are_left(DESCRIPTORS_LEFT_MIN) {
        true => try_start(core, worker, program, cgroups),
        false => Err(rustix::io::Errno::MFILE.into()),
    };
    match started {
        Ok(worker) => Some(worker),
        Err(error) if let Some(shortage) = Shortage::of(&error) => {
            core.not_started(worker, shortage);
            None
        }
        Err(error) => {
            let cause = DeathCause::SpawnFailed(error.to_string());
            core.died(worker, Death::new(0, cause, Phase::Start, String::new()));
            None
        }
    }
}

fn try_start(
    core: &Arc<Core>,
    worker: WorkerKey,
    program: &Program,
    cgroups: &Cgroups,
) -> io::Result<Supervised> {
    let (rings, end) = ring::create()?;
    let (control, theirs) = control::pair()?;
    let child = spawn::spawn(program, Role::Worker, theirs)?;
    // The worker waits for its first message, so it does nothing before it is in its group.
    let (group, report) = cgroups.hold(&group_name(core, child.pid), child.pid);
    let sandbox = SandboxRequest { cgroup: Some(report), ..core.settings.sandbox.request.clone() };
    let refused = sandbox.refused_cgroup();
    let setup = ToWorkerControl::Setup {
        wire: fingerprint::WIRE,
        sandbox,
        pagemap_scan: core.settings.workers.pagemap_scan,
        wasm_stack_bytes: core.settings.workers.wasm_stack_bytes_max as u32,
        events: core.settings.logs.worker_events,
        dirs: core.settings.sandbox.dirs.iter().map(|dir| dir.guest.clone()).collect(),
        probe: None,
    };
    let descriptors: Vec<_> =
        std::iter::once(rings.as_fd()).chain(core.settings.sandbox.dirs.iter().map(AsFd::as_fd)).collect();
    let sent = match control.send(&setup, &descriptors) {
        // The worker is gone already, and its death says more.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(())
        }
        sent => sent.map_err(calling("sendmsg (to the worker)")),
    };
    if let Err(error) = refused.map_or(sent, |why| Err(io::Error::other(why))) {
        spawn::kill(&child.pidfd);
        spawn::reap(child.pidfd.as_fd());
        return Err(error);
    }
    let link = Link::new(worker, child.pid, child.pidfd, control, end, core.settings.logs.bytes_per_second);
    let reader = std::thread::Builder::new().name(format!("wasmpool-link-{}", worker.slot)).spawn({
        let core = core.clone();
        let link = link.clone();
        move || link::read_loop(&*core, &link)
    });
    let reader = match reader {
        Ok(reader) => reader,
        Err(error) => {
            link.kill();
            spawn::reap(link.pidfd());
            return Err(calling("start a thread")(error));
        }
    };
    if core.register(link.clone()) {
        core.handle(Event::Spawned { worker });
    } else {
        link.kill();
    }
    Ok(Supervised {
        link,
        reader,
        stderr: child.stderr,
        group,
        stderr_open: true,
        ready: false,
        looked_at: None,
        control_open: true,
    })
}

/// Reads what the worker says on its socket: `Ready`, once.
fn listen(core: &Core, worker: &mut Supervised) {
    let violation = match worker.link.control.receive::<FromWorkerControl>(0, RecvFlags::DONTWAIT) {
        Ok(Some((FromWorkerControl::Ready { wire, .. } | FromWorkerControl::CannotLock { wire, .. }, _)))
            if wire != fingerprint::WIRE =>
        {
            "it was built from another version of wasmpool".to_string()
        }
        Ok(Some(_)) if worker.ready => "it said it was ready twice".to_string(),
        Ok(Some((FromWorkerControl::Ready { mut sandbox, stops_by_signal, .. }, _)))
            if sandbox.is_well_formed() =>
        {
            // The worker's own word does not count.
            let verified = &core.settings.sandbox.verified;
            for layer in &mut sandbox.layers {
                let known = verified.iter().find(|(known, _)| *known == layer.layer);
                layer.verified = known.filter(|_| layer.applied).map(|(_, verified)| *verified);
            }
            worker.ready = true;
            worker.link.note_ready(stops_by_signal);
            catch_panic(|| report_ready(core, worker.link.pid, &sandbox));
            core.ready(&worker.link, sandbox);
            return;
        }
        Ok(Some((FromWorkerControl::Ready { .. }, _))) => "its sandbox report is malformed".to_string(),
        Ok(Some((FromWorkerControl::Probed { .. }, _))) => {
            "it answered a probe that it was not sent".to_string()
        }
        Ok(Some((FromWorkerControl::CannotLock { message, .. }, _))) => {
            worker.control_open = false;
            worker.link.kill_for(DeathCause::SandboxRefused(truncated(&message, GUEST_TEXT_BYTES_MAX)));
            return;
        }
        Ok(None) => {
            // A dying worker closes its end of the socket; its death reports the rest.
            worker.control_open = false;
            return;
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
        Err(error) => error.to_string(),
    };
    worker.control_open = false;
    worker.link.kill_for(DeathCause::ProtocolViolation(violation));
}

/// Missing layers are logged once for each pool as a warning, and for each worker at the debug level.
fn report_ready(core: &Core, pid: u32, sandbox: &SandboxReport) {
    let missing: Vec<_> = sandbox.missing().map(|report| report.layer.name()).collect();
    let missing = missing.join(", ");
    tracing::debug!(pid, policy = %sandbox.policy, missing, "worker ready");
    if !missing.is_empty() && core.is_news_of_missing_layers() {
        let of_each = sandbox.missing().map(|report| format!("`{}`: {}", report.layer, report.reason));
        let of_each = of_each.collect::<Vec<_>>().join("; ");
        tracing::warn!("the workers' sandbox lacks layers: {of_each} (`wasmpool doctor` shows all of them)");
    }
}

/// Reaps a worker, and lets its link's thread drain the ring and report the death.
fn report_exit(mut worker: Supervised) -> JoinHandle<()> {
    worker.link.clock.stop();
    let (cause, used) = usage::reap(worker.link.pidfd(), worker.link.pid);
    let cause = usage::at_cpu_limit(spawn::in_group(worker.group.as_ref(), cause), &used);
    worker.stderr.drain();
    let phase = if worker.ready { Phase::Idle } else { Phase::Start };
    catch_panic(|| tracing::debug!(pid = worker.link.pid, ?cause, "worker ended"));
    worker.link.report_exit(Death::new(worker.link.pid, cause, phase, worker.stderr.text()));
    worker.reader
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        catch_panic(|| tracing::error!("a link's thread panicked"));
    }
}
