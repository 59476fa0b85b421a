//! Trust domains: who gets which worker, who leaves for whom, and for how long anyone waits.

use super::*;

const A: Domain = Domain(1);
const B: Domain = Domain(2);
const THIRD: WorkerKey = WorkerKey { slot: 2, generation: 1 };
const FOUR: TaskId = TaskId(4);

fn of(domain: Domain) -> TaskSpec {
    TaskSpec { domain, ..TaskSpec::default() }
}

fn leaves(worker: WorkerKey) -> Action {
    retire(worker, RetireReason::Domain)
}

impl World {
    /// The domain's first task is run, and its worker is idle.
    fn bind(&mut self, worker: WorkerKey, id: u64, domain: Domain) {
        assert_eq!(self.submit(id, of(domain)), [start(worker)]);
        assert_eq!(self.ready(worker), run(worker, TaskId(id)));
        assert_eq!(self.done(worker, TaskId(id)), [resolve(TaskId(id), Resolution::Completed)]);
    }
}

#[test]
fn a_worker_belongs_to_the_domain_of_its_first_task() {
    let mut world = World::new(config(2));
    world.bind(FIRST, 1, A);
    assert_eq!(world.submit(2, of(B)), [start(SECOND)], "the idle one is not for it");
    assert_eq!(world.submit(3, of(A)), run(FIRST, THREE), "and needs not leave: there is room");
    assert_eq!(world.ready(SECOND), run(SECOND, TWO));
}

#[test]
fn no_domain_is_a_domain_too() {
    for (first, other) in [(Domain::NONE, A), (A, Domain::NONE)] {
        let mut world = World::new(config(1));
        world.bind(FIRST, 1, first);
        assert_eq!(world.submit(2, of(other)), [start(SECOND), leaves(FIRST)]);
        assert_eq!(world.ready(SECOND), run(SECOND, TWO), "the replacement starts first");
        assert_eq!(world.dead(FIRST), []);
    }
}

#[test]
fn an_idle_worker_of_the_domain_comes_before_an_unbound_one() {
    let mut world = World::new(config(2));
    world.bind(FIRST, 1, A);
    world.event(Event::Prestart { workers: 2 });
    world.ready(SECOND);
    assert_eq!(world.submit(2, of(A)), run(FIRST, TWO));
    assert_eq!(world.submit(3, of(B)), run(SECOND, THREE));
}

#[test]
fn who_has_been_idle_for_longest_leaves() {
    let mut world = World::new(config(2));
    world.bind(FIRST, 1, A);
    world.bind(SECOND, 2, B);
    assert_eq!(world.submit(3, of(Domain(3))), [start(THIRD), leaves(FIRST)]);
}

#[test]
fn each_that_waits_gets_one_place_and_no_more() {
    let mut world = World::new(config(3));
    for (id, worker) in [(1, FIRST), (2, SECOND), (3, THIRD)] {
        world.submit(id, of(A));
        world.ready(worker);
    }
    for (id, worker) in [(1, FIRST), (2, SECOND), (3, THIRD)] {
        world.done(worker, TaskId(id));
    }
    let fourth = WorkerKey { slot: 3, generation: 1 };
    assert_eq!(world.submit(4, of(B)), [start(fourth), leaves(FIRST)]);
    assert_eq!(world.at(ms(1)), [], "one worker is on its way");
    let fifth = WorkerKey { slot: 4, generation: 1 };
    assert_eq!(world.submit(5, of(B)), [start(fifth), leaves(SECOND)]);
    assert_eq!(world.submit(6, of(A)), run(THIRD, TaskId(6)));
}

#[test]
fn a_later_task_runs_where_the_first_in_line_waits_for_a_worker_that_starts() {
    let mut world = World::new(config(2));
    for (id, worker) in [(1, FIRST), (2, SECOND)] {
        world.submit(id, of(A));
        world.ready(worker);
    }
    world.done(FIRST, ONE);
    world.done(SECOND, TWO);
    assert_eq!(world.submit(3, of(B)), [start(THIRD), leaves(FIRST)]);
    for (id, task) in [(4, FOUR), (5, TaskId(5))] {
        assert_eq!(world.submit(id, of(A)), run(SECOND, task), "it costs the other nothing");
        assert_eq!(world.done(SECOND, task), [resolve(task, Resolution::Completed)]);
    }
    assert_eq!(world.ready(THIRD), run(THIRD, THREE));
}

#[test]
fn a_worker_that_ends_its_task_leaves_for_the_first_in_line() {
    let mut world = World::new(config(1));
    world.submit(1, of(A));
    world.ready(FIRST);
    assert_eq!(world.submit(2, of(B)), [], "it is busy");
    let ends = [resolve(ONE, Resolution::Completed), start(SECOND), leaves(FIRST)];
    assert_eq!(world.done(FIRST, ONE), ends);
}

