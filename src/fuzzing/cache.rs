//! The cache of machine code: whatever happens to its files, what is found is what was stored.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, FileType, Mode};

use super::{Bounded, Input, within};
use crate::host::cache::{Cache, CacheKey, Compiled};
use crate::module::Digest;
use files::HostFiles;
use proto::artifact::{self, Described};
use proto::description::samples::{of_tasks, task};
use proto::description::{CodeKind, ModuleDescription};
use proto::limits::CACHE_BYTES_MAX;
use proto::schema::TypeSchema;

/// Two modules, each compiled in two ways.
const KEYS: usize = 4;

/// One directory, emptied by each input: making one takes longer than all the rest.
struct Place {
    dir: tempfile::TempDir,
    cache: Cache,
    keys: [CacheKey; KEYS],
    /// The names of the entries' files.
    names: [String; KEYS],
}

/// The entries stored under a key, the last one last. An entry that was moved away and back still counts:
/// only this target changes what stands behind a key.
type Stored = Vec<(Vec<u8>, ModuleDescription)>;

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let cache = Cache::open(dir.path(), &HostFiles::default(), CACHE_BYTES_MAX)
            .expect("is allowed")
            .expect("a cache");
        let keys: [CacheKey; KEYS] =
            std::array::from_fn(|index| CacheKey::new(Digest::of(&[index as u8 / 2]), code(index as u8), 1));
        let names = std::array::from_fn(|index| {
            let (artifact, description) = compiled(b"name", index as u8);
            let compiled = Compiled::read(artifact, description, 4).expect("reads");
            cache.store(&keys[index], &compiled).expect("stores");
            let file = listed(dir.path()).next().expect("it is there");
            fs::remove_file(&file).expect("removes");
            file.file_name().expect("a name").to_string_lossy().into_owned()
        });
        Place { dir, cache, keys, names }
    }

    fn path(&self, choice: u8) -> PathBuf {
        self.dir.path().join(&self.names[usize::from(choice) % KEYS])
    }
}

fn listed(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).expect("lists").map(|entry| entry.expect("an entry").path())
}

/// The files of a compiled module, as the compiler process leaves them.
fn compiled(machine_code: &[u8], variant: u8) -> (File, File) {
    let file = |bytes: &[u8]| {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::memfd_create("compiled", flags).expect("a memfd"));
        file.write_all(bytes).expect("writes");
        file
    };
    (
        file(machine_code),
        file(
            &artifact::encode(&Described::new(description(variant), machine_code.len() as u64))
                .expect("encodes"),
        ),
    )
}

fn code(variant: u8) -> CodeKind {
    CodeKind::ALL[usize::from(variant) % CodeKind::ALL.len()]
}

fn description(variant: u8) -> ModuleDescription {
    let name = format!("task {variant}");
    let task = task(&name, &["upto"], TypeSchema::of::<u64>(), TypeSchema::of::<(u8, String)>());
    let mut description = of_tasks(vec![task]);
    description.metered = code(variant).is_metered();
    description.deterministic = code(variant).is_deterministic();
    description.interrupt = code(variant).interrupt();
    description
}

/// The input: what is done to the directory, step by step.
pub fn run(data: &[u8], bounded: Bounded) {
    thread_local! {
        static PLACE: OnceLock<Place> = const { OnceLock::new() };
    }
    PLACE.with(|place| play(place.get_or_init(Place::new), &mut Input(data), bounded));
}

fn play(place: &Place, input: &mut Input<'_>, bounded: Bounded) {
    let mut stored: [Stored; KEYS] = Default::default();
    // Keys whose files are as they were stored.
    let mut whole = [false; KEYS];
    let mut linked = false;
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        let step = input.byte();
        if step >= 240 {
            check(place, &stored, &whole, bounded);
        } else if step < 64 {
            let index = usize::from(step) % KEYS;
            let variant = input.byte();
            let len = usize::from(input.u16() % 2048);
            let machine_code = input.bytes(len);
            let (artifact, file) = compiled(machine_code, variant);
            let compiled = Compiled::read(artifact, file, machine_code.len() as u64).expect("reads");
            if place.cache.store(&place.keys[index], &compiled).is_ok() {
                stored[index].push((machine_code.to_vec(), description(variant)));
                whole[index] = true;
            }
        } else {
            let choice = input.byte();
            whole[usize::from(choice) % KEYS] = false;
            // A write through a link damages another entry, too.
            linked |= matches!(step % 12, 7 | 8);
            if linked {
                whole = [false; KEYS];
            }
            // A failed damage has changed nothing, or too little to be noticed: `find` says which.
            let _ = damage(place, step, choice, input, &mut whole);
        }
    }
    check(place, &stored, &whole, bounded);
    for path in listed(place.dir.path()) {
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).expect("removes");
    }
}

