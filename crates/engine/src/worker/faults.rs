//! The handler of faults: accesses to memory that the system does not allow.
//!
//! It is called for every fault of this process, before wasmtime's, which turns those of a guest into traps. Two kinds
//! are none of a guest's doing, and the code goes on after them: one that finds the polling page closed
//! ([`polling_page`]), and the first access to a page of a fault window ([`fault_window`]).

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

use super::memories::fault_window;
use super::polling_page::{self, Polled};
use super::samples::Registers;

/// The action for faults that was set before. It is stored before the handler is set.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once. Wasmtime's must be there by then, so that this one is asked first: an engine
/// exists where a memory is made. Returns whether it is installed.
pub(super) fn are_handled() -> bool {
    static ARE_HANDLED: OnceLock<bool> = OnceLock::new();
    *ARE_HANDLED.get_or_init(|| {
        let mut before = MaybeUninit::uninit();
        // SAFETY: it is filled in, if the call succeeds.
        if unsafe { libc::sigaction(libc::SIGSEGV, ptr::null(), before.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: it succeeded.
        let before = unsafe { before.assume_init() };
        let _ = BEFORE.set(before);
        // SAFETY: all bytes zero are such an action; the handler is made for these flags, those of wasmtime's.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_fault;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()) == 0
        }
    })
}

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid one over, and for faults of memory it has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    if code == SEGV_ACCERR {
        // SAFETY: the kernel hands over the context of the code that faulted.
        let registers = unsafe { Registers::of(context) };
        match polling_page::polled(address, registers.pc) {
            Polled::GoOn => return,
            Polled::Stop => {}
            Polled::NotOurs if fault_window::serve(address) => return,
            Polled::NotOurs => {}
        }
    }
    let Some(before) = BEFORE.get() else { return };
    match before.sa_sigaction {
        // The access faults again once this returns, and ends the process.
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: an action that was in force before.
            unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: what was installed with this flag has this signature.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: what was installed without the flag has this one.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// The signal's code for a fault in a mapping that does not allow the access (`asm-generic/siginfo.h`).
const SEGV_ACCERR: libc::c_int = 2;
