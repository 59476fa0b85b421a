//! A task's memory: what it can reach of it, and what it cannot, in a slot that others had before.

use crate::support::{PATIENCE, build, builder, error, pool, raw, wat};
use wasmpool::module::RawTask;
use wasmpool::{Bytes, Pool, TaskError, TaskOptions, limits};

/// 40 pages, most of which nobody touches, and another memory; in a memory of the worker's own, as it imports no WASI.
const REACHING: &str = r#"(module
    (memory (export "memory") 40)
    (memory $other 1)
    (func (export "wasmpool_abi_v1"))
    ;; In the middle of pages that nobody has touched.
    (func (export "wasmpool_alloc") (param i32) (result i32) (i32.const 1048576))
    (func $ok (param $value i32) (result i64)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i32.store (i32.const 1025) (local.get $value))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32)) (i64.const 5)))
    ;; Adds one to the word at the address that is its input; says what that was.
    (func (export "add") (param $at i32) (param i32) (result i64) (local $value i32)
        (local.set $at (i32.load (local.get $at)))
        (local.set $value (i32.load (local.get $at)))
        (i32.store (local.get $at) (i32.add (local.get $value) (i32.const 1)))
        (call $ok (local.get $value)))
    ;; The same, in a memory that has grown by as many pages as it says next.
    (func (export "grow_and_add") (param $at i32) (param i32) (result i64) (local $value i32)
        (drop (memory.grow (i32.load (i32.add (local.get $at) (i32.const 4)))))
        (local.set $at (i32.load (local.get $at)))
        (local.set $value (i32.load (local.get $at)))
        (i32.store (local.get $at) (i32.add (local.get $value) (i32.const 1)))
        (call $ok (local.get $value)))
    ;; Grows the other memory while it can, then writes to every page that it began with.
    (func (export "fill_up") (param i32 i32) (result i64) (local $by i32) (local $at i32)
        (local.set $by (i32.const 256))
        (loop $more
            (br_if $more (i32.ne (memory.grow $other (local.get $by)) (i32.const -1)))
            (local.set $by (i32.shr_u (local.get $by) (i32.const 1)))
            (br_if $more (local.get $by)))
        (loop $more
            (i32.store8 (local.get $at) (i32.const 1))
            (local.set $at (i32.add (local.get $at) (i32.const 4096)))
            (br_if $more (i32.lt_u (local.get $at) (i32.const 2621440))))
        (call $ok (memory.size $other)))
    ;; Its answer is 2 MiB that it has not touched, of which the first byte says that all is well.
    (func (export "untouched") (param i32 i32) (result i64)
        (i64.or (i64.shl (i64.const 65536) (i64.const 32)) (i64.const 2097152))))"#;

const SIZE: u32 = 40 * 65536;

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

fn run(pool: &Pool, task: &RawTask, input: &[u32]) -> Result<u32, TaskError> {
    let input: Vec<u8> = input.iter().flat_map(|word| word.to_le_bytes()).collect();
    let future = pool.submit_bytes(task, Bytes::from(input)).expect("submits");
    match future.result_timeout(PATIENCE).expect("in time") {
        Ok(output) => Ok(number(&output)),
        Err(failure) => Err(failure.error().clone()),
    }
}

fn is_out_of_bounds(result: &Result<u32, TaskError>) -> bool {
    matches!(result, Err(error) if error.to_string().contains("out of bounds"))
}

#[test]
fn every_word_of_a_memory_is_zero_wherever_tasks_before_have_written() {
    let pool = pool(1);
    let add = raw(&wat(&pool, REACHING), "add");
    for round in 0..3 {
        for at in (4096..SIZE - 4).step_by(37 * 4096 + 12) {
            assert_eq!(run(&pool, &add, &[at]), Ok(if at == 1 << 20 { at } else { 0 }), "{at}, {round}");
        }
    }
    assert_eq!(run(&pool, &add, &[SIZE - 4]), Ok(0));
}

#[test]
fn beyond_its_size_a_memory_traps_though_tasks_before_have_been_there() {
    let pool = pool(1);
    let module = wat(&pool, REACHING);
    let [add, grow_and_add] = ["add", "grow_and_add"].map(|task| raw(&module, task));
    for pages in [1, 3, 24, 25, 100] {
        let there = [SIZE, SIZE + pages * 65536 - 4];
        for _ in 0..3 {
            for at in there {
                assert_eq!(run(&pool, &grow_and_add, &[at, pages]), Ok(0), "{at}, {pages} pages more");
                let beyond = run(&pool, &add, &[at]);
                assert!(is_out_of_bounds(&beyond), "{at}: {beyond:?}");
            }
            let beyond = run(&pool, &grow_and_add, &[SIZE + pages * 65536, pages]);
            assert!(is_out_of_bounds(&beyond), "{pages} pages more: {beyond:?}");
        }
    }
    assert_eq!(pool.worker_pids().len(), 1);
}

#[test]
fn a_worker_that_has_no_memory_left_has_what_a_task_began_with() {
    let pool = build(builder(1).worker_memory_bytes_max(limits::WORKER_MEMORY_BYTES_MIN));
    let fill_up = raw(&wat(&pool, REACHING), "fill_up");
    let options = TaskOptions::new().memory_bytes_max(4 << 30);
    for _ in 0..3 {
        let future = pool.submit_with(&fill_up, &Bytes::new(), options.clone()).expect("submits");
        let output = future.result_timeout(PATIENCE).expect("in time").expect("nobody dies");
        let pages = number(&output);
        assert!(pages > 200 && u64::from(pages) * 65536 < limits::WORKER_MEMORY_BYTES_MIN, "{pages}");
    }
}

#[test]
fn an_answer_can_be_memory_that_nobody_has_touched() {
    let pool = pool(1);
    let untouched = raw(&wat(&pool, REACHING), "untouched");
    for _ in 0..3 {
        let future = pool.submit_bytes(&untouched, "").expect("submits");
        let output = future.result_timeout(PATIENCE).expect("in time").expect("succeeds");
        assert!(output.len() == (2 << 20) - 1 && output.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn an_access_far_beyond_is_a_trap_with_the_pages_of_others_open() {
    let pool = pool(1);
    let module = wat(&pool, REACHING);
    let add = raw(&module, "add");
    assert_eq!(run(&pool, &add, &[4096]), Ok(0));
    for at in [SIZE, SIZE + (4 << 20), 1 << 31, u32::MAX - 3] {
        let input = Bytes::from(at.to_le_bytes().to_vec());
        let error = error(&pool.submit_bytes(&add, input).expect("submits"));
        assert!(error.to_string().contains("out of bounds"), "{at}: {error}");
    }
}
