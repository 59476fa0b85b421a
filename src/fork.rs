//! Values that belong to the process that made them.
//!
//! A fork copies this process's memory and one of its threads. The copy of a pool has neither threads nor
//! workers, threads that do not exist in it may hold its locks for ever, and its descriptors lead to the
//! original's workers. So nothing of it may be used in the copy, not even dropped: [`OfProcess`] gives its
//! value only to the process that made it.
//!
//! Asking for the pid would cost a system call each time. Instead there is a page that the kernel wipes in
//! every child (`MADV_WIPEONFORK`, Linux 4.14); if the kernel cannot, the C library's `fork` wipes it.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// The page is made when it is first asked for; until then this is null.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// This stands in for a page that the kernel would wipe.
static UNMAPPED: AtomicU64 = AtomicU64::new(0);

/// A process takes the next number, and a child counts on from its parent's: so processes that forked from
/// each other have different numbers.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// A process, by a number that none of its ancestors has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Birth(u64);

impl Birth {
    /// Returns this process.
    pub(crate) fn here() -> Birth {
        let page = page();
        match page.load(Ordering::Relaxed) {
            0 => first(page),
            generation => Birth(generation),
        }
    }

    pub(crate) fn is_here(self) -> bool {
        page().load(Ordering::Relaxed) == self.0
    }
}

fn page() -> &'static AtomicU64 {
    let page = PAGE.load(Ordering::Acquire);
    // SAFETY: it is null, or was stored by `make_page` and is never unmapped.
    unsafe { page.as_ref() }.unwrap_or_else(|| make_page())
}

/// Gives this process its number.
#[cold]
fn first(page: &AtomicU64) -> Birth {
    let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    match page.compare_exchange(0, generation, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Birth(generation),
        Err(other) => Birth(other),
    }
}

#[cold]
fn make_page() -> &'static AtomicU64 {
    let made = wiped_on_fork().unwrap_or_else(|| {
        // SAFETY: the handler only stores to a static, which is allowed between a fork and what follows it.
        unsafe { libc::pthread_atfork(None, None, Some(wipe)) };
        ptr::from_ref(&UNMAPPED).cast_mut()
    });
    let page = match PAGE.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => made,
        // Another thread was first. One page stays mapped without a use.
        Err(other) => other,
    };
    // SAFETY: a page of `wiped_on_fork` and the static both live as long as the process, and are aligned and
    // zero at first.
    unsafe { &*page }
}

extern "C" fn wipe() {
    UNMAPPED.store(0, Ordering::Relaxed);
}

fn wiped_on_fork() -> Option<*mut AtomicU64> {
    let len = rustix::param::page_size();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: it makes a new mapping at a place of the kernel's choice.
    let page = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, access, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: the advice is about the page that was just mapped, and changes nothing in this process.
    match unsafe { rustix::mm::madvise(page, len, Advice::LinuxWipeOnFork) } {
        Ok(()) => Some(page.cast()),
        Err(_) => {
            // SAFETY: the page was just mapped, and nothing refers to it.
            let _ = unsafe { rustix::mm::munmap(page, len) };
            None
        }
    }
}

/// A value that only the process that made it may use. In another process it is neither reached nor dropped:
/// dropping it could wait for the lock of a thread that does not exist there, or talk to the original's
/// workers.
pub(crate) struct OfProcess<T> {
    birth: Birth,
    value: ManuallyDrop<T>,
}

impl<T> OfProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        OfProcess { birth: Birth::here(), value: ManuallyDrop::new(value) }
    }

    /// Returns the value, if this process made it.
    pub(crate) fn here(&self) -> Option<&T> {
        self.birth.is_here().then_some(&*self.value)
    }

    /// Returns the value in any process: it must never change after it was made.
    pub(crate) fn unchanging(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if self.birth.is_here() {
            // SAFETY: it is dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

/// A static that each process makes for itself when it is first asked for: a child neither waits for a lock
/// of its parent's, nor takes its parent's notes for its own.
pub(crate) struct PerProcess<T: 'static> {
    /// The value of the process that asked last. It is leaked, and null at first.
    own: AtomicPtr<OfProcess<T>>,
    make: fn() -> T,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new(make: fn() -> T) -> Self {
        PerProcess { own: AtomicPtr::new(ptr::null_mut()), make }
    }

    pub(crate) fn get(&self) -> &'static T {
        let mut own = self.own.load(Ordering::Acquire);
        loop {
            // SAFETY: it is null, or was leaked below and is never freed.
            let known: Option<&'static OfProcess<T>> = unsafe { own.as_ref() };
            if let Some(value) = known.and_then(OfProcess::here) {
                return value;
            }
            let made = Box::into_raw(Box::new(OfProcess::new((self.make)())));
            own = match self.own.compare_exchange(own, made, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => made,
                Err(other) => {
                    // SAFETY: it comes from `into_raw`, and nobody else has seen it.
                    drop(unsafe { Box::from_raw(made) });
                    other
                }
            };
        }
    }
}

impl<T> fmt::Debug for OfProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.birth.is_here() { "OfProcess(here)" } else { "OfProcess(elsewhere)" })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_process_is_one_and_what_it_made_is_its() {
        let made = OfProcess::new(7);
        assert_eq!((made.here(), Birth::here()), (Some(&7), Birth::here()));
        let others = OfProcess { birth: Birth(Birth::here().0 + 1), value: ManuallyDrop::new(7) };
        assert_eq!((others.here(), others.unchanging()), (None, &7));
    }

    #[test]
    fn a_static_of_each_process_is_made_once_and_a_childs_is_new() {
        static NUMBERS: PerProcess<Mutex<Vec<u32>>> = PerProcess::new(|| Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || NUMBERS.get().lock().expect("not poisoned").push(number));
            }
        });
        assert_eq!(NUMBERS.get().lock().expect("not poisoned").len(), 8);
        // The child finds its parent's value, with its lock held for ever.
        let parents = Mutex::new(vec![1]);
        std::mem::forget(parents.lock());
        let birth = Birth(Birth::here().0 + 1);
        let parents = Box::leak(Box::new(OfProcess { birth, value: ManuallyDrop::new(parents) }));
        NUMBERS.own.store(parents, Ordering::Release);
        assert!(NUMBERS.get().lock().expect("not poisoned").is_empty());
    }

    #[test]
    fn what_another_process_made_is_not_dropped() {
        struct Loud;
        impl Drop for Loud {
            fn drop(&mut self) {
                panic!("it is dropped");
            }
        }
        let birth = Birth(Birth::here().0 + 1);
        drop(OfProcess { birth, value: ManuallyDrop::new(Loud) });
    }
}
