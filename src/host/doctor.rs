//! Throw-away workers that attack the layers of their own sandbox, one process an attack, and what came of it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use rustix::process::Signal;
use tempfile::TempDir;

use super::descriptors;
use super::dirs::{self, HostDir, Wanted};
use super::poll_set::{self, PollSet};
use super::resident;
use super::spawn::{self, Child, Program};
use crate::doctor::{AttackReport, DoctorReport};
use crate::error::{BuildError, DeathCause};
use crate::fork::PerProcess;
use proto::control::{self, ControlSocket};
use proto::fingerprint;
use proto::kernel::kernel_text;
use proto::limits;
use proto::message::{EventLevels, FromWorkerControl, ToWorkerControl};
use proto::policy::{SandboxLayer, SandboxPolicy, SandboxReport, SandboxRequest};
use proto::preopen::{DirAccess, GuestDir};
use proto::probe::{AttackOutcome, Attempt, Probe, Targets};
use proto::refused::explained;
use proto::ring;
use proto::role::Role;
use proto::sync::Lock;
use sandbox::Profile;
use sandbox::attacks::{Attack, REPLACED_EXIT_CODE, attacks, attacks_with_dirs, is_by_file_calls};
use sandbox::syscalls;

/// A throw-away worker may hold this much memory, however much a pool's worker may: then the attacks that try
/// for more need not be given gigabytes.
const PATIENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Descriptors that starting a throw-away worker takes; most of them are closed again at once.
const PATIENT_DESCRIPTORS: usize = 9;

/// The descriptors of a throw-away worker, and of another one beside it.
const SIBLING_DESCRIPTORS: usize = PATIENT_DESCRIPTORS + 4;

/// The descriptors of both workers, and of a port, two sockets and an open file, which are there to be attacked.
const TARGETS_DESCRIPTORS: usize = SIBLING_DESCRIPTORS + 4;

/// Tries the second wall: starts throw-away workers that lock themselves down as every worker does,
/// and then attack what is around them. `wasmpool doctor` is its command.
///
/// ```no_run
/// wasmpool::init();
/// let report = wasmpool::sandbox::Doctor::new().run()?;
/// println!("{}{} holes", report.sandbox, report.holes().count());
/// # Ok::<(), wasmpool::error::BuildError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a doctor does nothing until run() is called"]
pub struct Doctor {
    program: Option<PathBuf>,
    request: SandboxRequest,
    dirs: Option<DirAccess>,
    timeout: Duration,
}

impl Default for Doctor {
    fn default() -> Self {
        Doctor::new()
    }
}

impl Doctor {
    /// Tries the sandbox that a pool has by default.
    pub fn new() -> Self {
        Doctor {
            program: None,
            request: SandboxRequest::default(),
            dirs: None,
            timeout: limits::START_TIMEOUT,
        }
    }

    /// Does the same as [`PoolBuilder::sandbox`](crate::PoolBuilder::sandbox).
    pub fn sandbox(mut self, policy: SandboxPolicy) -> Self {
        self.request.policy = policy;
        self
    }

    /// Does the same as [`PoolBuilder::sandbox_without`](crate::PoolBuilder::sandbox_without).
    pub fn sandbox_without(mut self, layer: SandboxLayer) -> Self {
        self.request.without.push(layer);
        self
    }

    /// This layer, and of the others only what cannot be left out.
    pub fn only(mut self, layer: SandboxLayer) -> Self {
        self.request.without = SandboxLayer::ALL.into_iter().filter(|other| *other != layer).collect();
        self
    }

    /// Gives the throw-away workers directories, as a pool does ([`PoolBuilder::dir`](crate::PoolBuilder::dir)):
    /// they have two, one to be read and one with this access, and try to get beyond them, too.
    pub fn with_dirs(mut self, access: DirAccess) -> Self {
        self.dirs = Some(access);
        self
    }

    /// Does the same as [`PoolBuilder::worker_program`](crate::PoolBuilder::worker_program).
    pub fn worker_program(mut self, path: impl AsRef<Path>) -> Self {
        self.program = Some(path.as_ref().into());
        self
    }

