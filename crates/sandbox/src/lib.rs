//! A child locks itself down before it touches anything of a guest's: this is the second wall.
//!
//! Three steps, each of which yields what the next one takes, and at the end the
//! [`LockedDown`] that the main loops demand: no step can be forgotten on the way.
//! ```text
//! enter()           the socket, a session, no descriptors          nothing is known yet
//!   └─ lock()       rlimits, uid, namespaces, Landlock, …          the request is known
//!        └─ seal()  seccomp, over all threads                      the last thread stands
//! ```
//! One file a layer, with its *why*; what became of each is noted in a [`Ledger`], which also
//! holds the policy: a layer that is demanded and refused ends the process.

pub mod attacks;
mod descriptors;
mod directories;
mod identity;
mod landlock;
mod namespaces;
mod rlimits;
mod session;
pub mod syscalls;
pub mod pagemap;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

pub use directories::Granted;
pub use identity::{change as change_identity, drop_capabilities};
use proto::policy::{LayerReport, LayerState, SandboxLayer, SandboxReport, SandboxRequest};
use proto::refused::remember_limits;
pub use syscalls::Profile;

/// Proof that this process has locked itself down. Only [`Locked::seal`] makes one.
#[derive(Debug)]
pub struct LockedDown(());

/// A process that holds its socket and nothing else.
#[derive(Debug)]
pub struct Entered {
    /// The bytes that it could write to when it started; limits on memory count from there.
    pub data_bytes: u64,
}

/// A process that has given everything up but its system calls.
#[derive(Debug)]
pub struct Locked {
    ledger: Ledger,
    profile: Profile,
    /// The filter of system calls, to be installed last.
    filter: io::Result<syscalls::Filter>,
}

/// Takes the control socket that came as stdin; closes what else came along.
///
/// # Errors
/// Any step that fails: such a child does nothing.
pub fn enter() -> io::Result<(OwnedFd, Entered)> {
    panics_abort();
    remember_limits();
    let socket = descriptors::take_socket()?;
    session::begin()?;
    descriptors::close_others(&socket)?;
    Ok((socket, Entered { data_bytes: rlimits::data_bytes() }))
}

impl Entered {
    /// Everything but the system calls, in an order that matters. Single-threaded still, and
    /// nothing of a guest's has been seen. Directories that were given are what is left of the
    /// file system.
    ///
    /// # Errors
    /// [`LockdownError`]: a layer that the policy does not do without.
    pub fn lock(
        self,
        request: &SandboxRequest,
        profile: Profile,
        dirs: &mut [Granted],
    ) -> Result<Locked, LockdownError> {
        let mut ledger = self.lock_alone(request, profile, dirs)?;
        lock_further(&mut ledger, dirs)?;
        Ok(Locked { ledger, profile, filter: syscalls::filter(profile) })
    }

    /// The same, and work that is no guest's and needs no file: a thread does it behind the user namespace and the empty
    /// root while the kernel makes a network, which takes as long as the rest of the walls. The thread makes the filter
    /// of system calls as well. It has ended when this returns; where none can be started, its work is done afterwards.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    pub fn lock_beside<T: Send>(
        self,
        request: &SandboxRequest,
        profile: Profile,
        dirs: &mut [Granted],
        work: impl FnOnce() -> T + Send,
    ) -> Result<(Locked, T), LockdownError> {
        let mut ledger = self.lock_alone(request, profile, dirs)?;
        let work = || (work(), syscalls::filter(profile));
        let (locked, (done, filter)) = beside(work, || lock_further(&mut ledger, dirs));
        locked?;
        Ok((Locked { ledger, profile, filter }, done))
    }

    /// What must be done by the only thread there is, up to the user namespace and what stands behind it at once.
    fn lock_alone(
        &self,
        request: &SandboxRequest,
        profile: Profile,
        dirs: &mut [Granted],
    ) -> Result<Ledger, LockdownError> {
        if !profile.has_many_threads() {
            syscalls::one_heap();
        }
        let mut ledger = Ledger::new(request.clone());
        ledger.apply(SandboxLayer::Session, || Ok("own session, umask 077, dies with the host".into()))?;
        ledger.apply(SandboxLayer::Descriptors, || Ok(descriptors::left(dirs.len())))?;
        // This comes before the user changes, since /proc/self belongs to root from then on.
        ledger.apply(SandboxLayer::OomScore, session::prefer_for_oom)?;
        ledger.apply(SandboxLayer::ResourceLimits, || {
            rlimits::apply(request.memory_bytes_max, !dirs.is_empty(), self.data_bytes)
        })?;
        // Root has the right to both until it becomes somebody else, whether there are user namespaces or not. A
        // process that does not have it now has it behind them, where both are tried again.
        if request.requests(SandboxLayer::Capabilities) {
            identity::empty_bounding_set();
        }
        // Directories are mounted behind them, too, and before the root is gone.
        let has_empty_root =
            dirs.is_empty() && request.requests(SandboxLayer::EmptyRoot) && namespaces::empty_root_as_root();
        ledger.apply_if_possible(SandboxLayer::Identity, || identity::change(request.identity))?;
        // A change of user has cleared it.
        session::die_with_the_host().map_err(|error| ledger.lockdown_error(SandboxLayer::Session, &error))?;
        ledger.apply(SandboxLayer::Namespaces, namespaces::unshare_user)?;
        let needs_root = !request.policy.can_do_without(SandboxLayer::EmptyRoot);
        ledger.apply(SandboxLayer::EmptyRoot, || empty_root(dirs, has_empty_root, needs_root))?;
        Ok(ledger)
    }
}