/// Does one thing to one file.
fn damage(
    place: &Place,
    step: u8,
    choice: u8,
    input: &mut Input<'_>,
    whole: &mut [bool; KEYS],
) -> std::io::Result<()> {
    let path = place.path(choice);
    let other = place.path(input.byte());
    // Opening a pipe would wait for its other end, so the harness does not.
    let is_pipe = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
    if matches!(step % 12, 1..=4 | 6) && (is_pipe(&path) || is_pipe(&other)) {
        return Ok(());
    }
    match step % 12 {
        0 => fs::remove_file(path),
        1 => {
            let mut bytes = fs::read(&path)?;
            let at = usize::from(input.u16()) % bytes.len().max(1);
            let by = input.byte().max(1);
            bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= by);
            fs::write(path, bytes)
        }
        2 => File::options().write(true).open(path)?.set_len(u64::from(input.u16() % 2048)),
        3 => File::options().append(true).open(path)?.write_all(input.bytes(40)),
        4 => fs::write(path, input.bytes(300)),
        5 => {
            // The other file may be another entry's, of the other kind, or the same one.
            for (index, name) in place.names.iter().enumerate() {
                whole[index] &= !other.to_string_lossy().contains(name.as_str());
            }
            fs::rename(other, path)
        }
        6 => fs::copy(other, path).map(|_| ()),
        7 => {
            fs::remove_file(&path)?;
            symlink(other, path)
        }
        8 => {
            fs::remove_file(&path)?;
            fs::hard_link(other, path)
        }
        9 => {
            fs::remove_file(&path)?;
            Ok(rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?)
        }
        10 => {
            fs::remove_file(&path)?;
            fs::create_dir(path)
        }
        _ => fs::set_permissions(path, fs::Permissions::from_mode(0o600 | u32::from(input.byte()) & 0o77)),
    }
}

/// Checks that each entry found is one that was stored, and that an entry left alone is found.
fn check(place: &Place, stored: &[Stored; KEYS], whole: &[bool; KEYS], bounded: Bounded) {
    for ((key, stored), whole) in place.keys.iter().zip(stored).zip(whole) {
        let found = within(bounded, 4 << 20, || place.cache.find(key));
        let Some(found) = found else {
            assert!(!whole, "an entry that is whole is not found");
            continue;
        };
        let entry = (read_all(&found.artifact), found.description);
        assert!(stored.contains(&entry), "what is found was not stored under this key");
        assert!(!whole || stored.last() == Some(&entry), "an entry that is whole is not found");
        // Workers are handed this description.
        let described = artifact::read(&found.description_file).map(|described| described.description);
        assert_eq!(described, Some(entry.1));
        assert!(rustix::io::fcntl_getfd(found.artifact.as_fd()).is_ok());
    }
}

fn read_all(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert_eq!(
        file.stream_position().expect("a position"),
        0,
        "whoever maps or reads it begins at the start"
    );
    file.read_to_end(&mut bytes).expect("reads");
    file.seek(SeekFrom::Start(0)).expect("seeks");
    bytes
}

/// Reads what a compiler has written as the host does, and returns the description, or `None` if the host refuses it.
pub fn read_compiled(
    artifact: File,
    description_file: File,
    artifact_bytes: u64,
) -> Option<ModuleDescription> {
    Compiled::read(artifact, description_file, artifact_bytes).map(|compiled| compiled.description)
}

/// Each kind of damage to each kind of file.
pub fn seeds() -> Vec<Vec<u8>> {
    let store = |key: u8, variant: u8| [&[key, variant, 6, 0][..], b"code ", &[b'0' + variant]].concat();
    let mut seeds = Vec::new();
    for damage in 0..12u8 {
        for file in 0..2u8 {
            let step = [72 + damage, file, 1 - file, 1, 0, 7, 3, 0, 1];
            seeds.push([&store(0, 0)[..], &store(1, 1), &step].concat());
        }
    }
    // One entry under the name of another.
    seeds.push([&store(0, 0)[..], &[78, 2, 0, 78, 3, 0]].concat());
    seeds
}
