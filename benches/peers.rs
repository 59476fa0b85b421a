//! The pool and its peer in one run, in interleaved rounds: `cargo bench --bench peers`.
//!
//! A figure means something only beside another from the same run, so what counts is the
//! ratio. The peer is `concurrent.futures.ProcessPoolExecutor` of the `python3` at hand;
//! where there is none, that is said and its column stays empty.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use wasmpool::{Bytes, Pool, RawTask, Task, as_completed};

const WORKERS: usize = 2;
const ROUNDS: usize = 5;

/// One row: what both sides do, how often, and per what its figure is given.
struct Work {
    name: &'static str,
    title: &'static str,
    ours: usize,
    theirs: usize,
    bytes: Option<u64>,
}

const WORKS: [Work; 4] = [
    Work { name: "round_trip", title: "64 bytes, one at a time", ours: 3000, theirs: 1000, bytes: None },
    Work {
        name: "pipelined",
        title: "20,000 submits, as_completed",
        ours: 20_000,
        theirs: 5000,
        bytes: None,
    },
    Work {
        name: "map",
        title: "map of tiny tasks (Python: chunks of 256)",
        ours: 20_000,
        theirs: 100_000,
        bytes: None,
    },
    Work { name: "echo_16mib", title: "16 MiB echo", ours: 10, theirs: 3, bytes: Some(16 << 20) },
];

struct Ours {
    pool: Pool,
    echo: RawTask,
    add: Task<(i64, i64), i64>,
}

impl Ours {
    fn new() -> anyhow::Result<Ours> {
        let pool = Pool::builder().workers(WORKERS).build()?;
        let module = pool.load_file("guest-tasks/prebuilt/echo.wasm")?;
        let (echo, add) = (module.raw_task("echo")?, module.task("add")?);
        // Both workers up, as the peer's are.
        while pool.worker_pids().len() < WORKERS {
            let futures: Vec<_> = (0..64).map(|n| pool.submit(&add, &(n, 1))).collect::<Result<_, _>>()?;
            for future in futures {
                future.result()?;
            }
        }
        Ok(Ours { pool, echo, add })
    }

    fn run(&self, work: &Work) -> anyhow::Result<Duration> {
        let count = work.ours;
        let began = Instant::now();
        match work.name {
            "round_trip" => {
                let data = Bytes::from(vec![b'x'; 64]);
                for _ in 0..count {
                    self.pool.submit(&self.echo, &data)?.result()?;
                }
            }
            "pipelined" => {
                let futures: Vec<_> = (0..count as i64)
                    .map(|n| self.pool.submit(&self.add, &(n, 1)))
                    .collect::<Result<_, _>>()?;
                for future in as_completed(futures) {
                    future.result()?;
                }
            }
            "map" => {
                let sum: i64 =
                    self.pool.map(&self.add, (0..count as i64).map(|n| (n, n))).sum::<Result<i64, _>>()?;
                assert_eq!(sum, (count * (count - 1)) as i64);
            }
            _ => {
                let data = Bytes::from(vec![0; 16 << 20]);
                for _ in 0..count {
                    assert_eq!(self.pool.submit(&self.echo, &data)?.result()?.len(), data.len());
                }
            }
        }
        Ok(began.elapsed())
    }
}

/// The Python side, as a process that answers line by line.
struct Peer {
    child: Child,
    /// Closed to make it leave.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start() -> anyhow::Result<(Peer, String)> {
        let mut child = Command::new("python3")
            .args(["benches/peers.py", &WORKERS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            anyhow::bail!("python3 has no pipes");
        };
        let mut peer = Peer { child, input: Some(input), output: BufReader::new(output) };
        let hello = peer.line()?;
        match hello.strip_prefix("ready ") {
            Some(version) => Ok((peer, version.to_string())),
            None => anyhow::bail!("python3 said {hello:?}"),
        }
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_string())
    }

    fn run(&mut self, work: &Work) -> anyhow::Result<Duration> {
        let Some(input) = &mut self.input else { anyhow::bail!("python3 has left") };
        writeln!(input, "{} {}", work.name, work.theirs)?;
        Ok(Duration::from_secs_f64(self.line()?.parse()?))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Not by a signal: its workers would live on as orphans, and hold our stderr open.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Seconds for each item: minimum, median, maximum.
fn spread(mut seconds: Vec<f64>) -> [f64; 3] {
    seconds.sort_by(f64::total_cmp);
    [seconds[0], seconds[seconds.len() / 2], seconds[seconds.len() - 1]]
}

fn show(work: &Work, seconds: [f64; 3]) -> String {
    let [least, median, most] = seconds;
    match work.bytes {
        None => format!("{:8.1} µs ({:.1}–{:.1})", median * 1e6, least * 1e6, most * 1e6),
        Some(bytes) => {
            let rate = |seconds: f64| bytes as f64 / seconds / (1 << 20) as f64;
            format!("{:6.0} MiB/s ({:.0}–{:.0})", rate(median), rate(most), rate(least))
        }
    }
}

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    // `cargo test --benches` runs this too, without the argument: it only has to start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let ours = Ours::new()?;
    let mut peer = match Peer::start() {
        Ok((peer, version)) => {
            println!(
                "peer: ProcessPoolExecutor of Python {version}; {WORKERS} workers each, {ROUNDS} rounds"
            );
            Some(peer)
        }
        Err(error) => {
            println!("peer missing: {error}");
            None
        }
    };
    println!("{:<44} {:<32} {:<34} {:>6}", "work (per item)", "wasmpool", "ProcessPoolExecutor", "ratio");
    for work in &WORKS {
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            mine.push(ours.run(work)?.as_secs_f64() / work.ours as f64);
            if let Some(peer) = &mut peer {
                theirs.push(peer.run(work)?.as_secs_f64() / work.theirs as f64);
            }
        }
        let mine = spread(mine);
        let (theirs, ratio) = match theirs.is_empty() {
            true => ("missing".into(), String::new()),
            false => {
                let theirs = spread(theirs);
                (show(work, theirs), format!("{:5.1}×", theirs[1] / mine[1]))
            }
        };
        println!("{:<44} {:<32} {theirs:<34} {ratio:>6}", work.title, show(work, mine));
    }
    Ok(())
}
