//! The attacks that somebody would try who has taken a worker over: native code, as if WebAssembly's own wall
//! were gone. `doctor` and the tests run them in a throw-away worker that has locked itself down as every
//! other.
//!
//! Each attack is harmless if it succeeds: it sends signal 0, writes the value that was there before, or
//! passes an argument that the kernel refuses *after* it has looked at our rights.

mod directories;
mod files;
mod kernel;
mod memory;
mod network;
mod processes;

use std::io;

use libc::c_long;

use proto::policy::SandboxLayer;
use proto::preopen::DirAccess;
use proto::probe::{AttackOutcome, Attempt, Probe, Targets};

/// A process that an attack has replaced by another program ends in this way.
pub const REPLACED_EXIT_CODE: i32 = 42;

/// One attempt.
pub struct Attack {
    pub name: &'static str,
    pub tries: &'static str,
    /// The layers each of which is there to stop it.
    pub against: &'static [SandboxLayer],
    /// `Ok` with the evidence if it succeeded.
    run: fn(&Targets) -> io::Result<String>,
}

/// Lists the attacks on every worker, in the order of their indices.
pub fn attacks() -> impl Iterator<Item = &'static Attack> {
    [files::ATTACKS, processes::ATTACKS, network::ATTACKS, memory::ATTACKS, kernel::ATTACKS]
        .into_iter()
        .flatten()
}

/// Lists the attacks on workers with directories: [`attacks`], and behind them those on what is beyond the directories.
pub fn attacks_with_dirs() -> impl Iterator<Item = &'static Attack> {
    attacks().chain(directories::ATTACKS)
}

/// The attacks by system calls that the filter lets through to who has been given directories.
pub fn is_by_file_calls(attack: &Attack, access: DirAccess) -> bool {
    const READING: [&str; 3] = ["read-file", "list-root", "stat-file"];
    const WRITING: [&str; 4] = ["write-file", "create-file", "link-file", "dir-link-beyond"];
    READING.contains(&attack.name) || access.is_writable() && WRITING.contains(&attack.name)
}

/// Tries what it is told. What it does not survive is its outcome, too.
pub fn attempt(probe: &Probe) -> AttackOutcome {
    let came_of = match probe.attempt {
        Attempt::Attack(index) => match attacks_with_dirs().nth(index as usize) {
            Some(attack) => (attack.run)(&probe.targets),
            None => return AttackOutcome::Unknown("there is no such attack".into()),
        },
        Attempt::Call(number, arguments) => {
            let arguments = arguments.map(|argument| argument as usize);
            call(number as c_long, arguments).map(|value| format!("returned {value}"))
        }
        Attempt::Panic => panic!("as it was told to"),
        Attempt::Crash => {
            // SAFETY: none: that the process dies of it is what is tried.
            unsafe { std::ptr::with_exposed_provenance_mut::<u64>(8).write_volatile(1) };
            Ok("survived".into())
        }
    };
    match came_of {
        Ok(evidence) => AttackOutcome::Succeeded(evidence),
        Err(error) => AttackOutcome::Refused(error.to_string()),
    }
}

/// One system call.
fn call(number: c_long, arguments: [usize; 6]) -> io::Result<usize> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: this process is thrown away; pointers are to memory that the caller keeps, or are
    // wrong on purpose.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value as usize) }
}

/// Does the same as [`call`], where one of these errors says that our rights were sufficient.
fn call_past_rights(number: c_long, arguments: [usize; 6], past: &[i32]) -> io::Result<String> {
    match call(number, arguments) {
        Ok(value) => Ok(format!("returned {value}")),
        Err(error) if error.raw_os_error().is_some_and(|errno| past.contains(&errno)) => {
            Ok(format!("the rights were sufficient: {error}"))
        }
        Err(error) => Err(error),
    }
}

/// Returns an error that is no attack's own doing.
fn refused(why: &str) -> io::Error {
    io::Error::other(why.to_string())
}
