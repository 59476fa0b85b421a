//! The list of system calls as a program for the kernel's filter.
//!
//! The numbers are searched as in a tree, so that a call is decided after some seven comparisons. The kernel runs each
//! program once for every number there is when it is installed, to learn which calls need no look: in a chain, where a
//! number is compared with all before it, that took longer than to install Landlock and to change the user together.
//! There is one program, since each one is translated to machine code at a start.

use std::io;

use libc::c_long;
use seccompiler::{BpfProgram, sock_filter};

use super::{Allowed, Test};

/// Where the kernel puts the architecture, the number and the arguments of a call (`struct seccomp_data`).
const ARCHITECTURE: u32 = 4;
const NUMBER: u32 = 0;
const ARGUMENTS: u32 = 16;

/// The architecture that this program was compiled for, as the kernel names it in linux/audit.h. All of them have their
/// lower bytes first.
const NATIVE: Option<u32> = match () {
    _ if cfg!(target_arch = "x86_64") => Some(0xc000_003e),
    _ if cfg!(target_arch = "aarch64") => Some(0xc000_00b7),
    _ if cfg!(target_arch = "riscv64") => Some(0xc000_00f3),
    _ => None,
};

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

const ALLOW: sock_filter = end(libc::SECCOMP_RET_ALLOW);
const KILL: sock_filter = end(libc::SECCOMP_RET_KILL_PROCESS);
const NO_SUCH_CALL: sock_filter = end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);

const fn end(action: u32) -> sock_filter {
    sock_filter { code: RETURN as u16, jt: 0, jf: 0, k: action }
}

fn step(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Goes on with the next instruction if the comparison holds, else behind so many.
fn unless(code: u32, k: u32, skipped: usize) -> io::Result<sock_filter> {
    let jf = u8::try_from(skipped).map_err(|_| io::Error::other("a condition is too long"))?;
    Ok(sock_filter { code: code as u16, jt: 0, jf, k })
}

/// What becomes of one number.
struct Decision {
    number: u32,
    /// Ends with a return, whatever the arguments are.
    steps: BpfProgram,
}

/// Makes the program. What is answered is answered, though it may be listed as well.
///
/// # Errors
/// An architecture that is not known here, or a list that is no list.
pub(super) fn assemble(list: &[Allowed], answered: &[(&str, c_long)]) -> io::Result<BpfProgram> {
    let native = NATIVE.ok_or_else(|| io::Error::other("no filter is known for this architecture"))?;
    let number = |number: c_long| u32::try_from(number).map_err(io::Error::other);
    let mut decisions = Vec::with_capacity(list.len() + answered.len());
    for &(_, call) in answered {
        decisions.push(Decision { number: number(call)?, steps: vec![NO_SUCH_CALL] });
    }
    for allowed in list {
        decisions.push(Decision { number: number(allowed.number)?, steps: conditions(allowed)? });
    }
    // The sort is stable: of two decisions about a number the first one stays.
    decisions.sort_by_key(|decision| decision.number);
    decisions.dedup_by_key(|decision| decision.number);
    let mut program = vec![
        step(LOAD, ARCHITECTURE),
        sock_filter { code: IF_EQUAL as u16, jt: 1, jf: 0, k: native },
        KILL,
        step(LOAD, NUMBER),
    ];
    program.extend(search(&decisions)?);
    Ok(program)
}

/// Finds the number among these, and decides. The number is what was loaded last.
fn search(decisions: &[Decision]) -> io::Result<BpfProgram> {
    let (below, from) = match decisions {
        [] => return Ok(vec![KILL]),
        [only] => {
            let mut steps = vec![unless(IF_EQUAL, only.number, only.steps.len())?];
            steps.extend_from_slice(&only.steps);
            steps.push(KILL);
            return Ok(steps);
        }
        _ => decisions.split_at(decisions.len() / 2),
    };
    let first = from[0].number;
    let below = search(below)?;
    // A comparison jumps no further than 255 instructions.
    let mut steps = vec![
        sock_filter { code: IF_AT_LEAST as u16, jt: 0, jf: 1, k: first },
        step(JUMP, below.len() as u32),
    ];
    steps.extend(below);
    steps.extend(search(from)?);
    Ok(steps)
}

/// Allows a call if one of its conditions holds, or it has none.
fn conditions(allowed: &Allowed) -> io::Result<BpfProgram> {
    if allowed.when.is_empty() {
        return Ok(vec![ALLOW]);
    }
    let mut steps = Vec::new();
    for when in &allowed.when {
        let mut rest = vec![ALLOW];
        // From behind, since a test that fails jumps over what follows it.
        for test in when.iter().rev() {
            let mut with = compare(test, rest.len())?;
            with.append(&mut rest);
            rest = with;
        }
        steps.append(&mut rest);
    }
    steps.push(KILL);
    Ok(steps)
}

/// Goes on behind itself if the test holds, else behind so many instructions more.
fn compare(test: &Test, behind: usize) -> io::Result<BpfProgram> {
    let (argument, mask, value) = match *test {
        Test::Is(argument, value) => (argument, u64::MAX, value),
        Test::Lacks(argument, bits) => (argument, bits, 0),
        Test::IsBut(argument, but, value) => (argument, !but, value),
        Test::LowIsBut(argument, but, value) => (argument, u64::from(!but), u64::from(value)),
    };
    if argument > 5 || value & !mask != 0 {
        return Err(io::Error::other("a condition that cannot be met"));
    }
    let mut steps = Vec::new();
    let at = ARGUMENTS + u32::from(argument) * 8;
    // The upper half stands behind the lower one. From behind, as above.
    for (at, mask, value) in
        [(at, mask as u32, value as u32), (at + 4, (mask >> 32) as u32, (value >> 32) as u32)]
    {
        if mask == 0 {
            continue;
        }
        let mut half = vec![step(LOAD, at)];
        if mask != u32::MAX {
            half.push(step(AND, mask));
        }
        half.push(unless(IF_EQUAL, value, steps.len() + behind)?);
        half.append(&mut steps);
        steps = half;
    }
    Ok(steps)
}

#[cfg(test)]
mod tests;
