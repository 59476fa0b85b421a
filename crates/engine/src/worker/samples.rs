//! Samples of the stack of a task that runs, taken where it happens to be.
//!
//! A timer signals the thread that runs tasks ([`alarm`](super::alarm)). If that is in code of the module at hand, the
//! handler walks the frames and notes where it was; the watcher names the functions. The task goes on, and nothing that it
//! can see has changed.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use proto::limits::BACKTRACE_FRAMES_MAX;

/// The machine code of the functions of the module at hand. The engine's own pieces beside it are none of it: those by
/// which the host calls a function have the host's frame pointer at first, which may be anything.
#[derive(Debug, Default)]
pub(super) struct CodeAtHand {
    start: AtomicUsize,
    end: AtomicUsize,
}

impl CodeAtHand {
    pub(super) fn set(&self, code: Range<usize>) {
        self.start.store(code.start, Ordering::Relaxed);
        self.end.store(code.end, Ordering::Relaxed);
    }

    pub(super) fn has(&self, address: usize) -> bool {
        (self.start.load(Ordering::Relaxed)..self.end.load(Ordering::Relaxed)).contains(&address)
    }
}

/// Where a thread was when it was signalled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registers {
    pub(super) pc: usize,
    fp: usize,
    sp: usize,
}

impl Registers {
    /// # Safety
    /// `context` is the one that the kernel made for a signal.
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn of(context: *const c_void) -> Registers {
        // SAFETY: the caller's.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let at = |index: libc::c_int| registers[index as usize].cast_unsigned() as usize;
        Registers { pc: at(libc::REG_RIP), fp: at(libc::REG_RBP), sp: at(libc::REG_RSP) }
    }

    /// # Safety
    /// `context` is the one that the kernel made for a signal.
    #[cfg(target_arch = "aarch64")]
    pub(super) unsafe fn of(context: *const c_void) -> Registers {
        // SAFETY: the caller's.
        let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
        Registers { pc: machine.pc as usize, fp: machine.regs[29] as usize, sp: machine.sp as usize }
    }
}

/// The stack that was taken last. The handler writes it, and the watcher reads it: it asks for the next one after that.
#[derive(Debug)]
pub(super) struct Sample {
    /// It is of this run: stored last, and read first. 0 is none.
    run: AtomicU64,
    task: AtomicU64,
    len: AtomicUsize,
    /// Addresses of instructions, the innermost first: where the thread was, then those behind the calls.
    addresses: [AtomicUsize; BACKTRACE_FRAMES_MAX],
}

impl Sample {
    pub(super) const fn none() -> Sample {
        Sample {
            run: AtomicU64::new(0),
            task: AtomicU64::new(0),
            len: AtomicUsize::new(0),
            addresses: [const { AtomicUsize::new(0) }; BACKTRACE_FRAMES_MAX],
        }
    }

    /// Walks the frames, as far as they are of the module's functions. All of these keep a frame pointer, by which the
    /// engine itself walks: it points to the caller's, and the return address stands beside it. The first return
    /// address that is in none of them is that of the engine's piece by which the host called. Called in the handler of a
    /// signal.
    pub(super) fn fill(&self, run: u64, task: u64, registers: Registers, code: &CodeAtHand) {
        let Registers { mut pc, mut fp, sp } = registers;
        let mut len = 0;
        let mut lowest = sp;
        while len < self.addresses.len() && code.has(pc) {
            self.addresses[len].store(pc, Ordering::Relaxed);
            len += 1;
            // Frames lie one above the other.
            if fp < lowest || !fp.is_multiple_of(size_of::<usize>()) {
                break;
            }
            lowest = fp + 1;
            let frame = ptr::with_exposed_provenance::<usize>(fp);
            // SAFETY: `pc` is in a function of the module's, where the frame pointer is that function's or, at its first and
            // last instructions, its caller's: another function, or the piece by which the host called, which keeps a frame
            // as well. Either points to a frame on this thread's stack.
            (fp, pc) = unsafe { (frame.read(), frame.add(1).read()) };
        }
        self.len.store(len, Ordering::Relaxed);
        self.task.store(task, Ordering::Relaxed);
        self.run.store(run, Ordering::SeqCst);
    }

    /// Takes the stack of this run, if there is one, and the task that was at hand.
    pub(super) fn take(&self, run: u64) -> Option<(u64, Vec<usize>)> {
        if run == 0 || self.run.load(Ordering::SeqCst) != run {
            return None;
        }
        let len = self.len.load(Ordering::Relaxed).min(BACKTRACE_FRAMES_MAX);
        let addresses = self.addresses[..len].iter().map(|address| address.load(Ordering::Relaxed)).collect();
        let task = self.task.load(Ordering::Relaxed);
        self.run.store(0, Ordering::SeqCst);
        Some((task, addresses))
    }
}