    /// Sets how long one attack may take, from the start of its process. Default: 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Tries every attack, each in a process of its own; takes some milliseconds for each.
    ///
    /// # Errors
    /// [`BuildError::InitMissing`], [`BuildError::NestedInit`], [`BuildError::WorkerProgram`] as for a
    /// pool; [`BuildError::SandboxRefused`] if a layer that the policy demands cannot be applied.
    pub fn run(&self) -> Result<DoctorReport, BuildError> {
        let patients = Patients::new(self)?;
        let (sandbox, _) = patients.try_one(Attempt::Call(libc::SYS_getpid, [0; 6]));
        let mut sandbox = sandbox.map_err(|message| BuildError::SandboxRefused { message })?;
        let listed: Vec<_> = match self.dirs {
            Some(_) => attacks_with_dirs().collect(),
            None => attacks().collect(),
        };
        let attacks: Vec<_> = listed
            .into_iter()
            .enumerate()
            .map(|(index, attack)| AttackReport {
                name: attack.name.into(),
                tries: attack.tries.into(),
                against: self.against(attack, &sandbox),
                outcome: patients.try_one(Attempt::Attack(index as u32)).1,
            })
            .collect();
        for layer in sandbox.layers.iter_mut().filter(|layer| layer.applied) {
            let mut against =
                attacks.iter().filter(|attack| attack.against.contains(&layer.layer)).peekable();
            layer.verified = against.peek().is_some().then(|| against.all(|attack| attack.outcome.failed()));
        }
        Ok(DoctorReport { sandbox, attacks, system: system(patients.has_all) })
    }

    /// The system calls that a worker may make once it stands: name and number. Some are allowed with certain
    /// arguments only.
    pub fn system_calls() -> Vec<(&'static str, i64)> {
        syscalls::allowed(Profile::Worker).iter().map(|call| (call.name, call.number)).collect()
    }

    /// Returns the same as [`system_calls`](Self::system_calls), of a worker whose pool has directories.
    pub fn system_calls_with_dirs(access: DirAccess) -> Vec<(&'static str, i64)> {
        let profile = Profile::WithDirectories { access, scans: false };
        syscalls::allowed(profile).iter().map(|call| (call.name, call.number)).collect()
    }

    /// The layers that are to stop it, such as they stand: to be not dumpable stops nobody who is root,
    /// and the filter does not stop what tasks with directories do.
    fn against(&self, attack: &Attack, sandbox: &SandboxReport) -> Vec<SandboxLayer> {
        let is_root = rustix::process::getuid().is_root() && !sandbox.has(SandboxLayer::Identity);
        let stops = |layer: &SandboxLayer| match layer {
            SandboxLayer::NotDumpable => !is_root,
            SandboxLayer::Seccomp => !self.dirs.is_some_and(|access| is_by_file_calls(attack, access)),
            _ => true,
        };
        attack.against.iter().copied().filter(stops).collect()
    }

    /// Returns, for the tests of the filter, what a compiler or a worker may call, and what it is answered ENOSYS.
    #[doc(hidden)]
    pub fn system_calls_of(as_compiler: bool) -> (Vec<i64>, Vec<i64>) {
        let profile = if as_compiler { Profile::Compiler } else { Profile::Worker };
        let answered = syscalls::answered_enosys(profile).iter().map(|(_, number)| *number).collect();
        (syscalls::allowed(profile).iter().map(|call| call.number).collect(), answered)
    }

    /// Tries, for the tests of the filter, system calls by number, each in a process of its own.
    #[doc(hidden)]
    pub fn try_calls(
        &self,
        as_compiler: bool,
        calls: &[(i64, [u64; 6])],
    ) -> Result<Vec<AttackOutcome>, BuildError> {
        let mut patients = Patients::new(self)?;
        patients.as_compiler = as_compiler;
        let outcome = |&(number, arguments): &_| patients.try_one(Attempt::Call(number, arguments)).1;
        Ok(calls.iter().map(outcome).collect())
    }

    /// Tries, for the tests of the deaths, a panic and a crash.
    #[doc(hidden)]
    pub fn try_ends(&self) -> Result<[AttackOutcome; 2], BuildError> {
        let patients = Patients::new(self)?;
        Ok([Attempt::Panic, Attempt::Crash].map(|attempt| patients.try_one(attempt).1))
    }
}

