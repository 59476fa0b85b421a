//! WASI commands, and the command line.

use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Instant;

use benches::interpreters::Loop;
use wasmpool::module::{Interrupt, ModuleOptions};
use wasmpool::task::CommandInput;

use super::Bench;
use crate::engine::{self, Stored};
use crate::floors;
use crate::ours::{self, kept_dir, prebuilt};
use crate::work::{Goal, MICROS, MILLIS, Role, Work, p50, seconds};

pub(super) fn small<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    const CSV: &str = "name,age\nann,30\nbob,40\n";
    let pool = bench.pool()?;
    let command = pool.load_file(prebuilt("csv_stats"))?.command()?;
    let input = CommandInput::new().args(["--column", "age"]).stdin(CSV);
    let same = engine::Command::compile(&std::fs::read(prebuilt("csv_stats"))?, bench.scan)?;
    Ok(Work::new(name, "csv_stats of 24 bytes, one at a time, warm, p50", MICROS)
        .goal(Goal::Most(150.0))
        .ours(move || p50(1000, || Ok(pool.submit(&command, &input)?.result().map(drop)?)))
        .floor("in process", move || {
            p50(1000, || same.run(&["csv_stats.wasm", "--column", "age"], CSV.as_bytes()).map(drop))
        }))
}

/// A command that asks for something of WASI, or it would be no command.
const LEAST_WAT: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (call $exit (i32.const 0))))"#;

pub(super) fn least<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    let wasm = wat::parse_str(LEAST_WAT)?;
    let command = pool.load(&wasm)?.command()?;
    let input = CommandInput::new();
    let same = engine::Command::compile(&wasm, bench.scan)?;
    Ok(Work::new(name, "a command that exits at once, one at a time, warm, p50", MICROS)
        .goal(Goal::Most(150.0))
        .ours(move || p50(2000, || Ok(pool.submit(&command, &input)?.result().map(drop)?)))
        .floor("in process", move || p50(2000, || same.run(&["least.wasm"], &[]).map(drop))))
}

const PRINT: [&str; 2] = ["-c", "print(1)"];

pub(super) fn cpython_print<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    let wasm = bench.peers.interpreters.cpython()?;
    let command = pool.load_file(wasm)?.command()?;
    let same = Stored::new(wasm, &kept_dir(), bench.scan)?.load()?;
    let input = CommandInput::new().args(PRINT);
    Ok(Work::new(name, "CPython for WASI, print(1), one at a time, warm, p50", MILLIS)
        .goal(Goal::FloorMost(1.1))
        .ours(move || {
            p50(5, || {
                let stdout = pool.submit(&command, &input)?.result()?.stdout;
                anyhow::ensure!(stdout.as_ref() == b"1\n", "it printed {stdout:?}");
                Ok(())
            })
        })
        .floor("in process", move || {
            p50(5, || {
                let stdout = same.run(&[&["python.wasm"], &PRINT[..]].concat(), &[])?;
                anyhow::ensure!(stdout.as_ref() == b"1\n", "it printed {stdout:?}");
                Ok(())
            })
        }))
}

/// The loop that the interpreters run.
const LOOP: Loop = Loop(200_000);

/// An interpreter: CPython for WASI runs a loop.
pub(super) fn cpython_loop<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let wasm = std::fs::read(bench.peers.interpreters.cpython()?)?;
    let input = CommandInput::new().args(["-c", &LOOP.python()]);
    interpreter_loop(name, "CPython", bench, &wasm, input)
}

/// Another interpreter: QuickJS for WASI runs the same loop.
pub(super) fn quickjs_loop<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let wasm = bench.peers.interpreters.quickjs(&LOOP.javascript())?;
    interpreter_loop(name, "QuickJS", bench, &wasm, CommandInput::new())
}

fn interpreter_loop<'a>(
    name: &str,
    interpreter: &str,
    bench: &'a Bench,
    wasm: &[u8],
    input: CommandInput,
) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    let unchecked = ModuleOptions::new().interrupt(Interrupt::Kill);
    let commands = [pool.load(wasm)?.command()?, pool.load_with(wasm, unchecked)?.command()?];
    let prints = LOOP.prints();
    let [ours, unchecked] = commands.map(|command| {
        let input = input.clone();
        let prints = prints.clone();
        move || {
            p50(5, || {
                let stdout = pool.submit(&command, &input)?.result()?.stdout;
                anyhow::ensure!(stdout == prints, "it printed {stdout:?}");
                Ok(())
            })
        }
    });
    let title = format!("{interpreter} for WASI runs a loop, beside the same code without safepoints");
    Ok(Work::new(name, title, MILLIS).goal(Goal::FloorMost(1.15)).ours(ours).floor("unchecked", unchecked))
}

