//! Every target over its seeds and a few thousand mutations of them, always the same: what `cargo test`
//! can say without a fuzzer. `./run` says more.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, Once, PoisonError};

use wasmpool_fuzz::targets::{ALL, Target};

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// The host catches panics of others' code: in a target, one that was caught is a finding, too.
fn watch_panics() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            usual(info);
        }));
    });
}

/// One target at a time: that no descriptor leaks is seen by the next one's number.
static TURN: Mutex<()> = Mutex::new(());

fn smoke(name: &str, mutations: usize) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    watch_panics();
    let (_, run, seeds): &Target = ALL.iter().find(|target| target.0 == name).expect("a target");
    let seeds = seeds();
    let hold = |what: &str, input: &[u8]| {
        let ended = panic::catch_unwind(AssertUnwindSafe(|| run(input)));
        assert!(ended.is_ok() && !PANICKED.get(), "{name}, {what}: {input:02x?}");
    };
    for (index, seed) in seeds.iter().enumerate() {
        hold(&format!("seed {index}"), seed);
        // Every beginning, where there are not too many.
        (0..seed.len().min(64)).for_each(|end| hold("a beginning", &seed[..end]));
    }
    let regressions = format!("{}/regressions/{name}", env!("CARGO_MANIFEST_DIR"));
    for entry in std::fs::read_dir(regressions).into_iter().flatten().flatten() {
        hold(&entry.path().to_string_lossy(), &std::fs::read(entry.path()).expect("reads"));
    }
    let mut random = Random(0x5eed);
    for number in 0..mutations {
        let mut input = random.pick(&seeds).clone();
        for _ in 0..1 + random.below(6) {
            random.mutate(&mut input, &seeds);
        }
        hold(&format!("mutation {number}"), &input);
    }
}

/// xorshift64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn mutate(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len());
        match self.below(7) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = *self.pick(&[0, 1, 2, 0x7f, 0x80, 0xfe, 0xff]),
            2 => input.insert(at, self.below(256) as u8),
            3 => drop(input.drain(at..(at + self.below(8)).min(input.len()))),
            4 => input.truncate(at),
            5 => {
                let other = self.pick(seeds).clone();
                let from = self.below(other.len());
                input.truncate(at);
                input.extend(&other[from..]);
            }
            _ => {
                let run = vec![self.below(256) as u8; self.below(40)];
                input.splice(at..at, run);
            }
        }
    }
}

#[test]
fn a_frame_of_a_worker_is_read_as_it_was_written_or_refused() {
    smoke("host_frames", 5_000);
}

#[test]
fn a_frame_of_the_host_is_read_as_it_was_written_or_refused() {
    smoke("worker_frames", 5_000);
}

#[test]
fn whatever_workers_do_every_task_ends_once() {
    smoke("host_link", 1_000);
}

#[test]
fn a_control_message_is_received_as_it_was_sent_or_refused() {
    smoke("control", 3_000);
}

#[test]
fn an_envelope_is_what_the_abi_says_whatever_the_guest_returns() {
    smoke("abi", 5_000);
}

#[test]
fn a_description_that_is_accepted_keeps_every_bound() {
    smoke("description", 5_000);
}

#[test]
fn a_section_that_is_accepted_makes_a_description_that_is_accepted() {
    smoke("section", 3_000);
}

#[test]
fn debug_information_is_read_within_its_bounds_whatever_it_says() {
    smoke("dwarf", 5_000);
}

#[test]
fn what_is_found_in_the_cache_is_what_was_stored() {
    smoke("cache", 1_000);
}

#[test]
fn no_text_that_is_shown_drives_a_terminal() {
    smoke("text", 3_000);
}