/// Returns what a pool with these settings may call verified. The doctor runs once for each setting in the
/// life of the host.
///
/// # Errors
/// Those of [`Doctor::run`], and [`BuildError::SandboxHole`].
pub(crate) fn verified(
    request: &SandboxRequest,
    program: Option<PathBuf>,
    dirs: Option<DirAccess>,
) -> Result<Vec<(SandboxLayer, bool)>, BuildError> {
    type Key = (SandboxRequest, Option<PathBuf>, Option<DirAccess>);
    type Known = Vec<(Key, Vec<(SandboxLayer, bool)>)>;
    static KNOWN: PerProcess<Mutex<Known>> = PerProcess::new(|| Mutex::new(Vec::new()));
    let key = (request.clone(), program, dirs);
    let mut known = KNOWN.get().hold();
    if let Some((_, verified)) = known.iter().find(|(of, _)| *of == key) {
        return Ok(verified.clone());
    }
    let (request, program, dirs) = key.clone();
    let report = Doctor { request, program, dirs, ..Doctor::new() }.run()?;
    if let Some(hole) = report.holes().next() {
        let attack = hole.name.clone();
        let outcome = hole.outcome.to_string();
        return Err(BuildError::SandboxHole { attack, outcome });
    }
    let layers = report.sandbox.layers.iter();
    let verified: Vec<_> = layers.filter_map(|layer| Some((layer.layer, layer.verified?))).collect();
    known.push((key, verified.clone()));
    Ok(verified)
}

/// The targets of the attacks, for as long as this lives.
struct Patients<'a> {
    doctor: &'a Doctor,
    as_compiler: bool,
    program: Program,
    targets: Targets,
    dirs: Vec<HostDir>,
    /// This process has descriptors for all that can be attacked.
    has_all: bool,
    /// Another worker; the attacks may end it, and then there is a new one.
    sibling: Mutex<Option<Patient>>,
    /// Kept open, and in place, for the attacks.
    _open_targets: OpenTargets,
}

type OpenTargets = (Option<TcpListener>, [Option<UnixListener>; 2], Option<File>, Box<u64>, TempDir);

/// A throw-away worker.
struct Patient {
    child: Child,
    control: ControlSocket,
    _rings: OwnedFd,
}

/// The descriptors by which a throw-away worker is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    Control,
    Stderr,
    Process,
}

impl Drop for Patient {
    fn drop(&mut self) {
        // The signal fails only for a process that is gone already.
        let _ = rustix::process::pidfd_send_signal(&self.child.pidfd, Signal::KILL);
        spawn::reap(self.child.pidfd.as_fd());
    }
}

