//! Makes what a task has of WASI: memory for its outputs, clocks and randomness, and nothing else unless the
//! caller or the pool's builder says so.
//!
//! | a guest asks for | and gets |
//! |---|---|
//! | arguments, environment, stdin | a command: its caller's, stdin as it was sent or is asked for; a task: none |
//! | stdout, stderr | memory: of a command kept, of a task sent on as log records |
//! | files | the directories of the pool's builder, as they say: by default none |
//! | sockets | none: preview 1 and 0 cannot make one, and is given none; each that a component asks for is refused |
//! | clocks, randomness | the system's or, of a deterministic task, its own |

use wasmtime::component::ResourceTable;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder};

use super::asks::{AskedStdin, Asker};
use super::clocks::{Clock, Coarse, VirtualTime};
use super::instance::Outputs;
use super::random::{Seeded, System};
use proto::description::ModuleForm;
use proto::inbox::Input;
use proto::limits::task::TaskLimits;
use proto::limits::{WASI_RANDOM_BYTES_MAX, WASI_RESOURCES_MAX};
use proto::message::{Callee, CommandStdin, RunEnd};
use proto::preopen::GuestDir;
use sandbox::Granted;

/// A directory that every task is given.
#[derive(Debug)]
pub(super) struct TaskDir {
    pub(super) guest: GuestDir,
    pub(super) granted: Granted,
}

/// What WASI knows of one task, by its version.
pub(super) enum Wasi {
    /// Preview 1, of a module; those of preview 0 have the same.
    Preview1(WasiP1Ctx),
    /// 0.2, of a component.
    Preview2 { context: WasiCtx, table: ResourceTable, outputs: Outputs },
}

impl Wasi {
    pub(super) fn build(mut builder: WasiCtxBuilder, form: ModuleForm, outputs: Outputs) -> Wasi {
        match form {
            ModuleForm::Component => {
                let mut table = ResourceTable::new();
                table.set_max_capacity(WASI_RESOURCES_MAX);
                Wasi::Preview2 { context: builder.build(), table, outputs }
            }
            _ => Wasi::Preview1(builder.build_p1()),
        }
    }
}

/// The context of one task, and what its store needs besides.
pub(super) struct WasiContext {
    pub(super) wasi: Wasi,
    pub(super) clock: Clock,
    /// A command's stdin, if the host is asked for it.
    pub(super) stdin: Option<AskedStdin>,
}

/// Builds the context of one task.
///
/// # Errors
/// How the run ends, if a directory cannot be opened any more or there is no memory for its input.
pub(super) fn context(
    form: ModuleForm,
    callee: &Callee,
    limits: &TaskLimits,
    input: &mut dyn Input,
    output: &Outputs,
    dirs: &[TaskDir],
    asker: impl FnOnce() -> Asker,
) -> Result<WasiContext, RunEnd> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.max_random_size(WASI_RANDOM_BYTES_MAX);
    if let Outputs(Some([stdout, stderr])) = output {
        wasi.stdout(stdout.clone()).stderr(stderr.clone());
    }
    let mut asked = None;
    if let Callee::Command { args, env, stdin } = callee {
        wasi.args(args).envs(env);
        match stdin {
            CommandStdin::Sent => wasi.stdin(MemoryInputPipe::new(read_stdin(input)?)),
            CommandStdin::Asked => wasi.stdin(asked.insert(AskedStdin::new(asker())).clone()),
        };
    }
    // Files are read and written by this thread: there may be no other. (wasmtime's own `poll_oneoff`
    // would then sleep in the kernel, where no interrupt reaches; ours does not, see `poll`.)
    wasi.allow_blocking_current_thread(!dirs.is_empty());
    for TaskDir { guest, granted } in dirs {
        let perms = match guest.access.is_writable() {
            false => FsPerms::ReadOnly,
            true => FsPerms::ReadWrite,
        };
        // The call wants a path. No path leads to the directory from here, so it gets the one that is always
        // there.
        rustix::process::fchdir(&granted.descriptor).map_err(|error| cannot_open(guest, &error))?;
        wasi.preopened_dir(".", &guest.guest_path, perms).map_err(|error| cannot_open(guest, &error))?;
    }
    let clock = match limits.seed {
        None => {
            let clock = Coarse::new(limits.clock_resolution);
            wasi.wall_clock(clock.clone()).monotonic_clock(clock.clone());
            wasi.secure_random(System).insecure_random(System);
            Clock::System(clock)
        }
        Some(seed) => {
            let time = VirtualTime::default();
            wasi.wall_clock(time.clone()).monotonic_clock(time.clone());
            wasi.secure_random(Seeded::new(seed, "random")).insecure_random(Seeded::new(seed, "insecure"));
            wasi.insecure_random_seed(Seeded::new(seed, "insecure seed").number());
            Clock::Virtual(time)
        }
    };
    Ok(WasiContext { wasi: Wasi::build(wasi, form, output.clone()), clock, stdin: asked })
}

fn cannot_open(dir: &GuestDir, error: &dyn std::fmt::Display) -> RunEnd {
    RunEnd::Instantiate { message: format!("the directory {} cannot be opened: {error}", dir.guest_path) }
}

/// The whole of a command's input.
fn read_stdin(input: &mut dyn Input) -> Result<Vec<u8>, RunEnd> {
    let len = input.left();
    let mut bytes = Vec::new();
    // The process may be at its own limit.
    if usize::try_from(len).ok().and_then(|len| bytes.try_reserve_exact(len).ok()).is_none() {
        return Err(RunEnd::InputTooLarge { bytes: len });
    }
    bytes.resize(len as usize, 0);
    let gone = |_| RunEnd::Instantiate { message: "the host is gone".into() };
    input.read(&mut bytes).map_err(gone)?;
    Ok(bytes)
}
