//! Workers that are replaced because they have done, grown or aged enough.

use super::*;

#[test]
fn a_worker_is_replaced_after_exactly_so_many_tasks() {
    let pool = build(builder(1).recycle_after_tasks(7));
    let tasks = tasks(&pool);
    let futures = several(&pool, &tasks.echo, 100);
    let mut pids: Vec<u32> = Vec::new();
    let mut shares: Vec<u32> = Vec::new();
    for future in &futures {
        output(future);
        let pid = future.report().expect("done").worker_pid.expect("it ran");
        if pids.last() == Some(&pid) {
            *shares.last_mut().expect("a share") += 1;
        } else {
            assert!(!pids.contains(&pid), "nobody comes back");
            pids.push(pid);
            shares.push(1);
        }
    }
    let mut expected = vec![7; 14];
    expected.push(2);
    assert_eq!(shares, expected);
    let stats = pool.stats();
    assert_eq!((stats.workers_recycled, stats.workers_started, stats.workers_died), (14, 15, 0));
    assert_eq!((stats.ended.succeeded, stats.retries), (100, 0));
}

#[test]
fn several_workers_are_recycled_under_load_and_no_task_is_lost_or_run_twice() {
    let pool = build(builder(3).recycle_after_tasks(5));
    let tasks = tasks(&pool);
    let futures = several(&pool, &tasks.echo, 300);
    let mut shares: HashMap<u32, u32> = HashMap::new();
    for future in &futures {
        output(future);
        assert_eq!(attempts(future), 1);
        *shares.entry(future.report().and_then(|report| report.worker_pid).expect("ran")).or_default() += 1;
    }
    assert!(shares.values().all(|share| *share <= 5), "{shares:?}");
    let recycled = shares.values().filter(|share| **share == 5).count();
    assert_eq!(pool.stats().workers_recycled, recycled as u64);
    assert_eq!(pool.stats().ended.succeeded, 300);
}

#[test]
fn a_task_that_is_cut_short_counts_towards_its_workers_share() {
    let pool = build(builder(1).recycle_after_tasks(2));
    let tasks = tasks(&pool);
    let spin = submit(&pool, &tasks.spin);
    let first = worker_of(&pool, spin.task_id());
    spin.abort();
    let pid_of = |future: &Future| {
        output(future);
        future.report().and_then(|report| report.worker_pid).expect("ran")
    };
    assert_eq!(pid_of(&submit(&pool, &tasks.echo)), first);
    assert_ne!(pid_of(&submit(&pool, &tasks.echo)), first);
}

#[test]
fn a_worker_is_replaced_when_it_is_too_large_or_too_old() {
    let distinct = |pool: &Pool| {
        let tasks = tasks(pool);
        let mut pids = HashSet::new();
        for _ in 0..5 {
            let echo = submit(pool, &tasks.echo);
            output(&echo);
            pids.insert(echo.report().and_then(|report| report.worker_pid).expect("ran"));
        }
        (pids.len(), pool.stats().workers_recycled)
    };
    assert_eq!(distinct(&build(builder(1).recycle_above_memory(1))), (5, 5));
    assert_eq!(distinct(&build(builder(1).recycle_above_memory(1 << 40))), (1, 0));
    assert_eq!(distinct(&build(builder(1).recycle_after(Duration::ZERO))), (5, 5));
    assert_eq!(distinct(&build(builder(1).recycle_after(Duration::MAX))), (1, 0));
}

#[test]
fn a_worker_gets_as_old_as_it_may() {
    let age = ms(100);
    let pool = build(builder(1).recycle_after(age));
    let tasks = tasks(&pool);
    let mut events = pool.events();
    eventually("it to be recycled", || {
        output(&submit(&pool, &tasks.echo));
        pool.stats().workers_recycled == 1
    });
    let mut ready = None;
    let mut left = None;
    while let Some(event) = events.try_next() {
        match event.kind {
            EventKind::WorkerReady { .. } => drop(ready.get_or_insert(event.at)),
            EventKind::WorkerLeaving { reason, .. } => {
                assert_eq!(reason, LeaveReason::Recycled);
                left = Some(event.at);
            }
            _ => {}
        }
    }
    assert!(left.expect("it left") - ready.expect("it was ready") >= age);
}
