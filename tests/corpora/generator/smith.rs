//! Decides what is generated: which features, which sizes, which mutations.

use arbitrary::{Arbitrary, Unstructured};
use wasm_mutate::WasmMutate;
use wasm_smith::{Config, Module};

use crate::random::Random;

/// The kinds of modules, by what may come of them. The numbers are those of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The generator gave up, or panicked.
    Nothing = 0,
    /// Generated; imports nothing.
    Plain = 1,
    /// Generated; imports from what the pool provides.
    Hosted = 2,
    /// Generated; imports anything, or needs features that the pool does not offer.
    Foreign = 3,
    /// Generated, then damaged: bytes flipped, or cut off.
    Damaged = 4,
    /// A file, mutated.
    Mutant = 5,
    /// A file, mutated so that it still does the same.
    Equivalent = 6,
}

/// A module, and the number of the file that it comes from.
pub(crate) fn generate(random: &mut Random, files: &[Vec<u8>]) -> Option<(Kind, usize, Vec<u8>)> {
    match random.below(1000) {
        0..800 => {
            let wasm = module(random, Imports::None)?;
            // Some modules go through the mutator as well, which makes what the generator never would.
            let wasm = if random.percent(10) { mutate(random, &wasm, 4, false) } else { wasm };
            Some((Kind::Plain, 0, wasm))
        }
        800..900 => Some((Kind::Hosted, 0, module(random, Imports::OfThePool)?)),
        900..930 => Some((Kind::Foreign, 0, module(random, Imports::Any)?)),
        930..970 => {
            let wasm = module(random, Imports::None)?;
            Some((Kind::Damaged, 0, damage(random, wasm)))
        }
        roll if files.is_empty() => Some((Kind::Nothing, roll as usize, Vec::new())),
        roll => {
            let file = random.below(files.len() as u64) as usize;
            let kind = if roll < 985 { Kind::Mutant } else { Kind::Equivalent };
            let steps = 1 + random.below(6);
            Some((kind, file, mutate(random, &files[file], steps, kind == Kind::Equivalent)))
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Imports {
    None,
    OfThePool,
    Any,
}

fn module(random: &mut Random, imports: Imports) -> Option<Vec<u8>> {
    let size = [512, 2048, 8192][random.below(3) as usize];
    let bytes = random.bytes(size);
    let mut unstructured = Unstructured::new(&bytes);
    let config = config(random, imports, &mut unstructured)?;
    Some(Module::new(config, &mut unstructured).ok()?.to_bytes())
}

/// Swarm testing: each module has some of the features and kinds of instructions, and limits of its own.
fn config(random: &mut Random, imports: Imports, unstructured: &mut Unstructured<'_>) -> Option<Config> {
    let mut config = Config::arbitrary(unstructured).ok()?;
    config.threads_enabled = false;
    config.max_imports = 0;
    config.export_everything = random.percent(90);
    config.min_types = 1;
    config.max_types = config.max_types.max(8);
    config.min_funcs = 1 + random.below(3) as usize;
    config.max_funcs = 4 + random.below(24) as usize;
    config.max_instructions = 10 + random.below(400) as usize;
    config.max_type_size = 200;
    // Most modules fit a worker, so that they run; the others show how it says that they do not.
    if random.percent(85) {
        config.max_memories = config.max_memories.min(4);
        config.max_tables = config.max_tables.min(8);
        config.max_memory32_bytes = 1 << (16 + random.below(17));
        config.max_memory64_bytes = 1 << (16 + random.below(24));
        config.max_table_elements = 1 << random.below(24);
    } else {
        config.max_table_elements = u64::from(u32::MAX);
    }
    match imports {
        Imports::None => {}
        Imports::OfThePool => config.available_imports = Some(available_imports()),
        Imports::Any => match random.below(4) {
            0 => config.max_imports = 10,
            1 => (config.threads_enabled, config.max_memories) = (true, 2),
            2 => config.wide_arithmetic_enabled = true,
            _ => config.custom_page_sizes_enabled = true,
        },
    }
    Some(config)
}

/// A module that imports all that the pool provides.
fn available_imports() -> Vec<u8> {
    const I32: u8 = 0x7f;
    const I64: u8 = 0x7e;
    let functions: &[(&str, &str, &[u8], bool)] = &[
        ("wasmpool", "log", &[I32; 7], false),
        ("wasmpool", "panic", &[I32; 6], false),
        (WASI, "args_get", &[I32; 2], true),
        (WASI, "args_sizes_get", &[I32; 2], true),
        (WASI, "clock_res_get", &[I32; 2], true),
        (WASI, "clock_time_get", &[I32, I64, I32], true),
        (WASI, "environ_get", &[I32; 2], true),
        (WASI, "environ_sizes_get", &[I32; 2], true),
        (WASI, "fd_advise", &[I32, I64, I64, I32], true),
        (WASI, "fd_close", &[I32], true),
        (WASI, "fd_fdstat_get", &[I32; 2], true),
        (WASI, "fd_filestat_get", &[I32; 2], true),
        (WASI, "fd_pread", &[I32, I32, I32, I64, I32], true),
        (WASI, "fd_prestat_get", &[I32; 2], true),
        (WASI, "fd_read", &[I32; 4], true),
        (WASI, "fd_readdir", &[I32, I32, I32, I64, I32], true),
        (WASI, "fd_renumber", &[I32; 2], true),
        (WASI, "fd_seek", &[I32, I64, I32, I32], true),
        (WASI, "fd_write", &[I32; 4], true),
        (WASI, "path_open", &[I32, I32, I32, I32, I32, I64, I64, I32, I32], true),
        (WASI, "path_readlink", &[I32; 6], true),
        (WASI, "poll_oneoff", &[I32; 4], true),
        (WASI, "proc_exit", &[I32], false),
        (WASI, "random_get", &[I32; 2], true),
        (WASI, "sched_yield", &[], true),
        (WASI, "sock_recv", &[I32; 6], true),
    ];
    let mut types = number(functions.len());
    let mut imports = types.clone();
    for (index, (module, name, params, has_result)) in functions.iter().enumerate() {
        types.push(0x60);
        types.extend(number(params.len()));
        types.extend(*params);
        types.extend(if *has_result { vec![1, I32] } else { vec![0] });
        for text in [module, name] {
            imports.extend(number(text.len()));
            imports.extend(text.as_bytes());
        }
        imports.push(0);
        imports.extend(number(index));
    }
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    for (section, bytes) in [(1, types), (2, imports)] {
        wasm.push(section);
        wasm.extend(number(bytes.len()));
        wasm.extend(bytes);
    }
    wasm
}

const WASI: &str = "wasi_snapshot_preview1";

/// LEB128.
fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Mutated data segments have up to 10 MiB, whose compilation tells nothing.
const MUTANT_BYTES_MAX: usize = 512 * 1024;

/// Makes at most `steps` mutations, each of what the one before made.
fn mutate(random: &mut Random, wasm: &[u8], steps: u64, preserve_semantics: bool) -> Vec<u8> {
    let mut mutated = wasm.to_vec();
    for _ in 0..steps {
        let source = mutated.clone();
        let mut mutator = WasmMutate::default();
        mutator.seed(random.number()).fuel(300).preserve_semantics(preserve_semantics);
        let next = mutator.run(&source).ok().and_then(|mut mutants| mutants.next()?.ok());
        mutated = next.filter(|next| next.len() <= MUTANT_BYTES_MAX).unwrap_or(mutated);
    }
    mutated
}

fn damage(random: &mut Random, mut wasm: Vec<u8>) -> Vec<u8> {
    if random.percent(20) {
        wasm.truncate(random.below(wasm.len() as u64) as usize);
        return wasm;
    }
    for _ in 0..1 + random.below(8) {
        let at = random.below(wasm.len() as u64) as usize;
        wasm[at] = if random.percent(50) { wasm[at] ^ (1 << random.below(8)) } else { random.number() as u8 };
    }
    wasm
}
