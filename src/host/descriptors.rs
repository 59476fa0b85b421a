//! Finds out how many more descriptors this process may open.

use rustix::process::{Resource, getrlimit};

/// The highest number that is looked at. With that many open files, a few more or less do not count.
const LOOKS_MAX: u64 = 65_536;

/// Returns whether this process may open this many more descriptors. The kernel gives out the lowest number first,
/// so free numbers are found fast from the top.
pub(super) fn are_left(wanted: usize) -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return true };
    let numbers = (0..limit).rev().take(LOOKS_MAX as usize);
    let free = numbers.filter(|&number| !is_open(number));
    free.take(wanted).count() == wanted
}

fn is_open(number: u64) -> bool {
    let Ok(number) = libc::c_int::try_from(number) else { return false };
    // SAFETY: F_GETFD only asks about a number, whether it is a descriptor or not.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_is_not_open() {
        let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
        assert!(are_left(1) && are_left(8));
        // The test has stdin open, so not all numbers are left.
        assert!(limit > LOOKS_MAX as usize || !are_left(limit));
    }
}