impl<'a> Patients<'a> {
    fn new(doctor: &'a Doctor) -> Result<Self, BuildError> {
        if Role::of_this_process().is_some() {
            return Err(BuildError::NestedInit);
        }
        let program = Program::choose(doctor.program.as_deref())?;
        let laid_out =
            |source| BuildError::System { what: "lay out the attacks' targets", source: explained(source) };
        let (folder, secret) = lay_out().map_err(laid_out)?;
        let dir = folder.path();
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dirs = give(dir, doctor)?;
        let has_all = descriptors::are_left(TARGETS_DESCRIPTORS);
        // A target that cannot be had is left out: its attacks are then refused because it is absent.
        let tcp = has_all.then(|| TcpListener::bind("127.0.0.1:0").ok()).flatten();
        let unix = has_all.then(|| UnixListener::bind(dir.join("socket")).ok()).flatten();
        let _ = open_to_all(&dir.join("socket"));
        open_to_all(dir).map_err(laid_out)?;
        let bind = || SocketAddr::from_abstract_name(&name).and_then(|name| UnixListener::bind_addr(&name));
        let named = has_all.then(|| bind().ok()).flatten();
        // The file is left open on purpose, as a careless embedder does.
        let open = has_all
            .then(|| files::reopened(&secret).ok())
            .flatten()
            .filter(|file| rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()).is_ok());
        let in_memory = Box::new(0x7761_736d_706f_6f6c);
        let port = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok()).map(|address| address.port());
        let targets = Targets {
            host_pid: std::process::id(),
            sibling_pid: 0,
            host_address: (&raw const *in_memory).expose_provenance() as u64,
            dir: dir.to_string_lossy().into_owned(),
            tcp_port: port.unwrap_or_default(),
            abstract_name: name,
            descriptor: open.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            dirs: Vec::new(),
        };
        let _open_targets = (tcp, [unix, named], open, in_memory, folder);
        let sibling = Mutex::new(None);
        Ok(Patients { doctor, as_compiler: false, program, targets, dirs, has_all, sibling, _open_targets })
    }

    /// `Err` with its own words if the process could not lock itself down as it was asked to.
    fn try_one(&self, attempt: Attempt) -> (Result<SandboxReport, String>, AttackOutcome) {
        let sibling_pid = self.sibling_pid().unwrap_or_default();
        let as_compiler = self.as_compiler;
        let probe = Probe { attempt, as_compiler, targets: Targets { sibling_pid, ..self.targets.clone() } };
        match self.start(Some(Box::new(probe))) {
            Ok(mut patient) => self.examine(&mut patient),
            Err(error) => (Err(error.to_string()), AttackOutcome::Unknown(error.to_string())),
        }
    }

    fn start(&self, probe: Option<Box<Probe>>) -> io::Result<Patient> {
        let (rings, _) = ring::create()?;
        let (control, theirs) = control::pair()?;
        let child = spawn::spawn(&self.program, Role::Worker, theirs)?;
        let patient = Patient { child, control, _rings: rings };
        let sandbox = self.doctor.request.clone();
        let setup = ToWorkerControl::Setup {
            wire: fingerprint::WIRE,
            sandbox,
            pagemap_scan: false,
            wasm_stack_bytes: wasm_stack_bytes() as u32,
            events: EventLevels::default(),
            dirs: self.dirs.iter().map(|dir| dir.guest.clone()).collect(),
            probe,
        };
        let rings = patient._rings.as_fd();
        let descriptors: Vec<_> = std::iter::once(rings).chain(self.dirs.iter().map(AsFd::as_fd)).collect();
        patient.control.send(&setup, &descriptors)?;
        Ok(patient)
    }

    /// The pid of another worker, which lives.
    fn sibling_pid(&self) -> Option<u32> {
        let mut sibling = self.sibling.hold();
        let lives =
            sibling.as_ref().is_some_and(|sibling| !poll_set::is_ready(&sibling.child.pidfd, Duration::ZERO));
        if !lives && descriptors::are_left(SIBLING_DESCRIPTORS) {
            let started = self.start(None).ok();
            // It waits until the sandbox is up: an attack on a process that is not locked down proves
            // nothing.
            *sibling = started.filter(|started| poll_set::is_ready(&started.control.0, self.doctor.timeout));
        }
        sibling.as_ref().map(|sibling| sibling.child.pid)
    }

    /// Kills a process that holds too much memory, as a pool's host does when it looks at its workers.
    fn looked_at(&self, patient: &Patient, outcome: AttackOutcome) -> AttackOutcome {
        let looks = self.doctor.request.requests(SandboxLayer::ResourceLimits);
        let has_too_much = || resident::excess(patient.child.pid, PATIENT_BYTES_MAX).is_some();
        if looks && matches!(outcome, AttackOutcome::Succeeded(_)) && has_too_much() {
            // The signal fails only for a process that is gone already.
            let _ = rustix::process::pidfd_send_signal(&patient.child.pidfd, Signal::KILL);
            return AttackOutcome::Killed(Signal::KILL.as_raw());
        }
        outcome
    }

    /// Listens until the process has said what it has to say, or is gone.
    fn examine(&self, patient: &mut Patient) -> (Result<SandboxReport, String>, AttackOutcome) {
        let deadline = Instant::now().checked_add(self.doctor.timeout);
        let mut report = Err("it said nothing".to_string());
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                let late = format!("no answer within {:?}", self.doctor.timeout);
                let said = patient.child.stderr.text();
                let why = |_| format!("a throw-away worker does not start: {late}: {}", said.trim());
                return (report.map_err(why), AttackOutcome::Unknown(late));
            }
            let mut set = PollSet::new();
            set.watch(Watched::Control, patient.control.0.as_fd());
            set.watch(Watched::Stderr, patient.child.stderr.pipe.as_fd());
            set.watch(Watched::Process, patient.child.pidfd.as_fd());
            let ready = set.wait(left);
            patient.child.stderr.drain();
            // The last words of a process come before its end.
            match patient.control.receive::<FromWorkerControl>(0, RecvFlags::DONTWAIT) {
                Ok(Some((FromWorkerControl::Ready { wire, sandbox, .. }, _)))
                    if wire == fingerprint::WIRE =>
                {
                    report = Ok(sandbox);
                }
                Ok(Some((FromWorkerControl::Probed { outcome }, _))) => {
                    return (report, self.looked_at(patient, outcome));
                }
                Ok(Some((FromWorkerControl::CannotLock { message, .. }, _))) => {
                    return (Err(message.clone()), AttackOutcome::Unknown(message));
                }
                Ok(Some(_)) => {
                    return (report, AttackOutcome::Unknown("it is of another version of wasmpool".into()));
                }
                Ok(None) | Err(_) if ready.has(Watched::Process) => {
                    let outcome = match spawn::reap(patient.child.pidfd.as_fd()) {
                        DeathCause::Exited(REPLACED_EXIT_CODE) => {
                            AttackOutcome::Succeeded("another program ran".into())
                        }
                        DeathCause::Signaled(signal) => AttackOutcome::Killed(signal),
                        cause => AttackOutcome::Unknown(format!("it {}", last_words(&cause, patient))),
                    };
                    // Its last words explain why there is no report.
                    let why = |_| match &outcome {
                        AttackOutcome::Unknown(why) => format!("a throw-away worker does not start: {why}"),
                        outcome => format!("a throw-away worker does not start: it was {outcome}"),
                    };
                    return (report.map_err(why), outcome);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    let why = format!("the host cannot listen to a throw-away worker: {error}");
                    return (report.map_err(|_| why.clone()), AttackOutcome::Unknown(why));
                }
                // Its end of the socket is closed; its death follows.
                Ok(None) => std::thread::yield_now(),
            }
        }
    }
}

