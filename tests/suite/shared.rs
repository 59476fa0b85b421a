//! Shared inputs: sent once to each worker, read by many tasks, freed when nobody has them.

use crate::support::{Guarded, PATIENCE, build, builder, eventually, load, raw, signal, wat};
use rustix::process::Signal;
use wasmpool::error::{ShareError, SubmitError};
use wasmpool::module::{ModuleOptions, RawTask};
use wasmpool::pool::OnWorkerDeath;
use wasmpool::sandbox::SandboxPolicy;
use wasmpool::task::{Isolation, SharedInput};
use wasmpool::{Bytes, Pool, PoolBuilder, TaskOptions};

/// A guest by the bare byte ABI. `size` answers with the length of the input of the number given. `read`
/// takes index, offset, pointer and length, and answers with what `shared_read` returned, and 16 bytes that
/// stand behind it in memory, at 1029.
const READER: &str = r#"(module
    (import "wasmpool" "shared_len" (func $len (param i32) (result i64)))
    (import "wasmpool" "shared_read" (func $read (param i32 i64 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 2048)
    (func (export "size") (param $at i32) (param i32) (result i64)
        (i64.store offset=1025 (i32.const 0) (call $len (i32.load (local.get $at))))
        (i64.const 0x40000000009))
    (func (export "read") (param $at i32) (param i32) (result i64)
        (i32.store offset=1025 (i32.const 0)
            (call $read (i32.load (local.get $at)) (i64.load offset=4 (local.get $at))
                        (i32.load offset=12 (local.get $at)) (i32.load offset=16 (local.get $at))))
        (i64.const 0x40000000015))
    (func (export "spin") (param i32 i32) (result i64) (loop (br 0)) unreachable))"#;

struct Reader {
    pool: Guarded,
    size: RawTask,
    read: RawTask,
    spin: RawTask,
}

impl Reader {
    fn new(builder: PoolBuilder) -> Reader {
        let pool = build(builder);
        let module = wat(&pool, READER);
        Reader { size: raw(&module, "size"), read: raw(&module, "read"), spin: raw(&module, "spin"), pool }
    }

    fn run(&self, task: &RawTask, input: Vec<u8>, options: TaskOptions) -> Bytes {
        let future = self.pool.submit_with(task, &input, options).expect("submits");
        let result = future.result_timeout(PATIENCE).unwrap_or_else(|timeout| panic!("{timeout}"));
        result.unwrap_or_else(|failure| panic!("{failure}"))
    }

    fn size(&self, index: u32, options: &TaskOptions) -> i64 {
        let output = self.run(&self.size, index.to_le_bytes().to_vec(), options.clone());
        i64::from_le_bytes(output[..].try_into().expect("eight bytes"))
    }

    /// Returns what `shared_read` returned, and what stands in memory from 1029.
    fn read(&self, index: u32, offset: u64, at: u32, len: u32, options: &TaskOptions) -> (i32, Vec<u8>) {
        let mut input = index.to_le_bytes().to_vec();
        input.extend(offset.to_le_bytes());
        input.extend([at, len].map(u32::to_le_bytes).concat());
        let output = self.run(&self.read, input, options.clone());
        (i32::from_le_bytes(output[..4].try_into().expect("four bytes")), output[4..].to_vec())
    }
}

fn with(shared: &SharedInput) -> TaskOptions {
    TaskOptions::new().shared(shared)
}

/// Returns how many shared inputs each worker holds.
fn held(pool: &Pool) -> Vec<usize> {
    pool.stats().workers.iter().map(|worker| worker.shared).collect()
}

/// Workers whose processes are this one's user's.
fn open(workers: usize) -> PoolBuilder {
    builder(workers).sandbox(SandboxPolicy::Off)
}

/// Returns whether a worker has so many shared inputs mapped, as far as can be seen: only root may look into
/// one.
fn has_mapped(pid: u32, shares: usize) -> bool {
    let Ok(maps) = std::fs::read_to_string(format!("/proc/{pid}/maps")) else {
        assert!(!rustix::process::getuid().is_root(), "root may look");
        return true;
    };
    maps.lines().filter(|line| line.contains("memfd:wasmpool-shared")).count() == shares
}

/// Returns what it has open, if that can be seen.
fn descriptors(pid: u32) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Shared inputs of that size that this process has open.
fn open_here(bytes: u64) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("reads").flatten();
    let is_one = |path: &std::path::Path| {
        std::fs::read_link(path).is_ok_and(|name| name.to_string_lossy().contains("memfd:wasmpool-shared"))
            && std::fs::metadata(path).is_ok_and(|file| file.len() == bytes)
    };
    descriptors.filter(|entry| is_one(&entry.path())).count()
}

fn table(lines: usize) -> String {
    (0..lines).map(|n| format!("{n:08}\tvalue {n}\n")).collect()
}

