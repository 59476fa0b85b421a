//! Every kind of guest runs: typed, untyped, WASI command, C, hand-written.

use std::collections::BTreeMap;

use crate::support::{self, PATIENCE, failure, load, pool, prebuilt, raw, wat};
use wasmpool::Schema;
use wasmpool::error::{ModuleError, SubmitError};
use wasmpool::module::ModuleKind;
use wasmpool::task::CommandInput;
use wasmpool::{TaskError, TaskFailure, TaskOptions};

#[derive(serde::Serialize, serde::Deserialize, Schema, Debug, PartialEq)]
struct Counts {
    lines: u64,
    words: u64,
    bytes: u64,
    distinct: u64,
    top: Vec<(String, u64)>,
}

#[derive(serde::Serialize, serde::Deserialize, Schema, Debug, PartialEq)]
enum Kind {
    Word,
    Number,
    Mark,
}

#[derive(serde::Serialize, serde::Deserialize, Schema, Debug, PartialEq)]
struct Token {
    kind: Kind,
    text: String,
    start: u64,
}

#[derive(serde::Serialize, serde::Deserialize, Schema, Clone)]
struct Tile {
    left: f64,
    top: f64,
    step: f64,
    width: u32,
    height: u32,
    iterations: u32,
}

#[derive(serde::Serialize, serde::Deserialize, Schema, Debug)]
struct Image {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

#[test]
fn word_count_counts_words() {
    let pool = pool(1);
    let count = load(&pool, "word_count").task::<Vec<u8>, Counts>("count").expect("types agree");
    let text = b"to be or not to be\nthat is the question\n".to_vec();
    let counts = pool.submit(&count, &text).expect("submits").result().expect("counts");
    assert_eq!((counts.lines, counts.words, counts.bytes, counts.distinct), (2, 10, text.len() as u64, 8));
    assert_eq!(counts.top.iter().find(|(word, _)| word == "to"), Some(&("to".into(), 2)));
}

#[test]
fn primes_lists_and_counts_and_map_keeps_the_order() {
    let pool = pool(2);
    let module = load(&pool, "primes");
    let list = module.task::<u64, Vec<u64>>("list").expect("types agree");
    assert_eq!(
        pool.submit(&list, &20).expect("submits").result().expect("lists"),
        [2, 3, 5, 7, 11, 13, 17, 19]
    );
    let count = module.task::<u64, u64>("count").expect("types agree");
    let counted: Vec<u64> = pool.map(&count, 0..200u64).collect::<Result<_, _>>().expect("counts");
    let expected: Vec<u64> =
        (0..200u64).map(|n| (2..=n).filter(|p| (2..*p).all(|d| p % d > 0)).count() as u64).collect();
    assert_eq!(counted, expected);
}

#[test]
fn monte_carlo_comes_near_pi_and_repeats_itself() {
    let pool = pool(1);
    let pi = load(&pool, "monte_carlo").task::<(u64, u64), f64>("pi").expect("types agree");
    let run = || pool.submit(&pi, &(200_000, 7)).expect("submits").result().expect("computes");
    let first = run();
    assert!((first - std::f64::consts::PI).abs() < 0.02, "{first}");
    assert_eq!(first.to_bits(), run().to_bits(), "the same seed gives the same bits");
}

#[test]
fn tokenize_splits_and_normalize_reports_its_own_error() {
    let pool = pool(1);
    let module = load(&pool, "tokenize");
    let tokenize = module.task::<String, Vec<Token>>("tokenize").expect("types agree");
    let tokens = pool.submit(&tokenize, &"add 42!".to_string()).expect("submits").result().expect("splits");
    assert_eq!(tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>(), ["add", "42", "!"]);
    assert_eq!(tokens[1].kind, Kind::Number);
    let normalize = module.task::<Vec<f64>, Vec<f64>>("normalize").expect("types agree");
    let scaled = pool.submit(&normalize, &vec![1.0, 2.0, 3.0]).expect("submits").result().expect("scales");
    assert!(scaled.iter().sum::<f64>().abs() < 1e-9 && scaled[2] > 1.0);
    let error = failure(&pool.submit(&normalize, &Vec::new()).expect("submits"));
    assert!(matches!(error.error(), TaskError::Guest { .. }), "{error}");
}

#[test]
fn compress_and_encrypt_come_back_whole() {
    let pool = pool(1);
    let compress = load(&pool, "compress");
    let data = b"the same words again and again, ".repeat(1000);
    let packed = pool
        .submit_bytes(&raw(&compress, "deflate"), data.clone())
        .expect("submits")
        .result()
        .expect("packs");
    assert!(packed.len() * 20 < data.len(), "{} bytes", packed.len());
    let unpacked =
        pool.submit_bytes(&raw(&compress, "inflate"), packed).expect("submits").result().expect("unpacks");
    assert_eq!(unpacked, data);

    let encrypt = load(&pool, "encrypt");
    type Sealing = (Vec<u8>, Vec<u8>, Vec<u8>);
    let seal = encrypt.task::<Sealing, Vec<u8>>("seal").expect("types agree");
    let open = encrypt.task::<Sealing, Vec<u8>>("open").expect("types agree");
    let key = vec![7; 32];
    let nonce = vec![9; 12];
    let sealed = pool
        .submit(&seal, &(key.clone(), nonce.clone(), data.clone()))
        .expect("submits")
        .result()
        .expect("seals");
    let opened = pool.submit(&open, &(key.clone(), nonce.clone(), sealed.clone())).expect("submits").result();
    assert_eq!(opened.expect("opens"), data);
    let mut forged = sealed;
    forged[0] ^= 1;
    let error = failure(&pool.submit(&open, &(key, nonce, forged)).expect("submits"));
    assert!(matches!(error.error(), TaskError::Guest { .. }), "{error}");
}

#[test]
fn mandelbrot_draws_a_tile() {
    let pool = pool(1);
    let tile = load(&pool, "mandelbrot").task::<Tile, Image>("tile").expect("types agree");
    let asked = Tile { left: -2.0, top: -1.0, step: 0.05, width: 60, height: 40, iterations: 100 };
    let image = pool.submit(&tile, &asked).expect("submits").result().expect("draws");
    assert_eq!((image.width, image.height, image.pixels.len()), (60, 40, 60 * 40));
    assert!(image.pixels.iter().any(|&pixel| pixel != image.pixels[0]), "one colour only");
}

#[test]
fn a_fresh_instance_forgets_and_an_initializer_is_seen_by_every_task() {
    let pool = pool(1);
    let bump = load(&pool, "echo").task::<(), u64>("bump").expect("types agree");
    for _ in 0..3 {
        assert_eq!(pool.submit(&bump, &()).expect("submits").result().expect("bumps"), 1);
    }
    let lookup = load(&pool, "init_table").task::<u32, Vec<u32>>("lookup").expect("types agree");
    for _ in 0..3 {
        assert_eq!(
            pool.submit(&lookup, &360).expect("submits").result().expect("factors"),
            [2, 2, 2, 3, 3, 5]
        );
    }
}

#[test]
fn a_wasi_command_reads_stdin_and_argv_and_its_exit_code_counts() {
    let pool = pool(1);
    let module = load(&pool, "csv_stats");
    assert_eq!(module.description().kind, ModuleKind::Command);
    let command = module.command().expect("a command");
    let input = CommandInput::new().stdin("name,age\nann,30\nbob,40\n");
    let output = pool.submit(&command, &input).expect("submits").result().expect("exits with 0");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.exit_code == 0 && stdout.contains("age") && stdout.contains("35"), "{stdout}");

