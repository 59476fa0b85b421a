//! A `tracing` subscriber that panics at everything: it is the embedder's code on the pool's
//! threads, and neither loses a task nor breaks the pool. The test has a process of its own, since a
//! subscriber is global.

use crate::support;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

struct Panicking;

impl Subscriber for Panicking {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        if event.metadata().target().starts_with("wasmpool") {
            panic!("no room for {}", event.metadata().name());
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn a_subscriber_that_panics_loses_nothing() {
    if !support::is_own_process(module_path!(), "a_subscriber_that_panics_loses_nothing") {
        return;
    }
    tracing::subscriber::set_global_default(Panicking).expect("the first");
    std::panic::set_hook(Box::new(|_| {}));
    let pool = support::builder(2).build().expect("builds");
    let traced = support::load(&pool, "faults");
    let flood = traced.task::<u64, ()>("log_flood").expect("types agree");
    let futures: Vec<_> = (0..100).map(|_| pool.submit(&flood, &20).expect("submits")).collect();
    for future in &futures {
        future.result_timeout(support::PATIENCE).expect("in time").expect("runs");
    }
    assert!(pool.broken().is_none());
    // A death and a failing callback are logged, too.
    futures[0].on_done(|_| panic!("a callback"));
    support::signal(pool.worker_pids()[0], rustix::process::Signal::KILL);
    support::eventually("the death to be seen", || pool.broken().is_some());
    pool.shutdown(wasmpool::pool::ShutdownMode::Finish);
}
