use std::io::Write;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const PAGE: usize = 4096;
const WASM_PAGE: usize = 64 * 1024;

/// More than is zeroed without asking.
const LARGE: usize = 8 * WASM_PAGE;

const NO_SWAPS: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
const ONE_SWAP: &str = "/dev/zram0                              partition\t8\t\t0\t\t100\n";

fn list(text: &str) -> (Swaps, File) {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("writes");
    (Swaps::List(file.try_clone().expect("clones")), file)
}

/// Pretends that there is no swap: these tests do not run for long enough to be swapped out.
fn without_swap() -> Memories {
    Memories::with(list(NO_SWAPS).0, MEMORIES_MAX, None)
}

fn make(memories: &Memories, bytes: usize) -> Result<Box<dyn LinearMemory>, String> {
    memories.new_memory(MemoryType::new(1, None), bytes, None, Some(MEMORY_BYTES), GUARD_BYTES)
}

fn memory(memories: &Memories, bytes: usize) -> Box<dyn LinearMemory> {
    make(memories, bytes).expect("a memory")
}

fn bytes(memory: &mut Box<dyn LinearMemory>) -> &mut [u8] {
    // SAFETY: it can be accessed up to its size, and the reference of it is held meanwhile.
    unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), memory.byte_size()) }
}

fn is_zero(bytes: &[u8]) -> bool {
    // SAFETY: any bytes make words.
    let (head, words, tail) = unsafe { bytes.align_to::<u64>() };
    words.iter().all(|word| *word == 0) && head.iter().chain(tail).all(|byte| *byte == 0)
}

/// Pages of the memory that are there, whatever they hold.
fn resident(memory: &dyn LinearMemory, len: usize) -> usize {
    let mut pages = vec![0; len / PAGE];
    // SAFETY: the range is within its slot, and there is a byte for each page.
    let failed = unsafe { libc::mincore(memory.as_ptr().cast(), len, pages.as_mut_ptr()) };
    assert_eq!(failed, 0);
    pages.into_iter().filter(|page| is_resident(*page)).count()
}

#[test]
fn what_is_dirty_is_zeroed_and_stays() {
    let memories = without_swap();
    let mut first = memory(&memories, 20 * WASM_PAGE);
    let at = first.as_ptr();
    for page in [0, 3, 4, 77, 319] {
        bytes(&mut first)[page * PAGE..(page + 1) * PAGE].fill(0xff);
    }
    drop(first);
    let mut second = memory(&memories, 20 * WASM_PAGE);
    assert_eq!((second.as_ptr(), resident(&*second, 20 * WASM_PAGE)), (at, 5), "another, or given back");
    assert!(is_zero(bytes(&mut second)));
}

#[test]
fn more_than_is_kept_is_given_back() {
    let memories = without_swap();
    for (pages, kept) in [(KEPT_BYTES_MAX / PAGE, KEPT_BYTES_MAX / PAGE), (KEPT_BYTES_MAX / PAGE + 1, 0)] {
        let mut first = memory(&memories, 100 * WASM_PAGE);
        bytes(&mut first)[..pages * PAGE].fill(0xff);
        drop(first);
        let mut second = memory(&memories, 100 * WASM_PAGE);
        assert_eq!(resident(&*second, 100 * WASM_PAGE), kept);
        assert!(is_zero(bytes(&mut second)));
    }
}

/// Some of it is in huge pages where the machine has them: zeroed below the bound, given back above.
#[test]
fn what_has_huge_pages_is_zero_again() {
    let memories = without_swap();
    for (size, written) in
        [(8 << 20, vec![0, 5 * PAGE, 6 << 20]), (24 << 20, (0..24).map(|mib| mib << 20).collect())]
    {
        for _ in 0..3 {
            let mut first = memory(&memories, WASM_PAGE);
            first.grow_to(size).expect("grows");
            assert!(is_zero(bytes(&mut first)), "{size} bytes");
            let at = first.as_ptr();
            drop(first);
            let mut second = memory(&memories, WASM_PAGE);
            assert_eq!(second.as_ptr(), at, "the same slot");
            second.grow_to(size).expect("grows");
            written.iter().for_each(|at| bytes(&mut second)[*at] = 0xff);
        }
    }
}

