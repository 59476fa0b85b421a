//! Landlock: no file by its path but in directories that were given, no TCP port, no abstract socket, no
//! signal beyond itself.

use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::{Granted, doing};
use proto::preopen::DirAccess;

/// This is what a kernel must offer for the layer to count as a whole: files (1 to 3), TCP (4), devices (5),
/// scopes of signals and abstract sockets (6). Later rights are asked for, too.
const WANTED: ABI = ABI::V6;
const NEWEST: ABI = ABI::V7;

/// Denies everything that is not asked for by a rule: there is one for each directory, and no other.
pub(super) fn restrict(dirs: &[Granted]) -> io::Result<String> {
    let rules =
        dirs.iter().map(|dir| Ok::<_, RulesetError>(PathBeneath::new(&dir.descriptor, rights(dir.access))));
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(rules))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(doing("landlock"))?;
    let abi = match status.landlock {
        LandlockStatus::NotEnabled => return Err(io::Error::other("the kernel has it switched off")),
        LandlockStatus::NotImplemented => return Err(io::Error::other("the kernel does not have it")),
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
    };
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(io::Error::other("the kernel enforces nothing of it")),
        _ if abi < WANTED => Ok(format!("ABI {abi}, in part{}: {}", but_for(dirs), absent(abi))),
        _ => Ok(format!(
            "ABI {abi}: no files{}, no TCP, no signals or abstract sockets beyond itself",
            but_for(dirs)
        )),
    }
}

/// Tasks need these rights for what they may do. They never get the right to run a program, to make a device,
/// a socket or a FIFO, or to use a device.
fn rights(access: DirAccess) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    if !access.is_writable() {
        return read;
    }
    let make = AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::MakeSym;
    let remove = AccessFs::RemoveFile | AccessFs::RemoveDir;
    read | make | remove | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::Refer
}

fn but_for(dirs: &[Granted]) -> String {
    let writable = dirs.iter().filter(|dir| dir.access.is_writable()).count();
    match (dirs.len() - writable, writable) {
        (0, 0) => String::new(),
        (read, 0) => format!(" but {read} directories to read"),
        (0, write) => format!(" but {write} directories to write"),
        (read, write) => format!(" but {read} directories to read and {write} to write"),
    }
}

/// Names what an older kernel does not cover.
fn absent(abi: ABI) -> String {
    let since = [
        (ABI::V2, "renaming between directories"),
        (ABI::V3, "truncating"),
        (ABI::V4, "TCP"),
        (ABI::V5, "device ioctls"),
        (ABI::V6, "signals and abstract sockets"),
    ];
    let absent: Vec<_> = since.iter().filter(|(first, _)| abi < *first).map(|(_, what)| *what).collect();
    format!("{} stay to the other layers", absent.join(", "))
}
