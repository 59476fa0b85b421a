//! A guest that logs in pieces, by the bare byte ABI. This is a copy of `tests/support/say.rs` at the root, since a
//! package holds nothing from outside of its folder.

/// `say` writes its input to this descriptor twenty times, in pieces; `say_and_spin` then never ends.
/// `say_nothing` does not.
pub(crate) fn text(descriptor: u32) -> String {
    format!(
        r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 90) "-\n")
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 512)
    (func $put (param $at i32) (param $len i32)
        (i32.store (i32.const 200) (local.get $at))
        (i32.store (i32.const 204) (local.get $len))
        (drop (call $write (i32.const {descriptor}) (i32.const 200) (i32.const 1) (i32.const 300))))
    (func $say (export "say") (param $at i32) (param $len i32) (result i64) (local $times i32)
        (loop $again
            (call $put (local.get $at) (local.get $len))
            (call $put (i32.const 90) (i32.const 1))
            (call $put (local.get $at) (local.get $len))
            (call $put (i32.const 91) (i32.const 1))
            (local.set $times (i32.add (local.get $times) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $times) (i32.const 20))))
        (i64.const 1))
    (func (export "say_nothing") (param i32 i32) (result i64) (i64.const 1))
    (func (export "say_and_spin") (param i32 i32) (result i64)
        (drop (call $say (local.get 0) (local.get 1)))
        (loop (br 0)) unreachable))"#
    )
}
