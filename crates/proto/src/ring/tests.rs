use std::io::{Read, Write};

use super::*;

fn pair() -> (End, End) {
    pair_within(u64::MAX)
}

fn pair_within(file_bytes_max: u64) -> (End, End) {
    let (fd, host) = create_within(file_bytes_max).expect("memfd");
    (host, open(fd.as_fd()).expect("mapping"))
}

#[test]
fn bytes_come_out_as_they_went_in_across_many_wraps() {
    for file_bytes_max in [u64::MAX, 2_100_224, 100_000, 0] {
        across_many_wraps(pair_within(file_bytes_max));
    }
}

fn across_many_wraps((host, worker): (End, End)) {
    let (mut to_worker, _) = host.split();
    let (_, mut from_host) = worker.split();
    let total = 5 * host.ring_bytes() + 12_345;
    let reader = std::thread::spawn(move || {
        let mut seen = vec![0; total];
        from_host.read_exact(&mut seen).expect("reads");
        seen
    });
    let sent: Vec<u8> = (0..total).map(|i| (i * 31 % 251) as u8).collect();
    for piece in sent.chunks(7_919) {
        to_worker.write_all(piece).expect("writes");
    }
    assert!(reader.join().expect("reader") == sent);
}

#[test]
fn a_ping_pong_never_loses_a_wake_up() {
    let (host, worker) = pair();
    let (mut host_out, mut host_in) = host.split();
    let echo = std::thread::spawn(move || {
        let (mut out, mut input) = worker.split();
        let mut byte = [0];
        for _ in 0..20_000 {
            input.read_exact(&mut byte).expect("reads");
            out.write_all(&byte).expect("writes");
        }
    });
    let mut byte = [0];
    for round in 0..20_000u32 {
        host_out.write_all(&[round as u8]).expect("writes");
        host_in.read_exact(&mut byte).expect("reads");
        assert_eq!(byte[0], round as u8);
    }
    echo.join().expect("echo");
}

#[test]
fn positions_that_cannot_be_are_violations_not_copies() {
    let (host, worker) = pair();
    let (host_out, host_in) = host.split();
    let lane = worker.region.lane(Side::Host);
    for lie in [RING_BYTES as u64 + 1, u64::MAX, 1 << 63] {
        lane.put.0.store(lie, Ordering::SeqCst);
        assert_eq!(host_in.available(), Err(Violation));
    }
    worker.region.lane(Side::Worker).taken.0.store(1, Ordering::SeqCst);
    assert_eq!(host_out.space(), Err(Violation), "more taken than was ever put");
}

#[test]
fn of_two_runs_that_are_to_stop_the_later_one_counts() {
    let (host, worker) = pair();
    assert_eq!(worker.run_to_stop(), 0);
    for (asked, counts) in [(3, 3), (2, 3), (7, 7)] {
        host.ask_to_stop(asked);
        assert_eq!(worker.run_to_stop(), counts);
    }
}

#[test]
fn a_run_is_begun_or_taken_back_and_never_both() {
    let (host, worker) = pair();
    for run in 1..20_000_u64 {
        let index = (run % CLAIMS as u64) as u8;
        host.open_claim(index, run);
        let begun = std::thread::scope(|scope| {
            let begins = scope.spawn(|| worker.claim(index, run));
            let revoked = run % 2 == 0 && host.revoke(index, run);
            let begun = begins.join().expect("claims");
            assert!(begun != revoked, "run {run}");
            begun
        });
        assert!(!host.revoke(index, run));
        assert!(!worker.claim(index, run));
        assert!(begun || run % 2 == 0);
        if run > 300 {
            break;
        }
    }
    // A word that stands for a later run says no to the earlier one.
    host.open_claim(3, 70_000);
    assert!(!worker.claim(3, 69_936));
    assert!(!worker.claim(200, 1), "an index out of range");
}

#[test]
fn the_ring_file_cannot_be_resized() {
    let (fd, _host) = create().expect("memfd");
    assert!(rustix::fs::ftruncate(&fd, 0).is_err());
    assert!(rustix::fs::ftruncate(&fd, map_bytes(RING_BYTES) as u64 * 2).is_err());
}

#[test]
fn rings_are_as_large_as_a_limit_on_files_has_room_for() {
    for (limit, bytes) in [
        (u64::MAX, RING_BYTES),
        (map_bytes(RING_BYTES) as u64, RING_BYTES),
        (map_bytes(RING_BYTES) as u64 - 1, RING_BYTES / 2),
        (100 << 10, 32 << 10),
        (0, RING_BYTES_MIN),
    ] {
        assert_eq!(ring_bytes(limit), bytes, "{limit}");
    }
    // A file of any other size is none of ours.
    let file = crate::memfd::empty("odd").expect("memfd");
    for bytes in [0, 4096, map_bytes(RING_BYTES_MIN / 2), map_bytes(3 << 12), map_bytes(2 * RING_BYTES)] {
        rustix::fs::ftruncate(&file, bytes as u64).expect("resizes");
        assert!(open(file.as_fd()).is_err(), "{bytes}");
    }
}
