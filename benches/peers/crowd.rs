//! Starts as many processes as the pool has workers, each with an engine of its own and nothing to do but
//! call tasks in fresh instances: workers would reach that if nobody had to tell them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;

use crate::engine::Guest;
use crate::ours::prebuilt;
use crate::work::seconds;

/// The first argument of such a process.
const CHILD: &str = "--calls-tasks";

pub(crate) struct Crowd(Vec<Member>);

struct Member {
    child: Child,
    /// Closed to make it leave.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Crowd {
    /// Processes that call so many tasks each time they are asked to.
    pub(crate) fn start(processes: usize, tasks: usize, scan: bool) -> anyhow::Result<Crowd> {
        let start = |_| {
            let mut child = Command::new(std::env::current_exe()?)
                .args([CHILD, &tasks.to_string(), &scan.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                anyhow::bail!("a process of the floor has no pipes");
            };
            Ok(Member { child, input: Some(input), output: BufReader::new(output) })
        };
        let mut crowd = Crowd((0..processes).map(start).collect::<anyhow::Result<_>>()?);
        crowd.0.iter_mut().try_for_each(Member::wait)?;
        Ok(crowd)
    }

    /// Seconds until all are done.
    pub(crate) fn run(&mut self) -> anyhow::Result<f64> {
        seconds(|| {
            for member in &mut self.0 {
                member.input.as_mut().context("it has left")?.write_all(b"go\n")?;
            }
            self.0.iter_mut().try_for_each(Member::wait)
        })
    }
}

impl Member {
    fn wait(&mut self) -> anyhow::Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        anyhow::ensure!(line == "ready\n", "a process of the floor said {line:?}");
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// The process that calls, if this is it.
pub(crate) fn call_if_asked() -> anyhow::Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [flag, tasks, scan] = arguments.as_slice() else { return Ok(false) };
    if flag != CHILD {
        return Ok(false);
    }
    let (tasks, scan): (i64, bool) = (tasks.parse()?, scan.parse()?);
    let guest = Guest::new(&std::fs::read(prebuilt("echo"))?, "add", scan)?;
    println!("ready");
    for line in std::io::stdin().lines() {
        line?;
        for number in 0..tasks {
            guest.call(&postcard::to_stdvec(&(number, 1_i64))?)?;
        }
        println!("ready");
    }
    Ok(true)
}