/// One worker of `A` that runs its first task; of `A` and of `B` another waits, `B`'s being older.
fn behind_the_other(priority: i32) -> World {
    let mut world = World::new(config(1));
    world.submit(1, of(A));
    world.ready(FIRST);
    world.submit(2, TaskSpec { priority, ..of(B) });
    world.submit(3, of(A));
    world
}

#[test]
fn a_worker_goes_on_with_its_domain_for_a_moment_and_no_longer() {
    let mut world = behind_the_other(0);
    world.now = ms(1_000);
    assert_eq!(world.done(FIRST, ONE)[1..], run(FIRST, THREE), "the moment begins");
    world.submit(4, of(A));
    world.now = ms(1_024);
    assert_eq!(world.done(FIRST, THREE)[1..], run(FIRST, FOUR));
    world.submit(5, of(A));
    world.now = ms(1_025);
    assert_eq!(world.done(FIRST, FOUR)[1..], [start(SECOND), leaves(FIRST)]);
    assert_eq!(world.ready(SECOND), run(SECOND, TWO));
    world.dead(FIRST);
    let start_again = WorkerKey { slot: 0, generation: 2 };
    assert_eq!(world.done(SECOND, TWO)[1..], [start(start_again), leaves(SECOND)], "nothing of its own");
    assert_eq!(world.ready(start_again), run(start_again, TaskId(5)));
}

#[test]
fn no_task_of_another_domain_goes_before_one_of_higher_priority() {
    let mut world = behind_the_other(1);
    assert_eq!(world.done(FIRST, ONE)[1..], [start(SECOND), leaves(FIRST)]);
}

#[test]
fn domains_that_each_have_a_worker_do_not_take_it_from_each_other() {
    let mut world = World::new(config(2));
    world.submit(1, of(A));
    world.ready(FIRST);
    world.submit(2, of(B));
    world.ready(SECOND);
    for id in 3..=500 {
        world.submit(id, of(if id % 2 == 1 { A } else { B }));
        if id < 20 {
            continue;
        }
        // Each worker ends a task every millisecond.
        world.now += Duration::from_micros(500);
        let (worker, task) = if id % 2 == 1 { (FIRST, id - 20) } else { (SECOND, id - 18) };
        let actions = world.done(worker, TaskId(task));
        assert_eq!(actions[1..], run(worker, TaskId(task + 2)), "{task}");
    }
}

#[test]
fn a_busy_worker_has_in_store_what_comes_before_the_first_in_line() {
    let mut world = World::new(Config { prefetch_max: 7, ..config(1) });
    for id in 1..=4 {
        world.submit(id, of(A));
    }
    world.submit(5, TaskSpec { priority: -1, ..of(B) });
    world.submit(6, TaskSpec { priority: -2, ..of(A) });
    world.ready(FIRST);
    world.done(FIRST, ONE);
    assert_eq!(world.scheduler.slots[0].behind, [THREE, FOUR], "the sixth would overtake the fifth");
}

#[test]
fn what_is_in_store_comes_back_once_the_first_in_line_has_waited() {
    let mut world = World::new(Config { prefetch_max: 7, ..config(1) });
    world.submit(1, of(A));
    world.ready(FIRST);
    world.submit(2, of(B));
    for id in 3..=10 {
        world.submit(id, of(A));
    }
    world.now = ms(100);
    world.done(FIRST, ONE);
    // The tasks take more than a millisecond on average, so one is in store.
    let report = RunReport { ran: ms(10), ..RunReport::default() };
    world.now = ms(110);
    world.event(Event::Done { worker: FIRST, task: THREE, report });
    assert!(!world.scheduler.slots[0].behind.is_empty());
    world.now = ms(125);
    let running = world.scheduler.slots[0].state.task().expect("it is busy");
    // The worker itself has begun the next one; all else is taken back.
    let begun = world.scheduler.slots[0].behind[0];
    world.begun.push(begun);
    world.event(Event::Done { worker: FIRST, task: running, report });
    assert!(world.scheduler.slots[0].behind.is_empty());
    let gone = world.event(Event::Done { worker: FIRST, task: begun, report });
    assert_eq!(gone[1..], [start(SECOND), leaves(FIRST)]);
    assert_eq!(world.ready(SECOND)[..2], run(SECOND, TWO));
}

#[test]
fn a_chunk_goes_to_a_worker_of_its_domain_and_does_not_keep_it_from_others() {
    let mut world = World::new(Config { prefetch_max: 7, ..config(1) });
    for id in 1..=3 {
        world.submit(id, TaskSpec { chunk: Some(1), ..of(A) });
    }
    world.submit(4, of(B));
    for id in 5..=40 {
        world.submit(id, TaskSpec { chunk: Some(1), ..of(A) });
    }
    world.ready(FIRST);
    let mut begun = Vec::new();
    while begun.len() < 60 {
        let Some(task) = world.scheduler.slots[0].state.task() else { break };
        begun.push(task);
        world.now += ms(5);
        world.done(FIRST, task);
    }
    // Three tasks go before it, and as many as fit into its patience.
    assert!((5..=10).contains(&begun.len()), "{begun:?}");
    assert_eq!(world.ready(SECOND)[..2], run(SECOND, FOUR));
}

