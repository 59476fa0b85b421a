//! WASI 0.2 for components: wasmtime's own, but for what a task must not have or what would escape its walls. Each
//! function that is replaced here has its counterpart in preview 1 (`open`, `links`, `poll`), and the same reason; the
//! streams of files are in `files`.

use std::task::Poll;

use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceTable};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi::clocks::WasiClocksView as _;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, Host as _, HostDescriptor as _, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::bindings::io::poll::{Host as _, HostPollable as _};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode as SocketErrorCode, IpAddressFamily};
use wasmtime_wasi::p2::bindings::sockets::{ip_name_lookup, network, tcp, udp};
use wasmtime_wasi::p2::{DynPollable, FsResult, Pollable, ReaddirIterator, subscribe};
use wasmtime_wasi::{WasiView as _, async_trait};

use super::super::clocks::{Clock, VirtualTime};
use super::super::linker::TaskState;
use super::super::links::leads_out;
use super::files;
use proto::limits::{DIRECTORY_LISTS_MAX, TASK_DESCRIPTORS_MAX, WASI_SUBSCRIPTIONS_MAX};

/// The version of WASI in which wasmtime defines its functions: what replaces one must be of the same.
const VERSION: &str = "0.2.12";

type Context<'a> = StoreContextMut<'a, TaskState>;
type Dir = Resource<Descriptor>;

/// Defines WASI.
///
/// # Errors
/// Wasmtime's; none is expected.
pub(super) fn define(linker: &mut Linker<TaskState>) -> Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    define_files(linker)?;
    define_clock(linker)?;
    define_poll(linker)?;
    define_sockets(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn name(interface: &str) -> String {
    format!("wasi:{interface}@{VERSION}")
}

/// `open-at` is held to [`TASK_DESCRIPTORS_MAX`], `read-directory` to [`DIRECTORY_LISTS_MAX`].
fn define_files(linker: &mut Linker<TaskState>) -> Result<()> {
    let mut files = linker.instance(&name("filesystem/types"))?;
    files.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store: Context<'_>,
         (dir, lookup, path, open, flags): (Dir, PathFlags, String, OpenFlags, DescriptorFlags)| {
            Box::new(async move {
                let mut view = store.data_mut().filesystem();
                // Whatever is open is held by something in this table.
                if view.table.iter_mut().count() >= TASK_DESCRIPTORS_MAX {
                    return Ok((Err(ErrorCode::InsufficientMemory),));
                }
                let opened = view.open_at(dir, lookup, path, open, flags).await;
                answer(&mut view, opened)
            })
        },
    )?;
    files.func_wrap_async(
        "[method]descriptor.read-directory",
        |mut store: Context<'_>, (dir,): (Dir,)| {
            Box::new(async move {
                let mut view = store.data_mut().filesystem();
                // Each list holds all names of its directory, in the worker's own memory, until it is dropped.
                let lists = view.table.iter_mut().filter(|entry| entry.is::<ReaddirIterator>()).count();
                if lists >= DIRECTORY_LISTS_MAX {
                    return Ok((Err(ErrorCode::InsufficientMemory),));
                }
                let listed = view.read_directory(dir).await;
                answer(&mut view, listed)
            })
        },
    )?;
    files::define(&mut files)?;
    define_links(&mut files)
}

/// No link that leads out is made, moved or given a second name.
fn define_links(files: &mut LinkerInstance<'_, TaskState>) -> Result<()> {
    files.func_wrap_async(
        "[method]descriptor.symlink-at",
        |mut store: Context<'_>, (dir, target, path): (Dir, String, String)| {
            Box::new(async move {
                if leads_out(target.as_bytes()) {
                    return Ok((Err(ErrorCode::NotPermitted),));
                }
                let mut view = store.data_mut().filesystem();
                let made = view.symlink_at(dir, target, path).await;
                answer(&mut view, made)
            })
        },
    )?;
    files.func_wrap_async(
        "[method]descriptor.rename-at",
        |mut store: Context<'_>, (dir, from, to_dir, to): (Dir, String, Dir, String)| {
            Box::new(async move {
                let mut view = store.data_mut().filesystem();
                let named = give_name(&mut view, Naming::Rename, (dir, from), (to_dir, to)).await;
                answer(&mut view, named)
            })
        },
    )?;
    files.func_wrap_async(
        "[method]descriptor.link-at",
        |mut store: Context<'_>, (dir, lookup, from, to_dir, to): (Dir, PathFlags, String, Dir, String)| {
            Box::new(async move {
                let mut view = store.data_mut().filesystem();
                let named = give_name(&mut view, Naming::Link(lookup), (dir, from), (to_dir, to)).await;
                answer(&mut view, named)
            })
        },
    )
}

