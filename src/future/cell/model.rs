//! The cell under loom: every interleaving of its threads, up to three preemptions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use loom::sync::Notify;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::{Cell, Failed, Filled, FutureState, Item, Labels, Queues, TaskResult};
use crate::error::{TaskError, TaskFailure};
use crate::module::TaskOutput;
use crate::report::TaskReport;
use crate::sync::{Receiver, unbounded};
use proto::payload::Payload;
use proto::task::TaskId;

type Callbacks = Receiver<Box<dyn FnOnce() + Send>>;

fn cell() -> (Arc<Cell>, Callbacks) {
    let (callbacks, queue) = unbounded();
    let name = "task".into();
    let module = "module".into();
    // A waker is called where it is refused: in the thread that completes.
    let (wakers, _) = unbounded();
    let queues = Arc::new(Queues { callbacks, wakers });
    (Cell::new(Labels { task: TaskId(1), name, module, label: None }, queues), queue)
}

fn output(number: u8) -> TaskOutput {
    TaskOutput::Output(Payload::inline(&[number]).expect("is short"))
}

fn number(output: Option<&TaskOutput>) -> u8 {
    match output {
        Some(TaskOutput::Output(payload)) => payload[0],
        _ => 0,
    }
}

fn failure(cell: &Cell, error: TaskError) -> TaskFailure {
    cell.labels().failure(error, TaskReport::default())
}

fn complete(cell: &Arc<Cell>, result: Result<TaskOutput, TaskFailure>) -> bool {
    let result = result.map_err(Failed::For);
    let filled = cell.fill(result, TaskReport::default());
    if matches!(filled, Filled::Heard | Filled::WaitedFor) {
        cell.announce();
    }
    filled != Filled::TooLate
}

fn answer(cell: &Arc<Cell>, number: u8) -> bool {
    complete(cell, Ok(output(number)))
}

fn value(outcome: &TaskResult) -> u8 {
    number(outcome.result.as_ref().ok())
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    proto::sync::check(3, model);
}

#[test]
fn a_waiter_is_always_woken() {
    check(|| {
        let (cell, _callbacks) = cell();
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let cell = cell.clone();
                thread::spawn(move || value(&cell.wait()))
            })
            .collect();
        assert!(answer(&cell, 7));
        for waiter in waiters {
            assert_eq!(waiter.join().expect("waits"), 7);
        }
    });
}

#[test]
fn of_two_completions_the_first_stays() {
    check(|| {
        let (cell, _callbacks) = cell();
        let other = cell.clone();
        let cancels = thread::spawn(move || {
            let cancelled = complete(&other, Err(failure(&other, TaskError::Cancelled)));
            // A thread that learns that it is cancelled finds it done, whoever did it.
            assert!(other.outcome().is_some() && other.is_cancelled() == cancelled);
            cancelled
        });
        let answered = answer(&cell, 7);
        let cancelled = cancels.join().expect("cancels");
        assert!(answered != cancelled, "one of them, and only one");
        let outcome = cell.wait();
        assert_eq!(outcome.result.is_ok(), answered);
        let state = if answered { FutureState::Finished } else { FutureState::Cancelled };
        assert_eq!(outcome.state(), state);
        assert_eq!(cell.outcome().expect("done").result.is_ok(), answered, "and it does not change");
    });
}

struct Flag(Notify, AtomicUsize);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.notify();
    }
}

#[test]
fn a_poll_sees_the_outcome_or_its_waker_is_woken() {
    check(|| {
        let (cell, _callbacks) = cell();
        let other = cell.clone();
        let completes = thread::spawn(move || answer(&other, 7));
        let flag = Arc::new(Flag(Notify::new(), AtomicUsize::new(0)));
        let waker = Waker::from(flag.clone());
        let mut outcome = cell.poll(&waker);
        while outcome.is_none() {
            flag.0.wait();
            outcome = cell.poll(&waker);
        }
        assert_eq!(outcome.as_ref().map(value), Some(7));
        assert!(completes.join().expect("completes"));
        assert!(flag.1.load(Ordering::SeqCst) <= 1, "woken once at the most");
    });
}

#[test]
fn one_that_waits_by_reference_is_woken_whoever_gives_up_beside_it() {
    check(|| {
        let (cell, _callbacks) = cell();
        let other = cell.clone();
        let completes = thread::spawn(move || answer(&other, 7));
        let other = cell.clone();
        let gives_up = thread::spawn(move || {
            let mut place = None;
            let waker = Waker::from(Arc::new(Flag(Notify::new(), AtomicUsize::new(0))));
            let _ = other.poll_beside(&mut place, &waker);
            if let Some(place) = place {
                other.forget_waker(place);
            }
        });
        let flag = Arc::new(Flag(Notify::new(), AtomicUsize::new(0)));
        let waker = Waker::from(flag.clone());
        let mut place = None;
        let mut outcome = cell.poll_beside(&mut place, &waker);
        while outcome.is_none() {
            flag.0.wait();
            outcome = cell.poll_beside(&mut place, &waker);
        }
        assert_eq!(outcome.as_ref().map(value), Some(7));
        assert!(completes.join().expect("completes"));
        gives_up.join().expect("gives up");
    });
}

