//! `Pool::events`.

use super::*;

#[test]
fn the_life_of_a_task_and_of_its_worker_is_told_in_order() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    let events = pool.events();
    let future = submit_with(&pool, &tasks.echo, TaskOptions::new().label("invoice 4711"));
    output(&future);
    let pid = pool.worker_pids()[0];
    pool.shutdown(ShutdownMode::Finish);
    let told: Vec<PoolEvent> = events.collect();
    assert!(told.windows(2).all(|pair| pair[0].at <= pair[1].at), "time does not run backwards");
    let task = future.task_id();
    let mut kinds = told.into_iter().map(|event| event.kind);
    match kinds.next() {
        Some(EventKind::TaskQueued { task: queued, name, module, label }) => {
            assert_eq!((queued, &*name, label.as_deref()), (task, "echo", Some("invoice 4711")));
            assert!(module.contains("sha256"), "{module}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(kinds.next(), Some(EventKind::WorkerStarted { pid }));
    match kinds.next() {
        Some(EventKind::WorkerReady { pid: ready, sandbox }) => {
            assert_eq!(ready, pid);
            assert!(sandbox.has(wasmpool::sandbox::SandboxLayer::Seccomp), "{sandbox}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(kinds.next(), Some(EventKind::TaskStarted { task, pid, attempt: 1 }));
    let report = future.report().expect("done");
    assert_eq!(kinds.next(), Some(EventKind::TaskFinished { task, outcome: TaskOutcome::Succeeded, report }));
    assert_eq!(kinds.next(), Some(EventKind::WorkerLeaving { pid, reason: LeaveReason::PoolEnds }));
    match kinds.next() {
        Some(EventKind::WorkerEnded { death, expected: true }) => {
            assert_eq!((death.pid, death.cause), (pid, DeathCause::Exited(0)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(kinds.next(), Some(EventKind::Stopped));
    assert_eq!(kinds.next(), None);
}

/// Follows a pool by its events, and holds them to the rules that they keep among themselves.
#[derive(Default)]
struct Chronicle {
    /// Workers that live; of those that are ready, what they run.
    workers: HashMap<u32, Option<Option<TaskId>>>,
    /// Open tasks, by how often they began.
    open: HashMap<TaskId, u32>,
    finished: BTreeMap<TaskId, TaskOutcome>,
    stopped: bool,
}

impl Chronicle {
    fn follow(&mut self, kind: &EventKind) {
        assert!(!self.stopped, "{kind:?} after the end");
        match kind {
            EventKind::WorkerStarted { pid } => assert_eq!(self.workers.insert(*pid, None), None),
            EventKind::WorkerReady { pid, .. } => {
                assert_eq!(self.workers.insert(*pid, Some(None)), Some(None), "started and not ready");
            }
            EventKind::WorkerLeaving { pid, .. } => assert!(self.workers.contains_key(pid)),
            EventKind::WorkerEnded { death, .. } => {
                assert!(self.workers.remove(&death.pid).is_some(), "{death}");
            }
            EventKind::TaskQueued { task, .. } => {
                assert_eq!(self.open.insert(*task, 0), None);
                assert!(!self.finished.contains_key(task));
            }
            EventKind::TaskStarted { task, pid, attempt } => {
                let attempts = self.open.get_mut(task).expect("a task that is open");
                *attempts += 1;
                assert_eq!(*attempts, *attempt);
                let runs = self.workers.get_mut(pid).and_then(Option::as_mut).expect("a ready worker");
                assert_eq!(runs.replace(*task), None, "one task at a time");
            }
            EventKind::TaskRetried { task, .. } => self.leave(*task),
            EventKind::TaskFinished { task, outcome, report } => {
                let attempts = self.open.remove(task).expect("a task that is open");
                assert_eq!(attempts, report.attempts, "{task} {outcome:?}");
                assert!(attempts > 0 || *outcome == TaskOutcome::Cancelled || *outcome == TaskOutcome::Lost);
                assert_eq!(self.finished.insert(*task, *outcome), None);
                self.leave(*task);
            }
            EventKind::Stopped => self.stopped = true,
            other => panic!("{other:?} has no place here"),
        }
    }

    fn leave(&mut self, task: TaskId) {
        for runs in self.workers.values_mut().flatten() {
            if *runs == Some(task) {
                *runs = None;
            }
        }
    }
}

#[test]
fn each_task_that_is_queued_finishes_once_over_1000_mixed_tasks() {
    let pool = build(builder(2).on_worker_death(OnWorkerDeath::replace()));
    let tasks = tasks(&pool);
    let events = pool.events();
    let futures = mixture(&pool, &tasks, 1_000);
    let expected: BTreeMap<_, _> = futures.iter().map(|future| (future.task_id(), outcome(future))).collect();
    drop(pool);
    let mut chronicle = Chronicle::default();
    for event in events {
        chronicle.follow(&event.kind);
    }
    assert!(chronicle.stopped && chronicle.open.is_empty() && chronicle.workers.is_empty());
    assert_eq!(chronicle.finished, expected);
}

#[test]
fn a_subscriber_that_does_not_read_holds_nothing_up_and_what_it_misses_is_counted() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    let all = pool.events();
    let mut few = pool.events_buffered(4);
    several(&pool, &tasks.echo, 200).iter().for_each(|echo| drop(output(echo)));
    assert!(few.dropped() > 500);
    pool.shutdown(ShutdownMode::Finish);
    assert_eq!(all.dropped(), 0);
    let all: Vec<_> = all.collect();
    assert_eq!(all.last().map(|event| &event.kind), Some(&EventKind::Stopped));
    assert_eq!(few.dropped(), all.len() as u64 - 4);
    let kept: Vec<_> = std::iter::from_fn(|| few.try_next()).collect();
    assert_eq!(kept[..], all[..4], "the first are kept");
    assert_eq!(few.next(), None, "and nothing follows");
}

#[test]
fn events_end_with_the_pool_and_do_not_keep_it_alive() {
    let pool = pool(1);
    let mut events = pool.events();
    let another = pool.clone();
    drop(pool);
    assert_eq!(events.try_next(), None, "it lives");
    another.shutdown(ShutdownMode::Finish);
    assert_eq!(events.next().map(|event| event.kind), Some(EventKind::Stopped));
    assert_eq!(events.next(), None);
    let late: Vec<_> = another.events().map(|event| event.kind).collect();
    assert_eq!(late, [EventKind::Stopped], "whoever comes after the end learns of it");

    let dropped = self::pool(1);
    dropped.prestart(1);
    idle_workers(&dropped, 1);
    let events = dropped.events();
    drop(dropped);
    assert_eq!(in_time("the iterator", move || events.last()).expect("an event").kind, EventKind::Stopped);
}

#[test]
fn a_slow_task_is_told_once() {
    let pool = build(builder(1).slow_after(ms(20)));
    let tasks = tasks(&pool);
    let mut events = pool.events();
    let spin = submit(&pool, &tasks.spin);
    let task = spin.task_id();
    let pid = worker_of(&pool, spin.task_id());
    events_to(&mut events, "TaskSlow", |kind| *kind == EventKind::TaskSlow { task, pid });
    let running = || pool.stats().workers[0].task.map_or(Duration::ZERO, |(_, since)| since);
    assert!(running() >= ms(20));
    eventually("it to run for much longer", || running() > ms(100));
    spin.abort();
    let rest = events_to(&mut events, "its end", |kind| matches!(kind, EventKind::TaskFinished { .. }));
    assert!(matches!(rest[..], [EventKind::TaskFinished { outcome: TaskOutcome::Aborted, .. }]), "{rest:?}");
}

#[test]
fn a_breakage_is_told_before_the_ends_that_follow_from_it() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    let spin = submit(&pool, &tasks.spin);
    let pending = submit(&pool, &tasks.echo);
    let pid = worker_of(&pool, spin.task_id());
    let events = pool.events();
    signal(pid, Signal::KILL);
    let told: Vec<_> = events.map(|event| event.kind).collect();
    let lost = |kind: &EventKind| match kind {
        EventKind::TaskFinished { task, outcome: TaskOutcome::Lost, report } => (*task, report.attempts),
        other => panic!("{other:?}"),
    };
    match &told[..] {
        [
            EventKind::WorkerEnded { death, expected: false },
            EventKind::Broken { death: why },
            ends @ ..,
            last,
        ] => {
            assert_eq!((death.pid, &death.cause), (pid, &DeathCause::Signaled(9)));
            assert_eq!((why.pid, why.phase), (pid, Phase::Running));
            let ends: Vec<_> = ends.iter().map(lost).collect();
            assert_eq!(ends, [(spin.task_id(), 1), (pending.task_id(), 0)]);
            assert_eq!(*last, EventKind::Stopped);
        }
        other => panic!("{other:?}"),
    }
}
