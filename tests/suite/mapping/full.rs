//! A full queue.

use super::*;

#[test]
fn a_full_queue_refuses_those_who_do_not_wait_and_holds_up_those_who_do() {
    let pool = build(builder(1).queue_tasks_max(3));
    let act = act(&pool);
    let spin = running(&pool, &act);
    let pending = [0, 1].map(|_| submit(&pool, &act, "e"));
    let refused = || pool.try_submit(&act, "e").expect_err("full");
    let full = refused();
    assert!(matches!(full, SubmitError::QueueFull { max: 3 }));
    assert_eq!(full.to_string(), "the queue is full: 3 tasks are waiting or running");
    let (told, waited) = unbounded();
    for number in 0..4 {
        let pool = pool.clone();
        let act = act.clone();
        let told = told.clone();
        std::thread::spawn(move || told.send(pool.submit_bytes(&act, numbered(number))));
    }
    assert!(waited.try_recv().is_err());
    // One goes, one comes.
    assert!(pending[0].cancel());
    let first = waited.recv_timeout(PATIENCE).expect("there is room").expect("submits");
    assert!(matches!(refused(), SubmitError::QueueFull { max: 3 }));
    assert_eq!((pool.stats().submitted, pool.unresolved_tasks()), (4, 3));
    assert!(waited.try_recv().is_err(), "for one");
    spin.abort();
    let later = [0, 1, 2].map(|_| waited.recv_timeout(PATIENCE).expect("there is room").expect("submits"));
    let mut outputs: Vec<_> = later.iter().chain([&first]).map(output).collect();
    outputs.sort();
    assert_eq!(outputs, (0..4).map(numbered).collect::<Vec<_>>());
    assert_eq!(pool.stats().submitted, 7, "what was refused does not count");
}

#[test]
fn those_who_wait_for_room_learn_of_the_end_of_the_pool() {
    let breakage: fn(&Pool) = |pool| signal(pool.worker_pids()[0], Signal::KILL);
    for (end, is_broken) in [(breakage, true), (Pool::kill as fn(&Pool), false)] {
        let pool = build(builder(1).queue_tasks_max(1));
        let act = act(&pool);
        let _spin = running(&pool, &act);
        let (told, waited) = unbounded();
        for _ in 0..3 {
            let pool = pool.clone();
            let act = act.clone();
            let told = told.clone();
            std::thread::spawn(move || told.send(pool.submit_bytes(&act, "e")));
        }
        assert!(waited.try_recv().is_err());
        end(&pool);
        for _ in 0..3 {
            match waited.recv_timeout(PATIENCE).expect("it returns").expect_err("the pool is gone") {
                SubmitError::Broken(_) => assert!(is_broken),
                SubmitError::ShutDown { .. } => assert!(!is_broken),
                other => panic!("{other}"),
            }
        }
    }
}

/// Counts how often it is woken.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn an_asynchronous_submission_waits_for_room_and_submits_nothing_if_dropped() {
    let pool = build(builder(1).queue_tasks_max(1));
    let act = act(&pool);
    let spin = running(&pool, &act);
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    let mut context = Context::from_waker(&waker);
    let mut submit_async = |what: &'static str| {
        let mut submission = pool.submit_async(&act, &what);
        assert!(std::future::Future::poll(Pin::new(&mut submission), &mut context).is_pending());
        submission
    };
    drop(submit_async("dropped"));
    let mut submission = submit_async("e");
    assert_eq!((count.0.load(Ordering::SeqCst), pool.stats().submitted), (0, 1));
    spin.abort();
    eventually("the waker to be called", || count.0.load(Ordering::SeqCst) > 0);
    match std::future::Future::poll(Pin::new(&mut submission), &mut context) {
        Poll::Ready(Ok(future)) => assert_eq!(output(&future), "e"),
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.stats().submitted, 2);
}

#[test]
fn a_submission_that_is_polled_over_and_over_keeps_no_heap_of_wakers() {
    let pool = build(builder(1).queue_tasks_max(1));
    let act = act(&pool);
    let _spin = running(&pool, &act);
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    let mut submission = pool.submit_async(&act, "e");
    for _ in 0..1_000 {
        let polled = std::future::Future::poll(Pin::new(&mut submission), &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    assert!(Arc::strong_count(&count) < 10, "{} of them", Arc::strong_count(&count));
    pool.kill();
}
