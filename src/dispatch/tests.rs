//! The state machine against a world that does what worlds do: processes start late, die
//! at any time, answer what they were asked, or lie. After each event all invariants hold,
//! and every task is resolved exactly once.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn dispatch(workers_max: usize) -> Dispatch {
    let (grace, start_timeout) = (ms(500), ms(10_000));
    Dispatch::new(Config { workers_max, queue_tasks_max: 50, grace, start_timeout })
}

/// A dispatcher with its time and everything it asked for.
struct World {
    dispatch: Dispatch,
    now: Now,
    asked: Vec<Action>,
}

impl World {
    fn new(workers_max: usize) -> Self {
        World { dispatch: dispatch(workers_max), now: Duration::ZERO, asked: Vec::new() }
    }

    /// Handles the event and returns what is asked for in answer to it.
    fn event(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.dispatch.handle(event, self.now, &mut actions);
        self.dispatch.check();
        self.asked.extend(actions.iter().cloned());
        actions
    }

    fn submit(&mut self, id: u64, timeout: Option<Duration>) -> Vec<Action> {
        self.event(Event::Submit { task: TaskId(id), timeout })
    }

    fn at(&mut self, now: Now) -> Vec<Action> {
        self.now = now;
        self.event(Event::Tick)
    }
}

const FIRST: WorkerKey = WorkerKey { slot: 0, generation: 1 };
const ONE: TaskId = TaskId(1);
const TWO: TaskId = TaskId(2);

fn resolve(task: TaskId, how: Resolution) -> Action {
    Action::Resolve { task, how }
}

#[test]
fn a_worker_starts_only_when_no_idle_one_can_take_the_task() {
    let mut world = World::new(4);
    assert_eq!(world.submit(1, None), [Action::Start { worker: FIRST }]);
    assert_eq!(world.event(Event::Ready { worker: FIRST }), [Action::Run { worker: FIRST, task: ONE }]);
    let done = world.event(Event::Done { worker: FIRST, task: ONE, interrupted: false });
    assert_eq!(done, [resolve(ONE, Resolution::Answered)]);
    assert_eq!(world.submit(2, None), [Action::Run { worker: FIRST, task: TWO }], "no second worker");
}

#[test]
fn the_time_to_start_begins_when_the_process_exists() {
    let mut world = World::new(1);
    world.submit(1, None);
    assert_eq!(world.at(ms(60_000)), [], "the process is yet to be made");
    world.event(Event::Spawned { worker: FIRST });
    let killed = world.at(ms(70_000));
    assert_eq!(killed, [Action::Kill { worker: FIRST, reason: KillReason::StartTimeout }]);
    let dead = world.event(Event::Dead { worker: FIRST });
    assert_eq!(dead[0], Action::Break { worker: FIRST, in_flight: vec![] });
}

#[test]
fn a_deadline_interrupts_then_kills_and_a_replacement_starts_for_the_next() {
    let mut world = World::new(1);
    world.submit(1, Some(ms(100)));
    world.event(Event::Ready { worker: FIRST });
    world.submit(2, None);
    assert_eq!(world.dispatch.next_deadline(), Some(ms(100)));
    assert_eq!(world.at(ms(99)), []);
    assert_eq!(world.at(ms(100)), [Action::Interrupt { worker: FIRST, task: ONE }]);
    assert_eq!(world.at(ms(600)), [Action::Kill { worker: FIRST, reason: KillReason::Grace }]);
    let second = WorkerKey { slot: 0, generation: 2 };
    assert_eq!(
        world.event(Event::Dead { worker: FIRST }),
        [resolve(ONE, Resolution::TimedOut { killed: true }), Action::Start { worker: second }]
    );
    assert_eq!(world.event(Event::Dead { worker: FIRST }), [], "an old worker's death is old news");
}

#[test]
fn an_answer_that_crosses_its_interrupt_counts() {
    let mut world = World::new(1);
    world.submit(1, Some(ms(100)));
    world.event(Event::Ready { worker: FIRST });
    world.at(ms(100));
    let done = world.event(Event::Done { worker: FIRST, task: ONE, interrupted: false });
    assert_eq!(done, [resolve(ONE, Resolution::Answered)]);
    assert_eq!(world.at(ms(10_000)), [], "no late kill");
}

