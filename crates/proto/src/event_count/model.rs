//! One sleeper and two who wake it. The host's readers sleep on the same event count in every interleaving of their own
//! model, in `src/host/link/reading/model.rs`.

use std::sync::Arc;

use loom::thread;

use super::{EventCount, FOR_DATA, FOR_SPACE};
use crate::sync::{AtomicU32, Ordering, check};

#[test]
fn one_sleeper_waits_for_data_and_for_space() {
    check(3, || {
        let event_count = EventCount::default();
        let data = AtomicU32::new(0);
        let space = AtomicU32::new(0);
        let shared = Arc::new((event_count, data, space));
        let reads = shared.clone();
        let writes = shared.clone();
        let threads = [
            thread::spawn(move || {
                reads.2.store(1, Ordering::Release);
                reads.0.notify(FOR_SPACE);
            }),
            thread::spawn(move || {
                writes.1.store(1, Ordering::Release);
                writes.0.notify(FOR_DATA);
            }),
        ];
        let (event_count, data, space) = &*shared;
        let missing = || data.load(Ordering::Acquire) == 0 || space.load(Ordering::Acquire) == 0;
        let mut seen = (0, 0);
        while missing() {
            event_count.wait(FOR_DATA | FOR_SPACE, None, || {
                (data.load(Ordering::Acquire), space.load(Ordering::Acquire)) != seen
            });
            seen = (data.load(Ordering::Acquire), space.load(Ordering::Acquire));
        }
        threads.into_iter().for_each(|thread| thread.join().expect("rings"));
    });
}
