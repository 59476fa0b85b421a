//! Machine code is run only if it is what was stored; anything else is compiled again, and the entry is as
//! good as new.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{self, Guarded, build, prebuilt, raw};
use rustix::fs::Mode;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use wasmpool::{Module, Pool};

/// A cache with one entry, and the module behind it.
struct Place {
    dir: tempfile::TempDir,
    wasm: Vec<u8>,
    entry: PathBuf,
    good: Vec<u8>,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        let wasm = wat::parse_str(support::ECHO_WAT).expect("valid text");
        assert!(!load(dir.path(), &wasm).1.from_cache());
        let [entry] = &entries(dir.path())[..] else { panic!("{:?}", entries(dir.path())) };
        Place { entry: entry.clone(), good: std::fs::read(entry).expect("reads"), dir, wasm }
    }

    fn load(&self) -> (Guarded, Module) {
        load(self.dir.path(), &self.wasm)
    }

    fn write(&self, bytes: &[u8]) {
        std::fs::write(&self.entry, bytes).expect("writes");
    }

    fn remove(&self) {
        std::fs::remove_file(&self.entry).expect("removes");
    }

    /// The entry as it is now is not used; after that there is a good one.
    #[track_caller]
    fn heals(&self, what: &str) {
        let (pool, module) = self.load();
        assert!(!module.from_cache(), "{what}: it was used");
        runs(&pool, &module);
        let (pool, module) = self.load();
        assert!(module.from_cache(), "{what}: the entry is not healed");
        runs(&pool, &module);
    }
}

fn load(dir: &Path, wasm: &[u8]) -> (Guarded, Module) {
    let pool = build(Pool::builder().workers(1).cache_dir(dir));
    let module = pool.load(wasm).unwrap_or_else(|error| panic!("loads: {error}"));
    (pool, module)
}

#[track_caller]
fn runs(pool: &Guarded, module: &Module) {
    let future = pool.submit_bytes(&raw(module, "echo"), "on").expect("submits");
    assert_eq!(future.result().expect("echoes"), "on");
}

/// Returns what lies in the directory.
fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).expect("reads").map(|entry| entry.expect("reads").path()).collect()
}

/// Damages the entry at each of these bytes, and cuts it off there.
fn flip_and_cut(places: impl Fn(usize) -> bool) {
    let place = Place::new();
    for at in (0..place.good.len()).filter(|at| places(*at)) {
        let mut bad = place.good.clone();
        bad[at] ^= 1 << (at % 8);
        place.write(&bad);
        assert!(!place.load().1.from_cache(), "byte {at}");
        // The load has healed it, so that the next damage is to a good entry.
        assert!(place.load().1.from_cache(), "byte {at}: the entry is not healed");
        place.write(&place.good[..at]);
        assert!(!place.load().1.from_cache(), "the first {at} bytes");
    }
    let (pool, module) = place.load();
    assert!(module.from_cache());
    runs(&pool, &module);
}

#[test]
fn flipped_bits_and_truncations_are_compiled_again() {
    // All of the head, and some of the rest; the unit tests of the cache have every bit of a smaller one.
    flip_and_cut(|at| at < 112 && at % 4 == 0 || at % 499 == 0);
}

#[test]
#[ignore = "some 20,000 compilations: two minutes, or an hour"]
fn every_flipped_bit_and_every_truncation_is_compiled_again() {
    flip_and_cut(|_| true);
}

#[test]
fn what_stands_in_an_entrys_place_is_not_used_and_replaced() {
    let place = Place::new();
    let aside = place.dir.path().join("aside");

    place.write(b"");
    place.heals("empty");
    place.write(&[&place.good[..], b"\0"].concat());
    place.heals("longer");
    place.write(&vec![0; place.good.len()]);
    place.heals("zeros");

    std::fs::rename(&place.entry, &aside).expect("renames");
    symlink(&aside, &place.entry).expect("links");
    place.heals("a symlink to a good one");
    assert!(std::fs::symlink_metadata(&place.entry).expect("is there").is_file());

    place.remove();
    std::fs::hard_link(&aside, &place.entry).expect("links");
    place.heals("a second name of a good one");
    std::fs::remove_file(&aside).expect("removes");

    place.remove();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &place.entry,
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .expect("makes a pipe");
    place.heals("a pipe that nobody writes to");

    place.remove();
    std::fs::create_dir(&place.entry).expect("makes a directory");
    place.heals("a directory");
    place.remove();
    std::fs::create_dir(&place.entry).expect("makes a directory");
    std::fs::write(place.entry.join("file"), "x").expect("writes");
    place.heals("a directory with something in it");
}