/// What this thread gives up while another one may work.
fn lock_further(ledger: &mut Ledger, dirs: &[Granted]) -> Result<(), LockdownError> {
    if ledger.stands(SandboxLayer::Namespaces) {
        ledger.complete(SandboxLayer::Namespaces, namespaces::unshare_network)?;
    }
    ledger.apply(SandboxLayer::Capabilities, identity::drop_capabilities)?;
    ledger.apply(SandboxLayer::NoNewPrivileges, identity::no_new_privileges)?;
    ledger.apply(SandboxLayer::NotDumpable, identity::not_dumpable)?;
    ledger.apply(SandboxLayer::Landlock, || landlock::restrict(dirs))
}

/// Does both, the first on a thread of its own if there can be one, which has ended then.
fn beside<T: Send, U>(work: impl FnOnce() -> T + Send, own: impl FnOnce() -> U) -> (U, T) {
    // The work stays here if it cannot be handed to a thread.
    let work = Mutex::new(Some(work));
    let take = || work.lock().unwrap_or_else(PoisonError::into_inner).take().map(|work| work());
    std::thread::scope(|scope| {
        let helper = std::thread::Builder::new().name("start".into()).spawn_scoped(scope, take);
        let own = own();
        // A panic ends the process, so what a helper does is done.
        let done = helper.ok().and_then(|helper| helper.join().ok()).flatten().or_else(take);
        match done {
            Some(done) => (own, done),
            None => std::process::abort(),
        }
    })
}

impl Locked {
    /// The last layers, once every thread that the process needs stands.
    ///
    /// # Errors
    /// [`LockdownError`]: a layer that the policy does not do without.
    pub fn seal(self) -> Result<(LockedDown, SandboxReport), LockdownError> {
        let Locked { mut ledger, profile, filter } = self;
        ledger.complete(SandboxLayer::ResourceLimits, rlimits::no_more_threads)?;
        // This is asked now, since the filter allows no such question.
        let has_no_new_privileges = identity::has_no_new_privileges();
        ledger.apply(SandboxLayer::Seccomp, || filter.and_then(|filter| filter.install(profile)))?;
        ledger.correct_no_new_privileges(has_no_new_privileges);
        let mut layers = ledger.layers;
        layers.sort_by_key(|report| report.layer);
        Ok((LockedDown(()), SandboxReport::new(ledger.request.policy, layers)))
    }
}

/// An empty root, and beside it each directory as a mount of its own; where that is refused, their
/// descriptors are what there is, and lead to what is beyond them.
fn empty_root(dirs: &mut [Granted], stands: bool, whole: bool) -> io::Result<String> {
    if dirs.is_empty() {
        return match stands {
            true => Ok(namespaces::EMPTY_ROOT.into()),
            false => namespaces::empty_root(),
        };
    }
    // This comes before the process's root is gone, which a thread shares.
    match directories::confine(dirs) {
        Ok(()) => {
            namespaces::empty_root().map(|root| format!("{root}; {} directories as mounts", dirs.len()))
        }
        Err(error) if whole => Err(doing("mount the directories")(error)),
        Err(error) => namespaces::empty_root()
            .map(|root| format!("{root}; {} directories by descriptor only: {error}", dirs.len())),
    }
}

/// A layer could not be applied, and the policy demands it. `Display` says how to go on.
#[derive(Debug)]
pub struct LockdownError {
    layer: SandboxLayer,
    policy: proto::policy::SandboxPolicy,
    reason: String,
}

impl fmt::Display for LockdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LockdownError { layer, policy, reason } = self;
        write!(f, "the sandbox's layer `{layer}` cannot be applied: {reason}. ")?;
        write!(f, "The policy `{policy}` does not do without it: run where the system allows it")?;
        if policy.can_do_without(SandboxLayer::Landlock) {
            write!(f, ", or switch the sandbox off knowingly (the policy `off`)")?;
        } else {
            write!(f, ", or choose the policy `best-effort`")?;
        }
        f.write_str("; `wasmpool doctor` shows every layer")
    }
}

