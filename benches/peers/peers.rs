//! Python's pools: processes that answer one measurement a line, one for each interpreter.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use anyhow::Context;
use benches::interpreters::{self, Interpreters};

use crate::ours::{WORKERS, kept_dir};
use crate::work::{Measure, Role, Work};

/// One interpreter with its packages; started at its first measurement.
#[derive(Debug)]
pub(crate) struct Python {
    pub(crate) version: String,
    /// The interpreter with the packages.
    program: PathBuf,
    /// The interpreter without them.
    pub(crate) base: PathBuf,
    process: RefCell<Option<Process>>,
}

/// The interpreters to measure against, and what is missing.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) pythons: Vec<Rc<Python>>,
    /// The interpreters that were compiled to WASI.
    pub(crate) interpreters: Interpreters,
    pub(crate) missing: Vec<String>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// Closed to make it leave.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Peers {
    /// Has the script beside this file install what is not there yet.
    pub(crate) fn find() -> Peers {
        let mut missing = Vec::new();
        let said = interpreters::bring(&kept_dir(), &[]).unwrap_or_else(|error| {
            missing.push(format!("every peer: {error:#}"));
            String::new()
        });
        let interpreters = Interpreters::read(&said);
        let mut peers = Peers { pythons: Vec::new(), interpreters, missing };
        for line in said.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words.as_slice() {
                ["python", version, program, base] => peers.pythons.push(Rc::new(Python {
                    version: version.to_string(),
                    program: program.into(),
                    base: base.into(),
                    process: RefCell::new(None),
                })),
                ["cpython" | "quickjs", ..] => {}
                _ => peers.missing.push(line.strip_prefix("missing ").unwrap_or(line).to_string()),
            }
        }
        peers
    }

    /// Ends the pools of all interpreters: their processes are not to stay beside the next work.
    pub(crate) fn close(&self) {
        for python in &self.pythons {
            if let Some(process) = &mut *python.process.borrow_mut() {
                // One that does not answer says so at its next measurement.
                let _ = process.ask("close");
            }
        }
    }

    /// Returns what each interpreter brings.
    pub(crate) fn versions(&self) -> Vec<String> {
        let version = |python: &Rc<Python>| match python.ask(None) {
            Ok(packages) => format!("Python {}: {packages}", python.version),
            Err(error) => format!("Python {}: {error:#}", python.version),
        };
        self.pythons.iter().map(version).collect()
    }
}

impl Python {
    /// Asks the process for a measurement, or for its packages.
    fn ask(&self, what: Option<&str>) -> anyhow::Result<String> {
        let mut process = self.process.borrow_mut();
        let packages = match &mut *process {
            Some(_) => String::new(),
            none => {
                let (started, packages) = Process::start(&self.program)?;
                *none = Some(started);
                packages
            }
        };
        match (what, &mut *process) {
            (Some(what), Some(process)) => process.ask(what),
            _ => Ok(packages),
        }
    }

    fn measure(self: &Rc<Self>, line: String) -> Measure<'static> {
        let python = self.clone();
        Box::new(move || {
            let answer = python.ask(Some(&line))?;
            answer.parse().with_context(|| format!("it said {answer:?}"))
        })
    }
}

impl Process {
    fn start(program: &PathBuf) -> anyhow::Result<(Process, String)> {
        let mut child = Command::new(program)
            // Warnings that a pool forks beside threads.
            .args(["-W", "ignore", "peers/peers.py", &WORKERS.to_string()])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            anyhow::bail!("it has no pipes");
        };
        let mut process = Process { child, input: Some(input), output: BufReader::new(output) };
        let hello = process.line()?;
        let packages =
            hello.strip_prefix("ready ").with_context(|| format!("it said {hello:?}"))?.to_string();
        Ok((process, packages))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_string())
    }

    fn ask(&mut self, what: &str) -> anyhow::Result<String> {
        let input = self.input.as_mut().context("it has left")?;
        writeln!(input, "{what}")?;
        let answer = self.line()?;
        match answer.split_once(' ') {
            Some(("ok", value)) => Ok(value.to_string()),
            Some(("missing", why)) => anyhow::bail!("{why}"),
            _ => anyhow::bail!("it said {answer:?}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The peer ends with its stdin, not by a signal: its workers would live on as orphans, and hold our
        // stderr open.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// The interpreters that run it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Under {
    All,
    /// `python3`, as it is found.
    Usual,
}

impl<'a> Work<'a> {
    /// Adds a peer: a pool and a work of peers.py, so many of it a round, and what its seconds are
    /// in this work's terms. Under every interpreter that there is.
    pub(crate) fn python(
        mut self,
        peers: &Peers,
        under: Under,
        (pool, work): (&str, &str),
        count: usize,
        figure: fn(f64) -> f64,
    ) -> Self {
        let title = match pool {
            "executor" => "ProcessPoolExecutor",
            "multiprocessing" => "multiprocessing.Pool",
            "wasmtime" => "Executor + wasmtime",
            other => other,
        };
        if peers.pythons.is_empty() {
            return self.side(Role::Peer, title, Err("there is no Python".into()));
        }
        for python in &peers.pythons {
            if under == Under::Usual && !Rc::ptr_eq(python, &peers.pythons[0]) {
                continue;
            }
            let mut measure = python.measure(format!("{pool} {work} {count}"));
            let major = python.version.split('.').next();
            let minor = python.version.split('.').nth(1);
            let label = format!("{title} {}.{}", major.unwrap_or_default(), minor.unwrap_or_default());
            self = self.side(Role::Peer, label, Ok(Box::new(move || Ok(figure(measure()?)))));
        }
        self
    }
}
