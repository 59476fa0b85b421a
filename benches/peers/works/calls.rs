//! Small tasks: one at a time, many on their way, `map`.

use wasmpool::Bytes;

use super::Bench;
use crate::crowd::Crowd;
use crate::engine::{Guest, Kept, on_threads};
use crate::floors::{self, Wake};
use crate::ours::{self, WORKERS, prebuilt};
use crate::peers::Under;
use crate::work::{Goal, MICROS, TASKS, Work, p50, seconds};

const PINGS: usize = 2000;
/// Tasks of one round, and the peers' of one round, who take longer.
const TASKS_OURS: usize = 20_000;
const TASKS_PEERS: usize = 4000;

pub(super) fn futex_asleep<'a>(name: &str, _: &'a Bench) -> anyhow::Result<Work<'a>> {
    Ok(Work::new(name, "two processes wake each other by futex, p50", MICROS)
        .floor("asleep, on one CPU", || floors::round_trip(Wake::AsleepOnOne, PINGS))
        .floor("asleep, on two CPUs", || floors::round_trip(Wake::AsleepOnTwo, PINGS)))
}

pub(super) fn futex_spinning<'a>(name: &str, _: &'a Bench) -> anyhow::Result<Work<'a>> {
    let work = Work::new(name, "two processes look at a word without pause, p50", MICROS);
    Ok(work.floor("shared word, spinning", || floors::round_trip(Wake::Spinning, PINGS)))
}

pub(super) fn socketpair<'a>(name: &str, _: &'a Bench) -> anyhow::Result<Work<'a>> {
    let work = Work::new(name, "64 bytes through a pair of sockets and back, p50", MICROS);
    Ok(work.floor("socketpair", || floors::round_trip(Wake::Socket, PINGS)))
}

fn guest(task: &str, scan: bool) -> anyhow::Result<Guest> {
    Guest::new(&std::fs::read(prebuilt("echo"))?, task, scan)
}

fn add_in(guest: &Guest, count: usize) -> anyhow::Result<f64> {
    let mut number = 0_i64;
    p50(count, || {
        number += 1;
        guest.call(&postcard::to_stdvec(&(number, 1_i64))?).map(drop)
    })
}

pub(super) fn instance<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let work = Work::new(name, "a fresh instance, alloc, input, call, envelope; in process, p50", MICROS);
    let guest = guest("add", bench.scan)?;
    Ok(work.floor("in process, 1 thread", move || add_in(&guest, TASKS_OURS / 2)))
}

pub(super) fn instance_with_scan<'a>(name: &str, _: &'a Bench) -> anyhow::Result<Work<'a>> {
    let work = Work::new(name, "the same, reset by a scan of the page map", MICROS);
    if let Some(objection) = sandbox::pagemap::objection() {
        anyhow::bail!("{objection}");
    }
    let guest = guest("add", true)?;
    Ok(work.floor("in process, 1 thread", move || add_in(&guest, TASKS_OURS / 2)))
}

/// Returns what a round trip is held against: two wake-ups, and the task itself in this process.
fn with_round_trip_floors<'a>(
    work: Work<'a>,
    bench: &Bench,
    task: &str,
    input: Vec<u8>,
) -> anyhow::Result<Work<'a>> {
    let guest = std::rc::Rc::new(guest(task, bench.scan)?);
    let floor = |wake| {
        let guest = guest.clone();
        let input = input.clone();
        move || Ok(floors::round_trip(wake, PINGS)? + p50(PINGS, || guest.call(&input).map(drop))?)
    };
    Ok(work
        .floor("asleep, one CPU + instance", floor(Wake::AsleepOnOne))
        .floor("asleep, two CPUs + instance", floor(Wake::AsleepOnTwo))
        .floor("spinning + instance", floor(Wake::Spinning))
        .floor("socketpair + instance", floor(Wake::Socket)))
}