#[test]
fn many_tasks_on_two_workers_share_an_input_that_each_is_sent_once() {
    let pool = build(open(2));
    let module = load(&pool, "lookup");
    let find = module.task::<String, Option<String>>("find").expect("types agree");
    let lines = module.task::<(), u64>("lines").expect("types agree");
    let shared = pool.share(table(50_000)).expect("shares");
    // The tasks travel in batches, for the greatest part.
    let keys = (0..5_000usize).map(|n| format!("{:08}", n * 11));
    let found: Vec<_> = pool.map(&find, keys).options(with(&shared)).collect();
    for (n, found) in found.into_iter().enumerate() {
        let expected = (n * 11 < 50_000).then(|| format!("value {}", n * 11));
        assert_eq!(found.unwrap_or_else(|error| panic!("{error}")), expected);
    }
    // Both workers run at once, so that each has had a task of it.
    eventually("both workers to have it", || {
        let both = [0, 1].map(|_| pool.submit_with(&lines, &(), with(&shared)).expect("submits"));
        both.iter().for_each(|future| assert_eq!(future.result().expect("counts"), 50_000));
        held(&pool) == [1, 1]
    });
    for pid in pool.worker_pids() {
        assert!(has_mapped(pid, 1), "it was sent more than once");
    }
    assert_eq!(open_here(shared.len()), 1, "the workers have the host's own file");
}

#[test]
fn what_is_out_of_range_is_a_value_and_copies_nothing() {
    let reader = Reader::new(builder(1));
    let shared = reader.pool.share(&b"0123456789"[..]).expect("shares");
    let options = with(&shared);
    assert_eq!(
        (reader.size(0, &options), reader.size(1, &options), reader.size(u32::MAX, &options)),
        (10, -1, -1)
    );
    let read = |index, offset, at, len| reader.read(index, offset, at, len, &options);
    let untouched = vec![0; 16];
    assert_eq!(read(0, 2, 1029, 3), (3, [&b"234"[..], &[0; 13]].concat()));
    assert_eq!(read(0, 7, 1029, 16), (3, [&b"789"[..], &[0; 13]].concat()), "it ends where the input does");
    assert_eq!(read(0, 10, 1029, 16), (0, untouched.clone()));
    assert_eq!(read(0, 0, 65_536, 0), (0, untouched.clone()));
    for (index, offset, at, len) in [
        (1, 0, 1029, 1),
        (u32::MAX, 0, 1029, 1),
        (0, 11, 1029, 1),
        (0, 1 << 32, 1029, 1),
        (0, u64::MAX, 1029, 1),
        (0, 0, 65_536, 1),
        (0, 0, 1029, 65_536),
        (0, 0, u32::MAX, u32::MAX),
        (0, 0, u32::MAX, 1),
        (0, 0, 1029, u32::MAX),
    ] {
        assert_eq!(read(index, offset, at, len), (-1, untouched.clone()), "{index} {offset} {at} {len}");
    }
    assert_eq!(reader.size(0, &TaskOptions::new()), -1, "the next task is not given it");
}

#[test]
fn several_are_numbered_in_their_order_and_may_be_empty_or_the_same() {
    let reader = Reader::new(builder(1));
    let [first, empty] = [&b"first"[..], b""].map(|bytes| reader.pool.share(bytes).expect("shares"));
    let options = with(&empty).shared(&first).shared(&empty).shared(&first.clone());
    assert_eq!([0, 1, 2, 3, 4].map(|index| reader.size(index, &options)), [0, 5, 0, 5, -1]);
    assert_eq!(reader.read(3, 0, 1029, 16, &options).1[..5], *b"first");
    assert_eq!(reader.read(0, 0, 1029, 16, &options).0, 0);
    assert_eq!(held(&reader.pool), [2]);
}

#[test]
fn it_is_freed_with_the_last_handle_and_the_last_task() {
    const BYTES: u64 = 1_234_567;
    let reader = Reader::new(open(1).timeout(PATIENCE));
    let shared = reader.pool.share(vec![7; BYTES as usize]).expect("shares");
    let options = with(&shared);
    assert_eq!(reader.size(0, &options), BYTES as i64);
    let pid = reader.pool.worker_pids()[0];
    assert_eq!((open_here(BYTES), has_mapped(pid, 1), held(&reader.pool)), (1, true, vec![1]));
    // One that runs, and one that waits.
    let [running, waiting] = [&reader.spin, &reader.size]
        .map(|task| reader.pool.submit_with(task, &vec![0; 4], options.clone()).expect("submits"));
    eventually("the task to run", || running.is_running());
    drop((shared, options));
    assert_eq!((open_here(BYTES), has_mapped(pid, 1)), (1, true));
    assert!(running.abort());
    let output = waiting.result_timeout(PATIENCE).expect("in time").expect("it still has it");
    assert_eq!(output[..], BYTES.to_le_bytes());
    eventually("the host to free it", || open_here(BYTES) == 0);
    eventually("the worker to unmap it", || has_mapped(pid, 0));
    assert_eq!((held(&reader.pool), reader.pool.worker_pids()), (vec![0], vec![pid]), "the same worker");
}

