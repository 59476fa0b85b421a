//! The state machine against a world that does what worlds do: processes start late, die at
//! any time, answer late, do not answer, or lie. The world keeps books of its own, and holds
//! the machine to them after each event; at the end it behaves, and everything must end.
//!
//! `WASMPOOL_SIMULATION_EVENTS` sets how many events are played, `WASMPOOL_SIMULATION_SEED`
//! the first world's seed; a failure names its world's seed.

mod books;
mod promises;
pub(super) mod random;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::check::Mutant;
use super::*;
use books::{Books, Process, ms};
use random::{Random, number};

struct World {
    random: Random,
    scheduler: Scheduler,
    now: Now,
    processes: BTreeMap<WorkerKey, Process>,
    /// The process that is being reported as dead, as it was.
    dies: WorkerKey,
    dying: Option<Process>,
    killed: bool,
    tasks: BTreeMap<TaskId, Books>,
    submitted: u64,
    stopped: bool,
    broken: bool,
    /// Trust domains that tasks are of, that of those without one included.
    domains: u64,
    /// The first of all that wait, with nobody on the way: since when others go before it.
    bypassed_since: Option<(TaskId, Now)>,
    /// Tasks take up to this many microseconds, by the workers' words.
    ran_us_max: u64,
    /// More threads want a CPU than there are.
    is_contended: bool,
    /// Processes die before they are ready.
    fragile: bool,
    /// While the machine is short of something, it has room for this many processes.
    room: Option<usize>,
    /// The number of starts that failed for lack of room since one succeeded.
    not_started: u32,
    /// Deaths in a row without an answer between them and without a task to blame.
    crashes: u32,
    events: u64,
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>) -> World {
        let mut random = Random(seed);
        let workers_max = 1 + random.below(4) as usize;
        let on_death = match random.below(2) {
            0 => OnDeath::Break,
            _ => OnDeath::Replace { crashes_max: 3, backoff: ms(10), backoff_max: ms(1000) },
        };
        let recycle = Recycling {
            tasks_max: random.pick(&[None, None, Some(1), Some(3)]),
            memory_bytes_max: random.pick(&[None, None, Some(500)]),
            age_max: random.pick(&[None, None, Some(ms(200))]),
        };
        let mut scheduler = Scheduler::new(Config {
            workers_min: random.below(2) as usize * (workers_max - 1),
            workers_max,
            queue_tasks_max: 60,
            grace: ms(500),
            start_timeout: ms(10_000),
            idle_timeout: random.pick(&[None, Some(ms(50))]),
            slow_after: random.pick(&[None, Some(ms(20))]),
            on_death,
            recycle,
            prefetch_max: random.pick(&[0, 1, 7, 127]),
            cpus: random.pick(&[1, 2, 4]),
        });
        scheduler.mutant = mutant;
        let fragile = random.one_in(16);
        let ran_us_max = random.pick(&[60, 3_000]);
        let is_contended = random.one_in(4);
        let domains = random.pick(&[1, 1, 2, 2, 3, 8]);
        World {
            random,
            domains,
            bypassed_since: None,
            ran_us_max,
            is_contended,
            scheduler,
            now: Duration::ZERO,
            processes: BTreeMap::new(),
            dies: WorkerKey { slot: 0, generation: 0 },
            dying: None,
            killed: false,
            tasks: BTreeMap::new(),
            submitted: 0,
            stopped: false,
            broken: false,
            fragile,
            room: None,
            not_started: 0,
            crashes: 0,
            events: 0,
        }
    }

    fn event(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        let before = self.events;
        while let Some(event) = events.pop_front() {
            self.events += 1;
            assert!(self.events - before < 1_000, "it revokes and prefetches for ever");
            let is_tick = event == Event::Tick;
            self.killed |= matches!(event, Event::Kill { .. });
            let mut actions = Vec::new();
            self.scheduler.handle(event, self.now, &mut actions);
            for action in actions {
                events.extend(self.act(action));
            }
            if self.bypassed_since.is_some_and(|(task, _)| self.first_in_line() != Some(task)) {
                self.bypassed_since = None;
            }
            if events.is_empty() {
                self.scheduler.check(self.now);
                if is_tick {
                    self.check_deadlines();
                    self.check_neighbours();
                }
            }
        }
    }

    /// Does what is asked, and holds it to the books.
    fn act(&mut self, action: Action) -> Option<Event> {
        assert!(!self.stopped, "{action:?} after Stopped");
        match action {
            Action::Start { worker } => {
                assert!(self.processes.insert(worker, Process::default()).is_none(), "started twice");
                assert!(!self.broken, "a start in a broken pool");
            }
            Action::Assign { worker, task } => self.assigned(worker, task),
            Action::Revoke { worker, task } => {
                let process = self.processes.get_mut(&worker).expect("it lives");
                let before = process.prefetched.len();
                process.prefetched.retain(|&prefetched| prefetched != task);
                process.moves(self.now);
                return Some(Event::Revoked { worker, task, revoked: process.prefetched.len() < before });
            }
            Action::Begin { worker, task } => self.begins(worker, task),
            Action::Interrupt { worker, task } => {
                let books = self.tasks.get_mut(&task).expect("submitted");
                assert!(books.interrupted_at.replace(self.now).is_none(), "interrupted twice");
                self.processes.get_mut(&worker).expect("it lives").interrupted.insert(task);
            }
            Action::Locate { worker, task, begun } => {
                return Some(Event::Located { worker, task, found: self.locate(worker, task, begun) });
            }
            Action::Look { worker, task } => {
                let process = self.processes.get(&worker).expect("it lives");
                assert!(process.prefetched.len() <= 1, "{task} is not alone");
                let books = &self.tasks[&task];
                let used = (process.knows(task) && !process.prefetched.contains(&task)).then_some(books.used);
                return Some(Event::Looked { worker, task, used });
            }
            Action::Slow { task, .. } => assert!(self.tasks[&task].began.is_some(), "slow before it began"),
            Action::GivenBack { task } => {
                let books = &self.tasks[&task];
                assert!(books.resolved.is_none() && books.began.is_some(), "{task} is given back by nobody");
            }
            Action::Retry { task, how } => {
                let books = self.tasks.get_mut(&task).expect("submitted");
                books.used = Duration::ZERO;
                assert!(books.resolved.is_none() && books.began.take().is_some(), "a retry of nothing");
                assert!(books.spec.retry.attempts_max > books.begun, "{how:?} retried too often");
            }
            Action::Short { workers } => {
                assert!(self.not_started > 0, "short of nothing");
                let live = self.processes.values().filter(|process| !process.ending).count();
                assert!(workers <= live, "{workers} workers, where {live} live");
            }
            Action::Kill { worker, reason } => {
                let process = self.processes.get_mut(&worker).expect("it lives");
                process.ending = true;
                process.expected |= !matches!(reason, KillReason::Violation | KillReason::StartTimeout);
            }
            Action::Terminate { worker } | Action::Retire { worker, .. } => {
                let process = self.processes.get_mut(&worker).expect("it lives");
                assert!(!process.expected, "asked to leave twice");
                process.ending = true;
                process.expected = true;
            }
            Action::Resolve { task, how } => self.resolved(task, how),
            Action::Break { .. } => {
                assert!(!self.broken, "broken twice");
                assert!(!self.killed, "broken by the embedder's own kill");
                assert!(self.dying.is_some(), "broken by nobody's death");
                self.broken = true;
            }
            Action::Stopped => {
                assert!(self.processes.is_empty(), "stopped with processes alive");
                self.stopped = true;
            }
        }
        None
    }

    fn locate(&self, worker: WorkerKey, task: TaskId, begun: u64) -> Found {
        match self.processes.get(&worker).expect("it lives").begun_from(task) {
            Some(now) if now > begun => Found::Begun(now),
            Some(_) if self.is_contended => Found::Waiting,
            Some(_) => Found::Computing,
            None => Found::Begun(begun),
        }
    }

    fn assigned(&mut self, worker: WorkerKey, task: TaskId) {
        let held = self.processes.values().any(|p| !p.ending && p.has(task));
        assert!(!held, "{task} is in two places");
        let process = self.processes.get_mut(&worker).expect("it lives");
        assert!(process.ready && !process.ending, "a task for one that cannot take it");
        let domain = self.tasks[&task].spec.domain;
        let bound = *process.domain.get_or_insert(domain);
        assert_eq!(bound, domain, "{task} is handed to a worker of another domain");
        process.prefetched.push_back(task);
        process.moves(self.now);
        self.check_overtaking(task);
    }

    fn begins(&mut self, worker: WorkerKey, task: TaskId) {
        let books = self.tasks.get_mut(&task).expect("submitted");
        assert!(books.resolved.is_none(), "{task} begins after its end");
        books.begun += 1;
        let max = books.spec.retry.attempts_max;
        assert!(books.begun <= max, "{task} begins {} times of {max}", books.begun);
        books.began = Some(self.now);
        books.interrupted_at = None;
        assert!(books.spec.cpu_time.is_none() || books.used.is_zero(), "{task} begins with less");
        let process = self.processes.get(&worker).or(self.dying.as_ref().filter(|_| self.dies == worker));
        let is_there = |process: &Process| process.knows(task) || process.ran.contains(&task);
        assert!(process.is_some_and(is_there), "{task} begins where it is not");
    }

    fn resolved(&mut self, task: TaskId, how: Resolution) {
        let books = self.tasks.get_mut(&task).expect("submitted");
        let before = books.resolved.replace(how);
        assert!(before.is_none(), "{task} is resolved twice: {before:?}, {how:?}");
        assert!(books.ran == 0 || books.begun > 0, "{task} ran, and is said to have never begun: {how:?}");
        let runs = self.processes.values().any(|process| process.running == Some(task) && !process.ending);
        match how {
            Resolution::Cancelled => assert!(!runs, "{task} is cancelled and runs"),
            Resolution::Completed => {
                assert!(books.begun > 0 || !runs, "an answer to no question");
                assert!(books.spec.cpu_time.is_none_or(|limit| books.used <= limit), "{task} used too much");
            }
            Resolution::Overspent { .. } => {
                assert!(books.spec.cpu_time.is_some_and(|limit| books.used > limit), "{task} may go on");
            }
            Resolution::TimedOut { .. } => {
                assert!(books.spec.timeout.is_some(), "timed out without a timeout")
            }
            Resolution::Died { .. } => {
                assert!(books.begun >= books.spec.retry.attempts_max || self.broken || books.begun > 0);
            }
            Resolution::NoWorker => {
                assert!(self.not_started > 0 && self.processes.is_empty(), "{task} had a worker to wait for");
            }
            Resolution::Aborted { .. } | Resolution::Broken => {}
        }
    }

    // ── What happens ─────────────────────────────────────────────────────────

    fn submit(&mut self) {
        let more = self.random.pick(&[0, 0, 0, 1, 19]);
        if self.scheduler.admits(more).is_err() {
            return;
        }
        self.submitted += 1;
        let task = TaskId(self.submitted);
        let retry = Retry {
            attempts_max: self.random.pick(&[1, 1, 2, 4]),
            backoff: ms(self.random.below(20)),
            on_timeout: self.random.one_in(2),
        };
        let retry = if self.random.one_in(4) { Retry::OF_A_BATCH } else { retry };
        let timeout = self.random.pick(&[None, Some(ms(30)), Some(ms(300))]);
        let priority = self.random.pick(&[0, 0, 0, 5, -5]);
        let chunk = if self.random.one_in(3) { None } else { Some(self.submitted / 8) };
        let domain = Domain(self.random.below(self.domains));
        let uninterruptible = self.random.one_in(4);
        let cpu_time = self.random.pick(&[None, None, Some(ms(10)), Some(ms(100))]);
        let cpu_time = cpu_time.filter(|_| retry != Retry::OF_A_BATCH);
        let spec = TaskSpec { timeout, cpu_time, priority, retry, chunk, more, domain, uninterruptible };
        self.tasks.insert(task, Books { spec, computes: self.random.one_in(2), ..Books::default() });
        self.event(Event::Submit { task, spec });
    }

    fn some_task(&mut self) -> TaskId {
        // The task is mostly one that is not done, and sometimes one that never was.
        let open: Vec<_> =
            self.tasks.iter().filter(|(_, books)| books.resolved.is_none()).map(|(task, _)| *task).collect();
        match open.iter().min_by_key(|task| task.0.wrapping_mul(self.random.next() | 1)) {
            Some(task) if !self.random.one_in(8) => *task,
            _ => TaskId(self.random.below(self.submitted + 2)),
        }
    }

    fn some_process(&mut self) -> Option<WorkerKey> {
        let count = self.processes.len() as u64;
        let index = self.random.below(count) as usize;
        self.processes.keys().nth(index).copied()
    }

    /// One process does the next thing that it has to do.
    fn work(&mut self, worker: WorkerKey) {
        let rude = self.random.one_in(8);
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if !process.ready
            && (process.expected || !process.ending)
            && self.room.is_some_and(|room| self.processes.len() > room)
        {
            return self.run_short(worker);
        }
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if !process.spawned {
            process.spawned = true;
            return self.event(Event::Spawned { worker });
        }
        if !process.ready && self.fragile {
            return self.die(worker);
        }
        if !process.ready {
            process.ready = true;
            self.not_started = 0;
            return self.event(Event::Ready { worker });
        }
        process.moves(self.now);
        if let Some((task, interrupted)) = process.said.pop_front() {
            self.crashes = 0;
            let ran = Duration::from_micros(self.random.below(self.ran_us_max));
            let resident_bytes = Some(self.random.below(600));
            let is_full = self.random.below(100) == 0;
            // The task is a batch, of which the process has run some.
            let is_batch = self.tasks.get(&task).is_some_and(|books| books.spec.retry == Retry::OF_A_BATCH);
            let unfinished = is_batch && !interrupted && self.random.one_in(2);
            let used = self.tasks.get(&task).map(|books| books.used);
            let report = RunReport { interrupted, ran, used, resident_bytes, is_full, unfinished };
            self.event(Event::Done { worker, task, report });
            // This does not hold if the answer came too late to count, or the task has begun again.
            let place = self.scheduler.tasks.get(&task).map(|entry| entry.place);
            if unfinished
                && matches!(place, Some(Place::Queued | Place::Prefetched(..)))
                && let Some(books) = self.tasks.get_mut(&task)
            {
                books.began = None;
                books.interrupted_at = None;
            }
            return;
        }
        match process.running {
            None => {
                process.running = process.prefetched.pop_front();
                self.note_run(worker);
            }
            // A finished task has its answer said before the next begins.
            Some(task) => {
                let is_interrupted = process.interrupted.contains(&task);
                // Each second worker stops a task at its limit before it is asked to.
                let is_over = self
                    .tasks
                    .get(&task)
                    .is_some_and(|books| books.spec.cpu_time.is_some_and(|limit| books.used > limit));
                let interrupted = (is_interrupted || is_over && worker.slot.is_multiple_of(2)) && !rude;
                process.said.push_back((task, interrupted));
                process.running = process.prefetched.pop_front();
                self.note_run(worker);
            }
        }
    }

    /// Fails the start of this process for lack of room.
    fn run_short(&mut self, worker: WorkerKey) {
        self.processes.remove(&worker);
        self.not_started += 1;
        self.event(Event::NotStarted { worker });
    }

    fn note_run(&mut self, worker: WorkerKey) {
        if let Some(task) = self.processes.get(&worker).and_then(|process| process.running)
            && let Some(books) = self.tasks.get_mut(&task)
            && let Some(process) = self.processes.get_mut(&worker)
        {
            books.ran += 1;
            process.ran.insert(task);
        }
    }

    /// The process dies. What it had said is heard first.
    fn die(&mut self, worker: WorkerKey) {
        while let Some(process) = self.processes.get_mut(&worker)
            && let Some((task, interrupted)) = process.said.pop_front()
        {
            self.crashes = 0;
            let used = self.tasks.get(&task).map(|books| books.used);
            let report = RunReport { interrupted, used, ..RunReport::default() };
            self.event(Event::Done { worker, task, report });
        }
        let Some(process) = self.processes.remove(&worker) else { return };
        let blamed = self.tasks.values().any(|books| books.resolved.is_none() && books.began.is_some())
            && (process.running.is_some() || !process.prefetched.is_empty());
        // A worker that is found to lie is blamed on the task that it was handed, begun or not.
        let held = self.scheduler.live(worker).and_then(|slot| self.scheduler.slots[slot].state.task());
        let unexpected = !process.expected && !blamed && held.is_none() && process.interrupted.is_empty();
        let was_broken = self.broken;
        self.dies = worker;
        self.dying = Some(process.clone());
        self.event(Event::Dead { worker });
        self.dying = None;
        if let OnDeath::Replace { crashes_max, .. } = self.scheduler.config.on_death
            && unexpected
            && !was_broken
            && process.running.is_none()
            && process.prefetched.is_empty()
        {
            self.crashes += 1;
            let bounded = self.crashes <= crashes_max || self.broken;
            assert!(bounded, "{} crashes in a row and no end", self.crashes);
        }
        // A process that is dead may be spoken of once more.
        if self.random.one_in(4) {
            self.event(Event::Ready { worker });
            self.event(Event::Dead { worker });
        }
    }

    fn lie(&mut self, worker: WorkerKey) {
        let task = TaskId(self.random.below(self.submitted + 3));
        let interrupted = self.random.one_in(2);
        let Some(process) = self.processes.get(&worker) else { return };
        // An answer that is true is not played as a lie.
        if process.ready && process.said.front().is_none_or(|said| said.0 != task) && !process.knows(task) {
            self.event(Event::Done {
                worker,
                task,
                report: RunReport { interrupted, ..RunReport::default() },
            });
        }
    }

    fn chance(&mut self) {
        match self.random.below(100) {
            0..25 => self.submit(),
            25..29 => {
                let task = self.some_task();
                self.event(Event::Cancel { task });
            }
            29..33 => {
                let task = self.some_task();
                self.event(Event::Abort { task });
            }
            33..80 => {
                if let Some(worker) = self.some_process() {
                    self.work(worker);
                }
            }
            80..93 => {
                let by = self.random.pick(&[0, 50, 80, 80, 1_000, 5_000, 20_000, 100_000]);
                self.pass(Duration::from_micros(by));
            }
            93..96 => {
                let dying: Vec<_> = self.processes.iter().filter(|p| p.1.ending).map(|p| *p.0).collect();
                if let Some(worker) = dying.first() {
                    self.die(*worker);
                }
            }
            96 => {
                if let Some(worker) = self.some_process().filter(|_| self.submitted.is_multiple_of(3)) {
                    self.die(worker);
                }
            }
            97 => {
                if let Some(worker) = self.some_process().filter(|_| self.submitted.is_multiple_of(7)) {
                    self.lie(worker);
                }
            }
            98 if self.random.one_in(2) => self.room = self.random.pick(&[None, Some(0), Some(1), Some(2)]),
            98 => {
                let workers_max = 1 + self.random.below(5) as usize;
                let workers_min = self.random.below(workers_max as u64 + 1) as usize;
                if self.random.one_in(2) {
                    self.event(Event::Resize { workers_min, workers_max });
                } else {
                    self.event(Event::Prestart { workers: workers_max });
                }
            }
            _ => match self.random.below(40) {
                0 => self.event(Event::Kill { gently: false }),
                1 => self.event(Event::Kill { gently: true }),
                2 | 3 => self.event(Event::Shutdown { cancel_pending: true }),
                4 => self.event(Event::Shutdown { cancel_pending: false }),
                _ => {}
            },
        }
    }

    fn pass(&mut self, by: Duration) {
        self.now += by;
        for task in self.processes.values().filter_map(|process| process.running) {
            if let Some(books) = self.tasks.get_mut(&task).filter(|books| books.computes) {
                books.used += by;
            }
        }
        self.event(Event::Tick);
    }

    /// Has everybody behave, so that everything has to end.
    fn end_well(&mut self) {
        self.event(Event::Shutdown { cancel_pending: false });
        // The machine may also have room for few processes, or for none.
        self.room = self.random.pick(&[None, None, Some(0), Some(1), Some(2)]);
        for _ in 0..100_000 {
            if self.stopped {
                break;
            }
            if let Some((&worker, _)) = self.processes.iter().find(|(_, process)| process.ending) {
                self.die(worker);
            } else if let Some((&worker, _)) = self.processes.iter().find(|(_, process)| process.can_work()) {
                self.work(worker);
            } else {
                let next = self.scheduler.next_deadline().expect("something waits, and for no time");
                self.pass(next.saturating_sub(self.now));
            }
        }
        assert!(self.stopped, "it never stops");
        for (task, books) in &self.tasks {
            assert!(books.resolved.is_some(), "{task} was lost");
        }
    }
}