    let wrong = CommandInput::new().args(["--no-such-flag"]).stdin("");
    match failure(&pool.submit(&command, &wrong).expect("submits")).error() {
        TaskError::Exit { output } => {
            assert!(output.exit_code == 2 && !output.stderr.is_empty(), "{output:?}")
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_c_guest_speaks_the_byte_abi() {
    let pool = pool(1);
    let histogram = raw(&load(&pool, "c_histogram"), "histogram");
    let counts = pool.submit_bytes(&histogram, "hello").expect("submits").result().expect("counts");
    let count =
        |byte: u8| u64::from_le_bytes(counts[byte as usize * 8..][..8].try_into().expect("eight bytes"));
    assert_eq!((counts.len(), count(b'l'), count(b'h'), count(b'z')), (2048, 2, 1, 0));
    let error = failure(&pool.submit_bytes(&histogram, "").expect("submits"));
    assert!(matches!(error.error(), TaskError::Guest { .. }), "{error}");
}

#[test]
fn payloads_of_every_size_come_back_whole() {
    let pool = pool(1);
    let echo = raw(&load(&pool, "echo"), "echo");
    // Around the inline threshold, the ring's size, and far above.
    for len in [0, 1, 64, 4095, 4096, 4097, 8191, 8192, 8193, 262_143, 262_144, 262_145, 16 << 20] {
        let sent: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        let echoed = pool.submit_bytes(&echo, sent.clone()).expect("submits").result().expect("echoes");
        assert!(echoed == sent, "{len} bytes");
    }
}

#[test]
fn types_are_compared_when_the_handle_is_made() {
    let pool = pool(1);
    let module = load(&pool, "primes");
    match module.task::<String, u64>("count").expect_err("the input is a u64") {
        ModuleError::SchemaMismatch { side, declared, asked, .. } => {
            assert_eq!((&*side, &*declared, &*asked), ("input", "u64", "String"));
        }
        other => panic!("{other}"),
    }
    match module.task::<u64, u64>("cuont").expect_err("no such task") {
        ModuleError::UnknownTask { known, .. } => {
            assert!(known.iter().any(|name| name == "count"), "{known:?}")
        }
        other => panic!("{other}"),
    }
    assert!(matches!(module.command(), Err(ModuleError::NotACommand { .. })));
    let echo = load(&pool, "echo");
    assert!(matches!(echo.task::<Vec<u8>, Vec<u8>>("echo"), Err(ModuleError::RawTask { .. })));
}

#[test]
fn a_module_of_another_pool_is_refused() {
    let ours = pool(1);
    let theirs = pool(1);
    let count = load(&theirs, "primes").task::<u64, u64>("count").expect("types agree");
    assert!(matches!(ours.submit(&count, &1), Err(SubmitError::ForeignModule { .. })));
}

#[test]
fn fuel_is_counted_where_the_module_is_metered() {
    let pool = pool(1);
    let plain = load(&pool, "echo").task::<u64, u64>("spin").expect("types agree");
    let fuel = TaskOptions::new().fuel(1_000_000);
    assert!(matches!(pool.submit_with(&plain, &1, fuel.clone()), Err(SubmitError::NotMetered { .. })));
    let metered = pool
        .load_file_with(prebuilt("echo"), wasmpool::module::ModuleOptions::new().metered(true))
        .expect("loads metered");
    let spin = metered.task::<u64, u64>("spin").expect("types agree");
    let future = pool.submit_with(&spin, &100, fuel.clone()).expect("submits");
    future.result().expect("enough fuel");
    let used = future.report().and_then(|report| report.fuel_used).expect("metered");
    assert!((100..1_000_000).contains(&used), "{used}");
    let error = failure(&pool.submit_with(&spin, &u64::MAX, fuel).expect("submits"));
    assert!(matches!(error.error(), TaskError::Fuel { limit: 1_000_000, .. }), "{error}");
}

#[test]
fn signatures_and_docs_are_described() {
    let pool = pool(1);
    let module = load(&pool, "primes");
    let described: BTreeMap<_, _> =
        module.description().tasks.iter().map(|task| (task.signature(), !task.doc.is_empty())).collect();
    assert_eq!(described.get("count(upto: u64) -> u64"), Some(&true), "{described:?}");
    assert_eq!(described.get("list(upto: u64) -> Vec<u64>"), Some(&true), "{described:?}");
}

#[test]
fn a_module_without_a_section_has_raw_tasks_under_its_exports_names() {
    let pool = pool(1);
    let module = wat(&pool, support::ECHO_WAT);
    let names: Vec<_> = module.description().tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["echo", "spin"]);
    let echoed = pool.submit_bytes(&raw(&module, "echo"), "abc").expect("submits").result().expect("echoes");
    assert_eq!(&echoed[..], b"abc");
}

#[test]
fn a_rust_guests_error_has_its_causes_and_its_data() {
    #[derive(Debug, PartialEq, serde::Deserialize, Schema)]
    enum Refusal {
        NoSuchInvoice { id: u32 },
        Locked(String),
    }
    let pool = pool(1);
    let faults = load(&pool, "faults");
    let task = faults.task::<u32, ()>("own_error_as_data").expect("types agree");
    let signature = &faults.description().tasks.iter().find(|task| task.name == "own_error_as_data");
    assert_eq!(
        signature.map(|task| task.signature()),
        Some("own_error_as_data(id: u32) -> Result<(), Refusal>".into())
    );
    let own = |failure: TaskFailure| match failure.error() {
        TaskError::Guest { message, chain, data } => (message.clone(), chain.clone(), data.clone()),
        other => panic!("{other}"),
    };
    let (message, chain, data) = own(failure(&pool.submit(&task, &7).expect("submits")));
    assert_eq!((&*message, &chain[..]), ("no such invoice: 7", &[][..]));
    assert_eq!(data.and_then(|data| data.get::<Refusal>()), Some(Refusal::NoSuchInvoice { id: 7 }));
    let (message, _, data) = own(failure(&pool.submit(&task, &0).expect("submits")));
    assert_eq!(message, "locked by Ann");
    assert_eq!(data.and_then(|data| data.get::<Refusal>()), Some(Refusal::Locked("Ann".into())));

    let task = faults.task::<String, i32>("own_error_with_causes").expect("types agree");
    let failed = failure(&pool.submit(&task, "seven").expect("submits"));
    assert!(
        failed.to_string().contains("no number of an invoice: invalid digit found in string"),
        "{failed}"
    );
    let (message, chain, data) = own(failed);
    assert_eq!(
        (&*message, &*chain[0], chain.len()),
        ("no number of an invoice", "invalid digit found in string", 1)
    );
    assert_eq!(data, None);
}

#[test]
fn bytes_with_a_type_come_back_as_they_were() {
    let pool = pool(1);
    let task = load(&pool, "echo").task::<Vec<u8>, Vec<u8>>("typed_echo").expect("types agree");
    for len in [0, 1, 127, 128, 100_000] {
        let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let echoed = pool.submit(&task, &bytes).expect("submits").result_timeout(PATIENCE).expect("in time");
        assert_eq!(echoed.expect("succeeds"), bytes);
    }
}