#[test]
fn an_entry_that_others_own_or_may_write_to_is_not_used_and_replaced() {
    let place = Place::new();
    for mode in [0o620, 0o602, 0o666, 0o777] {
        set_permissions(&place.entry, Permissions::from_mode(mode)).expect("changes");
        place.heals(&format!("mode {mode:o}"));
        let mode = std::fs::metadata(&place.entry).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    for mode in [0o600, 0o400, 0o644] {
        set_permissions(&place.entry, Permissions::from_mode(mode)).expect("changes");
        assert!(place.load().1.from_cache(), "mode {mode:o}");
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&place.entry, Some(65534), None).expect("gives it away");
        place.heals("another owner");
    }
}

#[test]
fn entries_that_have_changed_places_are_not_used_and_replaced() {
    let place = Place::new();
    let other = wat::parse_str(support::ECHO_WAT.replace("\"spin\"", "\"other\"")).expect("valid text");
    assert!(!load(place.dir.path(), &other).1.from_cache());
    let theirs = entries(place.dir.path()).into_iter().find(|path| *path != place.entry).expect("a second");
    place.write(&std::fs::read(&theirs).expect("reads"));
    std::fs::write(&theirs, &place.good).expect("writes");
    let (pool, module) = load(place.dir.path(), &other);
    assert!(!module.from_cache() && module.raw_task("other").is_ok());
    runs(&pool, &module);
    place.heals("another's entry");
    // Metered code of the same module is another entry.
    let pool = build(Pool::builder().workers(1).cache_dir(place.dir.path()));
    let metered = wasmpool::module::ModuleOptions::new().metered(true);
    assert!(!pool.load_with(&place.wasm, metered).expect("loads").from_cache());
}

#[test]
fn an_entry_that_is_rewritten_after_its_check_is_not_run() {
    let place = Place::new();
    let (pool, module) = place.load();
    assert!(module.from_cache());
    // No worker has mapped the entry yet. It is overwritten in place: the file and its length stay the same.
    place.write(&vec![0xcc; place.good.len()]);
    runs(&pool, &module);
    place.write(b"");
    runs(&pool, &module);
}

#[test]
fn a_directory_that_is_not_this_users_alone_is_not_used() {
    let place = Place::new();
    let dir = place.dir.path();
    let unused = |what: &str| {
        let (pool, module) = place.load();
        assert!(!module.from_cache(), "{what}");
        runs(&pool, &module);
        assert_eq!(std::fs::read(&place.entry).expect("reads"), place.good, "{what}: it was written to");
    };
    for mode in [0o770, 0o707, 0o777, 0o1777] {
        set_permissions(dir, Permissions::from_mode(mode)).expect("changes");
        unused(&format!("mode {mode:o}"));
    }
    set_permissions(dir, Permissions::from_mode(0o755)).expect("changes");
    assert!(place.load().1.from_cache());
    let link = dir.with_extension("link");
    symlink(dir, &link).expect("links");
    assert!(!load(&link, &place.wasm).1.from_cache(), "a symlink");
    std::fs::remove_file(&link).expect("removes");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir, Some(65534), None).expect("gives it away");
        unused("another owner");
    }
}

#[test]
fn a_directory_that_is_swapped_under_a_pool_is_neither_read_nor_written() {
    let place = Place::new();
    let dir = place.dir.path();
    let pool = build(Pool::builder().workers(1).cache_dir(dir));
    let moved = dir.with_extension("moved");
    std::fs::rename(dir, &moved).expect("renames");
    std::fs::create_dir(dir).expect("makes another");
    std::fs::write(dir.join(place.entry.file_name().expect("has a name")), b"bait").expect("writes");
    assert!(pool.load(&place.wasm).expect("loads").from_cache(), "the directory that was opened");
    assert!(!pool.load(b"\0asm\x01\0\0\0").expect("loads").from_cache());
    assert_eq!((entries(dir).len(), entries(&moved).len()), (1, 2));
    std::fs::remove_dir_all(&moved).expect("cleans up");
}

#[test]
fn pools_that_store_the_same_entry_at_once_leave_one_good_one_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let wasm = wat::parse_str(support::ECHO_WAT).expect("valid text");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let (pool, module) = load(dir.path(), &wasm);
                runs(&pool, &module);
            });
        }
    });
    assert_eq!(entries(dir.path()).len(), 1);
    assert!(load(dir.path(), &wasm).1.from_cache());
}

#[test]
fn a_cache_that_cannot_be_written_costs_a_compilation_and_nothing_else() {
    let place = Place::new();
    if rustix::process::geteuid().is_root() {
        // A mode forbids root nothing.
        return;
    }
    place.remove();
    set_permissions(place.dir.path(), Permissions::from_mode(0o500)).expect("changes");
    let (pool, module) = place.load();
    runs(&pool, &module);
    assert!(!module.from_cache() && entries(place.dir.path()).is_empty());
    set_permissions(place.dir.path(), Permissions::from_mode(0o700)).expect("changes");
}