/// Plays one world to its end, and says how many events it had.
fn play(seed: u64, mutant: Option<Mutant>) -> u64 {
    let mut world = World::new(seed, mutant);
    let steps = 50 + world.random.below(900);
    for _ in 0..steps {
        world.chance();
    }
    world.end_well();
    world.events
}

#[test]
fn a_million_random_events_keep_every_promise() {
    let wanted = number("WASMPOOL_SIMULATION_EVENTS", 1_000_000);
    let mut seed = number("WASMPOOL_SIMULATION_SEED", 1);
    let mut events = 0;
    while events < wanted {
        match catch_unwind(AssertUnwindSafe(|| play(seed, None))) {
            Ok(played) => events += played,
            Err(panic) => {
                eprintln!("the world with WASMPOOL_SIMULATION_SEED={seed} went wrong after {events} events");
                std::panic::resume_unwind(panic);
            }
        }
        seed += 1;
    }
    println!("{events} events in {seed} worlds");
}

#[test]
fn mutants_are_caught() {
    for mutant in Mutant::ALL {
        let survives = |seed: &u64| catch_unwind(AssertUnwindSafe(|| play(*seed, Some(mutant)))).is_ok();
        let caught = (1..3_000).find(|seed| !survives(seed));
        assert!(caught.is_some(), "{mutant:?} survives 3,000 worlds");
        println!("{mutant:?}: caught in world {}", caught.unwrap_or_default());
    }
}