#[test]
fn an_idle_worker_of_another_domain_makes_place_for_what_waits_behind_a_long_task() {
    let mut world = World::new(Config { prefetch_max: 7, ..config(2) });
    world.bind(FIRST, 1, B);
    world.submit(2, TaskSpec { chunk: Some(1), ..of(A) });
    world.ready(SECOND);
    world.submit(3, TaskSpec { chunk: Some(1), ..of(A) });
    assert_eq!(world.scheduler.slots[1].behind, [THREE]);
    assert_eq!(world.scheduler.next_deadline(), Some(ms(25)), "not as soon as one of its own would");
    let actions = world.at(ms(25));
    assert_eq!(actions, [Action::Revoke { worker: SECOND, task: THREE }, start(THIRD), leaves(FIRST)]);
    assert_eq!(world.ready(THIRD), run(THIRD, THREE));
}

#[test]
fn a_retry_and_what_was_in_store_go_to_workers_of_their_domain() {
    let mut world = World::new(Config { on_death: REPLACE, prefetch_max: 7, ..config(2) });
    world.bind(FIRST, 1, B);
    let retry = Retry { attempts_max: 2, ..Retry::default() };
    world.submit(2, TaskSpec { chunk: Some(1), retry, ..of(A) });
    world.ready(SECOND);
    world.submit(3, TaskSpec { chunk: Some(1), retry, ..of(A) });
    let how = Resolution::Died { worker: SECOND };
    // Their worker is gone; the room that it leaves is for the retry, and the idle one makes more.
    let next = WorkerKey { slot: 1, generation: 2 };
    assert_eq!(
        world.dead(SECOND),
        [Action::Retry { task: TWO, how }, start(next), start(THIRD), leaves(FIRST)]
    );
    assert_eq!(world.ready(next), run(next, TWO));
    assert_eq!(world.ready(THIRD), run(THIRD, THREE));
}

#[test]
fn the_minimum_is_kept_whatever_the_domains() {
    let mut world = World::new(Config { workers_min: 2, idle_timeout: Some(ms(30)), ..config(2) });
    assert_eq!(world.event(Event::Prestart { workers: 2 }), [start(FIRST), start(SECOND)]);
    world.ready(FIRST);
    world.ready(SECOND);
    world.submit(1, of(A));
    world.done(SECOND, ONE);
    world.submit(2, of(B));
    world.done(FIRST, TWO);
    assert_eq!(world.submit(3, of(Domain(3))), [start(THIRD), leaves(SECOND)]);
    world.dead(SECOND);
    assert_eq!(world.at(ms(60_000)), [], "two are the least");
}

#[test]
fn while_starts_are_paused_the_first_in_line_waits_for_them_and_others_run() {
    let mut world = World::new(Config { on_death: REPLACE, ..config(2) });
    world.bind(FIRST, 1, A);
    assert_eq!(world.submit(2, of(B)), [start(SECOND)]);
    assert_eq!(world.dead(SECOND), [], "first a pause");
    assert_eq!(world.submit(3, of(A)), run(FIRST, THREE));
    assert_eq!(world.at(ms(100)), [start(WorkerKey { slot: 1, generation: 2 })]);
}

#[test]
fn shutdown_runs_every_domains_tasks() {
    let mut world = World::new(config(1));
    world.submit(1, of(A));
    world.submit(2, of(B));
    world.event(Event::Shutdown { cancel_pending: false });
    world.ready(FIRST);
    assert_eq!(world.done(FIRST, ONE)[1..], [start(SECOND), leaves(FIRST)]);
    world.dead(FIRST);
    world.ready(SECOND);
    assert_eq!(world.done(SECOND, TWO)[1..], [retire(SECOND, RetireReason::PoolEnds)]);
    assert_eq!(world.dead(SECOND), [Action::Stopped]);
}

#[test]
fn a_worker_that_does_not_leave_for_another_domain_is_killed() {
    let mut world = World::new(config(1));
    world.bind(FIRST, 1, A);
    world.submit(2, of(B));
    assert_eq!(world.at(ms(500)), [Action::Kill { worker: FIRST, reason: KillReason::Grace }]);
    assert_eq!(world.dead(FIRST), [], "that breaks nothing");
    assert_eq!(world.ready(SECOND), run(SECOND, TWO));
}

#[test]
fn processes_that_leave_are_bounded_by_the_number_of_workers() {
    let mut world = World::new(config(1));
    world.bind(FIRST, 1, A);
    world.submit(2, of(B));
    world.ready(SECOND);
    assert_eq!(world.submit(3, of(A)), []);
    let ends = [resolve(TWO, Resolution::Completed), leaves(SECOND)];
    assert_eq!(world.done(SECOND, TWO), ends, "two processes are there still");
    assert_eq!(world.dead(FIRST), [start(NEXT)]);
}