#[test]
fn a_watcher_is_told_once_whenever_it_came() {
    check(|| {
        let (cell, _callbacks) = cell();
        let (first, told_first) = unbounded();
        let (second, told_second) = unbounded();
        let other = cell.clone();
        let watches = thread::spawn(move || {
            other.watch(&first, 1);
            if let Some(key) = other.watch(&second, 2) {
                other.unwatch(key);
            }
        });
        answer(&cell, 7);
        watches.join().expect("watches");
        assert_eq!(told_first.recv(), Ok(1));
        assert_eq!(told_first.close(), 0, "and not again");
        assert!(told_second.close() <= 1);
    });
}

#[test]
fn a_callback_runs_once_even_if_the_pool_goes_meanwhile() {
    check(|| {
        let (cell, callbacks) = cell();
        let ran = Arc::new(AtomicUsize::new(0));
        let other = (cell.clone(), ran.clone());
        let registers = thread::spawn(move || {
            let (cell, ran) = other;
            cell.on_done(Box::new(move |_, outcome| {
                assert_eq!(value(&outcome), 7);
                ran.fetch_add(1, Ordering::SeqCst);
            }));
        });
        answer(&cell, 7);
        // The callback thread has run what was queued when it ends; see `Pool`.
        let queued = callbacks.close();
        registers.join().expect("registers");
        assert_eq!(ran.load(Ordering::SeqCst) + queued, 1);
    });
}

#[test]
fn the_state_never_runs_backwards() {
    check(|| {
        let (cell, _callbacks) = cell();
        let other = cell.clone();
        let works = thread::spawn(move || {
            other.set_dispatched();
            answer(&other, 7);
        });
        let rank = |cell: &Cell| match cell.outcome().map_or_else(|| cell.open_state(), |o| o.state()) {
            FutureState::Pending => 0,
            FutureState::Running => 1,
            FutureState::Cancelled | FutureState::Finished => 2,
        };
        let before = rank(&cell);
        let after = rank(&cell);
        assert!(before <= after, "{before} then {after}");
        works.join().expect("works");
        assert_eq!(rank(&cell), 2);
    });
}

fn push(cell: &Cell, number: u8) {
    cell.push(Item {
        result: Ok(output(number)),
        run: Duration::ZERO,
        queued: Duration::ZERO,
        worker_pid: None,
    });
}

fn taken(items: &VecDeque<Item>) -> Vec<u8> {
    items.iter().map(|item| number(item.result.as_ref().ok())).collect()
}

#[test]
fn whoever_waits_for_results_gets_each_in_order_and_then_the_end() {
    check(|| {
        let (cell, _callbacks) = cell();
        let other = cell.clone();
        let answers = thread::spawn(move || {
            push(&other, 1);
            push(&other, 2);
            answer(&other, 7);
        });
        let mut items = VecDeque::new();
        while !cell.take_items(&mut items) {
            assert!(cell.wait_items(None));
        }
        assert_eq!(taken(&items), [1, 2]);
        answers.join().expect("answers");
    });
}

#[test]
fn a_result_that_comes_after_the_end_is_nobodys() {
    check(|| {
        let (cell, _callbacks) = cell();
        let other = cell.clone();
        let breaks = thread::spawn(move || {
            complete(&other, Err(failure(&other, TaskError::Aborted { killed: false })))
        });
        push(&cell, 1);
        push(&cell, 2);
        let mut items = VecDeque::new();
        let is_over = cell.take_items(&mut items);
        let seen = items.len();
        breaks.join().expect("breaks");
        push(&cell, 3);
        cell.take_items(&mut items);
        assert!(!is_over || items.len() == seen, "there was to be nothing more");
        assert!([&[][..], &[1], &[1, 2]].contains(&&taken(&items)[..]));
    });
}

#[test]
fn a_watcher_of_results_is_told_of_them_and_of_the_end() {
    check(|| {
        let (cell, _callbacks) = cell();
        let other = cell.clone();
        let answers = thread::spawn(move || {
            push(&other, 1);
            answer(&other, 7);
        });
        let (watcher, told) = unbounded();
        cell.watch_items(&watcher, 4);
        let mut items = VecDeque::new();
        while !cell.take_items(&mut items) {
            assert_eq!(told.recv(), Ok(4));
        }
        assert_eq!(taken(&items), [1]);
        answers.join().expect("answers");
    });
}

/// Waits as an inline reader does: until there is news, asleep unless it is there.
fn read_inline(cell: &Cell) {
    let flag = Arc::new(Flag(Notify::new(), AtomicUsize::new(0)));
    let waker = Waker::from(flag.clone());
    cell.add_inline_reader(&waker);
    while !cell.has_news() {
        flag.0.wait();
    }
    cell.remove_inline_reader(&waker);
}

#[test]
fn an_inline_reader_is_woken_by_results_and_by_the_end() {
    check(|| {
        let (cell, _callbacks) = cell();
        let other = cell.clone();
        let answers = thread::spawn(move || {
            push(&other, 1);
            answer(&other, 7);
        });
        let mut items = VecDeque::new();
        while !cell.take_items(&mut items) {
            read_inline(&cell);
        }
        assert_eq!(taken(&items), [1]);
        answers.join().expect("answers");
    });
}

/// A task that goes to another worker has an inline reader at each of them.
#[test]
fn two_inline_readers_of_one_task_are_both_woken() {
    check(|| {
        let (cell, _callbacks) = cell();
        let other = cell.clone();
        let reads = thread::spawn(move || read_inline(&other));
        let other = cell.clone();
        let answers = thread::spawn(move || answer(&other, 7));
        read_inline(&cell);
        reads.join().expect("reads");
        assert!(answers.join().expect("answers"));
    });
}
