//! Loads and runs one module after the other, and counts what comes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmpool::module::{ModuleKind, ModuleOptions};
use wasmpool::pool::ShutdownMode;
use wasmpool::task::{CommandInput, LogOverflow};
use wasmpool::{Bytes, Module, Pool, TaskError, TaskFuture, TaskOptions};

use super::dress::{Dressed, dress};
use super::names::{self, Named};
use super::source::{Kind, Source, Specimen};
use crate::pool::{self, Resident};
use crate::random::Random;

/// A future that has not resolved after this is a hang: no task may run for longer than 50 ms.
const PATIENCE: Duration = Duration::from_secs(120);

/// The time that an interrupted task may take to stop. It is much more than the pool's default, since the
/// machine may be busy with other things.
const GRACE: Duration = Duration::from_secs(10);

/// Mutants that are meant to do the same are compared with their originals, if these always do.
const DETERMINISTIC: [&str; 7] =
    ["c_histogram", "compress", "init_table", "mandelbrot", "primes", "tokenize", "word_count"];

/// The settings of a campaign: what is run, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Worker processes.
    pub workers: usize,
    /// Threads that load and submit.
    pub loaders: usize,
    /// Modules before a pool makes room for the next one: a pool keeps what it has loaded.
    pub modules_per_pool: u64,
    /// The folder that keeps modules with an unexplained outcome.
    pub keep: PathBuf,
}

/// The outcome of a campaign.
#[derive(Debug, Default)]
pub struct Summary {
    loads: BTreeMap<(Kind, String), u64>,
    tasks: BTreeMap<String, u64>,
    compared: u64,
    /// The outcomes that nothing explains: where the module is kept, and how it ended.
    pub unexplained: Vec<String>,
    rounds: Vec<Round>,
    elapsed: Duration,
}

/// The host after one pool, and the largest of its workers.
#[derive(Debug, Clone, Copy)]
struct Round {
    host: Resident,
    worker_peak_bytes: u64,
}

/// A campaign in progress.
#[derive(Debug)]
pub struct Campaign<'a> {
    source: &'a Source,
    settings: &'a Settings,
    summary: Mutex<Summary>,
    stop: AtomicBool,
}

impl Campaign<'_> {
    /// Runs all modules of a source. `done` is told of each.
    ///
    /// # Errors
    /// A pool that cannot be built, or a generator that fails; not what modules do.
    pub fn run(
        source: &Source,
        settings: &Settings,
        done: impl Fn() + Sync,
    ) -> Result<Summary, Box<dyn std::error::Error>> {
        let campaign = Campaign { source, settings, summary: Mutex::default(), stop: AtomicBool::new(false) };
        let began = Instant::now();
        while campaign.round(&done)? {}
        let mut summary = campaign.summary.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.elapsed = began.elapsed();
        Ok(summary)
    }

    /// One pool. `false` if there is nothing left to do.
    fn round(&self, done: &(impl Fn() + Sync)) -> Result<bool, Box<dyn std::error::Error>> {
        let pool = pool::steady(self.settings.workers, |builder| {
            builder.grace(GRACE).compile_timeout(Duration::from_secs(60))
        })?;
        let left = AtomicU64::new(self.settings.modules_per_pool);
        let more = std::thread::scope(|scope| {
            let loaders: Vec<_> =
                (0..self.settings.loaders).map(|_| scope.spawn(|| self.load(&pool, &left, done))).collect();
            let ended = loaders.into_iter().map(|loader| loader.join().map_err(|_| "a loader panicked")?);
            ended.collect::<Result<Vec<_>, String>>()
        })?;
        let worker_peak_bytes =
            pool.worker_pids().into_iter().filter_map(Resident::of).map(|worker| worker.peak_bytes);
        let worker_peak_bytes = worker_peak_bytes.max().unwrap_or(0);
        if let Err(different) = pool::check(&pool) {
            self.unexplained(different);
        }
        if !pool.shutdown_timeout(ShutdownMode::CancelPending, PATIENCE) {
            self.unexplained("a pool had to be killed at its end".into());
        }
        drop(pool);
        let host = Resident::of(std::process::id()).ok_or("no /proc/self")?;
        self.summary().rounds.push(Round { host, worker_peak_bytes });
        Ok(more.into_iter().all(|more| more) && !self.stop.load(Ordering::Relaxed))
    }

    fn summary(&self) -> std::sync::MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unexplained(&self, what: String) {
        eprintln!("{what}");
        self.summary().unexplained.push(what);
    }

    /// One loader's part of a round. `false` if the source has ended.
    fn load(&self, pool: &Pool, left: &AtomicU64, done: &impl Fn()) -> Result<bool, String> {
        let take = |left: u64| left.checked_sub(1);
        while !self.stop.load(Ordering::Relaxed) {
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                return Ok(true);
            }
            let specimen = self.source.next().map_err(|error| format!("the generator: {error}"))?;
            let Some(specimen) = specimen else { return Ok(false) };
            Trial { campaign: self, pool, random: Random::new(!self.source.seed, specimen.index) }
                .run(&specimen);
            done();
        }
        Ok(true)
    }
}