#[test]
fn with_swap_or_with_what_is_no_list_everything_is_given_back() {
    let (swaps, _file) = list(&[NO_SWAPS, ONE_SWAP].concat());
    let others = ["", "Filename", "junk\n"].map(|text| list(text).0);
    for swaps in others.into_iter().chain([swaps, Swaps::Unknown]) {
        assert!(!swaps.are_off());
        let memories = Memories::with(swaps, MEMORIES_MAX, None);
        let mut first = memory(&memories, LARGE);
        bytes(&mut first).fill(0xff);
        drop(first);
        let mut second = memory(&memories, LARGE);
        assert_eq!(resident(&*second, LARGE), 0);
        assert!(is_zero(bytes(&mut second)));
    }
}

#[test]
fn swap_that_is_turned_on_later_is_seen_at_the_next_reset() {
    let (swaps, mut file) = list(NO_SWAPS);
    let memories = Memories::with(swaps, MEMORIES_MAX, None);
    for kept in [3, 0] {
        let mut first = memory(&memories, LARGE);
        [0, 3 * PAGE, LARGE - 1].iter().for_each(|at| bytes(&mut first)[*at] = 0xff);
        drop(first);
        let second = memory(&memories, LARGE);
        assert_eq!(resident(&*second, LARGE), kept);
        file.write_all(ONE_SWAP.as_bytes()).expect("writes");
    }
}

#[test]
fn this_machines_list_is_read_where_it_is_the_kernels() {
    let text = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if let swaps @ Swaps::List(_) = Swaps::look() {
        assert_eq!(swaps.are_off(), text.lines().count() == 1, "{text}");
    }
    for old in ["6.4.16", "5.15.0", "4.4", "junk", "", "6"] {
        assert!(!is_believed(old), "{old}");
    }
    for new in ["6.5.0", "6.18.44-fc", "7.0-rc1", "10.1"] {
        assert!(is_believed(new), "{new}");
    }
}

#[test]
fn what_one_task_touched_is_not_zeroed_for_ever() {
    let memories = without_swap();
    let touch = |first: usize, last: usize| {
        let mut one = memory(&memories, 10 * WASM_PAGE);
        bytes(&mut one)[first * PAGE..(last + 1) * PAGE].fill(1);
        resident(&*one, 10 * WASM_PAGE)
    };
    // The memory is given back in its turn, from the first reset on.
    touch(0, 159);
    assert!((2..FORGET_EVERY).all(|_| touch(0, 0) == 160));
    assert_eq!((touch(0, 0), touch(0, 0)), (160, 1));
    // A little memory is zeroed a step at a time.
    touch(3, 20);
    assert!((3..FORGET_LITTLE_EVERY).all(|_| touch(0, 0) == 24));
    assert_eq!((touch(0, 0), touch(0, 0), touch(0, 0)), (24, 1, 4));
    // A task that touches more comes between others that touch less, and the memory is soon given back.
    touch(0, 159);
    assert!((1..FORGET_EXCESS_EVERY).all(|_| touch(0, 0) == 160));
    assert_eq!((touch(0, 0), touch(0, 0)), (1, 4));
}

#[test]
fn the_least_is_zeroed_longest() {
    let memories = without_swap();
    let touch = |last: usize| {
        let mut one = memory(&memories, 10 * WASM_PAGE);
        bytes(&mut one)[..(last + 1) * PAGE].fill(1);
        resident(&*one, 10 * WASM_PAGE)
    };
    assert_eq!(touch(LEAST_BYTES / PAGE - 1), 16);
    assert!((1..FORGET_LEAST_EVERY).all(|_| touch(0) == 16));
    assert_eq!(touch(0), 1);
}

/// The kernel is asked, so that nothing is opened by asking.
fn is_open(memory: &dyn LinearMemory, at: usize) -> bool {
    let mut byte = 0u8;
    let here = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let there = libc::iovec { iov_base: memory.as_ptr().wrapping_add(at).cast(), iov_len: 1 };
    // SAFETY: one byte is written, to a place of its own; what cannot be read is an error.
    unsafe { libc::process_vm_readv(libc::getpid(), &here, 1, &there, 1, 0) == 1 }
}

