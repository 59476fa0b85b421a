//! Large inputs and outputs.

use wasmpool::Bytes;

use super::Bench;
use crate::engine::Guest;
use crate::floors::{self, Copies, Wake};
use crate::ours::prebuilt;
use crate::peers::Under;
use crate::work::{Goal, MIB_PER_SECOND, MICROS, Work, p50, seconds};

const MIB: usize = 1 << 20;

/// Copies that an echo cannot do without while memory is not shared: the host's input into the
/// ring, the ring into the guest, the guest's own copy, the guest's into the ring, the ring into the
/// host's output.
const ECHO_COPIES: usize = 5;

pub(super) fn echo_16mib<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    const ECHOES: usize = 8;
    let pool = bench.pool()?;
    let echo = pool.load_file(prebuilt("echo"))?.raw_task("echo")?;
    let data = Bytes::from(vec![0; 16 * MIB]);
    let guest = Guest::new(&std::fs::read(prebuilt("echo"))?, "echo", bench.scan)?;
    let input = data.clone();
    let mut copies = Copies::new(16 * MIB, ECHO_COPIES);
    let peers = &bench.peers;
    let rate = |seconds: f64| 16.0 / seconds;
    Ok(Work::new(name, "an echo of 16 MiB", MIB_PER_SECOND)
        .goal(Goal::PeerLeast(15.0))
        .goal(Goal::FloorLeast(0.5))
        .ours(move || {
            let all = seconds(|| {
                for _ in 0..ECHOES {
                    let output = pool.submit(&echo, &data)?.result()?;
                    anyhow::ensure!(output.len() == data.len(), "{} bytes came back", output.len());
                }
                Ok(())
            });
            Ok((16 * ECHOES) as f64 / all?)
        })
        .floor(format!("memcpy, {ECHO_COPIES} times"), move || Ok(16.0 / copies.run()?))
        // Three copies, and the page faults of an instance that is fresh each time.
        .floor("in process, fresh instance", move || Ok(16.0 / p50(ECHOES, || guest.call(&input).map(drop))?))
        .python(peers, Under::All, ("executor", "echo_16mib"), 3, rate)
        .python(peers, Under::Usual, ("multiprocessing", "echo_16mib"), 3, rate)
        .python(peers, Under::Usual, ("wasmtime", "echo_16mib"), 3, rate))
}

/// Takes its input and answers with its length alone: what is measured is the way in.
const LENGTH_WAT: &str = r#"(module
    (memory (export "memory") 40)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 65536)
    (func (export "length") (param $at i32) (param $len i32) (result i64)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i32.store (i32.const 1025) (local.get $len))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32)) (i64.const 5))))"#;

pub(super) fn argument_1mib<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    let wasm = wat::parse_str(LENGTH_WAT)?;
    let length = pool.load(&wasm)?.raw_task("length")?;
    let data = Bytes::from(vec![0; MIB]);
    let guest = Guest::new(&wasm, "length", bench.scan)?;
    let input = data.clone();
    let mut copies = Copies::new(MIB, 1);
    let peers = &bench.peers;
    let same = |seconds| seconds;
    Ok(Work::new(name, "an argument of 1 MiB, one at a time, p50", MICROS)
        .goal(Goal::PeerLeast(5.0))
        .ours(move || p50(300, || Ok(pool.submit(&length, &data)?.result().map(drop)?)))
        .floor("asleep + instance + memcpy", move || {
            let copy = p50(100, || copies.run().map(drop))?;
            Ok(floors::round_trip(Wake::AsleepOnOne, 500)?
                + p50(100, || guest.call(&input).map(drop))?
                + copy)
        })
        .python(peers, Under::All, ("pebble", "argument_1mib"), 50, same)
        .python(peers, Under::All, ("multiprocessing", "argument_1mib"), 50, same)
        .python(peers, Under::All, ("executor", "argument_1mib"), 50, same))
}