/// Returns how a throw-away worker ended, and what it said last, as one line.
fn last_words(cause: &DeathCause, patient: &Patient) -> String {
    let said = patient.child.stderr.text();
    match said.trim() {
        "" => cause.to_string(),
        said => format!("{cause}: {said}"),
    }
}

/// Returns how much stack the tasks of a pool have by default, or as much as the hard limit leaves them: the sandbox
/// can be tried with less.
fn wasm_stack_bytes() -> usize {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Stack).maximum.unwrap_or(u64::MAX);
    let room = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(limits::HOST_STACK_BYTES);
    match room >= limits::WASM_STACK_BYTES_MIN {
        true => room.min(limits::WASM_STACK_BYTES_MAX),
        // The worker says what is missing.
        false => limits::WASM_STACK_BYTES_MAX,
    }
}

/// Two directories to be given, beside the secret: one to be read, and one with the access at hand.
fn give(beside: &Path, doctor: &Doctor) -> Result<Vec<HostDir>, BuildError> {
    let Some(access) = doctor.dirs else { return Ok(Vec::new()) };
    let lay_out = |name: &str| -> io::Result<PathBuf> {
        let dir = beside.join(name);
        fs::create_dir(&dir)?;
        fs::write(dir.join("inside"), "inside")?;
        // At this point the folder around it is still this user's alone, so nobody can swap the file.
        open_to_all(&dir.join("inside"))?;
        open_to_all(&dir)?;
        Ok(dir)
    };
    let mut wanted = Vec::new();
    for (name, access) in [("first", DirAccess::ReadOnly), ("second", access)] {
        let host_path = lay_out(name).map_err(|source| BuildError::System {
            what: "lay out the attacks' targets",
            source: explained(source),
        })?;
        wanted.push(Wanted { host_path, guest: GuestDir { guest_path: name.into(), access } });
    }
    dirs::open_all(&wanted, &doctor.request)
}

/// Makes a directory with a file for everybody. The directory itself is [opened to all](open_to_all) only
/// when it is complete: another user could put a link into it while it is filled. Its name is random: pids come again,
/// and what a killed doctor left may still be there.
fn lay_out() -> io::Result<(TempDir, File)> {
    let private = fs::Permissions::from_mode(0o700);
    let dir = tempfile::Builder::new().prefix("wasmpool-doctor-").permissions(private).tempdir()?;
    let mut secret =
        File::options().read(true).write(true).create_new(true).open(dir.path().join("secret"))?;
    secret.write_all(b"the secret of the host")?;
    secret.set_permissions(fs::Permissions::from_mode(0o666))?;
    Ok((dir, secret))
}

fn open_to_all(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}

/// Describes what on this machine decides about layers, for a reader of the report elsewhere.
fn system(has_all: bool) -> Vec<(String, String)> {
    let uname = rustix::system::uname();
    let file = |path: &str| kernel_text(path).map_or("-".into(), |text| text.trim().to_string());
    let swaps = kernel_text("/proc/swaps").unwrap_or_default().lines().skip(1).count();
    [
        ("wasmpool", env!("CARGO_PKG_VERSION").to_string()),
        ("kernel", uname.release().to_string_lossy().into_owned()),
        ("architecture", std::env::consts::ARCH.to_string()),
        ("host's user", rustix::process::getuid().as_raw().to_string()),
        ("user.max_user_namespaces", file("/proc/sys/user/max_user_namespaces")),
        (
            "apparmor_restrict_unprivileged_userns",
            file("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        ),
        ("security modules", file("/sys/kernel/security/lsm")),
        ("seccomp actions", file("/proc/sys/kernel/seccomp/actions_avail")),
        ("swap devices", swaps.to_string()),
    ]
    .into_iter()
    .chain((!has_all).then(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let what = "a port, sockets, an open file and perhaps another worker, since few descriptors are left";
        ("not attacked", format!("{what}: RLIMIT_NOFILE is {limit}: raise it (ulimit -n)"))
    }))
    .map(|(name, value)| (name.to_string(), value))
    .collect()
}