#[test]
fn an_unexpected_death_breaks_everything_and_names_what_was_in_flight() {
    let mut world = World::new(2);
    world.submit(1, None);
    world.event(Event::Ready { worker: FIRST });
    world.submit(2, None);
    let second = WorkerKey { slot: 1, generation: 1 };
    world.event(Event::Ready { worker: second });
    world.submit(3, None);
    assert_eq!(
        world.event(Event::Dead { worker: FIRST }),
        [
            Action::Break { worker: FIRST, in_flight: vec![ONE] },
            resolve(ONE, Resolution::Broken),
            Action::Kill { worker: second, reason: KillReason::PoolEnds },
            resolve(TWO, Resolution::Broken),
            resolve(TaskId(3), Resolution::Broken),
        ]
    );
    assert_eq!(world.dispatch.admits(), Err(Refusal::Broken));
    assert_eq!(world.event(Event::Dead { worker: second }), [Action::Stopped]);
    assert_eq!(world.dispatch.admits(), Err(Refusal::Broken), "it stays broken, not shut down");
}

#[test]
fn a_lie_is_a_kill_and_then_a_breakage() {
    for (task, interrupted) in [(TWO, false), (ONE, true)] {
        let mut world = World::new(1);
        world.submit(1, None);
        world.event(Event::Ready { worker: FIRST });
        let lied = world.event(Event::Done { worker: FIRST, task, interrupted });
        assert_eq!(lied, [Action::Kill { worker: FIRST, reason: KillReason::Violation }]);
        let dead = world.event(Event::Dead { worker: FIRST });
        assert_eq!(dead[0], Action::Break { worker: FIRST, in_flight: vec![ONE] });
    }
}

#[test]
fn shutdown_runs_what_is_pending_then_lets_the_workers_go() {
    let mut world = World::new(1);
    world.submit(1, None);
    assert_eq!(world.event(Event::Shutdown { cancel_pending: false }), []);
    assert_eq!(world.dispatch.admits(), Err(Refusal::ShutDown));
    world.event(Event::Ready { worker: FIRST });
    let done = world.event(Event::Done { worker: FIRST, task: ONE, interrupted: false });
    assert_eq!(done, [resolve(ONE, Resolution::Answered), Action::Retire { worker: FIRST }]);
    assert_eq!(world.event(Event::Dead { worker: FIRST }), [Action::Stopped]);
}

#[test]
fn a_worker_that_does_not_leave_is_killed() {
    let mut world = World::new(1);
    world.submit(1, None);
    world.event(Event::Cancel { task: ONE });
    assert_eq!(world.event(Event::Shutdown { cancel_pending: false }), [Action::Retire { worker: FIRST }]);
    assert_eq!(world.at(ms(500)), [Action::Kill { worker: FIRST, reason: KillReason::Grace }]);
    assert_eq!(world.event(Event::Dead { worker: FIRST }), [Action::Stopped]);
}

/// What chance decides at each step.
#[derive(Debug, Clone)]
enum Step {
    Submit { timeout: bool },
    Cancel(usize),
    Abort(usize),
    Ready(usize),
    Done { worker: usize, lie: u8 },
    Dead(usize),
    Wait(u16),
    Shutdown { cancel: bool },
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => any::<bool>().prop_map(|timeout| Step::Submit { timeout }),
        4 => any::<usize>().prop_map(Step::Cancel),
        4 => any::<usize>().prop_map(Step::Abort),
        15 => any::<usize>().prop_map(Step::Ready),
        20 => (any::<usize>(), any::<u8>()).prop_map(|(worker, lie)| Step::Done { worker, lie }),
        3 => any::<usize>().prop_map(Step::Dead),
        10 => any::<u16>().prop_map(Step::Wait),
        1 => any::<bool>().prop_map(|cancel| Step::Shutdown { cancel }),
        1 => Just(Step::Kill),
    ]
}

/// The processes as they are, beside what the dispatcher believes of them.
#[derive(Default)]
struct Processes {
    /// Started and not reported dead; with the task each was handed.
    alive: BTreeMap<(u32, u32), Option<TaskId>>,
    /// SIGKILLed or retired: they will die.
    ending: Vec<WorkerKey>,
    interrupted: HashMap<TaskId, ()>,
    resolved: HashMap<TaskId, Resolution>,
    stopped: bool,
}