/// Returns a result as a component takes it.
///
/// # Errors
/// Those that are the task's end.
pub(super) fn answer<T>(
    view: &mut WasiFilesystemCtxView<'_>,
    result: FsResult<T>,
) -> Result<(std::result::Result<T, ErrorCode>,)> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(view.convert_error_code(error)?),
    },))
}

/// Says how something gets a name: it is moved, or has a second one.
#[derive(Clone, Copy)]
enum Naming {
    Rename,
    Link(PathFlags),
}

/// Gives what is at `from` the name `to`, unless it is a link that leads out: `links` has the argument.
async fn give_name(
    view: &mut WasiFilesystemCtxView<'_>,
    naming: Naming,
    (dir, from): (Resource<Descriptor>, String),
    (to_dir, to): (Resource<Descriptor>, String),
) -> FsResult<()> {
    let trimmed = from.trim_end_matches('/');
    let begin = trimmed.rfind('/').map_or(0, |slash| slash + 1);
    // Other forms are refused by the call itself.
    if from.starts_with('/') || matches!(&trimmed[begin..], "" | "." | "..") {
        return call(view, naming, (dir, from), (to_dir, to)).await;
    }
    let folder = if begin == 0 {
        Resource::new_borrow(dir.rep())
    } else {
        let dir = Resource::new_borrow(dir.rep());
        let folder = from[..begin].to_string();
        view.open_at(dir, PathFlags::SYMLINK_FOLLOW, folder, OpenFlags::DIRECTORY, DescriptorFlags::READ)
            .await?
    };
    let at = |folder: &Resource<Descriptor>| Resource::new_borrow(folder.rep());
    let looked = view.readlink_at(at(&folder), trimmed[begin..].to_string()).await;
    let named = match looked {
        Ok(target) if leads_out(target.as_bytes()) => Err(ErrorCode::NotPermitted.into()),
        Ok(_) => call(view, naming, (at(&folder), from[begin..].to_string()), (to_dir, to)).await,
        // The name is no link, or is not there.
        Err(error) => match error.downcast() {
            Ok(ErrorCode::Invalid | ErrorCode::NoEntry) => {
                call(view, naming, (at(&folder), from[begin..].to_string()), (to_dir, to)).await
            }
            Ok(other) => Err(other.into()),
            Err(trap) => Err(wasmtime_wasi::p2::FsError::trap(trap)),
        },
    };
    if folder.owned() {
        view.table.delete(folder)?;
    }
    named
}

/// Makes WASI's own call.
async fn call(
    view: &mut WasiFilesystemCtxView<'_>,
    naming: Naming,
    (dir, from): (Resource<Descriptor>, String),
    (to_dir, to): (Resource<Descriptor>, String),
) -> FsResult<()> {
    match naming {
        Naming::Rename => view.rename_at(dir, from, to_dir, to).await,
        Naming::Link(lookup) => view.link_at(dir, lookup, from, to_dir, to).await,
    }
}

