//! Tasks that wait behind others although workers are idle.

use super::*;
use crate::scheduler::wakeups::{LONG_AFTER, STEAL_AFTER};

fn worker(slot: u32) -> WorkerKey {
    WorkerKey { slot, generation: 1 }
}

/// Ten idle workers on two CPUs, each of which has run a task that took `ran`. The last of them is the first to be
/// woken.
fn crew(ran: Duration) -> World {
    let mut world = World::new(Config { prefetch_max: 7, cpus: 2, ..config(10) });
    (0..10).for_each(|id| drop(world.submit(100 + id, TaskSpec::default())));
    (0..10).for_each(|slot| drop(world.ready(worker(slot))));
    for slot in 0..10 {
        let task = world.scheduler.slots[slot as usize].state.task().expect("it runs one");
        let report = RunReport { ran, ..RunReport::default() };
        world.event(Event::Done { worker: worker(slot), task, report });
    }
    assert_eq!(world.scheduler.idle.len(), 10);
    world
}

fn submit_all(world: &mut World, ids: std::ops::RangeInclusive<u64>) -> Vec<Action> {
    ids.flat_map(|id| world.submit(id, TaskSpec::default())).collect()
}

fn held(world: &World) -> usize {
    world.scheduler.queue.ready()
}

const SHORT: Duration = Duration::from_micros(5);

#[test]
fn short_tasks_wake_as_many_workers_as_there_are_cpus() {
    let mut world = crew(SHORT);
    let began = submit_all(&mut world, 1..=5);
    assert_eq!(began, [run(worker(9), ONE), run(worker(8), TWO)].concat());
    assert_eq!((world.scheduler.idle.len(), held(&world)), (8, 3));
    // Whoever is done takes the next, and what is to follow goes along.
    let actions = world.done(worker(8), TWO);
    assert_eq!(actions[0], resolve(TWO, Resolution::Completed));
    assert_eq!(world.scheduler.idle.len(), 8, "nobody else is woken: {actions:?}");
    assert!(actions.contains(&Action::Begin { worker: worker(8), task: THREE }), "{actions:?}");
}

#[test]
fn each_long_task_has_a_worker_of_its_own_at_once() {
    let mut world = crew(ms(20));
    submit_all(&mut world, 1..=10);
    assert_eq!((world.scheduler.idle.len(), held(&world)), (0, 0));
}

#[test]
fn a_neighbour_of_the_first_long_task_after_short_ones_is_moved_to_an_idle_worker() {
    let mut world = crew(SHORT);
    submit_all(&mut world, 1..=3);
    assert_eq!((held(&world), world.scheduler.next_deadline()), (1, Some(LONG_AFTER)));
    world.at(LONG_AFTER);
    assert_eq!(held(&world), 1, "it is known since now that they have begun");
    world.at(2 * LONG_AFTER);
    assert_eq!((held(&world), world.scheduler.idle.len()), (0, 7));
    // One that comes now waits for nobody.
    world.now = 3 * LONG_AFTER;
    let actions = world.submit(4, TaskSpec::default());
    assert_eq!(begun(&actions), [TaskId(4)]);
}

#[test]
fn a_handful_of_long_tasks_wait_hardly_longer_than_one_does() {
    let mut world = crew(SHORT);
    submit_all(&mut world, 1..=8);
    assert_eq!(held(&world), 6);
    (1..=2).for_each(|look| drop(world.at(look * LONG_AFTER)));
    assert_eq!(held(&world), 0);
    // A short one that ends says that the next are not to be expected to be long.
    world.done(worker(9), ONE);
    assert_eq!(world.scheduler.more_at_work, 0);
}

#[test]
fn what_was_prefetched_behind_a_long_task_is_moved_with_those_that_are_held() {
    let mut world = crew(SHORT);
    submit_all(&mut world, 1..=9);
    world.done(worker(9), ONE);
    let behind = world.scheduler.slots[9].behind.clone();
    assert!(!behind.is_empty() && held(&world) > 0);
    (1..=2).for_each(|look| drop(world.at(look * LONG_AFTER)));
    let waits =
        |slot: &Slot| slot.progress == slot::Progress::Long { may_have: false } && !slot.behind.is_empty();
    assert!(!world.scheduler.slots.iter().any(waits), "{:?}", world.scheduler);
}

#[test]
fn a_worker_that_waits_for_a_cpu_keeps_its_tasks_for_a_while() {
    let mut world = crew(SHORT);
    world.found = Found::Waiting;
    submit_all(&mut world, 1..=3);
    let mut looks = 0;
    while held(&world) > 0 {
        looks += 1;
        let next = world.scheduler.next_deadline().expect("somebody looks again");
        assert!(next <= STEAL_AFTER, "it waits for longer: {next:?}");
        world.at(next);
    }
    assert!(world.now == STEAL_AFTER && looks < 8, "{looks} looks, until {:?}", world.now);
}

#[test]
fn a_worker_that_claims_what_it_does_not_run_does_not_keep_it() {
    let mut world = crew(SHORT);
    submit_all(&mut world, 1..=3);
    for claimed in 1.. {
        world.found = Found::Begun(claimed);
        world.at(world.scheduler.next_deadline().expect("somebody looks again"));
        if held(&world) == 0 {
            break;
        }
        assert!(world.now < STEAL_AFTER, "it waits for longer");
    }
    assert_eq!(world.now, STEAL_AFTER);
}
