//! Decisions one by one; `simulation` has the worlds in which they meet.

mod domains;
mod wakeups;

use super::wakeups::LONG_AFTER;
use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn config(workers_max: usize) -> Config {
    Config {
        workers_min: 0,
        workers_max,
        queue_tasks_max: 50,
        grace: ms(500),
        start_timeout: ms(10_000),
        idle_timeout: None,
        slow_after: None,
        on_death: OnDeath::Break,
        recycle: Recycling::default(),
        prefetch_max: 0,
        cpus: 64,
    }
}

const REPLACE: OnDeath =
    OnDeath::Replace { crashes_max: 2, backoff: ms_const(100), backoff_max: ms_const(150) };

const fn ms_const(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A scheduler with its time. Revocations succeed unless the task is in `begun`.
struct World {
    scheduler: Scheduler,
    now: Now,
    begun: Vec<TaskId>,
    /// A worker that is looked at has begun what is at hand; the next time it comes on like this.
    found: Found,
}

impl World {
    fn new(config: Config) -> Self {
        World {
            scheduler: Scheduler::new(config),
            now: Duration::ZERO,
            begun: Vec::new(),
            found: Found::Computing,
        }
    }

    /// Handles the event and returns what is asked for in answer to it.
    fn event(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.scheduler.handle(event, self.now, &mut actions);
        let mut next = 0;
        while let Some(action) = actions.get(next) {
            next += 1;
            let answer = match *action {
                Action::Revoke { worker, task } => {
                    Event::Revoked { worker, task, revoked: !self.begun.contains(&task) }
                }
                Action::Locate { worker, task, begun: 0 } => {
                    Event::Located { worker, task, found: Found::Begun(1) }
                }
                Action::Locate { worker, task, .. } => Event::Located { worker, task, found: self.found },
                _ => continue,
            };
            self.scheduler.handle(answer, self.now, &mut actions);
        }
        self.scheduler.check(self.now);
        actions
    }

    fn submit(&mut self, id: u64, spec: TaskSpec) -> Vec<Action> {
        self.event(Event::Submit { task: TaskId(id), spec })
    }

    fn timed(&mut self, id: u64, timeout: u64) -> Vec<Action> {
        self.submit(id, TaskSpec { timeout: Some(ms(timeout)), ..TaskSpec::default() })
    }

    fn ready(&mut self, worker: WorkerKey) -> Vec<Action> {
        self.event(Event::Ready { worker })
    }

    fn done(&mut self, worker: WorkerKey, task: TaskId) -> Vec<Action> {
        let report = RunReport { ran: Duration::from_micros(10), ..RunReport::default() };
        self.event(Event::Done { worker, task, report })
    }

    fn dead(&mut self, worker: WorkerKey) -> Vec<Action> {
        self.event(Event::Dead { worker })
    }

    fn at(&mut self, now: Now) -> Vec<Action> {
        self.now = now;
        self.event(Event::Tick)
    }
}

const FIRST: WorkerKey = WorkerKey { slot: 0, generation: 1 };
const SECOND: WorkerKey = WorkerKey { slot: 1, generation: 1 };
const NEXT: WorkerKey = WorkerKey { slot: 0, generation: 2 };
const ONE: TaskId = TaskId(1);
const TWO: TaskId = TaskId(2);
const THREE: TaskId = TaskId(3);

fn resolve(task: TaskId, how: Resolution) -> Action {
    Action::Resolve { task, how }
}

fn start(worker: WorkerKey) -> Action {
    Action::Start { worker }
}

fn run(worker: WorkerKey, task: TaskId) -> [Action; 2] {
    [Action::Assign { worker, task }, Action::Begin { worker, task }]
}

fn retire(worker: WorkerKey, reason: RetireReason) -> Action {
    Action::Retire { worker, reason }
}

#[test]
fn a_worker_starts_only_when_no_idle_one_can_take_the_task() {
    let mut world = World::new(config(4));
    assert_eq!(world.submit(1, TaskSpec::default()), [start(FIRST)]);
    assert_eq!(world.ready(FIRST), run(FIRST, ONE));
    assert_eq!(world.done(FIRST, ONE), [resolve(ONE, Resolution::Completed)]);
    assert_eq!(world.submit(2, TaskSpec::default()), run(FIRST, TWO), "no second worker");
}

#[test]
fn the_time_to_start_begins_when_the_process_exists() {
    let mut world = World::new(config(1));
    world.submit(1, TaskSpec::default());
    assert_eq!(world.at(ms(60_000)), [], "the process is yet to be made");
    world.event(Event::Spawned { worker: FIRST });
    let killed = world.at(ms(70_000));
    assert_eq!(killed, [Action::Kill { worker: FIRST, reason: KillReason::StartTimeout }]);
    assert_eq!(world.dead(FIRST)[0], Action::Break { worker: FIRST, in_flight: vec![] });
}

#[test]
fn a_deadline_interrupts_then_kills_and_a_replacement_starts_for_the_next() {
    let mut world = World::new(config(1));
    world.timed(1, 100);
    world.ready(FIRST);
    world.submit(2, TaskSpec::default());
    assert_eq!(world.scheduler.next_deadline(), Some(ms(100)));
    assert_eq!(world.at(ms(99)), []);
    assert_eq!(world.at(ms(100)), [Action::Interrupt { worker: FIRST, task: ONE }]);
    assert_eq!(world.at(ms(600)), [Action::Kill { worker: FIRST, reason: KillReason::Grace }]);
    assert_eq!(world.dead(FIRST), [resolve(ONE, Resolution::TimedOut { killed: true }), start(NEXT)]);
    assert_eq!(world.dead(FIRST), [], "an old worker's death is old news");
}

#[test]
fn an_answer_that_crosses_its_interrupt_counts() {
    let mut world = World::new(config(1));
    world.timed(1, 100);
    world.ready(FIRST);
    world.at(ms(100));
    assert_eq!(world.done(FIRST, ONE), [resolve(ONE, Resolution::Completed)]);
    assert_eq!(world.at(ms(10_000)), [], "no late kill");
}

#[test]
fn an_unexpected_death_breaks_everything_and_names_what_was_in_flight() {
    let mut world = World::new(config(2));
    world.submit(1, TaskSpec::default());
    world.ready(FIRST);
    world.submit(2, TaskSpec::default());
    world.ready(SECOND);
    world.submit(3, TaskSpec::default());
    assert_eq!(
        world.dead(FIRST),
        [
            Action::Break { worker: FIRST, in_flight: vec![ONE] },
            resolve(ONE, Resolution::Broken),
            Action::Kill { worker: SECOND, reason: KillReason::PoolEnds },
            resolve(TWO, Resolution::Broken),
            resolve(THREE, Resolution::Broken),
        ]
    );
    assert_eq!(world.scheduler.admits(0), Err(Rejection::Broken));
    assert_eq!(world.dead(SECOND), [Action::Stopped]);
    assert_eq!(world.scheduler.admits(0), Err(Rejection::Broken), "it stays broken, not shut down");
}

#[test]
fn with_replacement_only_the_running_task_fails_and_a_retry_runs_it_again() {
    let mut world = World::new(Config { on_death: REPLACE, ..config(1) });
    world.submit(1, TaskSpec { retry: Retry { attempts_max: 2, ..Retry::default() }, ..TaskSpec::default() });
    world.submit(2, TaskSpec::default());
    world.ready(FIRST);
    let how = Resolution::Died { worker: FIRST };
    assert_eq!(world.dead(FIRST), [Action::Retry { task: ONE, how }, start(NEXT)]);
    assert_eq!(world.ready(NEXT), run(NEXT, ONE), "it finds its old rank");
    let how = Resolution::Died { worker: NEXT };
    assert_eq!(world.dead(NEXT)[0], resolve(ONE, how), "two attempts are two attempts");
    assert_eq!(world.scheduler.admits(0), Ok(()));
}

#[test]
fn a_retry_waits_for_its_pause_and_the_pause_doubles() {
    let mut world = World::new(Config { on_death: REPLACE, ..config(1) });
    let retry = Retry { attempts_max: 3, backoff: ms(40), on_timeout: true };
    world.submit(1, TaskSpec { retry, timeout: Some(ms(10)), ..TaskSpec::default() });
    world.ready(FIRST);
    let heeded = RunReport { interrupted: true, ..RunReport::default() };
    for (fires, due) in [(10, 50), (60, 140)] {
        world.at(ms(fires));
        let actions = world.event(Event::Done { worker: FIRST, task: ONE, report: heeded });
        assert_eq!(actions, [Action::Retry { task: ONE, how: Resolution::TimedOut { killed: false } }]);
        assert_eq!(world.scheduler.next_deadline(), Some(ms(due)));
        assert_eq!(world.at(ms(due)), run(FIRST, ONE));
    }
    world.at(ms(150));
    let actions = world.event(Event::Done { worker: FIRST, task: ONE, report: heeded });
    assert_eq!(actions, [resolve(ONE, Resolution::TimedOut { killed: false })]);
}

#[test]
fn crashes_without_a_task_to_blame_are_paused_between_and_bounded() {
    let mut world = World::new(Config { on_death: REPLACE, ..config(1) });
    world.submit(1, TaskSpec::default());
    assert_eq!(world.dead(FIRST), [], "first a pause");
    assert_eq!(world.scheduler.next_deadline(), Some(ms(100)));
    assert_eq!(world.at(ms(100)), [start(NEXT)]);
    assert_eq!(world.dead(NEXT), []);
    assert_eq!(world.scheduler.next_deadline(), Some(ms(250)), "150 ms are the most");
    let third = WorkerKey { slot: 0, generation: 3 };
    assert_eq!(world.at(ms(250)), [start(third)]);
    assert_eq!(world.dead(third)[0], Action::Break { worker: third, in_flight: vec![] });
}

#[test]
fn a_lie_is_a_kill_and_then_a_breakage() {
    for (task, interrupted) in [(TWO, false), (ONE, true)] {
        let mut world = World::new(config(1));
        world.submit(1, TaskSpec::default());
        world.ready(FIRST);
        let report = RunReport { interrupted, ..RunReport::default() };
        let lied = world.event(Event::Done { worker: FIRST, task, report });
        assert_eq!(lied, [Action::Kill { worker: FIRST, reason: KillReason::Violation }]);
        assert_eq!(world.dead(FIRST)[0], Action::Break { worker: FIRST, in_flight: vec![ONE] });
    }
}

#[test]
fn shutdown_runs_what_is_pending_then_lets_the_workers_go() {
    let mut world = World::new(config(1));
    world.submit(1, TaskSpec::default());
    assert_eq!(world.event(Event::Shutdown { cancel_pending: false }), []);
    assert_eq!(world.scheduler.admits(0), Err(Rejection::ShutDown));
    world.ready(FIRST);
    let gone = retire(FIRST, RetireReason::PoolEnds);
    assert_eq!(world.done(FIRST, ONE), [resolve(ONE, Resolution::Completed), gone]);
    assert_eq!(world.dead(FIRST), [Action::Stopped]);
}

#[test]
fn a_worker_that_does_not_leave_is_killed() {
    let mut world = World::new(config(1));
    world.submit(1, TaskSpec::default());
    world.event(Event::Cancel { task: ONE });
    let leaves = world.event(Event::Shutdown { cancel_pending: false });
    assert_eq!(leaves, [retire(FIRST, RetireReason::PoolEnds)]);
    assert_eq!(world.at(ms(500)), [Action::Kill { worker: FIRST, reason: KillReason::Grace }]);
    assert_eq!(world.dead(FIRST), [Action::Stopped]);
}

#[test]
fn a_gentle_kill_asks_first() {
    let mut world = World::new(config(1));
    world.submit(1, TaskSpec::default());
    world.submit(2, TaskSpec::default());
    world.ready(FIRST);
    assert_eq!(
        world.event(Event::Kill { gently: true }),
        [
            resolve(TWO, Resolution::Cancelled),
            Action::Terminate { worker: FIRST },
            resolve(ONE, Resolution::Broken),
        ]
    );
    assert_eq!(world.at(ms(500)), [Action::Kill { worker: FIRST, reason: KillReason::Grace }]);
    assert_eq!(world.dead(FIRST), [Action::Stopped]);
}

#[test]
fn higher_priorities_go_first_and_equal_ones_by_age() {
    let mut world = World::new(config(1));
    for (id, priority) in [(1, 0), (2, 0), (3, 7), (4, -1), (5, 7)] {
        world.submit(id, TaskSpec { priority, ..TaskSpec::default() });
    }
    let mut order = Vec::new();
    let mut actions = world.ready(FIRST);
    while let Some(Action::Begin { task, .. }) = actions.last() {
        order.push(task.0);
        actions = world.done(FIRST, *task);
    }
    assert_eq!(order, [3, 5, 1, 2, 4]);
}

#[test]
fn a_worker_that_has_run_enough_tasks_is_replaced_and_the_replacement_starts_first() {
    let recycle = Recycling { tasks_max: Some(1), ..Recycling::default() };
    let mut world = World::new(Config { recycle, ..config(1) });
    world.submit(1, TaskSpec::default());
    world.submit(2, TaskSpec::default());
    world.ready(FIRST);
    let leaves = retire(FIRST, RetireReason::Recycled);
    assert_eq!(world.done(FIRST, ONE), [resolve(ONE, Resolution::Completed), start(SECOND), leaves]);
    world.dead(FIRST);
    assert_eq!(world.ready(SECOND), run(SECOND, TWO));
    let leaves = retire(SECOND, RetireReason::Recycled);
    assert_eq!(world.done(SECOND, TWO), [resolve(TWO, Resolution::Completed), leaves], "nobody waits");
}

#[test]
fn memory_and_age_are_looked_at_between_tasks() {
    let recycle = Recycling { tasks_max: None, memory_bytes_max: Some(1000), age_max: Some(ms(50)) };
    let mut world = World::new(Config { recycle, ..config(1) });
    world.submit(1, TaskSpec::default());
    world.ready(FIRST);
    let large = RunReport { resident_bytes: Some(1001), ..RunReport::default() };
    let actions = world.event(Event::Done { worker: FIRST, task: ONE, report: large });
    assert_eq!(actions[1], retire(FIRST, RetireReason::Recycled));
    world.submit(2, TaskSpec::default());
    world.ready(SECOND);
    world.now = ms(51);
    assert_eq!(world.done(SECOND, TWO)[1], retire(SECOND, RetireReason::Recycled));
}

#[test]
fn idle_workers_leave_after_their_time_down_to_the_minimum() {
    let mut world = World::new(Config { idle_timeout: Some(ms(30)), workers_min: 1, ..config(3) });
    assert_eq!(world.event(Event::Prestart { workers: 2 }), [start(FIRST), start(SECOND)]);
    world.ready(FIRST);
    world.ready(SECOND);
    assert_eq!(world.scheduler.next_deadline(), Some(ms(30)));
    assert_eq!(world.at(ms(30)), [retire(FIRST, RetireReason::Idle)]);
    assert_eq!(world.scheduler.next_deadline(), Some(ms(530)), "the leaving one's grace, and nothing else");
}

#[test]
fn a_smaller_pool_lets_idle_workers_go_first_and_busy_ones_finish() {
    let mut world = World::new(config(3));
    for id in 1..=3 {
        world.submit(id, TaskSpec::default());
    }
    let third = WorkerKey { slot: 2, generation: 1 };
    for worker in [FIRST, SECOND, third] {
        world.ready(worker);
    }
    world.done(third, THREE);
    let fewer = Event::Resize { workers_min: 0, workers_max: 1 };
    assert_eq!(world.event(fewer), [retire(third, RetireReason::Resized)]);
    world.submit(4, TaskSpec::default());
    let leaves = retire(FIRST, RetireReason::Resized);
    assert_eq!(world.done(FIRST, ONE), [resolve(ONE, Resolution::Completed), leaves]);
    assert_eq!(world.done(SECOND, TWO)[1..], run(SECOND, TaskId(4)));
}

#[test]
fn a_chunk_stays_together_and_its_tasks_come_back_one_by_one() {
    let mut world = World::new(Config { prefetch_max: 7, ..config(2) });
    let chunk = |chunk| TaskSpec { chunk: Some(chunk), ..TaskSpec::default() };
    for id in 1..=4 {
        world.submit(id, chunk(1 + (id - 1) / 2));
    }
    let prefetch = |worker, id| Action::Assign { worker, task: TaskId(id) };
    assert_eq!(world.ready(FIRST)[2..], [prefetch(FIRST, 2)]);
    assert_eq!(world.ready(SECOND)[2..], [prefetch(SECOND, 4)]);
    let next = Action::Begin { worker: FIRST, task: TWO };
    assert_eq!(world.done(FIRST, ONE), [resolve(ONE, Resolution::Completed), next]);
}

/// One worker that runs `ONE`, with `TWO` and `THREE` in store.
fn stocked(on_death: OnDeath) -> World {
    let mut world = World::new(Config { on_death, prefetch_max: 7, ..config(1) });
    for id in 1..=3 {
        world.submit(id, TaskSpec { chunk: Some(1), timeout: Some(ms(100)), ..TaskSpec::default() });
    }
    assert_eq!(world.ready(FIRST).len(), 4);
    world
}

#[test]
fn a_prefetched_task_can_be_cancelled_unless_it_has_begun() {
    let mut world = stocked(OnDeath::Break);
    let revoke = Action::Revoke { worker: FIRST, task: TWO };
    assert_eq!(world.event(Event::Cancel { task: TWO }), [revoke, resolve(TWO, Resolution::Cancelled)]);
    world.begun.push(THREE);
    assert_eq!(world.event(Event::Cancel { task: THREE }), [Action::Revoke { worker: FIRST, task: THREE }]);
    let goes_on = Action::Begin { worker: FIRST, task: THREE };
    assert_eq!(world.done(FIRST, ONE), [resolve(ONE, Resolution::Completed), goes_on]);
}

#[test]
fn what_waits_behind_an_interrupted_task_is_taken_back() {
    let mut world = stocked(OnDeath::Break);
    let actions = world.at(ms(100));
    assert_eq!(actions[0], Action::Interrupt { worker: FIRST, task: ONE });
    assert_eq!(actions.len(), 3, "and two revocations");
    assert_eq!(world.scheduler.counts().pending, 2);
    world.at(ms(600));
    world.dead(FIRST);
    assert_eq!(world.ready(NEXT)[..2], run(NEXT, TWO));
}

#[test]
fn what_was_prefetched_to_a_dead_worker_is_requeued_where_the_pool_lives_on() {
    let mut world = stocked(REPLACE);
    let died = resolve(ONE, Resolution::Died { worker: FIRST });
    assert_eq!(world.dead(FIRST), [died, start(NEXT)]);
    assert_eq!(world.ready(NEXT)[..2], run(NEXT, TWO));
}

#[test]
fn an_idle_worker_takes_over_what_waits_behind_a_long_task() {
    let mut world = World::new(Config { prefetch_max: 7, ..config(2) });
    for id in 1..=3 {
        world.submit(id, TaskSpec { chunk: Some(1), ..TaskSpec::default() });
    }
    world.ready(FIRST);
    world.ready(SECOND);
    assert_eq!(world.scheduler.next_deadline(), Some(LONG_AFTER));
    let locate = |begun| Action::Locate { worker: FIRST, task: ONE, begun };
    assert_eq!(world.at(LONG_AFTER), [locate(0)]);
    let actions = world.at(2 * LONG_AFTER);
    assert_eq!(actions[0], locate(1));
    assert_eq!(actions[1], Action::Revoke { worker: FIRST, task: THREE });
    assert_eq!(actions[2..4], run(SECOND, THREE));
}

/// Two workers, of which the first runs `TWO`, with `THREE` and the fourth in store; a fifth has
/// come, and the second worker starts.
fn overtaking() -> World {
    let mut world = World::new(Config { prefetch_max: 7, ..config(1) });
    for id in 1..=4 {
        world.submit(id, TaskSpec::default());
    }
    world.ready(FIRST);
    world.done(FIRST, ONE);
    assert_eq!(world.scheduler.slots[0].behind, [THREE, TaskId(4)]);
    world.event(Event::Resize { workers_min: 0, workers_max: 2 });
    assert_eq!(world.submit(5, TaskSpec::default()), [start(SECOND)]);
    world
}

fn begun(actions: &[Action]) -> Vec<TaskId> {
    let task = |action: &Action| match action {
        Action::Begin { task, .. } => Some(*task),
        _ => None,
    };
    actions.iter().filter_map(task).collect()
}

#[test]
fn an_idle_worker_takes_what_was_prefetched_elsewhere_before_what_came_later() {
    let mut world = overtaking();
    let actions = world.ready(SECOND);
    assert_eq!(actions[0], Action::Revoke { worker: FIRST, task: THREE });
    assert_eq!(begun(&actions), [THREE]);
    // A task that turns out to have begun is let go, and the next is asked for.
    let mut world = overtaking();
    world.begun.push(THREE);
    assert_eq!(begun(&world.ready(SECOND)), [TaskId(4)]);
}

#[test]
fn what_waits_behind_a_long_task_is_queued_again_before_later_ones_are_handed_out() {
    let mut world = overtaking();
    world.ready(SECOND);
    for id in 6..=9 {
        world.submit(id, TaskSpec::default());
    }
    // The first still runs TWO; the second is quick, and has the fifth in store.
    world.now += Duration::from_micros(300);
    let actions = world.done(SECOND, THREE);
    assert_eq!(begun(&actions), [TaskId(5)]);
    assert!(actions.contains(&Action::Revoke { worker: FIRST, task: TaskId(4) }), "{actions:?}");
    assert_eq!(begun(&world.done(SECOND, TaskId(5))), [TaskId(4)]);
}

#[test]
fn short_tasks_are_prefetched_and_long_ones_are_not() {
    for (ran, stored) in [(Duration::from_micros(50), 7), (ms(5), 1), (ms(50), 0)] {
        let mut world = World::new(Config { prefetch_max: 7, ..config(1) });
        for id in 1..=20 {
            world.submit(id, TaskSpec::default());
        }
        world.ready(FIRST);
        let report = RunReport { ran, ..RunReport::default() };
        world.event(Event::Done { worker: FIRST, task: ONE, report });
        assert_eq!(world.scheduler.slots[0].behind.len(), stored, "{ran:?}");
    }
}

#[test]
fn a_slow_task_is_reported_once() {
    let mut world = World::new(Config { slow_after: Some(ms(20)), ..config(1) });
    world.submit(1, TaskSpec::default());
    world.ready(FIRST);
    assert_eq!(world.at(ms(20)), [Action::Slow { worker: FIRST, task: ONE }]);
    assert_eq!(world.scheduler.next_deadline(), None);
}

fn uninterruptible() -> TaskSpec {
    TaskSpec { uninterruptible: true, ..TaskSpec::default() }
}

const KILL: Action = Action::Kill { worker: FIRST, reason: KillReason::Grace };

#[test]
fn an_uninterruptible_task_is_killed_at_once_and_one_that_hears_after_the_grace_period() {
    for (spec, killed_at) in [(uninterruptible(), ms(10)), (TaskSpec::default(), ms(510))] {
        let mut world = World::new(config(1));
        world.submit(1, spec);
        world.ready(FIRST);
        world.now = ms(10);
        assert_eq!(
            world.event(Event::Abort { task: ONE })[0],
            Action::Interrupt { worker: FIRST, task: ONE }
        );
        assert_eq!(world.scheduler.next_deadline(), Some(killed_at));
        assert_eq!(world.at(killed_at), [KILL]);
        assert_eq!(world.dead(FIRST)[0], resolve(ONE, Resolution::Aborted { killed: true }));
    }
}

#[test]
fn a_worker_that_has_gone_on_from_an_uninterruptible_task_is_not_killed_for_it() {
    let gone_on = || {
        let mut world = World::new(Config { prefetch_max: 7, ..config(1) });
        for id in 1..=3 {
            world.submit(id, TaskSpec { chunk: Some(1), ..uninterruptible() });
        }
        world.ready(FIRST);
        world.begun = vec![TWO];
        world.now = ms(10);
        world.event(Event::Abort { task: ONE });
        assert_eq!(world.at(ms(10)), [], "the answer is on the way");
        world
    };
    let mut world = gone_on();
    assert!(world.done(FIRST, ONE).contains(&resolve(ONE, Resolution::Completed)));
    assert!(world.done(FIRST, TWO).contains(&resolve(TWO, Resolution::Completed)));
    // A worker that never answers is killed after all.
    let mut world = gone_on();
    assert_eq!(world.at(ms(509)), []);
    assert_eq!(world.at(ms(510)), [KILL]);
}
