//! Priorities, and age.

use super::*;

#[test]
fn pending_tasks_run_by_priority_and_then_by_age() {
    for prefetch in [0, 63] {
        let pool = build(builder(1).prefetch_max(prefetch));
        let tasks = tasks(&pool);
        warm(&pool, &tasks);
        let spin = submit(&pool, &tasks.spin);
        worker_of(&pool, spin.task_id());
        let mut events = pool.events();
        let submitted: Vec<_> = (0..100)
            .map(|number| {
                let priority = [0, 7, i32::MIN, -1, i32::MAX][number * 7 % 5];
                let future = submit_with(&pool, &tasks.echo, TaskOptions::new().priority(priority));
                (std::cmp::Reverse(priority), future.task_id(), future)
            })
            .collect();
        spin.abort();
        submitted.iter().for_each(|(.., future)| drop(output(future)));
        let mut expected: Vec<_> = submitted.iter().map(|(priority, task, _)| (*priority, *task)).collect();
        expected.sort();
        let expected: Vec<_> = expected.into_iter().map(|(_, task)| task).collect();
        let told = std::iter::from_fn(|| events.try_next()).map(|event| event.kind).collect::<Vec<_>>();
        assert_eq!(order_of_starts(&told), expected);
    }
}

#[test]
fn a_task_of_higher_priority_goes_before_what_waits_inside_of_a_worker() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    warm(&pool, &tasks);
    let mut events = pool.events();
    // Another round follows until the machine has let us submit while the long task ran.
    for billions in 1.. {
        let before = submit(&pool, &tasks.spin);
        worker_of(&pool, before.task_id());
        let steps = (billions * 200_000_000_u64).to_le_bytes().to_vec();
        let long = pool.submit_bytes(&tasks.count, steps).expect("submits");
        let low = several(&pool, &tasks.echo, 30);
        before.abort();
        worker_of(&pool, long.task_id());
        let high = submit_with(&pool, &tasks.echo, TaskOptions::new().priority(1));
        let in_time = !long.is_done();
        low.iter().chain([&high]).for_each(|future| drop(output(future)));
        let told = std::iter::from_fn(|| events.try_next()).map(|event| event.kind).collect::<Vec<_>>();
        if in_time {
            let started = order_of_starts(&told);
            let place = |task| started.iter().position(|started| *started == task).expect("it began");
            assert_eq!(place(high.task_id()), place(long.task_id()) + 1, "{started:?}");
            return;
        }
    }
}