impl Processes {
    fn note(&mut self, actions: &[Action]) {
        for action in actions {
            assert!(!self.stopped, "{action:?} after Stopped");
            match action {
                Action::Start { worker } => {
                    let fresh = self.alive.insert((worker.slot, worker.generation), None);
                    assert!(fresh.is_none(), "{worker:?} started twice");
                }
                Action::Run { worker, task } => {
                    let held = self.alive.get_mut(&(worker.slot, worker.generation)).expect("it lives");
                    assert_eq!(held.replace(*task), None, "two tasks on one worker");
                }
                Action::Interrupt { task, .. } => {
                    assert!(self.interrupted.insert(*task, ()).is_none(), "{task} interrupted twice");
                }
                Action::Kill { worker, .. } | Action::Retire { worker } => self.ending.push(*worker),
                Action::Resolve { task, how } => {
                    assert!(self.resolved.insert(*task, *how).is_none(), "{task} resolved twice");
                }
                Action::Break { .. } => {}
                Action::Stopped => {
                    assert!(self.alive.is_empty(), "stopped with processes alive");
                    self.stopped = true;
                }
            }
        }
    }

    fn pick(&self, index: usize) -> Option<(WorkerKey, Option<TaskId>)> {
        let (&(slot, generation), &task) = self.alive.iter().nth(index % self.alive.len().max(1))?;
        Some((WorkerKey { slot, generation }, task))
    }
}

fn play(world: &mut World, processes: &mut Processes, step: &Step, next: &mut u64) {
    let event = match *step {
        Step::Submit { timeout } => {
            if world.dispatch.admits().is_err() {
                return;
            }
            *next += 1;
            Event::Submit { task: TaskId(*next), timeout: timeout.then_some(ms(300)) }
        }
        Step::Cancel(task) => Event::Cancel { task: TaskId(task as u64 % (*next + 1)) },
        Step::Abort(task) => Event::Abort { task: TaskId(task as u64 % (*next + 1)) },
        Step::Ready(index) => match processes.pick(index) {
            // A process is known to exist before it is heard of, or not: both happen.
            Some((worker, None)) if index % 3 == 0 => Event::Spawned { worker },
            Some((worker, None)) => Event::Ready { worker },
            _ => return,
        },
        Step::Done { worker, lie } => {
            let Some((worker, Some(task))) = processes.pick(worker) else { return };
            // Mostly the truth; sometimes an answer that nobody asked for.
            let honest = lie > 8;
            let interrupted = processes.interrupted.contains_key(&task) == honest && lie % 2 == 0;
            let said = if lie < 4 { TaskId(task.0 + 1) } else { task };
            processes.alive.insert((worker.slot, worker.generation), None);
            Event::Done { worker, task: said, interrupted }
        }
        Step::Dead(index) => {
            // Those that are being killed die first.
            let dying = processes.ending.pop().map(|worker| (worker, None)).or_else(|| processes.pick(index));
            let Some((worker, _)) = dying else { return };
            if processes.alive.remove(&(worker.slot, worker.generation)).is_none() {
                return;
            }
            Event::Dead { worker }
        }
        Step::Wait(by) => {
            world.now += ms(by as u64 / 16);
            Event::Tick
        }
        Step::Shutdown { cancel } => Event::Shutdown { cancel_pending: cancel },
        Step::Kill => Event::Kill,
    };
    let actions = world.event(event);
    processes.note(&actions);
}

/// Ends the pool, lets every process die, and holds the books to their sum.
fn finish(world: &mut World, processes: &mut Processes, submitted: u64) {
    let actions = world.event(Event::Kill);
    processes.note(&actions);
    for _ in 0..10_000 {
        let Some((worker, _)) = processes.pick(0) else { break };
        processes.alive.remove(&(worker.slot, worker.generation));
        let actions = world.event(Event::Dead { worker });
        processes.note(&actions);
    }
    assert!(world.dispatch.is_stopped(), "it never stops");
    assert_eq!(processes.resolved.len() as u64, submitted, "a task was lost");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_task_is_resolved_exactly_once_whatever_happens(
        workers in 1usize..5,
        steps in prop::collection::vec(step(), 1..600),
    ) {
        let (mut world, mut processes, mut next) = (World::new(workers), Processes::default(), 0);
        for step in &steps {
            play(&mut world, &mut processes, step, &mut next);
        }
        finish(&mut world, &mut processes, next);
    }
}