fn open_steps(memory: &dyn LinearMemory) -> Vec<usize> {
    (0..memory.byte_size() / (4 * PAGE)).filter(|step| is_open(memory, step * 4 * PAGE)).collect()
}

#[test]
fn pages_are_opened_by_who_touches_them_and_stay_open_for_the_next() {
    let memories = without_swap();
    let mut first = memory(&memories, 10 * WASM_PAGE);
    let at = first.as_ptr();
    assert_eq!(open_steps(&*first), [0usize; 0]);
    bytes(&mut first)[20 * PAGE + 7] = 1;
    assert_eq!(open_steps(&*first), [5]);
    assert_eq!(bytes(&mut first)[31 * PAGE], 0, "to read is to touch");
    assert_eq!(open_steps(&*first), [5, 6, 7], "one range");
    bytes(&mut first)[17 * PAGE] = 1;
    assert_eq!(open_steps(&*first), [4, 5, 6, 7]);
    drop(first);
    let mut second = memory(&memories, 10 * WASM_PAGE);
    assert_eq!((second.as_ptr(), open_steps(&*second)), (at, vec![4, 5, 6, 7]));
    // This is more than a window, so all of the memory is opened.
    bytes(&mut second)[10 * WASM_PAGE - 1] = 1;
    assert_eq!(open_steps(&*second).len(), 40);
    second.grow_to(11 * WASM_PAGE).expect("grows");
    assert_eq!(open_steps(&*second).len(), 44);
}

#[test]
fn nothing_beyond_a_memory_is_open_and_what_was_is_again_where_it_grows() {
    let memories = without_swap();
    for round in 0..3 {
        let mut one = memory(&memories, WASM_PAGE);
        let at = |page: usize| page * WASM_PAGE;
        assert!(!is_open(&*one, at(1)) && !is_open(&*one, at(2)), "{round}");
        one.grow_to(at(3)).expect("grows");
        assert_eq!((is_open(&*one, at(1)), is_open(&*one, at(2))), (round > 0, round > 0));
        bytes(&mut one)[at(1) - 1..at(2) + 1].fill(1);
        assert!(!is_open(&*one, at(3)));
    }
    // Another memory that is as large from the start finds it closed, but zero.
    let mut one = memory(&memories, 3 * WASM_PAGE);
    assert!(is_zero(bytes(&mut one)));
}

#[test]
fn a_second_memory_at_the_same_time_opens_all_at_once() {
    let memories = without_swap();
    let first = memory(&memories, 4 * WASM_PAGE);
    let mut second = memory(&memories, 4 * WASM_PAGE);
    assert_eq!((open_steps(&*first).len(), open_steps(&*second).len()), (0, 16));
    second.grow_to(5 * WASM_PAGE).expect("grows");
    assert_eq!(open_steps(&*second).len(), 20);
    drop(first);
    drop(second);
    let both = [4, 4].map(|pages| memory(&memories, pages * WASM_PAGE));
    assert!(both.into_iter().all(|mut one| is_zero(bytes(&mut one))));
}

#[test]
fn all_that_wait_together_keep_no_more_than_a_few_can() {
    let memories = without_swap();
    let mut all: Vec<_> = (0..MEMORIES_MAX).map(|_| memory(&memories, 60 * WASM_PAGE)).collect();
    all.iter_mut().for_each(|one| bytes(one).fill(1));
    drop(all);
    let all: Vec<_> = (0..MEMORIES_MAX).map(|_| memory(&memories, 60 * WASM_PAGE)).collect();
    let kept: usize = all.iter().map(|one| resident(&**one, 60 * WASM_PAGE) * PAGE).sum();
    assert!(kept > KEPT_BYTES_MAX && kept <= KEPT_BYTES_IN_ALL_MAX, "{kept}");
}

