//! Who the process is, and what it may do by being that.

use std::io;

use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};

use super::doing;

/// Root becomes somebody else, for good. `Ok(Err(_))`: only root can.
pub(super) fn change((uid, gid): (u32, u32)) -> io::Result<Result<String, String>> {
    let own = rustix::process::getuid();
    if !own.is_root() {
        return Ok(Err(format!("only root can change it; it stays user {}", own.as_raw())));
    }
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[]).map_err(doing("setgroups"))?;
    rustix::thread::set_thread_res_gid(group, group, group).map_err(doing("setresgid"))?;
    rustix::thread::set_thread_res_uid(user, user, user).map_err(doing("setresuid"))?;
    Ok(Ok(format!("user {uid}, group {gid}, no other groups")))
}

/// Unsharing the user namespace has given this process every capability inside of it.
pub(super) fn drop_capabilities() -> io::Result<String> {
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    Ok("none, in any namespace".into())
}

/// No exec regains what we gave up; and without it an ordinary user may not filter system calls.
pub(super) fn no_new_privileges() -> io::Result<String> {
    rustix::thread::set_no_new_privs(true)?;
    Ok("PR_SET_NO_NEW_PRIVS".into())
}

/// No other process of this user attaches to us or reads our memory.
pub(super) fn not_dumpable() -> io::Result<String> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok("PR_SET_DUMPABLE 0".into())
}
