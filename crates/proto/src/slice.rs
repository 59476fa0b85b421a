//! Sets how long a thread computes at a time, where several want a processor.
//!
//! Since Linux 6.12 a thread may ask for shorter or longer slices than is usual, and one that wakes with a shorter
//! slice preempts who has a longer one. Nobody gets more of a processor by it, and nobody needs a privilege for it.
//! Where the kernel does not know it, everything stays as it is.
//!
//! Threads and processes inherit the slice of the thread that starts them. So whoever is started by a brief thread and
//! computes for long asks for the usual slice again.

use std::time::Duration;

/// A thread that does little at a time, and on which others wait: it is to have its turn at once. A policy that the
/// user has chosen for this program stays.
pub fn be_brief() {
    set_usual_policy(Duration::from_micros(200));
}

/// A thread that has been started by a brief one, and is none itself.
pub fn be_usual() {
    // Linux takes 0 for its own default.
    set_usual_policy(Duration::ZERO);
}

fn set_usual_policy(slice: Duration) {
    // SAFETY: it asks for the policy of the calling thread.
    if unsafe { libc::sched_getscheduler(0) } == libc::SCHED_OTHER {
        set(libc::SCHED_OTHER, slice);
    }
}

/// Sets policy and slice of the calling thread, which keeps its niceness.
pub fn set(policy: libc::c_int, slice: Duration) {
    let Ok(nice) = rustix::process::getpriority_process(None) else { return };
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: policy as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX),
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_setattr(2) reads a structure of the size that stands in it.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brief_thread_keeps_its_policy_and_niceness() {
        std::thread::spawn(|| {
            let nice = || rustix::process::getpriority_process(None).expect("has one");
            let before = nice();
            be_brief();
            assert_eq!(nice(), before);
            // SAFETY: it asks for the policy of the calling thread.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_OTHER);
        })
        .join()
        .expect("ends");
    }

    /// Returns the slice of the calling thread; 0 where the kernel knows none.
    fn own() -> u64 {
        // SAFETY: zeroes are a value of each field.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::sched_attr>();
        // SAFETY: sched_getattr(2) writes a structure of at most the size that it is told.
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
        attributes.sched_runtime
    }

    #[test]
    fn what_a_brief_thread_starts_has_the_usual_slice_if_it_asks_for_it() {
        let usual = std::thread::spawn(own).join().expect("ends");
        let (inherited, again) = std::thread::spawn(|| {
            be_brief();
            let started = || {
                let inherited = own();
                be_usual();
                (inherited, own())
            };
            std::thread::spawn(started).join().expect("ends")
        })
        .join()
        .expect("ends");
        assert_eq!(again, usual);
        assert!(inherited == 200_000 || inherited == usual, "{inherited}");
    }

    #[test]
    fn a_policy_that_the_user_has_chosen_stays() {
        std::thread::spawn(|| {
            set(libc::SCHED_BATCH, Duration::from_millis(3));
            let chosen = own();
            be_brief();
            be_usual();
            // SAFETY: it asks for the policy of the calling thread.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_BATCH);
            assert_eq!(own(), chosen);
        })
        .join()
        .expect("ends");
    }
}
