//! Landlock: no file by its path, no TCP port, no abstract socket, no signal beyond itself.

use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr, RulesetStatus, Scope,
};

use super::doing;

/// What a kernel must offer for the layer to count as a whole: files (1 to 3), TCP (4), devices
/// (5), scopes of signals and abstract sockets (6). Later rights are asked for, too.
const WANTED: ABI = ABI::V6;
const NEWEST: ABI = ABI::V7;

/// Denies everything that is not asked for by a rule: there are no rules.
pub(super) fn restrict() -> io::Result<String> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(doing("landlock"))?;
    let abi = match status.landlock {
        LandlockStatus::NotEnabled => return Err(io::Error::other("the kernel has it switched off")),
        LandlockStatus::NotImplemented => return Err(io::Error::other("the kernel does not have it")),
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
    };
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(io::Error::other("the kernel enforces nothing of it")),
        _ if abi < WANTED => Ok(format!("ABI {abi}, in part: {}", absent(abi))),
        _ => Ok(format!("ABI {abi}: no files, no TCP, no signals or abstract sockets beyond itself")),
    }
}

/// What an older kernel does not cover.
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