pub(super) fn round_trip<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    let hash = pool.load_file(prebuilt("echo"))?.task::<Vec<u8>, u64>("hash")?;
    let data = vec![b'x'; 64];
    let encoded = postcard::to_stdvec(&data)?;
    let peers = &bench.peers;
    let work = Work::new(name, "a typed task of 64 bytes, one at a time, p50", MICROS)
        .goal(Goal::PeerLeast(10.0))
        .goal(Goal::FloorMost(1.5))
        .ours(move || p50(3000, || Ok(pool.submit(&hash, &data)?.result().map(drop)?)));
    Ok(with_round_trip_floors(work, bench, "hash", encoded)?
        .python(peers, Under::All, ("executor", "round_trip"), 500, |seconds| seconds)
        .python(peers, Under::Usual, ("multiprocessing", "round_trip"), 500, |seconds| seconds)
        .python(peers, Under::Usual, ("pebble", "round_trip"), 300, |seconds| seconds)
        .python(peers, Under::Usual, ("loky", "round_trip"), 300, |seconds| seconds)
        .python(peers, Under::Usual, ("wasmtime", "round_trip"), 300, |seconds| seconds))
}

pub(super) fn round_trip_raw<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    let echo = pool.load_file(prebuilt("echo"))?.raw_task("echo")?;
    let data = Bytes::from(vec![b'x'; 64]);
    let input = data.to_vec();
    let work = Work::new(name, "an echo of 64 bytes, one at a time, p50", MICROS)
        .ours(move || p50(3000, || Ok(pool.submit(&echo, &data)?.result().map(drop)?)));
    with_round_trip_floors(work, bench, "echo", input)
}

/// Tasks a second of so many `add`s, each in an instance of its own, on so many threads at once.
fn adds_on(threads: usize, scan: bool) -> anyhow::Result<impl FnMut() -> anyhow::Result<f64>> {
    // An engine each, as workers have: its pool of instances is not what is measured.
    let mut guests = (0..threads).map(|_| guest("add", scan)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(move || {
        let once = |guest: &mut Guest, n| guest.call(&postcard::to_stdvec(&(n as i64, 1_i64))?).map(drop);
        Ok(TASKS_OURS as f64 / seconds(|| on_threads(&mut guests, TASKS_OURS, once))?)
    })
}

/// The same in as many processes: threads of one process stand in each other's way in the kernel,
/// which resets all instances of a process under one lock.
fn adds_in_processes(bench: &Bench) -> anyhow::Result<impl FnMut() -> anyhow::Result<f64>> {
    let mut crowd = Crowd::start(WORKERS, TASKS_OURS / WORKERS, bench.scan)?;
    Ok(move || Ok(TASKS_OURS as f64 / crowd.run()?))
}

pub(super) fn pipelined<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    let add = pool.load_file(prebuilt("echo"))?.task::<(i64, i64), i64>("add")?;
    let peers = &bench.peers;
    let rate = |seconds: f64| 1.0 / seconds;
    Ok(Work::new(name, "20,000 tiny tasks submitted, then as_completed", TASKS)
        .goal(Goal::PeerLeast(15.0))
        .goal(Goal::FloorLeast(0.8))
        .ours(move || {
            let inputs = (0..TASKS_OURS as i64).map(|n| (n, 1));
            Ok(TASKS_OURS as f64 / seconds(|| ours::pipelined(pool, &add, inputs))?)
        })
        .floor(format!("in process, {WORKERS} threads"), adds_on(WORKERS, bench.scan)?)
        .floor(format!("{WORKERS} processes"), adds_in_processes(bench)?)
        .floor("in process, 1 thread", adds_on(1, bench.scan)?)
        .python(peers, Under::All, ("executor", "pipelined"), TASKS_PEERS, rate)
        .python(peers, Under::Usual, ("pebble", "pipelined"), TASKS_PEERS, rate)
        .python(peers, Under::Usual, ("loky", "pipelined"), TASKS_PEERS / 2, rate)
        .python(peers, Under::Usual, ("wasmtime", "pipelined"), TASKS_PEERS / 4, rate))
}

