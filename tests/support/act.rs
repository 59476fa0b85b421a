//! A task that does what its input says, by the bare byte ABI.

use wasmpool::Pool;
use wasmpool::module::RawTask;

/// The first byte of the input counts: `s` spins for ever, `t` traps, `r` returns an error of its own, and all else is
/// returned as it came.
const ACT_WAT: &str = r#"(module
    (memory (export "memory") 4)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1025)
    (func (export "act") (param $at i32) (param $len i32) (result i64) (local $what i32)
        (local.set $what (i32.load8_u (local.get $at)))
        (if (i32.eq (local.get $what) (i32.const 115)) (then (loop (br 0))))
        (if (i32.eq (local.get $what) (i32.const 116)) (then unreachable))
        (i32.store8 (i32.const 1024) (i32.eq (local.get $what) (i32.const 114)))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32))
                (i64.extend_i32_u (i32.add (local.get $len) (i32.const 1))))))"#;

pub fn act(pool: &Pool) -> RawTask {
    super::raw(&super::wat(pool, ACT_WAT), "act")
}
