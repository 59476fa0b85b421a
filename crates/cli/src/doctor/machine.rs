//! Checks what matters to a pool on this machine, with a hint for each problem.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::time::Timespec;
use serde::Serialize;

use files::HostFiles;
use proto::kernel::kernel_text;
use proto::limits::task::MEMORY_BYTES_MAX;
use proto::limits::{CACHE_BYTES_MAX, HOST_STACK_BYTES, WASM_STACK_BYTES_MAX, WASM_STACK_BYTES_MIN};
use wasmpool::internal;

/// Descriptors that the host has open for a worker, at most: link, sockets, stderr, rings.
const DESCRIPTORS_PER_WORKER: u64 = 8;

/// Descriptors that are left to the embedder.
const DESCRIPTORS_SPARE: u64 = 64;

/// Guests are compiled for these targets.
const TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip1"];

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) value: String,
    /// The advice, if something is wrong.
    pub(super) hint: Option<String>,
}

fn check(name: &'static str, value: impl Into<String>, hint: Option<String>) -> Check {
    Check { name, value: value.into(), hint }
}

/// Looks at everything. `cache_dir` is the one that was asked for; `None` is the usual one.
pub(super) fn look(workers: Option<usize>, cache_dir: Option<&Path>) -> Vec<Check> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = workers.unwrap_or(cpus) as u64;
    let meminfo = kernel_text("/proc/meminfo").unwrap_or_default();
    let overcommit = kernel_text("/proc/sys/vm/overcommit_memory").unwrap_or_default();
    vec![
        check("CPUs", format!("{cpus}, for {workers} workers"), cpu_hint(workers, cpus as u64)),
        memory(workers, field(&meminfo, "MemAvailable:")),
        descriptors(workers, getrlimit(Resource::Nofile).current),
        stack(getrlimit(Resource::Stack).maximum),
        overcommitted(overcommit.trim()),
        cache(cache_dir),
        toolchain(),
    ]
}

fn cpu_hint(workers: u64, cpus: u64) -> Option<String> {
    (workers > 2 * cpus).then(|| format!("more workers than CPUs only wait for each other: --workers {cpus}"))
}

fn memory(workers: u64, available: Option<u64>) -> Check {
    let Some(available) = available else { return check("memory", "not known", None) };
    let wanted = workers * MEMORY_BYTES_MAX as u64;
    let hint = (wanted > available).then(|| {
        let each = ByteSize::b(available / workers.max(1)).display().iec();
        format!("{workers} tasks at the default limit may want more: --memory {each}, or fewer --workers")
    });
    check("memory", format!("{} available", ByteSize::b(available).display().iec()), hint)
}

fn descriptors(workers: u64, limit: Option<u64>) -> Check {
    let wanted = workers * DESCRIPTORS_PER_WORKER + DESCRIPTORS_SPARE;
    let Some(limit) = limit else { return check("open files", "no limit", None) };
    let hint = (limit < wanted).then(|| format!("{workers} workers want {wanted}: ulimit -n {wanted}"));
    check("open files", format!("at most {limit}"), hint)
}

fn stack(limit: Option<u64>) -> Check {
    let wanted = (WASM_STACK_BYTES_MAX + HOST_STACK_BYTES) as u64;
    let Some(limit) = limit else { return check("stack", "no limit", None) };
    let least = (WASM_STACK_BYTES_MIN + HOST_STACK_BYTES) as u64;
    let hint = (limit < wanted).then(|| {
        let wanted = wanted >> 10;
        let lower = match limit.checked_sub(HOST_STACK_BYTES as u64).filter(|_| limit >= least) {
            Some(room) => format!(", or run tasks with --wasm-stack {}KiB", room >> 10),
            None => String::new(),
        };
        format!("tasks want {wanted} KiB: start this program where `ulimit -Hs` is {wanted} or more{lower}")
    });
    check("stack", format!("at most {}", ByteSize::b(limit).display().iec()), hint)
}

fn overcommitted(mode: &str) -> Check {
    let hint = (mode == "2").then(|| {
        "workers reserve addresses that they never use, which counts in this mode: \
         sysctl vm.overcommit_memory=0"
            .to_string()
    });
    let shown = match mode {
        "0" => "by heuristic",
        "1" => "always",
        "2" => "never",
        _ => "not known",
    };
    check("overcommit", shown, hint)
}

fn cache(dir: Option<&Path>) -> Check {
    let files = HostFiles::default();
    let Some(shown) = dir.map(Path::to_path_buf).or_else(internal::cache_dir_default) else {
        let hint = "each module is compiled anew: set HOME, or --cache-dir".to_string();
        return check("cache", "none", Some(hint));
    };
    let shown = shown.display().to_string();
    let (count, bytes) = match internal::cache_size(dir, &files, CACHE_BYTES_MAX) {
        Ok(Some(size)) => size,
        Ok(None) => return check("cache", shown, None),
        Err(error) => {
            let hint = format!(
                "each module is compiled anew, since it cannot be used ({error}): set HOME, or --cache-dir"
            );
            return check("cache", shown, Some(hint));
        }
    };
    check("cache", format!("{shown}, {count} files, {}", ByteSize::b(bytes).display().iec()), None)
}

