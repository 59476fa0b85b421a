#![allow(missing_docs, unused, clippy::all)]
use std::time::{Duration, Instant};
use std::sync::{Arc, Mutex, atomic::*};
use wasmpool::*;
const G: &str = "/work/main/guest-tasks/prebuilt/";
fn pool(n: usize) -> Pool { Pool::builder().workers(n).build().unwrap() }
fn echo(p: &Pool) -> RawTask { p.load_file(format!("{G}echo.wasm")).unwrap().raw_task("echo").unwrap() }
fn spin(p: &Pool) -> Task<u64,u64> { p.load_file(format!("{G}echo.wasm")).unwrap().task("spin").unwrap() }
struct Guard(Option<Pool>, Vec<u8>);
impl AsRef<[u8]> for Guard { fn as_ref(&self) -> &[u8] { &self.1 } }
impl Drop for Guard { fn drop(&mut self) { if let Some(p) = &self.0 { eprintln!("guard drop: {}", p.unresolved_tasks()); } } }
struct Sub;
impl tracing::Subscriber for Sub {
    fn enabled(&self, m: &tracing::Metadata<'_>) -> bool { m.target() == "wasmpool::guest" }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id { tracing::span::Id::from_u64(1) }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) { panic!("subscriber") }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
struct W(Mutex<Option<Pool>>);
impl std::task::Wake for W { fn wake(self: Arc<Self>) { eprintln!("wake: drops last pool"); let p = self.0.lock().unwrap().take(); drop(p); eprintln!("wake: dropped"); } }
fn rss() -> String { std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmRSS")||l.starts_with("Threads")).collect::<Vec<_>>().join(" ") + &format!(" fds {}", std::fs::read_dir("/proc/self/fd").unwrap().count()) }
fn rnd(s: &mut u64) -> u64 { *s ^= *s << 13; *s ^= *s >> 7; *s ^= *s << 17; *s }
fn kids() -> usize { let me = std::process::id().to_string(); std::fs::read_dir("/proc").unwrap().flatten().filter(|e| std::fs::read_to_string(e.path().join("stat")).ok().and_then(|s| s.rsplit(") ").next().map(|r| r.split(' ').nth(1) == Some(&me))).unwrap_or(false)).count() }
fn main() {
    wasmpool::init();
    let a: Vec<String> = std::env::args().collect();
    let t = Instant::now();
    let arg = |i: usize| a.get(i).and_then(|s| s.parse::<usize>().ok());
    match a[1].as_str() {
        "bigargs" => { let p = pool(2);
            let m = p.load(&wat::parse_str(r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) (memory (export "memory") 1) (func (export "_start")))"#).unwrap()).unwrap();
            let c = m.command().unwrap();
            println!("small: {:?}", p.submit(&c, &CommandInput::new().arg("x")).unwrap().result().is_ok());
            let f = p.submit(&c, &CommandInput::new().arg("x".repeat(1_200_000)));
            println!("{:?}", f.map(|f| f.result().map_err(|e| e.to_string())));
            println!("broken {:?}", p.broken().map(|b| b.to_string())); }
        "outmax" => { let p = pool(1); let m = p.load_file(format!("{G}faults.wasm")).unwrap(); let h = m.task::<u64, Vec<u8>>("huge_output").unwrap();
            let f = p.submit_with(&h, &100_000, TaskOptions::new().output_bytes_max(1usize << 63)).unwrap();
            println!("{:?}", f.result().map(|v| v.len()).map_err(|e| e.to_string())); println!("broken {}", p.broken().is_some()); }
        "ctimeout" => { let p = Pool::builder().without_cache().compile_timeout(Duration::MAX).build().unwrap();
            let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| p.load_file(format!("{G}echo.wasm")).is_ok())); println!("{:?}", r.is_ok()); std::thread::sleep(Duration::from_secs(2)); println!("kids {}", kids()); }
        "dropguard" => { let p = pool(1); let e = echo(&p); let s = spin(&p); let _r = p.submit(&s, &3_000_000_000).unwrap();
            std::thread::sleep(Duration::from_millis(500));
            let f = p.submit_bytes(&e, Bytes::from_owner(Guard(Some(p.clone()), vec![1;10]))).unwrap();
            println!("cancelling"); println!("{}", f.cancel()); println!("no deadlock"); }
        "killbroken" => { let p = pool(2); let s = spin(&p); let fs: Vec<_> = (0..2).map(|_| p.submit(&s, &u64::MAX).unwrap()).collect();
            while !fs.iter().all(|f| f.running()) { std::thread::yield_now() } std::thread::sleep(Duration::from_millis(300)); p.kill();
            for f in &fs { println!("task {}: {}", f.task_id(), f.result().unwrap_err()); }
            println!("broken() {:?}", p.broken().map(|b| b.to_string())); println!("{:?}", p); println!("{:?}", p.submit(&s, &1).map_err(|e| e.to_string())); }
        "cbdrop" => { let p = pool(2); let s = spin(&p); for i in 0..3 { p.submit(&s, &1000).unwrap().add_done_callback(move |_| { std::thread::sleep(Duration::from_millis(50)); println!("callback {i}") }); }
            drop(p); println!("main ends"); }
        "subpanic" => { tracing::subscriber::set_global_default(Sub).unwrap(); let p = pool(1); let m = p.load_file(format!("{G}echo.wasm")).unwrap(); let l = m.task::<u32,u32>("log_lines").unwrap();
            let f = p.submit_with(&l, &2, TaskOptions::new().timeout(Duration::from_secs(1))).unwrap(); println!("{:?}", f.result_timeout(Duration::from_secs(5)).map(|r| r.map_err(|e| e.to_string()))); 
            println!("shutdown in time: {:?}", { let p2 = p.clone(); let (tx, rx) = std::sync::mpsc::channel(); std::thread::spawn(move || { p2.kill(); tx.send(()) }); rx.recv_timeout(Duration::from_secs(3)) }); std::process::exit(0); }
        "wakerdrop" => { let p = pool(1); let s = spin(&p); let mut f = Box::pin(p.submit(&s, &300_000_000).unwrap());
            let w = Arc::new(W(Mutex::new(Some(p)))).into(); let _ = f.as_mut().poll_(&w); println!("{:?}", f.result().is_ok()); std::thread::sleep(Duration::from_secs(2)); println!("kids left {} {}", kids(), rss()); }
        "imports" => { let p = pool(1); let mut s = String::from("(module "); for i in 0..3000 { s += &format!("(import \"env\" \"a_function_of_some_library_{i}\" (func (param i32 i32) (result i32)))"); } s += ")";
            println!("{:.300}", p.load(&wat::parse_str(&s).unwrap()).unwrap_err().to_string()); }
        "workers" => { let n = arg(2).unwrap(); let p = Pool::builder().workers(n).build().unwrap(); let s = spin(&p); let t = Instant::now();
            let fs: Vec<_> = (0..n * 2).map(|_| p.submit(&s, &1000).unwrap()).collect();
            let (mut first, mut bad) = (None, None); for f in as_completed(fs) { first.get_or_insert(t.elapsed()); if let Err(e) = f.result() { bad.get_or_insert(format!("{:.400}", e.to_string())); } }
            println!("{n} workers: first {first:?} all {:?} {:?} pids {} {}", t.elapsed(), bad, p.worker_pids().len(), rss()); let t = Instant::now(); p.shutdown(ShutdownMode::Finish); println!("shutdown {:?} kids {}", t.elapsed(), kids()); }
        "modules" => { let p = Pool::builder().workers(1).without_cache().build().unwrap(); let n = arg(2).unwrap();
            for i in 0..n { let w = wat::parse_str(&format!(r#"(module (memory (export "memory") 1) (func (export "_start") (drop (i32.const {i}))))"#)).unwrap();
                match p.load(&w) { Ok(m) => { let c = m.command().unwrap(); if let Err(e) = p.submit(&c, &CommandInput::new()).map(|f| f.result()).map_err(|e| e.to_string()).and_then(|r| r.map_err(|e| e.to_string())) { println!("{i}: run {e:.300}"); break } } Err(e) => { println!("{i}: load {e} {}", rss()); break } } }
            println!("{} {:?} broken {}", rss(), t.elapsed(), p.broken().is_some()); }
        "loadshut" => { let p = Pool::builder().workers(1).without_cache().build().unwrap(); let p2 = p.clone(); let h = std::thread::spawn(move || p2.load_file(format!("{G}traced.wasm")).map(|_| ()).map_err(|e| e.to_string()));
            std::thread::sleep(Duration::from_millis(arg(2).unwrap() as u64)); p.shutdown(ShutdownMode::Finish); println!("{:?}", h.join().unwrap()); println!("kids {}", kids()); println!("after: {:?}", p.load_file(format!("{G}primes.wasm")).map_err(|e| e.to_string())); }
        "deaths" => { let p = Pool::builder().workers(2).grace(Duration::ZERO).build().unwrap(); let s = spin(&p); println!("{}", rss()); let mut k = 0;
            for i in 0..arg(2).unwrap() { let f = p.submit(&s, &u64::MAX).unwrap(); while !f.running() { std::thread::yield_now() } f.abort(); if f.result().unwrap_err().to_string().contains("kill") { k += 1 } if i % 100 == 0 { println!("{k} {}", rss()) } } println!("killed {k} {} kids {}", rss(), kids()); }
        "sigchld" => { unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN); } let p = Pool::builder().workers(1).without_cache().build().unwrap();
            println!("load {:?}", p.load_file(format!("{G}echo.wasm")).map_err(|e| e.to_string())); }
        "fullshut" => { let p = Pool::builder().workers(1).queue_tasks_max(1).build().unwrap(); let s = spin(&p); let _f = p.submit(&s, &u64::MAX).unwrap(); let (p2, s2) = (p.clone(), s.clone());
            let h = std::thread::spawn(move || { println!("waiter: {:?}", p2.submit(&s2, &1).map_err(|e| e.to_string())) }); std::thread::sleep(Duration::from_millis(300)); p.begin_shutdown(ShutdownMode::CancelPending); std::thread::sleep(Duration::from_secs(2)); println!("waiter returned: {}", h.is_finished()); p.kill(); h.join().unwrap(); }
        "many" => { let n = arg(2).unwrap(); let p = Pool::builder().workers(arg(3).unwrap()).queue_tasks_max(200_000).build().unwrap(); let s = spin(&p); p.submit(&s,&1).unwrap().result().unwrap(); println!("{}", rss()); let t = Instant::now();
            let fs: Vec<_> = (0..n).map(|_| p.submit(&s, &10).unwrap()).collect(); println!("submitted {:?}", t.elapsed()); for f in &fs { f.result().unwrap(); } println!("{n} tasks {:?} {}", t.elapsed(), rss()); drop(fs); println!("{}", rss()); }
        "stress" => { let secs = arg(2).unwrap() as u64; let nw = arg(3).unwrap_or(4); let mut seed = 0x9e3779b97f4a7c15u64 ^ std::process::id() as u64; println!("seed {seed}"); let mut pools = 0; let mut hist = std::collections::BTreeMap::<String, u64>::new();
            while t.elapsed().as_secs() < secs { pools += 1;
                let p = Pool::builder().workers(nw).grace(Duration::from_millis(rnd(&mut seed) % 60)).queue_tasks_max(300).build().unwrap(); let s = spin(&p); let e = echo(&p);
                let cb = Arc::new(AtomicU64::new(0)); let total = Arc::new(AtomicU64::new(0)); let stop = Arc::new(AtomicBool::new(false));
                let kill_mode = rnd(&mut seed) % 5;
                let ths: Vec<_> = (0..3).map(|_| { let mut seed = rnd(&mut seed) | 1; let (p, s, e, cb, total, stop) = (p.clone(), s.clone(), e.clone(), cb.clone(), total.clone(), stop.clone()); std::thread::spawn(move || { let mut out = Vec::new(); let mut outb = Vec::new();
                    while !stop.load(Ordering::SeqCst) { match rnd(&mut seed) % 8 { 
                        0 => { let len = rnd(&mut seed) as usize % 700_000; match p.submit_bytes(&e, vec![7u8; len]) { Ok(f) => { let cb = cb.clone(); f.add_done_callback(move |_| { cb.fetch_add(1, Ordering::SeqCst); }); total.fetch_add(1, Ordering::SeqCst); outb.push((f, len)) } Err(_) => break } }
                        1 => match p.submit_with(&s, &u64::MAX, TaskOptions::new().timeout(Duration::from_micros(rnd(&mut seed) % 30000))) { Ok(f) => { total.fetch_add(1, Ordering::SeqCst); let cb = cb.clone(); f.add_done_callback(move |_| { cb.fetch_add(1, Ordering::SeqCst); }); out.push(f) } Err(_) => break },
                        2 => { if !out.is_empty() { let i = rnd(&mut seed) as usize % out.len(); out[i].abort(); } }
                        3 => { if !out.is_empty() { let i = rnd(&mut seed) as usize % out.len(); out[i].cancel(); } }
                        _ => match p.submit_with(&s, &(rnd(&mut seed) % 2_000_000), TaskOptions::new().timeout(Duration::from_secs(30))) { Ok(f) => { total.fetch_add(1, Ordering::SeqCst); let cb = cb.clone(); f.add_done_callback(move |_| { cb.fetch_add(1, Ordering::SeqCst); }); out.push(f) } Err(_) => break } } }
                    let mut h = Vec::new(); for f in out { let r = f.result_timeout(Duration::from_secs(40)); match r { Err(_) => { println!("STUCK {f:?} {p:?}"); std::process::abort() } Ok(Ok(_)) => h.push("ok".into()), Ok(Err(e)) => h.push(format!("{:?}", e.error()).split(|c: char| !c.is_alphanumeric()).next().unwrap().to_string()) } }
                    for (f, len) in outb { match f.result_timeout(Duration::from_secs(40)) { Err(_) => { println!("STUCK {f:?} {p:?}"); std::process::abort() } Ok(Ok(b)) => { assert_eq!(b.len(), len); assert!(b.iter().all(|&x| x == 7)); h.push("ok".to_string()) } Ok(Err(e)) => h.push(format!("{:?}", e.error()).split(|c: char| !c.is_alphanumeric()).next().unwrap().to_string()) } }
                    h }) }).collect();
                std::thread::sleep(Duration::from_millis(rnd(&mut seed) % 400));
                for _ in 0..3 { let pids = p.worker_pids(); if pids.is_empty() { break } let pid = pids[rnd(&mut seed) as usize % pids.len()] as i32; unsafe { match kill_mode { 0 => { libc::kill(pid, libc::SIGKILL); } 1 => { libc::kill(pid, libc::SIGSTOP); std::thread::sleep(Duration::from_millis(50)); libc::kill(pid, libc::SIGCONT); } 2 => { libc::kill(pid, libc::SIGSEGV); } _ => {} } } }
                stop.store(true, Ordering::SeqCst);
                match rnd(&mut seed) % 4 { 0 => p.kill(), 1 => p.shutdown(ShutdownMode::CancelPending), 2 => { p.shutdown_timeout(ShutdownMode::Finish, Duration::from_millis(200)); } _ => p.begin_shutdown(ShutdownMode::Finish) }
                for h in ths { for k in h.join().unwrap() { *hist.entry(k).or_default() += 1 } }
                let t0 = Instant::now(); while cb.load(Ordering::SeqCst) != total.load(Ordering::SeqCst) { if t0.elapsed().as_secs() > 10 { println!("CALLBACKS LOST {} of {}", cb.load(Ordering::SeqCst), total.load(Ordering::SeqCst)); break } std::thread::sleep(Duration::from_millis(1)); }
                p.shutdown(ShutdownMode::Finish); drop((s, e)); drop(p); let k = kids(); if k > 0 { println!("KIDS {k}") } if pools % 20 == 0 { println!("{pools} pools {hist:?} {}", rss()) } }
            println!("{pools} pools {hist:?} {}", rss()); }
        _ => panic!() }
    println!("done {:?}", t.elapsed());
}
trait P { type O; fn poll_(self, w: &std::task::Waker) -> std::task::Poll<Self::O>; }
impl<F: std::future::Future> P for std::pin::Pin<&mut F> { type O = F::Output; fn poll_(self, w: &std::task::Waker) -> std::task::Poll<F::Output> { self.poll(&mut std::task::Context::from_waker(w)) } }