/// Measures the time to the first instruction: `load_file` in a pool that has never seen the module, with a
/// worker that is up, and the first `-V`, less what a later `-V` takes. The rest is reading, checking and
/// mapping; the interpreter's own work, which `-V` hardly does any of, cancels out.
pub(super) fn cpython_load<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let wasm = bench.peers.interpreters.cpython()?;
    // Into the cache, if it is not there.
    bench.pool()?.load_file(wasm)?;
    let stored = Rc::new(Stored::new(wasm, &kept_dir(), bench.scan)?);
    let again = stored.clone();
    let input = CommandInput::new().arg("-V");
    let load_and_run = move || -> anyhow::Result<[f64; 3]> {
        let pool = ours::warm(bench.builder(1).build()?)?;
        // A command, too: what WASI needs once is no part of this.
        let csv_stats = pool.load_file(prebuilt("csv_stats"))?.command()?;
        pool.submit(&csv_stats, &CommandInput::new().arg("--help"))?.result()?;
        let began = Instant::now();
        let command = pool.load_file(wasm)?.command()?;
        let loaded = began.elapsed().as_secs_f64();
        pool.submit(&command, &input)?.result()?;
        let first = began.elapsed().as_secs_f64();
        Ok([loaded, first, p50(9, || Ok(pool.submit(&command, &input)?.result().map(drop)?))?])
    };
    let load_only = load_and_run.clone();
    Ok(Work::new(name, "CPython (26 MB) from the cache to its first instruction", MILLIS)
        .goal(Goal::Most(5.0))
        .rounds_least(7)
        .ours(move || load_and_run().map(|[_, first, later]| first - later))
        .floor("in process, mapped", move || seconds(|| stored.load().map(drop)))
        .floor("in process, mapped, first -V", move || {
            let began = Instant::now();
            let command = again.load()?;
            command.run(&["python.wasm", "-V"], &[])?;
            let first = began.elapsed().as_secs_f64();
            Ok(first - p50(9, || command.run(&["python.wasm", "-V"], &[]).map(drop))?)
        })
        // This is no peer, but a part of our own figure that is shown beside it.
        .side(
            Role::Peer,
            "ours: load_file alone",
            Ok(Box::new(move || load_only().map(|[loaded, ..]| loaded))),
        ))
}

fn process(program: &Path, arguments: &[&str]) -> anyhow::Result<f64> {
    seconds(|| {
        let status = std::process::Command::new(program).args(arguments).stdout(Stdio::null()).status()?;
        anyhow::ensure!(status.success(), "{} says {status}", program.display());
        Ok(())
    })
}

pub(super) fn command_line<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    const TIMES: usize = 5;
    let work = Work::new(name, "wasmpool run, a cached small module, whole command, p50", MILLIS)
        .goal(Goal::Most(20.0));
    let mut work = match benches::command() {
        None => {
            work.side(Role::Ours, "wasmpool", Err("the command is not built: cargo build --release".into()))
        }
        Some(program) => {
            let cache = kept_dir().join("cache");
            let module = prebuilt("primes");
            let cache = cache.to_string_lossy().into_owned();
            let module = module.to_string_lossy().into_owned();
            work.ours(move || {
                let arguments = ["--cache-dir", &cache, "run", &module, "count", "--input", "1000"];
                p50(TIMES, || process(&program, &arguments).map(drop))
            })
        }
    };
    work = work.floor("the least process (true)", || p50(TIMES, || floors::process().map(drop)));
    for python in &bench.peers.pythons {
        let base = python.base.clone();
        let label = format!("python {} -c 'print(1)'", python.version);
        let run = move || p50(TIMES, || process(&base, &PRINT).map(drop));
        work = work.side(Role::Peer, label, Ok(Box::new(run)));
    }
    Ok(work)
}