/// Returns whether guests can be compiled here.
fn toolchain() -> Check {
    let add = format!("guests cannot be compiled here: rustup target add {}", TARGETS.join(" "));
    let version = match said_by("rustc", &["--version"]) {
        Ok(Some(version)) => version,
        Ok(None) => {
            let hint = "guests in Rust cannot be compiled here: install it from https://rustup.rs (those that are \
                        compiled run all the same)";
            return check("tool-chain", "no rustc", Some(hint.to_string()));
        }
        Err(late) => {
            let hint = "a compiler without memory may hang: look at `ulimit -d` and `ulimit -v`";
            return check("tool-chain", late, Some(hint.to_string()));
        }
    };
    let targets: Vec<_> = TARGETS.into_iter().filter(|target| has_target(target)).collect();
    let hint = (targets.len() < TARGETS.len()).then_some(add);
    let targets = if targets.is_empty() { "no wasm target".to_string() } else { targets.join(", ") };
    check("tool-chain", format!("{version}; {targets}"), hint)
}

/// Returns whether the compiler that is found first has a standard library for the target.
pub(crate) fn has_target(target: &str) -> bool {
    let sysroot = said_by("rustc", &["--print", "sysroot"]);
    sysroot
        .ok()
        .flatten()
        .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib").join(target).join("lib").is_dir())
}

/// A compiler that is asked for its version answers within this time, or hangs: without memory, rustc may do that.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Returns the first line of what a program says, if it is there and succeeds.
///
/// # Errors
/// The error says in words why it does not answer.
fn said_by(program: &str, args: &[&str]) -> Result<Option<String>, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else { return Ok(None) };
    let said = child.stdout.take().and_then(|mut stdout| Deadline::after(ANSWERS_WITHIN).read(&mut stdout));
    let Some(text) = said else {
        // It is gone already, or this ends it.
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("{program} does not answer within {ANSWERS_WITHIN:?}"));
    };
    let is_success = child.wait().is_ok_and(|status| status.success());
    let text = String::from_utf8(text).ok().filter(|_| is_success);
    Ok(text.map(|text| text.lines().next().unwrap_or_default().to_string()))
}

/// The time until which somebody waits.
struct Deadline(Instant);

impl Deadline {
    fn after(time: Duration) -> Deadline {
        Deadline(Instant::now() + time)
    }

    /// Reads a pipe to its end, of at most [`SAID_BYTES_MAX`]; returns `None` if that does not come in time.
    fn read(&self, pipe: &mut ChildStdout) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        while text.len() < SAID_BYTES_MAX {
            let left = self.0.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok().filter(|_| !left.is_zero())?;
            let mut piece = [0; 4096];
            match rustix::event::poll(&mut [PollFd::new(&*pipe, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return None,
                Ok(_) => match pipe.read(&mut piece) {
                    Ok(0) => return Some(text),
                    Ok(len) => text.extend_from_slice(&piece[..len]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return Some(text),
                },
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        Some(text)
    }
}

/// A program's answer to the question for its version is read up to this length.
const SAID_BYTES_MAX: usize = 64 * 1024;

/// A line of /proc/meminfo, in bytes.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_has_a_hint_and_what_is_well_has_none() {
        assert!(memory(2, Some(8 << 30)).hint.is_none());
        assert!(memory(4, Some(1 << 30)).hint.is_some_and(|hint| hint.contains("--memory 256.0 MiB")));
        assert!(descriptors(4, Some(1024)).hint.is_none());
        assert!(descriptors(200, Some(1024)).hint.is_some_and(|hint| hint.contains("ulimit -n 1664")));
        assert!(stack(Some(8 << 20)).hint.is_none() && stack(None).hint.is_none());
        let hint = stack(Some(1500 << 10)).hint.expect("is too low");
        assert!(hint.contains("`ulimit -Hs` is 2048") && hint.contains("--wasm-stack 476KiB"), "{hint}");
        let hint = stack(Some(1 << 20)).hint.expect("is too low");
        assert!(hint.contains("`ulimit -Hs` is 2048") && !hint.contains("--wasm-stack"), "{hint}");
        assert!(overcommitted("0").hint.is_none() && overcommitted("2").hint.is_some());
        assert!(cpu_hint(2, 2).is_none() && cpu_hint(9, 2).is_some());
    }

    #[test]
    fn a_cache_that_others_can_write_to_is_a_problem() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let set = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode));
        set(0o700).expect("is ours");
        assert!(cache(Some(folder.path())).hint.is_none());
        set(0o777).expect("is ours");
        assert!(cache(Some(folder.path())).hint.is_some());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(field("MemTotal: 5 kB\nMemAvailable:    7 kB\n", "MemAvailable:"), Some(7168));
        assert_eq!(field("", "MemAvailable:"), None);
    }
}
