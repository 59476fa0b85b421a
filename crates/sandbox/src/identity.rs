//! The process's user and groups, and the rights that they give it.

use std::io;

use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};

use super::doing;

/// Makes root somebody else, for good. Returns `Ok(Err(_))` for anybody but root, who cannot.
pub fn change((uid, gid): (u32, u32)) -> io::Result<Result<String, String>> {
    let own = rustix::process::getuid();
    if !own.is_root() {
        return Ok(Err(format!("only root can change it; it stays user {}", own.as_raw())));
    }
    let user = Uid::from_raw(uid);
    let group = Gid::from_raw(gid);
    rustix::thread::set_thread_groups(&[]).map_err(doing("setgroups"))?;
    rustix::thread::set_thread_res_gid(group, group, group).map_err(doing("setresgid"))?;
    rustix::thread::set_thread_res_uid(user, user, user).map_err(doing("setresuid"))?;
    Ok(Ok(format!("user {uid}, group {gid}, no other groups")))
}

/// Empties the bounding set, so that no program that is executed gets a capability by its file. The right to it
/// (`CAP_SETPCAP`) is root's until it becomes somebody else, and everybody's in a new user namespace, where the
/// set is full again: hence once before, and once after. Whether the set is empty now.
pub(super) fn empty_bounding_set() -> bool {
    let option = |option, capability: libc::c_ulong| {
        // SAFETY: both options take numbers only.
        let returned = unsafe { libc::prctl(option, capability, 0, 0, 0) };
        if returned < 0 { Err(io::Error::last_os_error().raw_os_error()) } else { Ok(returned) }
    };
    // The kernel keeps a set in 64 bits, and numbers what it knows without a gap.
    for capability in 0..64 {
        let dropped = option(libc::PR_CAPBSET_DROP, capability);
        // A process without the right to it cannot tell more; the set may be empty anyway.
        match dropped.or_else(|_| option(libc::PR_CAPBSET_READ, capability)) {
            Ok(0) => {}
            Err(Some(libc::EINVAL)) => break,
            _ => return false,
        }
    }
    true
}

/// Unsharing the user namespace has given this process every capability inside of it.
pub fn drop_capabilities() -> io::Result<String> {
    let is_bounded = empty_bounding_set();
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    let never_had = "none, in any namespace; the bounding set stays, it takes one to empty it";
    Ok(if is_bounded { "none, in any namespace, the bounding set empty" } else { never_had }.into())
}

/// Sees to it that no exec regains what we gave up. Without this an ordinary user may not filter system calls.
pub(super) fn no_new_privileges() -> io::Result<String> {
    match rustix::thread::set_no_new_privs(true) {
        Err(error) if !has_no_new_privileges() => Err(doing("PR_SET_NO_NEW_PRIVS")(error)),
        _ => Ok("PR_SET_NO_NEW_PRIVS".into()),
    }
}

pub(super) fn has_no_new_privileges() -> bool {
    rustix::thread::no_new_privs().unwrap_or(false)
}

/// Sees to it that no other process of this user attaches to us or reads our memory.
pub(super) fn not_dumpable() -> io::Result<String> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok("PR_SET_DUMPABLE 0".into())
}
