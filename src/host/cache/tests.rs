use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use files::HostFiles;
use proto::description::{ModuleKind, samples};
use proto::limits::CACHE_BYTES_MAX;

const CODE: &[u8] = b"machine code";

fn compiled(tag: u64) -> Compiled {
    with_code(tag, CODE)
}

pub(super) fn with_code(tag: u64, code: &[u8]) -> Compiled {
    let mut description = samples::of_tasks(Vec::new());
    description.kind = ModuleKind::Library;
    description.wasm_bytes = tag;
    description.machine_code_bytes = code.len() as u64;
    let bytes = artifact::encode(&artifact::Described::new(description, code.len() as u64)).expect("encodes");
    let file = |bytes: &[u8]| memfd::sealed("test", bytes).expect("a memfd");
    Compiled::read(file(code), file(&bytes), code.len() as u64).expect("reads")
}

fn open(dir: &Path) -> Option<Cache> {
    Cache::open(dir, &HostFiles::default(), CACHE_BYTES_MAX).expect("tasks have no directory")
}

struct Place {
    dir: tempfile::TempDir,
    cache: Cache,
    key: CacheKey,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = open(dir.path()).expect("opens");
        let place = Place { dir, cache, key: CacheKey::new(Digest::of(b"wasm"), CodeKind::Plain, 7) };
        place.store();
        place
    }

    fn store(&self) {
        self.cache.store(&self.key, &compiled(4)).expect("stores");
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(self.key.file_name())
    }

    fn is_found(&self) -> bool {
        self.cache.find(&self.key).is_some()
    }
}

#[test]
fn what_was_stored_is_found_and_nobody_can_change_it() {
    let place = Place::new();
    let found = place.cache.find(&place.key).expect("is there");
    assert_eq!(found.description.wasm_bytes, 4);
    let mut code = Vec::new();
    (&found.artifact).read_to_end(&mut code).expect("reads");
    assert_eq!(code, CODE);
    (&found.artifact).write_all(b"x").expect_err("is sealed");
    assert!(place.cache.find(&CacheKey::new(Digest::of(b"wasm"), CodeKind::Metered, 7)).is_none());
    // This is the key of another engine, or of other settings.
    assert!(place.cache.find(&CacheKey::new(Digest::of(b"wasm"), CodeKind::Plain, 8)).is_none());
    assert_eq!(std::fs::read_dir(place.dir.path()).expect("reads").count(), 1, "nothing is left beside it");
}

#[test]
fn what_threads_copy_in_segments_is_what_was_stored() {
    let place = Place::new();
    let segment = SEGMENT_BYTES as usize;
    for len in [segment - 1, segment, segment + 1, 7 * segment, 9 * segment + 12_345] {
        let code: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8 ^ (at / segment) as u8).collect();
        place.cache.store(&place.key, &with_code(4, &code)).expect("stores");
        let found = place.cache.find(&place.key).expect("is there");
        let mut copy = Vec::new();
        (&found.artifact).read_to_end(&mut copy).expect("reads");
        assert!(copy == code, "{len}");
        (&found.artifact).write_all(b"x").expect_err("is sealed");
        let good = std::fs::read(place.path()).expect("reads");
        let start = good.len() - len;
        let places = [start, start + len / 2, start + segment.min(len) - 1, good.len() - 1];
        for at in places {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(place.path(), &bad).expect("writes");
            assert!(!place.is_found(), "byte {at} of {len}");
        }
        // Two segments trade places.
        if len > 2 * segment {
            let mut bad = good;
            let (one, other) = bad[start..].split_at_mut(segment);
            one.swap_with_slice(&mut other[..segment]);
            std::fs::write(place.path(), &bad).expect("writes");
            assert!(!place.is_found(), "swapped");
        }
    }
}

#[test]
fn every_flipped_bit_every_truncation_and_every_byte_more_is_noticed() {
    let place = Place::new();
    let good = std::fs::read(place.path()).expect("reads");
    let write = |bytes: &[u8]| std::fs::write(place.path(), bytes).expect("writes");
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            write(&bad);
            assert!(!place.is_found(), "bit {bit} of byte {at}");
        }
        write(&good[..at]);
        assert!(!place.is_found(), "the first {at} bytes");
    }
    write(&[&good[..], b"\0"].concat());
    assert!(!place.is_found(), "a byte more");
    write(&good);
    assert!(place.is_found());
}

#[test]
fn an_entry_in_anothers_place_is_none() {
    let place = Place::new();
    let other = CacheKey::new(Digest::of(b"other"), CodeKind::Plain, 7);
    place.cache.store(&other, &compiled(5)).expect("stores");
    let ours = place.path();
    let theirs = place.dir.path().join(other.file_name());
    let aside = place.dir.path().join("aside");
    for (from, to) in [(&ours, &aside), (&theirs, &ours), (&aside, &theirs)] {
        std::fs::rename(from, to).expect("renames");
    }
    assert!(!place.is_found() && place.cache.find(&other).is_none());
    place.store();
    assert!(place.is_found());
}

#[test]
fn sizes_are_bounded_before_anything_is_allocated() {
    let place = Place::new();
    let good = std::fs::read(place.path()).expect("reads");
    for at in [16 + 32 + 32, 16 + 32 + 32 + 8] {
        let mut bad = good.clone();
        bad[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(place.path(), &bad).expect("writes");
        assert!(!place.is_found());
    }
}

#[test]
fn a_directory_that_is_a_symlink_or_open_to_others_is_not_used() {
    let place = Place::new();
    let link = place.dir.path().join("link");
    let real = place.dir.path().join("real");
    std::fs::create_dir(&real).expect("makes");
    symlink(&real, &link).expect("links");
    assert!(open(&link).is_none());
    assert!(open(&real).is_some());
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o777)).expect("opens up");
    assert!(open(&real).is_none());
}

#[test]
fn a_directory_that_is_swapped_afterwards_is_not_looked_into() {
    let place = Place::new();
    let moved = place.dir.path().with_extension("moved");
    std::fs::rename(place.dir.path(), &moved).expect("renames");
    std::fs::create_dir(place.dir.path()).expect("makes another");
    assert!(place.is_found(), "the directory that was opened");
    place.store();
    assert_eq!(
        std::fs::read_dir(place.dir.path()).expect("reads").count(),
        0,
        "nothing is put into the new one"
    );
    std::fs::remove_dir_all(moved).expect("cleans up");
}