/// One module's way through the pool.
struct Trial<'a> {
    campaign: &'a Campaign<'a>,
    pool: &'a Pool,
    random: Random,
}

impl Trial<'_> {
    fn run(&mut self, specimen: &Specimen) {
        let dressed = match specimen.kind {
            Kind::Plain if self.random.percent(10) => None,
            Kind::Plain | Kind::Hosted => dress(&specimen.wasm, &mut self.random),
            _ => None,
        };
        let wasm = match &dressed {
            Some(Dressed::Tasks { wasm, .. } | Dressed::Command { wasm }) => wasm,
            None => &specimen.wasm,
        };
        let metered = self.random.percent(40);
        let loaded = self.pool.load_with(wasm, ModuleOptions::new().metered(metered));
        let named =
            names::of_load(&loaded.as_ref().map(|module| module.description().kind).map_err(Clone::clone));
        if named.unexplained {
            self.keep(specimen.index, wasm, &format!("{}: {loaded:?}", named.name));
        }
        *self.campaign.summary().loads.entry((specimen.kind, named.name)).or_default() += 1;
        let Ok(module) = loaded else { return };
        match &dressed {
            Some(Dressed::Tasks { tasks, .. }) => {
                let inputs: Vec<_> = tasks.iter().map(|_| self.random.bytes(512)).collect();
                let options = self.options(metered);
                self.call(specimen.index, wasm, &module, tasks, &inputs, &options);
            }
            _ if module.description().kind == ModuleKind::Command => {
                self.command(specimen.index, wasm, &module)
            }
            _ => self.mutant(specimen, &module),
        }
    }

    /// Calls a mutant's tasks; where it must do the same as its original, so does that, too.
    fn mutant(&mut self, specimen: &Specimen, module: &Module) {
        let tasks: Vec<_> = module.description().tasks.iter().map(|task| task.name.clone()).collect();
        let inputs: Vec<_> = tasks.iter().map(|_| self.guess()).collect();
        let options = self.options(module.description().metered);
        let ends = self.call(specimen.index, &specimen.wasm, module, &tasks, &inputs, &options);
        let Some(file) = self.campaign.source.files.get(specimen.file) else { return };
        let is_deterministic =
            file.file_stem().is_some_and(|name| DETERMINISTIC.iter().any(|known| name == *known));
        if specimen.kind != Kind::Equivalent || !is_deterministic {
            return;
        }
        let Ok(original) =
            self.pool.load_file_with(file, ModuleOptions::new().metered(module.description().metered))
        else {
            return self.keep(specimen.index, &specimen.wasm, "its original does not load");
        };
        // A mutant that has lost its section has its tasks by the names of their exports.
        let known = &original.description().tasks;
        let exports = module.description().tasks.iter().map(|task| &task.export);
        let names = exports
            .map(|export| known.iter().find(|task| task.export == *export).map(|task| task.name.clone()))
            .collect::<Option<Vec<_>>>();
        let Some(names) = names else {
            return self.keep(specimen.index, &specimen.wasm, "its original does not export its tasks");
        };
        let originals = self.call(specimen.index, &specimen.wasm, &original, &names, &inputs, &options);
        for ((task, mutant), original) in tasks.iter().zip(ends).zip(originals) {
            // Time and fuel are not semantics.
            let is_cut = |end: &End| matches!(end.named.name.as_str(), "Timeout" | "Fuel");
            if is_cut(&mutant) || is_cut(&original) {
                continue;
            }
            self.campaign.summary().compared += 1;
            if mutant != original {
                let what = format!("`{task}` of {}: {original:?}; as a mutant {mutant:?}", file.display());
                self.keep(specimen.index, &specimen.wasm, &what);
            }
        }
    }

    /// An input that may well be one: a small number, or anything.
    fn guess(&mut self) -> Vec<u8> {
        let len = [1, 1, 2, 4, 300][self.random.below(5) as usize];
        let mut bytes = self.random.bytes(len);
        if len < 5 {
            bytes.iter_mut().for_each(|byte| *byte &= 0x7f);
        }
        bytes
    }

    fn call(
        &self,
        index: u64,
        wasm: &[u8],
        module: &Module,
        tasks: &[String],
        inputs: &[Vec<u8>],
        options: &TaskOptions,
    ) -> Vec<End> {
        let submitted: Vec<_> = tasks
            .iter()
            .zip(inputs)
            .map(|(task, input)| {
                let raw = module.raw_task(task).map_err(|error| error.to_string())?;
                self.pool
                    .submit_with(&raw, &Bytes::from(input.clone()), options.clone())
                    .map_err(|error| error.to_string())
            })
            .collect();
        submitted.into_iter().map(|future| self.end(index, wasm, future, |bytes| bytes.to_vec())).collect()
    }

    fn command(&mut self, index: u64, wasm: &[u8], module: &Module) {
        let options = self.options(module.description().metered);
        let input =
            CommandInput::new().args(["one", "two"]).env("NAME", "value").stdin(self.random.bytes(64));
        let submitted = module.command().map_err(|error| error.to_string());
        let submitted = submitted.and_then(|command| {
            self.pool.submit_with(&command, &input, options).map_err(|error| error.to_string())
        });
        self.end(index, wasm, submitted, |_| Vec::new());
    }

    fn options(&mut self, metered: bool) -> TaskOptions {
        let random = &mut self.random;
        let overflow = if random.percent(50) { LogOverflow::Drop } else { LogOverflow::Fail };
        let options = TaskOptions::new()
            .timeout(Duration::from_millis([10, 20, 50][random.below(3) as usize]))
            .memory_bytes_max([1 << 20, 64 << 20][random.below(2) as usize])
            .output_bytes_max(64 << 10)
            .log_bytes_max(16 << 10)
            .log_overflow(overflow);
        if metered { options.fuel(10u64.pow(2 + random.below(6) as u32)) } else { options }
    }

    /// Waits for a task, counts its end, and keeps the module if nothing explains it.
    fn end<O>(
        &self,
        index: u64,
        wasm: &[u8],
        submitted: Result<TaskFuture<O>, String>,
        bytes: impl Fn(&O) -> Vec<u8>,
    ) -> End {
        let (named, output, shown) = match submitted {
            Err(error) => (Named { name: "not submitted".into(), unexplained: true }, Vec::new(), error),
            Ok(future) => match future.result_timeout(PATIENCE) {
                Err(_) => (Named { name: "a hang".into(), unexplained: true }, Vec::new(), String::new()),
                Ok(ended) => {
                    let ended: Result<O, TaskError> = ended.map_err(|failure| failure.error().clone());
                    let output = ended.as_ref().map(bytes).unwrap_or_default();
                    let shown = ended.as_ref().err().map(ToString::to_string).unwrap_or_default();
                    (names::of_task(&ended), output, shown)
                }
            },
        };
        *self.campaign.summary().tasks.entry(named.name.clone()).or_default() += 1;
        if named.unexplained {
            self.keep(index, wasm, &format!("{}: {shown}", named.name));
        }
        End { named, output }
    }

    /// Keeps a module for a person, and ends the campaign if the pool is broken.
    fn keep(&self, index: u64, wasm: &[u8], what: &str) {
        let Settings { keep, .. } = self.campaign.settings;
        let path = keep.join(format!("{}-{index}.wasm", self.campaign.source.seed));
        let kept = std::fs::create_dir_all(keep).and_then(|()| std::fs::write(&path, wasm));
        let kept = kept.map_or_else(|error| error.to_string(), |()| path.display().to_string());
        self.campaign.unexplained(format!("module {index} ({kept}): {what}"));
        if self.pool.broken().is_some() {
            self.campaign.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// The end of a task, as far as two of them can be compared.
#[derive(Debug, PartialEq, Eq)]
struct End {
    named: Named,
    output: Vec<u8>,
}

impl Summary {
    /// Returns whether nothing is unexplained, and the host has not grown from pool to pool.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn check(&self) -> Result<(), String> {
        if !self.unexplained.is_empty() {
            return Err(format!("{} unexplained outcomes", self.unexplained.len()));
        }
        let (Some(first), Some(last)) = (self.rounds.first(), self.rounds.last()) else {
            return Err("nothing was run".into());
        };
        if last.host.descriptors > first.host.descriptors {
            return Err(format!("descriptors were left: {:?}, then {:?}", first.host, last.host));
        }
        // The allocator keeps some of what one pool needed; not more with each.
        if last.host.bytes > first.host.bytes + (64 << 20) {
            return Err(format!("the host has grown: {:?}, then {:?}", first.host, last.host));
        }
        Ok(())
    }

    /// Tasks that ended so.
    pub fn tasks_that(&self, name: &str) -> u64 {
        self.tasks.get(name).copied().unwrap_or(0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modules: u64 = self.loads.values().sum();
        let tasks: u64 = self.tasks.values().sum();
        let seconds = self.elapsed.as_secs_f64();
        writeln!(
            f,
            "{modules} modules, {tasks} tasks, {seconds:.0} s: {:.0} modules a second",
            modules as f64 / seconds
        )?;
        for ((kind, outcome), count) in &self.loads {
            writeln!(f, "{count:>9}  {kind:?}: {outcome}")?;
        }
        writeln!(f, "tasks:")?;
        for (outcome, count) in &self.tasks {
            writeln!(f, "{count:>9}  {outcome}")?;
        }
        writeln!(f, "{} tasks of mutants compared with their originals'", self.compared)?;
        let mib = |bytes: u64| bytes >> 20;
        if let (Some(first), Some(last)) = (self.rounds.first(), self.rounds.last()) {
            writeln!(
                f,
                "{} pools; the host after the first: {} MiB, {} descriptors; after the last: {} MiB, {}",
                self.rounds.len(),
                mib(first.host.bytes),
                first.host.descriptors,
                mib(last.host.bytes),
                last.host.descriptors
            )?;
        }
        let worker = self.rounds.iter().map(|round| round.worker_peak_bytes).max().unwrap_or(0);
        writeln!(f, "the largest worker: {} MiB at its peak", mib(worker))?;
        write!(f, "{} unexplained outcomes", self.unexplained.len())
    }
}
