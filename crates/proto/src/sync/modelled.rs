//! These types take the place of the processor, of the kernel and of the standard library's locks under loom.
//!
//! Loom has locks of its own, which do not serve here, for two reasons. A thread that is about to *try* loom's lock
//! sleeps until it is free, if another comes first: a reader that would be refused waits for the one that has the
//! lock, and that one waits for it. And each taking of loom's lock orders memory as a fence does, so that a fence that is
//! missing beside a lock would not be missed.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering as StdOrdering};
use std::sync::{Arc, LockResult, TryLockError, TryLockResult};
use std::time::{Duration, Instant};

pub use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};

/// Threads sleep here. Whoever wakes them holds the lock, so that none lies down between its last look and its sleep.
struct Sleepers {
    gate: loom::sync::Mutex<()>,
    woken: loom::sync::Condvar,
}

impl Sleepers {
    fn new() -> Self {
        Sleepers { gate: loom::sync::Mutex::new(()), woken: loom::sync::Condvar::new() }
    }

    fn sleep_if(&self, is_needed: impl FnOnce() -> bool) {
        let gate = self.gate.lock().expect("no panic under it");
        if is_needed() {
            drop(self.woken.wait(gate).expect("no panic under it"));
        }
    }

    fn wake_one(&self) {
        let _gate = self.gate.lock().expect("no panic under it");
        self.woken.notify_one();
    }

    fn wake_all(&self) {
        let _gate = self.gate.lock().expect("no panic under it");
        self.woken.notify_all();
    }
}

/// The kernel's futex: a word that is compared before the sleep. A sleep with a timeout is one that ends at once.
pub struct Word {
    value: AtomicU32,
    sleepers: Sleepers,
}

impl Default for Word {
    fn default() -> Self {
        Word { value: AtomicU32::new(0), sleepers: Sleepers::new() }
    }
}

impl Word {
    pub fn load(&self) -> u32 {
        self.value.load(Ordering::SeqCst)
    }

    pub fn wake(&self) {
        self.value.fetch_add(1, Ordering::SeqCst);
        self.sleepers.wake_all();
    }

    pub fn sleep(&self, was: u32, at_most: Option<Duration>) {
        self.sleepers.sleep_if(|| at_most.is_none() && self.value.load(Ordering::SeqCst) == was);
    }
}

const FREE: u32 = 0;
const HELD: u32 = 1;
/// It is held, and whoever gives it back wakes one who waits for it.
const AWAITED: u32 = 2;

/// The standard library's lock, as it stands over a futex: the same steps with the same orderings.
pub struct Mutex<T> {
    state: AtomicU32,
    sleepers: Sleepers,
    /// Nobody ever waits for this one: it is taken by who has got the lock.
    value: std::sync::Mutex<T>,
}

pub struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    /// It is there until the guard is dropped.
    value: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Mutex { state: AtomicU32::new(FREE), sleepers: Sleepers::new(), value: std::sync::Mutex::new(value) }
    }

    fn has_taken(&self) -> bool {
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn guard(&self) -> MutexGuard<'_, T> {
        MutexGuard { lock: self, value: Some(self.value.try_lock().expect("is for who has the lock")) }
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        if !self.has_taken() {
            while self.state.swap(AWAITED, Ordering::Acquire) != FREE {
                self.sleepers.sleep_if(|| self.state.load(Ordering::Relaxed) == AWAITED);
            }
        }
        Ok(self.guard())
    }

    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if self.has_taken() { Ok(self.guard()) } else { Err(TryLockError::WouldBlock) }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("is not dropped")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("is not dropped")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        // Once a model has failed, loom is not to be asked for anything more.
        if !std::thread::panicking() && self.lock.state.swap(FREE, Ordering::Release) == AWAITED {
            self.lock.sleepers.wake_one();
        }
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// The standard library's, for such locks. A wait with a timeout is one that ends at once.
pub struct Condvar(Sleepers);

impl Condvar {
    #[expect(clippy::new_without_default, reason = "the standard library's is made so")]
    pub fn new() -> Self {
        Condvar(Sleepers::new())
    }

    pub fn wait<'a, T>(&self, held: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let lock = held.lock;
        self.0.sleep_if(|| {
            drop(held);
            true
        });
        lock.lock()
    }

    pub fn wait_timeout<'a, T>(
        &self,
        held: MutexGuard<'a, T>,
        _: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        let lock = held.lock;
        drop(held);
        Ok((lock.lock().expect("no panic under it"), ()))
    }

    pub fn notify_one(&self) {
        self.0.wake_one();
    }

    pub fn notify_all(&self) {
        self.0.wake_all();
    }
}

/// Goes through every interleaving of a model's threads with at most so many preemptions, and says how many there
/// were. Loom reports a wake-up that is lost as a deadlock.
pub fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let began = Instant::now();
    builder.check(move || {
        counted.fetch_add(1, StdOrdering::Relaxed);
        model();
    });
    let count = count.load(StdOrdering::Relaxed);
    println!("{count} interleavings in {:.1?}, {preemptions} preemptions", began.elapsed());
}
