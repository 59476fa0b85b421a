//! A compiler that takes long goes on with what nobody else wants.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

/// CPU time after which a compilation is a long one. Most modules take less (a megabyte of wasm some
/// times that), and so have their niceness only.
const LONG: Duration = Duration::from_millis(100);

/// How often it is looked at, until it is a long one.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Has every thread of the process run only where nothing else wants to, once it has computed for long:
/// `true` then, or if it cannot be told. Niceness alone is a share: measured with two bombs in
/// compilers and two workers on two CPUs, tasks kept 80 % of their throughput at a niceness of 12 as of
/// 15, and 90 % so. Behind the compiler's back, since its filter lets it change no priority.
pub(super) fn step_back_if_long(pid: u32, pidfd: BorrowedFd<'_>) -> bool {
    match computed(pid) {
        Some(computed) if computed < LONG => false,
        Some(_) => {
            // Those that it starts from here on inherit it.
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let threads: Vec<_> =
                threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok()).collect();
            // Where the embedder reaps every child itself, the numbers of one that is gone may be others'.
            if is_there(pidfd) {
                threads.into_iter().for_each(only_what_is_left);
            }
            true
        }
        None => true,
    }
}

fn is_there(pidfd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&now)) == Ok(0)
}

/// What all threads of a process have computed so far, in ticks of 10 ms.
fn computed(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second().try_into().ok()?)
}

/// What cannot be had is left: it is a courtesy.
fn only_what_is_left(thread: i32) {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: sched_setscheduler(2) reads the structure, and changes nothing of this process.
    unsafe { libc::sched_setscheduler(thread, libc::SCHED_IDLE, &raw const parameters) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_computed_is_told_and_of_none_nothing() {
        let own = std::process::id();
        let before = computed(own).expect("is told");
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while computed(own).expect("is told") < before + Duration::from_millis(20) {
            assert!(std::time::Instant::now() < deadline, "it has computed nothing");
        }
        assert_eq!(computed(0), None);
    }
}