#[test]
fn a_file_that_has_rested_is_known_and_is_read_again_once_it_has_changed() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let system = rustix::fs::statfs(dir.path()).expect("it is on one").f_type as u64;
    // A file is remembered only on ext4, XFS, Btrfs and F2FS.
    if ![0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010].contains(&system) {
        return;
    }
    let cache = dir.path().join("cache");
    let path = dir.path().join("module.wasm");
    let load = || {
        let pool = build(Pool::builder().workers(1).cache_dir(&cache));
        let module = pool.load_file(&path).expect("loads");
        (pool, module)
    };
    let first = numbered(1);
    let second = numbered(2);
    assert_eq!(first.len(), second.len(), "the size says nothing");
    // A file that was just written is read each time, however quickly it changes.
    for wasm in [&first, &second, &first] {
        std::fs::write(&path, wasm).expect("writes");
        assert_eq!(load().1.digest(), digest_of(wasm));
    }
    support::eventually("the file to be known", || {
        load();
        is_known(&cache)
    });
    let (pool, known) = load();
    assert_eq!((known.digest(), known.from_cache()), (digest_of(&first), true));
    runs(&pool, &known);
    // Written in place, and its time of modification set back.
    let modified = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("has one");
    let file = std::fs::File::options().write(true).open(&path).expect("opens");
    file.write_all_at(&second, 0).expect("writes");
    file.set_modified(modified).expect("sets");
    assert_eq!(load().1.digest(), digest_of(&second));
    // A known file whose machine code is gone is read, and compiled.
    let known = prebuilt("echo");
    let load_known = || {
        let pool = build(Pool::builder().workers(1).cache_dir(&cache));
        pool.load_file(&known).expect("loads").from_cache()
    };
    assert_eq!((load_known(), load_known()), (false, true));
    for entry in entries(&cache) {
        if entry.extension().is_some_and(|extension| extension == "module") {
            std::fs::remove_file(entry).expect("removes");
        }
    }
    assert_eq!((load_known(), load_known()), (false, true));
}

/// A file that stays mapped, as programs map one that they write to now and then.
struct Mapped {
    at: *mut u8,
    len: usize,
}

impl Mapped {
    fn new(path: &Path) -> Mapped {
        let file = std::fs::File::options().read(true).write(true).open(path).expect("opens");
        let len = file.metadata().expect("has a size").len() as usize;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED;
        // SAFETY: it makes a fresh mapping at an address of the kernel's choice.
        let at = unsafe { mmap(std::ptr::null_mut(), len, rights, flags, &file, 0) }.expect("maps");
        Mapped { at: at.cast(), len }
    }

    fn write(&self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.len);
        // SAFETY: the mapping is as long as the file, which nobody truncates, and nothing else refers to it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at, self.len) };
    }
}

/// No time tells of such a change on tmpfs; elsewhere none does while the page is dirty already.
#[test]
fn a_file_that_is_changed_through_a_mapping_is_read_again() {
    let first = numbered(1);
    let second = numbered(2);
    let before = digest_of(&first);
    let after = digest_of(&second);
    for base in ["/dev/shm", env!("CARGO_TARGET_TMPDIR")] {
        let Ok(dir) = tempfile::tempdir_in(base) else { continue };
        let cache = dir.path().join("cache");
        let path = dir.path().join("module.wasm");
        std::fs::write(&path, &first).expect("writes");
        let mapped = Mapped::new(&path);
        mapped.write(&first);
        let load = || build(Pool::builder().workers(1).cache_dir(&cache)).load_file(&path).expect("loads");
        let began = Instant::now();
        support::eventually("the file to be known, or to have rested for longer than that takes", || {
            assert_eq!(load().digest(), before);
            is_known(&cache) || began.elapsed() > Duration::from_secs(5)
        });
        mapped.write(&second);
        assert_eq!(load().digest(), after, "{base}, known before: {}", is_known(&cache));
        mapped.write(&first);
        assert_eq!(load().digest(), before, "{base}");
    }
}

fn is_known(cache: &Path) -> bool {
    entries(cache).iter().any(|path| path.extension().is_some_and(|extension| extension == "known"))
}

/// Makes modules that differ and have the same size.
fn numbered(number: u32) -> Vec<u8> {
    let text = support::ECHO_WAT.replace("(module", &format!("(module (global i32 (i32.const {number}))"));
    wat::parse_str(text).expect("valid text")
}

fn digest_of(wasm: &[u8]) -> wasmpool::module::Digest {
    let pool = build(Pool::builder().workers(1).without_cache());
    pool.load(wasm).expect("loads").digest()
}