#[test]
fn there_are_no_more_than_a_worker_has_room_for_and_none_of_another_layout() {
    let memories = without_swap();
    let mut all: Vec<_> = (0..MEMORIES_MAX).map(|_| memory(&memories, WASM_PAGE)).collect();
    assert!(make(&memories, WASM_PAGE).is_err());
    all.pop();
    drop(memory(&memories, 0));
    drop(all);
    assert_eq!(memories.0.slots.hold().waiting.len(), MEMORIES_MAX);
    let other = |bytes, reserved, guard| {
        memories.new_memory(MemoryType::new(1, None), bytes, None, reserved, guard).is_err()
    };
    assert!(other(0, None, GUARD_BYTES) && other(0, Some(MEMORY_BYTES * 2), GUARD_BYTES));
    assert!(other(0, Some(MEMORY_BYTES), GUARD_BYTES * 2));
    assert!(other(MEMORY_BYTES + 1, Some(MEMORY_BYTES), GUARD_BYTES));
}

#[test]
fn a_memory_grows_to_its_room_and_no_further_and_little_stays_accessible() {
    let memories = without_swap();
    let mut first = memory(&memories, WASM_PAGE);
    first.grow_to(300 << 20).expect("grows");
    let at = bytes(&mut first);
    at[299 << 20] = 1;
    at[100] = 1;
    assert!(first.grow_to(MEMORY_BYTES + 1).is_err());
    assert_eq!(first.byte_size(), 300 << 20);
    drop(first);
    assert_eq!(memories.0.slots.hold().waiting[0].accessible, WASM_PAGE);
    let mut second = memory(&memories, 64 << 20);
    assert!(is_zero(bytes(&mut second)));
    second.grow_to(300 << 20).expect("grows");
    assert!(is_zero(bytes(&mut second)));
    drop(second);
    assert_eq!(memories.0.slots.hold().waiting[0].accessible, WAITING_BYTES_MAX);
}

#[test]
fn pages_beyond_what_is_accessible_are_not_kept_without_bound() {
    let memories = without_swap();
    let whole = SCANNED_BYTES_MAX;
    // Each memory leaves as much as it may, below what the one before left.
    const STEP: usize = KEPT_BYTES_MAX / 4;
    for step in 0..12 {
        let mut one = memory(&memories, 0);
        one.grow_to(whole - step * STEP).expect("grows");
        let at = one.byte_size() - STEP;
        bytes(&mut one)[at..].fill(1);
    }
    let mut last = memory(&memories, 0);
    last.grow_to(whole).expect("grows");
    assert!(resident(&*last, whole) * PAGE <= KEPT_BYTES_MAX);
    assert!(is_zero(bytes(&mut last)));
}

/// Pages at the start, pages after growing, and what it writes where.
type Task = (usize, usize, Vec<(usize, usize)>);

fn tasks() -> impl Strategy<Value = Vec<Task>> {
    let size = prop_oneof![0..4usize, 0..8usize, 10..40usize, 60..68usize, 100..300usize];
    let write = (any::<usize>(), prop_oneof![1..64usize, 1000..20_000usize, 100_000..8_000_000usize]);
    vec((size.clone(), size, vec(write, 0..12)), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_byte_is_zero_again_whatever_was_written(tasks in tasks(), held in 1..4usize) {
        let memories = without_swap();
        let mut others = Vec::new();
        for (start, grown, writes) in tasks {
            let mut one = memory(&memories, start * WASM_PAGE);
            prop_assert!(is_zero(bytes(&mut one)));
            if grown > start {
                one.grow_to(grown * WASM_PAGE).expect("grows");
                prop_assert!(is_zero(bytes(&mut one)));
            }
            for beyond in [0, PAGE, 3 * PAGE, 40 * PAGE, 2 << 20, 8 << 20] {
                prop_assert!(!is_open(&*one, one.byte_size() + beyond), "{beyond}");
            }
            let all = bytes(&mut one);
            for (at, len) in writes {
                if !all.is_empty() {
                    let at = at % all.len();
                    let end = all.len().min(at + len);
                    all[at..end].fill(0xa5);
                }
            }
            // Several memories live at once, as those of one module do.
            others.push(one);
            if others.len() > held {
                others.remove(0);
            }
        }
    }
}
