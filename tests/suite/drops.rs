//! Dropping the last handle of a pool ends its tasks as its policy says, and a panic ends them at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::support::{self, PATIENCE, builder, error, eventually, is_own_process, raw, wat};
use wasmpool::module::RawTask;
use wasmpool::pool::DropPolicy;
use wasmpool::{Bytes, Pool, TaskError, TaskFuture, TaskOptions};

const POLICIES: [DropPolicy; 3] = [DropPolicy::Finish, DropPolicy::CancelPending, DropPolicy::Kill];

/// This is shorter than any timeout here, and longer than killing a worker takes on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(30);

struct Busy {
    pool: Pool,
    echo: RawTask,
    running: TaskFuture<Bytes>,
    pending: Vec<TaskFuture<Bytes>>,
}

/// Makes a pool whose only worker runs a task that never ends by itself, with others behind it.
fn busy(policy: DropPolicy, timeout: Duration) -> Busy {
    let pool = builder(1).on_drop(policy).build().expect("builds");
    let module = wat(&pool, support::ECHO_WAT);
    let echo = raw(&module, "echo");
    let spin = raw(&module, "spin");
    let options = TaskOptions::new().timeout(timeout);
    let running = pool.submit_with(&spin, &Bytes::new(), options).expect("submits");
    eventually("the task to run", || running.is_running());
    let pending = (0..20).map(|_| pool.submit_bytes(&echo, "x").expect("submits")).collect();
    Busy { pool, echo, running, pending }
}

#[test]
fn by_default_a_drop_waits_until_every_task_is_done() {
    assert_eq!(DropPolicy::default(), DropPolicy::Finish);
    let Busy { pool, running, pending, .. } = busy(DropPolicy::Finish, Duration::from_millis(500));
    drop(pool);
    assert!(running.is_done() && pending.iter().all(TaskFuture::is_done));
    assert!(matches!(error(&running), TaskError::Timeout { .. }));
    assert!(pending.iter().all(|future| future.result().is_ok_and(|output| output == "x")));
}

#[test]
fn a_drop_that_cancels_what_is_pending_waits_for_what_runs() {
    let Busy { pool, running, pending, .. } = busy(DropPolicy::CancelPending, Duration::from_millis(500));
    drop(pool);
    assert!(running.is_done());
    assert!(matches!(error(&running), TaskError::Timeout { .. }));
    assert!(pending.iter().all(TaskFuture::is_cancelled));
}

#[test]
fn a_drop_that_kills_waits_for_no_task() {
    if !is_own_process(module_path!(), "a_drop_that_kills_waits_for_no_task") {
        return;
    }
    let Busy { pool, running, pending, .. } = busy(DropPolicy::Kill, Duration::from_secs(3600));
    let began = Instant::now();
    drop(pool);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert!(matches!(error(&running), TaskError::Broken(_)));
    assert!(pending.iter().all(TaskFuture::is_cancelled));
}

/// The `?` drops all that the caller holds of the pool.
#[test]
fn a_question_mark_leaves_at_once_where_the_policy_kills() {
    if !is_own_process(module_path!(), "a_question_mark_leaves_at_once_where_the_policy_kills") {
        return;
    }
    fn program() -> Result<(), std::num::ParseIntError> {
        let Busy { pool, echo, .. } = busy(DropPolicy::Kill, Duration::from_secs(3600));
        let mut results = pool.map(&echo, std::iter::repeat(Bytes::from_static(b"x")));
        let _clone = pool.clone();
        "seven".parse::<u32>()?;
        results.next();
        Ok(())
    }
    let began = Instant::now();
    assert!(program().is_err());
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

#[test]
fn a_panic_ends_what_runs_whatever_the_policy() {
    if !is_own_process(module_path!(), "a_panic_ends_what_runs_whatever_the_policy") {
        return;
    }
    for policy in POLICIES {
        let mut futures = None;
        let began = Instant::now();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let Busy { pool, running, pending, .. } = busy(policy, Duration::from_secs(3600));
            futures = Some((running, pending));
            assert!(pool.unresolved_tasks() == 0, "as intended");
        }));
        assert!(panicked.is_err());
        assert!(began.elapsed() < AT_ONCE, "{policy:?}: {:?}", began.elapsed());
        let (running, pending) = futures.expect("it came so far");
        assert!(matches!(error(&running), TaskError::Broken(_)), "{policy:?}");
        assert!(pending.iter().all(TaskFuture::is_cancelled), "{policy:?}");
    }
}

/// The source of a map panics, with the pool's last handles in the map and in `main`.
#[test]
fn a_program_that_panics_amid_a_map_ends_and_leaves_no_worker() {
    const NAME: &str = "a_program_that_panics_amid_a_map_ends_and_leaves_no_worker";
    if !is_own_process(module_path!(), NAME) {
        return;
    }
    let mut workers = Vec::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let Busy { pool, echo, .. } = busy(DropPolicy::Finish, Duration::from_secs(3600));
        workers = pool.worker_pids();
        let inputs = (0..).map(|number| match number {
            3 => panic!("as intended"),
            _ => Bytes::from_static(b"x"),
        });
        pool.map(&echo, inputs).for_each(drop);
    }));
    assert!(panicked.is_err());
    assert!(!workers.is_empty() && workers.into_iter().all(|pid| !support::is_child(pid)));
}

#[test]
fn a_panic_of_one_who_does_not_have_the_last_handle_costs_nothing() {
    let pool = builder(1).build().expect("builds");
    let echo = raw(&wat(&pool, support::ECHO_WAT), "echo");
    let clone = pool.clone();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _clone = clone;
        panic!("as intended");
    }));
    assert!(panicked.is_err());
    let future = pool.submit_bytes(&echo, "x").expect("submits");
    let result = future.result_timeout(PATIENCE).unwrap_or_else(|timeout| panic!("{timeout}"));
    assert_eq!(result.unwrap_or_else(|failure| panic!("{failure}")), "x");
}
