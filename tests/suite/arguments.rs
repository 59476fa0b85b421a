//! Tasks of more arguments than there are schemas of tuples for: seven to sixteen.

use crate::support::{pool, wat};
use wasmpool::module::{Args, Module};
use wasmpool::postcard_schema::Schema;
use wasmpool::postcard_schema::schema::{DataModelType, NamedType};
use wasmpool::{Pool, Task};

/// `echo` returns its arguments; `weigh` takes each as one byte, and returns the sum of each times its place, from 1.
const GUEST_WAT: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1025)
    (func (export "echo") (param $at i32) (param $len i32) (result i64)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32))
                (i64.extend_i32_u (i32.add (local.get $len) (i32.const 1)))))
    (func (export "weigh") (param $at i32) (param $len i32) (result i64) (local $place i32) (local $sum i32)
        (loop
            (local.set $sum (i32.add (local.get $sum)
                (i32.mul (i32.load8_u (i32.add (local.get $at) (local.get $place)))
                         (i32.add (local.get $place) (i32.const 1)))))
            (local.set $place (i32.add (local.get $place) (i32.const 1)))
            (br_if 0 (i32.lt_u (local.get $place) (local.get $len))))
        ;; The sum is at least 128, and is written as postcard writes it.
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i32.store8 (i32.const 1025) (i32.or (local.get $sum) (i32.const 128)))
        (i32.store8 (i32.const 1026) (i32.shr_u (local.get $sum) (i32.const 7)))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32)) (i64.const 3)))
    (@custom "wasmpool.tasks" "SECTION"))"#;

/// Loads the guest with one task, described as the macro of guests describes it.
fn load(pool: &Pool, export: &str, input: &NamedType, output: &NamedType) -> Module {
    let DataModelType::Tuple(arguments) = input.ty else { panic!("arguments are a tuple") };
    let names: Vec<_> = (0..arguments.len()).map(|number| format!("a{number}")).collect();
    let (version, kind, doc, codec) = (1u8, 0u8, "", 1u8);
    let record = postcard::to_stdvec(&(version, kind, export, export, doc, codec, names, input, output));
    let record = record.expect("encodes");
    let section = [&(record.len() as u32).to_le_bytes()[..], &record].concat();
    let escaped: String = section.iter().map(|byte| format!("\\{byte:02x}")).collect();
    wat(pool, &GUEST_WAT.replace("SECTION", &escaped))
}

/// The schema of a tuple of these types.
macro_rules! tuple {
    ($($of:ty),*) => {
        const { &NamedType { name: "(…)", ty: &DataModelType::Tuple(&[$(<$of>::SCHEMA),*]) } }
    };
}

#[test]
fn a_task_of_seven_arguments_gets_each_at_its_place() {
    type Seven = (u8, u8, u8, u8, u8, u8, u8);
    type Eight = Args<(u8, u8, u8, u8, u8, u8, u8, u8)>;
    let pool = pool(1);
    let module = load(&pool, "weigh", tuple!(u8, u8, u8, u8, u8, u8, u8), u16::SCHEMA);
    let weigh: Task<Args<Seven>, u16> = module.task("weigh").expect("types agree");
    let sum = pool.submit(&weigh, &(1, 2, 3, 4, 5, 6, 7)).expect("submits").result().expect("returns");
    assert_eq!(sum, 140);
    let sum = pool.submit(&weigh, &(20, 0, 0, 0, 0, 0, 100)).expect("submits").result().expect("returns");
    assert_eq!(sum, 720);
    assert!(module.task::<Eight, u16>("weigh").is_err(), "eight are not seven");
}

#[test]
fn a_task_of_sixteen_arguments_gets_each_at_its_place() {
    type Sixteen = (u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8);
    let pool = pool(1);
    let input = tuple!(u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8);
    let module = load(&pool, "weigh", input, u16::SCHEMA);
    let weigh: Task<Args<Sixteen>, u16> = module.task("weigh").expect("types agree");
    let arguments = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
    let future = pool.submit(&weigh, &arguments).expect("submits");
    assert_eq!(future.result().expect("returns"), 1496);
    let results: Vec<_> = pool
        .map(&weigh, [arguments, (9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9)].map(Args))
        .map(|result| result.expect("returns"))
        .collect();
    assert_eq!(results, [1496, 1224], "a map takes them, too");
}

#[test]
fn sixteen_arguments_of_as_many_types_come_back_as_they_went() {
    type Sixteen = (
        u8,
        u16,
        u32,
        u64,
        i8,
        i16,
        i32,
        i64,
        bool,
        char,
        f32,
        f64,
        String,
        Option<u8>,
        Vec<i64>,
        (u8, bool),
    );
    let pool = pool(1);
    let input = tuple!(
        u8,
        u16,
        u32,
        u64,
        i8,
        i16,
        i32,
        i64,
        bool,
        char,
        f32,
        f64,
        String,
        Option<u8>,
        Vec<i64>,
        (u8, bool)
    );
    let module = load(&pool, "echo", input, input);
    let echo: Task<Args<Sixteen>, Args<Sixteen>> = module.task("echo").expect("types agree");
    let text = "sixteen".to_string();
    let list = vec![i64::MIN, -1, 0, i64::MAX];
    let sent = (
        255,
        65_535,
        u32::MAX,
        u64::MAX,
        -128,
        i16::MIN,
        i32::MIN,
        i64::MIN,
        true,
        'ü',
        0.1,
        -0.2,
        text.clone(),
        Some(7),
        list.clone(),
        (3, false),
    );
    let Args((a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)) =
        pool.submit(&echo, &sent).expect("submits").result().expect("returns");
    assert_eq!(
        (a, b, c, d, e, f, g, h),
        (255, 65_535, u32::MAX, u64::MAX, -128, i16::MIN, i32::MIN, i64::MIN)
    );
    assert_eq!((i, j, k, l, m, n, o, p), (true, 'ü', 0.1, -0.2, text, Some(7), list, (3, false)));
}