/// Microseconds a task of a `map` over tiny tasks.
fn mapped(bench: &Bench) -> anyhow::Result<impl FnMut() -> anyhow::Result<f64>> {
    let pool = bench.pool()?;
    let add = pool.load_file(prebuilt("echo"))?.task::<(i64, i64), i64>("add")?;
    let count = TASKS_OURS as i64;
    Ok(move || {
        let all = seconds(|| {
            let sum = pool.map(&add, (0..count).map(|n| (n, n))).sum::<Result<i64, _>>()?;
            anyhow::ensure!(sum == count * (count - 1), "the sum is {sum}");
            Ok(())
        });
        Ok(all? / count as f64)
    })
}

/// Seconds a task, of a rate.
fn each(mut rate: impl FnMut() -> anyhow::Result<f64>) -> impl FnMut() -> anyhow::Result<f64> {
    move || Ok(1.0 / rate()?)
}

pub(super) fn map<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let peers = &bench.peers;
    Ok(Work::new(name, "map of tiny tasks, each; a fresh instance each", MICROS)
        .goal(Goal::PeerLeast(3.0))
        .ours(mapped(bench)?)
        .floor(format!("in process, {WORKERS} threads"), each(adds_on(WORKERS, bench.scan)?))
        .floor(format!("{WORKERS} processes"), each(adds_in_processes(bench)?))
        .python(peers, Under::All, ("multiprocessing", "map_1"), TASKS_OURS / 2, |seconds| seconds))
}

pub(super) fn map_reuse<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let peers = &bench.peers;
    let work =
        Work::new(name, "map of tiny tasks, each; instances are kept", MICROS).goal(Goal::PeerLeast(1.0));
    let pool = bench.pool()?;
    let add = pool.load_file(prebuilt("echo"))?.task::<(i64, i64), i64>("add")?;
    // There are as many as with the peer: they take a fraction of a microsecond.
    let count = 100_000;
    let work = work.ours(move || {
        let map = pool.map(&add, (0..count).map(|n| (n, n))).options(ours::reuse());
        let all = seconds(|| Ok(map.sum::<Result<i64, _>>().map(drop)?));
        Ok(all? / count as f64)
    });
    let guests = (0..WORKERS).map(|_| guest("add", bench.scan)).collect::<anyhow::Result<Vec<_>>>()?;
    let floor = move || {
        let mut kept = guests.iter().map(Guest::instance).collect::<anyhow::Result<Vec<Kept>>>()?;
        let once = |kept: &mut Kept, n| kept.call(&postcard::to_stdvec(&(n as i64, n as i64))?).map(drop);
        Ok(seconds(|| on_threads(&mut kept, TASKS_OURS, once))? / TASKS_OURS as f64)
    };
    Ok(work.floor(format!("kept, in process, {WORKERS} threads"), floor).python(
        peers,
        Under::All,
        ("multiprocessing", "map_default"),
        100_000,
        |seconds| seconds,
    ))
}

pub(super) fn map_local<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    let add = pool.load_file(prebuilt("echo"))?.task::<(i64, i64), i64>("add")?;
    let count = 100_000;
    let work = Work::new(name, "the same, of an iterator that stays on its thread", MICROS);
    Ok(work.ours(move || {
        let map = pool.map_local(&add, (0..count).map(|n| (n, n))).options(ours::reuse());
        let all = seconds(|| Ok(map.sum::<Result<i64, _>>().map(drop)?));
        Ok(all? / count as f64)
    }))
}

pub(super) fn map_chunked<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let peers = &bench.peers;
    Ok(Work::new(name, "the same map, beside Python's in chunks of 256", MICROS)
        .ours(mapped(bench)?)
        .floor(format!("in process, {WORKERS} threads"), each(adds_on(WORKERS, bench.scan)?))
        .floor(format!("{WORKERS} processes"), each(adds_in_processes(bench)?))
        .python(peers, Under::All, ("executor", "map_256"), 100_000, |seconds| seconds))
}
