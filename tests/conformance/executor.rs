//! `executor.py`.

use crate::common::load;
use crate::in_both_modes;

in_both_modes! {
    fn test_submit(mode: Mode) {
        let pool = mode.pool(2);
        let count = load(&pool, "primes").task::<u64, u64>("count").expect("types agree");
        assert_eq!(pool.submit(&count, &100).expect("submits").result().expect("runs"), 25);
    }
}