#[test]
fn an_instance_that_is_kept_keeps_none() {
    let reader = Reader::new(open(1));
    let shared = reader.pool.share(vec![7; 100_000]).expect("shares");
    assert_eq!(reader.size(0, &with(&shared).isolation(Isolation::Reuse)), 100_000);
    let pid = reader.pool.worker_pids()[0];
    assert!(has_mapped(pid, 1));
    drop(shared);
    eventually("the worker to unmap it", || has_mapped(pid, 0));
    assert_eq!(reader.size(0, &TaskOptions::new().isolation(Isolation::Reuse)), -1);
}

#[test]
fn many_in_turn_use_up_neither_descriptors_nor_the_pools_bound() {
    let reader = Reader::new(open(1).shares_max(3));
    assert_eq!(reader.size(0, &TaskOptions::new()), -1);
    let pid = reader.pool.worker_pids()[0];
    let before = descriptors(pid);
    for round in 0..1500u32 {
        let share = || reader.pool.share(round.to_le_bytes().to_vec());
        let mut shared = None;
        // The task before may not be quite gone.
        eventually("room for another", || {
            shared = share().ok();
            shared.is_some()
        });
        let shared = shared.expect("shared");
        assert_eq!(reader.read(0, 0, 1029, 16, &with(&shared)).1[..4], round.to_le_bytes());
    }
    eventually("all to be unmapped", || has_mapped(pid, 0));
    assert_eq!((descriptors(pid), reader.pool.worker_pids()), (before, vec![pid]));
}

#[test]
fn a_worker_that_replaces_a_dead_one_is_sent_it_again() {
    let reader = Reader::new(builder(1).on_worker_death(OnWorkerDeath::replace()));
    let shared = reader.pool.share(&b"again"[..]).expect("shares");
    let mut pids = Vec::new();
    for _ in 0..3 {
        assert_eq!(reader.size(0, &with(&shared)), 5);
        let pid = reader.pool.worker_pids()[0];
        assert!(!pids.contains(&pid));
        pids.push(pid);
        let spinning = reader.pool.submit_with(&reader.spin, &Bytes::new(), with(&shared)).expect("submits");
        eventually("the task to run", || spinning.is_running());
        signal(pid, Signal::KILL);
        assert!(spinning.result_timeout(PATIENCE).expect("in time").is_err());
    }
    assert_eq!(reader.size(0, &with(&shared)), 5);
    assert_eq!(held(&reader.pool), [1]);
}

#[test]
fn what_is_over_a_bound_or_of_another_pool_is_refused() {
    let reader = Reader::new(builder(1).share_bytes_max(10).shares_max(2));
    let pool = &reader.pool;
    assert!(matches!(pool.share(vec![0; 11]), Err(ShareError::TooLarge { bytes: 11, max: 10 })));
    let [first, second] = [(); 2].map(|()| pool.share(vec![0; 10]).expect("shares"));
    assert!(matches!(pool.share(vec![0; 10]), Err(ShareError::TooMany { max: 2 })));
    drop(second);
    let second = pool.share(Vec::new()).expect("there is room again");
    let submit = |options| pool.submit_with(&reader.size, &vec![0; 4], options);
    let many = (0..17).fold(TaskOptions::new(), |options, _| options.shared(&first));
    assert!(matches!(submit(many), Err(SubmitError::TooManyShared { count: 17, max: 16, .. })));

    let other = build(builder(1));
    let foreign = other.share(&b"of another"[..]).expect("shares");
    let refused = submit(with(&second).shared(&foreign)).expect_err("another pool's");
    assert!(matches!(refused, SubmitError::ForeignShared { .. }), "{refused}");
    assert!(refused.to_string().contains("another pool"), "{refused}");
}

#[test]
fn only_workers_of_its_tasks_domain_have_it() {
    let reader = Reader::new(open(2));
    let shared = reader.pool.share(&b"secret of a"[..]).expect("shares");
    assert_eq!(reader.size(0, &with(&shared).domain("a")), 11);
    assert_eq!(reader.size(0, &TaskOptions::new().domain("b")), -1);
    let workers = reader.pool.stats().workers;
    assert_eq!(workers.len(), 2);
    for worker in workers {
        let expected = usize::from(worker.domain.as_deref() == Some("a"));
        assert_eq!(worker.shared, expected, "{:?}", worker.domain);
        assert!(has_mapped(worker.pid, expected), "{:?}", worker.domain);
    }
}

#[test]
fn a_deterministic_task_may_have_it() {
    let pool = build(builder(1));
    let wasm = wat::parse_str(READER).expect("valid text");
    let module = pool.load_with(&wasm, ModuleOptions::new().deterministic(true)).expect("loads");
    let shared = pool.share(&b"input"[..]).expect("shares");
    let options = with(&shared).deterministic(7);
    let future = pool.submit_with(&raw(&module, "size"), &vec![0; 4], options).expect("submits");
    assert_eq!(future.result().expect("runs")[..], 5u64.to_le_bytes());
}
