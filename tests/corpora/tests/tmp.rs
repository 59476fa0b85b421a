wasmpool::init_at_load!();
#[test]
fn worker_out_of_descriptors() {
    let pool = corpora::pool::steady(1, |b| b).unwrap();
    let pid = pool.worker_pids()[0];
    let before = corpora::pool::Resident::of(pid).unwrap();
    println!("{before:?}");
    if std::env::var("LIM").is_ok() {
    let lim = rustix::process::Rlimit { current: Some(40), maximum: Some(40) };
    rustix::process::prlimit(rustix::process::Pid::from_raw(pid as i32), rustix::process::Resource::Nofile, lim).unwrap();
    }
    for n in 0..60 {
        let text = format!(r#"(module (memory (export "memory") 4) (data (i32.const 2000) "hello {n}")
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1025)
    (func (export "echo") (param $at i32) (param $len i32) (result i64)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32))
                (i64.extend_i32_u (i32.add (local.get $len) (i32.const 1))))))"#);
        let buf = wast::parser::ParseBuffer::new(&text).unwrap();
        let wasm = wast::parser::parse::<wast::Wat<'_>>(&buf).unwrap().encode().unwrap();
        let m = pool.load(&wasm).unwrap();
        let t = m.raw_task("echo").unwrap();
        let r = pool.submit_bytes(&t, b"hi".to_vec()).map(|f| f.result());
        if n % 10 == 0 || !matches!(r, Ok(Ok(_))) { println!("{n} {r:?} {:?}", corpora::pool::Resident::of(pid)); }
    }
    println!("{:?}", pool.stats());
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    println!("maps {}", maps.lines().count());
}