impl std::error::Error for LockdownError {}

impl From<LockdownError> for io::Error {
    fn from(error: LockdownError) -> Self {
        io::Error::other(error)
    }
}

/// The state of the layers so far.
#[derive(Debug)]
struct Ledger {
    request: SandboxRequest,
    layers: Vec<LayerReport>,
}

impl Ledger {
    fn new(request: SandboxRequest) -> Self {
        let cgroup = request.cgroup.clone();
        let layers = vec![cgroup.unwrap_or_else(|| {
            LayerReport::new(SandboxLayer::Cgroup, LayerState::NotRequested, "no cgroup was given".into())
        })];
        Ledger { request, layers }
    }

    /// Returns whether the layer was asked for and stands so far.
    fn stands(&self, layer: SandboxLayer) -> bool {
        self.layers.iter().any(|report| report.layer == layer && report.applied)
    }

    fn note(&mut self, layer: SandboxLayer, state: LayerState, reason: String) {
        self.layers.push(LayerReport::new(layer, state, reason));
    }

    fn lockdown_error(&self, layer: SandboxLayer, error: &io::Error) -> LockdownError {
        LockdownError { layer, policy: self.request.policy, reason: error.to_string() }
    }

    /// Applies a layer if it is asked for; the text says what exactly was applied.
    fn apply(
        &mut self,
        layer: SandboxLayer,
        step: impl FnOnce() -> io::Result<String>,
    ) -> Result<(), LockdownError> {
        self.apply_if_possible(layer, || step().map(Ok))
    }

    /// Does the same as [`apply`](Self::apply), for a layer that does not exist for everyone: `Ok(Err(why))`.
    fn apply_if_possible(
        &mut self,
        layer: SandboxLayer,
        step: impl FnOnce() -> io::Result<Result<String, String>>,
    ) -> Result<(), LockdownError> {
        if !self.request.requests(layer) {
            self.note(layer, LayerState::NotRequested, "not asked for".into());
            return Ok(());
        }
        match step() {
            Ok(Ok(what)) => self.note(layer, LayerState::Applied, what),
            Ok(Err(why)) => self.note(layer, LayerState::NotRequested, why),
            Err(error) if self.request.policy.can_do_without(layer) => {
                self.note(layer, LayerState::Refused, error.to_string());
            }
            Err(error) => return Err(self.lockdown_error(layer, &error)),
        }
        Ok(())
    }

    /// Takes a second step of a layer, even if the first one failed; the layer stands if both succeed.
    fn complete(
        &mut self,
        layer: SandboxLayer,
        step: impl FnOnce() -> io::Result<String>,
    ) -> Result<(), LockdownError> {
        let Some(index) = self.layers.iter().position(|report| report.layer == layer && report.requested)
        else {
            return Ok(());
        };
        match step() {
            Ok(what) => self.layers[index].reason.push_str(&format!(", {what}")),
            Err(error) if self.request.policy.can_do_without(layer) => {
                let report = &mut self.layers[index];
                report.reason = match report.applied {
                    true => format!("{error}; the others stand: {}", report.reason),
                    false => format!("{error}, {}", report.reason),
                };
                report.applied = false;
            }
            Err(error) => return Err(self.lockdown_error(layer, &error)),
        }
        Ok(())
    }

    /// Landlock and seccomp cannot do without it and see to it themselves; and a host that has it hands it on. It
    /// then stands, whatever became of it as a layer.
    fn correct_no_new_privileges(&mut self, stands: bool) {
        let has_filter =
            self.layers.iter().any(|report| report.layer == SandboxLayer::Seccomp && report.applied);
        let own = self.layers.iter_mut().find(|report| report.layer == SandboxLayer::NoNewPrivileges);
        if let Some(report) = own.filter(|report| !report.applied && (stands || has_filter)) {
            let why = std::mem::take(&mut report.reason);
            report.reason = format!("{why}; it stands by another layer's need, or the host's");
            report.applied = true;
        }
    }
}

/// A panic is a bug of ours, and ends the process as one: SIGABRT, with its words on stderr. There is no
/// backtrace, since std would open files for it, which is a SIGSYS behind the filter.
fn panics_abort() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("wasmpool: {panic}");
        std::process::abort();
    }));
}

/// A step's error, with what was being done.
fn doing<E: fmt::Display>(what: &str) -> impl FnOnce(E) -> io::Error + '_ {
    move |error| io::Error::other(format!("{what}: {error}"))
}