/// In virtual time nobody waits: the time is set forward to the moment that is waited for.
fn define_clock(linker: &mut Linker<TaskState>) -> Result<()> {
    let mut clock = linker.instance(&name("clocks/monotonic-clock"))?;
    clock.func_wrap("subscribe-duration", |mut store: Context<'_>, (nanoseconds,): (u64,)| {
        let state = store.data_mut();
        Ok((match &state.clock {
            Clock::Virtual(time) => {
                let moment = Moment { time: time.clone(), at: time.now().saturating_add(nanoseconds) };
                moment.subscribe(state.ctx().table)?
            }
            Clock::System(_) => state.clocks().subscribe_duration(nanoseconds)?,
        },))
    })?;
    clock.func_wrap("subscribe-instant", |mut store: Context<'_>, (at,): (u64,)| {
        let state = store.data_mut();
        Ok((match &state.clock {
            Clock::Virtual(time) => Moment { time: time.clone(), at }.subscribe(state.ctx().table)?,
            Clock::System(_) => state.clocks().subscribe_instant(at)?,
        },))
    })
}

/// A moment of virtual time that is waited for.
struct Moment {
    time: VirtualTime,
    at: u64,
}

impl Moment {
    fn subscribe(self, table: &mut ResourceTable) -> Result<Resource<DynPollable>> {
        let moment = table.push(self)?;
        subscribe(table, moment)
    }
}

#[async_trait]
impl Pollable for Moment {
    async fn ready(&mut self) {
        // Of several moments that are waited for together the first one comes first: each says when it is, all of them are
        // asked once more, and by then it is known which one is the first.
        let mut known = None;
        std::future::poll_fn(|context| {
            let is_next = |round| self.time.comes_next(self.at, round);
            if self.time.has_come(self.at) || known.is_some_and(is_next) {
                return Poll::Ready(());
            }
            known = Some(self.time.awaits(self.at));
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// One poll is held to as many things as one of preview 1.
fn define_poll(linker: &mut Linker<TaskState>) -> Result<()> {
    let mut poll = linker.instance(&name("io/poll"))?;
    poll.func_wrap_async("poll", |mut store: Context<'_>, (pollables,): (Vec<Resource<DynPollable>>,)| {
        Box::new(async move {
            if pollables.len() > WASI_SUBSCRIPTIONS_MAX as usize {
                let max = WASI_SUBSCRIPTIONS_MAX;
                return Err(wasmtime::format_err!("one poll takes {max} pollables at most"));
            }
            Ok((begin_wait(&mut store).poll(pollables).await?,))
        })
    })?;
    poll.func_wrap_async(
        "[method]pollable.block",
        |mut store: Context<'_>, (one,): (Resource<DynPollable>,)| {
            Box::new(async move { begin_wait(&mut store).block(one).await })
        },
    )
}

/// Begins a wait on the task's own clock, and returns what is waited for.
fn begin_wait<'a>(store: &'a mut Context<'_>) -> &'a mut ResourceTable {
    let state = store.data_mut();
    if let Clock::Virtual(time) = &state.clock {
        time.begin_wait();
    }
    state.ctx().table
}

type Refused<T> = Result<(std::result::Result<Resource<T>, SocketErrorCode>,)>;

/// A task has no network. Tool-chains import sockets whether or not a program uses them, so it is told when it does.
fn define_sockets(linker: &mut Linker<TaskState>) -> Result<()> {
    fn refuse<T>(what: &str) -> Refused<T> {
        tracing::info!(what, "refused: tasks have no network");
        Ok((Err(SocketErrorCode::AccessDenied),))
    }
    linker
        .instance(&name("sockets/tcp-create-socket"))?
        .func_wrap("create-tcp-socket", |_: Context<'_>, _: (IpAddressFamily,)| {
            refuse::<tcp::TcpSocket>("a TCP socket")
        })?;
    linker
        .instance(&name("sockets/udp-create-socket"))?
        .func_wrap("create-udp-socket", |_: Context<'_>, _: (IpAddressFamily,)| {
            refuse::<udp::UdpSocket>("a UDP socket")
        })?;
    linker.instance(&name("sockets/ip-name-lookup"))?.func_wrap(
        "resolve-addresses",
        |_: Context<'_>, _: (Resource<network::Network>, String)| {
            refuse::<ip_name_lookup::ResolveAddressStream>("a lookup of a host's name")
        },
    )
}
