//! Makes a WASI command of a reactor. A reactor has functions that its host calls, and no `_start`; the pool runs
//! commands.
//!
//! The module gets one more function, which is exported as `_start`. It calls `_initialize`, writes the arguments to
//! memory that it has from the reactor's `malloc`, and calls a function of the reactor that takes them as C's `main`
//! does. It traps if that function returns anything but zero. The arguments are constants of its code, because a reactor
//! need not import the functions by which a command is told its arguments.
//!
//! Each new entry is the last of its section, so that all indices stay. Everything else is copied byte by byte.

use std::collections::HashMap;

use anyhow::Context;
use wasm_encoder::{BlockType, Encode, Function, MemArg, Module, RawSection, SectionId, ValType};
use wasmparser::{BinaryReader, ExternalKind, Parser, Payload, TypeRef};

/// The type of a function without parameters and results.
const NO_PARAMETERS_NO_RESULTS: [u8; 3] = [0x60, 0, 0];

const POINTER_BYTES: usize = size_of::<u32>();

/// The strings are written in words of this size.
const WORD_BYTES: usize = size_of::<i64>();

/// Returns a command that calls the export `main`, which is `(argc: i32, argv: i32) -> i32`, with these arguments. As for
/// every program, the first of them is its name.
///
/// # Errors
/// If the bytes are no module; if the module lacks `_initialize`, `malloc` or `main`; if an argument has a zero byte in
/// it, which would end it. That these functions have the right types is seen when the command is loaded.
pub fn command(reactor: &[u8], main: &str, args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let parts = Parts::read(reactor)?;
    let [initialize, malloc, main] =
        [parts.exported("_initialize")?, parts.exported("malloc")?, parts.exported(main)?];
    let mut body = Vec::new();
    Arguments::new(args)?.start(initialize, malloc, main)?.encode(&mut body);
    let mut declaration = Vec::new();
    parts.types.encode(&mut declaration);
    let mut export = Vec::new();
    "_start".encode(&mut export);
    wasm_encoder::ExportKind::Func.encode(&mut export);
    parts.functions.encode(&mut export);

    let mut entries = HashMap::from([
        (SectionId::Type as u8, NO_PARAMETERS_NO_RESULTS.to_vec()),
        (SectionId::Function as u8, declaration),
        (SectionId::Export as u8, export),
        (SectionId::Code as u8, body),
    ]);
    let mut module = Module::new();
    for (id, contents) in parts.sections {
        let data = match entries.remove(&id) {
            Some(entry) => &with_entry(contents, &entry)?,
            None => contents,
        };
        module.section(&RawSection { id, data });
    }
    anyhow::ensure!(entries.is_empty(), "the reactor has no functions of its own");
    Ok(module.finish())
}

/// Returns a section with one more entry at its end. The section begins with the number of its entries.
fn with_entry(contents: &[u8], entry: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut reader = BinaryReader::new(contents, 0);
    let count = reader.read_var_u32()?.checked_add(1).context("a section is full")?;
    let entries = reader.read_bytes(reader.bytes_remaining())?;
    let mut extended = Vec::new();
    count.encode(&mut extended);
    extended.extend_from_slice(entries);
    extended.extend_from_slice(entry);
    Ok(extended)
}

/// The parts of a reactor that have to be known.
#[derive(Default)]
struct Parts<'a> {
    /// The sections in their order: each one's id and contents.
    sections: Vec<(u8, &'a [u8])>,
    /// The number of types.
    types: u32,
    /// The number of functions, imported ones included.
    functions: u32,
    /// The indices of the functions that are exported.
    exports: HashMap<&'a str, u32>,
}

impl<'a> Parts<'a> {
    fn read(reactor: &'a [u8]) -> anyhow::Result<Parts<'a>> {
        let mut parts = Parts::default();
        for payload in Parser::new(0).parse_all(reactor) {
            let payload = payload?;
            match &payload {
                Payload::TypeSection(groups) => {
                    for group in groups.clone() {
                        parts.types += u32::try_from(group?.types().len())?;
                    }
                }
                Payload::ImportSection(imports) => {
                    for import in imports.clone().into_imports() {
                        let is_function = matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
                        parts.functions += u32::from(is_function);
                    }
                }
                Payload::FunctionSection(functions) => {
                    parts.functions = parts.functions.saturating_add(functions.count());
                }
                Payload::ExportSection(exports) => {
                    for export in exports.clone() {
                        let export = export?;
                        if export.kind == ExternalKind::Func {
                            parts.exports.insert(export.name, export.index);
                        }
                    }
                }
                _ => {}
            }
            if let Some((id, range)) = payload.as_section() {
                parts.sections.push((id, reactor.get(range).context("a section is cut off")?));
            }
        }
        Ok(parts)
    }

    fn exported(&self, name: &str) -> anyhow::Result<u32> {
        self.exports.get(name).copied().with_context(|| format!("the reactor exports no function `{name}`"))
    }
}

/// The arguments that `main` is given, as they lie in memory: a pointer to each argument and a null pointer, then the strings, each with
/// a zero at its end.
struct Arguments {
    /// The distance of each string from the first pointer.
    offsets: Vec<usize>,
    strings: Vec<u8>,
}

impl Arguments {
    fn new(args: &[&str]) -> anyhow::Result<Arguments> {
        let mut arguments = Arguments { offsets: Vec::new(), strings: Vec::new() };
        for arg in args {
            anyhow::ensure!(!arg.contains('\0'), "the argument {arg:?} has a zero byte in it");
            arguments.offsets.push(pointers_bytes(args.len()) + arguments.strings.len());
            arguments.strings.extend_from_slice(arg.as_bytes());
            arguments.strings.push(0);
        }
        Ok(arguments)
    }

    /// Returns the function `_start`.
    fn start(&self, initialize: u32, malloc: u32, main: u32) -> anyhow::Result<Function> {
        const ARGV: u32 = 0;
        let place = |offset: usize| MemArg { offset: offset as u64, align: 0, memory_index: 0 };
        let pointers = pointers_bytes(self.offsets.len());
        let words = self.strings.chunks(WORD_BYTES);
        let bytes = i32::try_from(pointers + words.len() * WORD_BYTES)?;
        let mut function = Function::new([(1, ValType::I32)]);
        let mut code = function.instructions();
        code.call(initialize).i32_const(bytes).call(malloc).local_tee(ARGV);
        code.i32_eqz().if_(BlockType::Empty).unreachable().end();
        for (index, &offset) in self.offsets.iter().enumerate() {
            code.local_get(ARGV).local_get(ARGV).i32_const(i32::try_from(offset)?).i32_add();
            code.i32_store(place(index * POINTER_BYTES));
        }
        code.local_get(ARGV).i32_const(0).i32_store(place(self.offsets.len() * POINTER_BYTES));
        for (index, chunk) in words.enumerate() {
            let mut word = [0; WORD_BYTES];
            word[..chunk.len()].copy_from_slice(chunk);
            code.local_get(ARGV).i64_const(i64::from_le_bytes(word));
            code.i64_store(place(pointers + index * WORD_BYTES));
        }
        code.i32_const(i32::try_from(self.offsets.len())?).local_get(ARGV).call(main);
        code.if_(BlockType::Empty).unreachable().end().end();
        Ok(function)
    }
}

/// Returns the size of the pointers to so many arguments, with the null pointer that ends them.
fn pointers_bytes(args: usize) -> usize {
    (args + 1) * POINTER_BYTES
}

#[cfg(test)]
mod tests {
    use super::command;

    /// Keeps what `main` was given, and returns 1 if it was called before `_initialize` or without arguments. The heap
    /// begins with other bytes than zeros, as memory that was freed before may have.
    const REACTOR: &str = r#"(module
        (import "host" "unused" (func (param i64)))
        (memory (export "memory") 1)
        (global $initialized (mut i32) (i32.const 0))
        (global $argc (export "argc") (mut i32) (i32.const 0))
        (global $argv (export "argv") (mut i32) (i32.const 0))
        (func (export "_initialize")
            (memory.fill (i32.const 1024) (i32.const 0xff) (i32.const 1024))
            (global.set $initialized (i32.const 1)))
        (func (export "malloc") (param $bytes i32) (result i32)
            (select (i32.const 1024) (i32.const 0) (i32.le_u (local.get $bytes) (i32.const 1024))))
        (func (export "main_of_reactor") (param i32 i32) (result i32)
            (global.set $argc (local.get 0))
            (global.set $argv (local.get 1))
            (i32.eqz (i32.and (global.get $initialized) (i32.ne (local.get 0) (i32.const 0))))))"#;

    fn start(args: &[&str]) -> anyhow::Result<(wasmtime::Store<()>, wasmtime::Instance)> {
        let wasm = command(&wat::parse_str(REACTOR)?, "main_of_reactor", args)?;
        wasmparser::Validator::new().validate_all(&wasm)?;
        let engine = wasmtime::Engine::default();
        let mut store = wasmtime::Store::new(&engine, ());
        let unused = wasmtime::Func::wrap(&mut store, |_: i64| {});
        let module = wasmtime::Module::new(&engine, wasm)?;
        let instance = wasmtime::Instance::new(&mut store, &module, &[unused.into()])?;
        instance.get_typed_func::<(), ()>(&mut store, "_start")?.call(&mut store, ())?;
        Ok((store, instance))
    }

    #[test]
    fn main_gets_the_arguments_after_the_reactor_was_initialized() {
        let given = ["name", "-e", "", "print('seven\u{2026} eight')"];
        let (mut store, instance) = start(&given).unwrap();
        let mut global = |name: &str| {
            instance.get_global(&mut store, name).unwrap().get(&mut store).i32().unwrap() as usize
        };
        let argc = global("argc");
        let argv = global("argv");
        let memory = instance.get_memory(&mut store, "memory").unwrap().data(&store);
        let pointer = |index: usize| {
            let at = argv + index * 4;
            u32::from_le_bytes(memory[at..at + 4].try_into().unwrap()) as usize
        };
        let string = |index: usize| {
            let bytes = memory[pointer(index)..].split(|&byte| byte == 0).next().unwrap();
            std::str::from_utf8(bytes).unwrap()
        };
        assert_eq!((0..argc).map(string).collect::<Vec<_>>(), given);
        assert_eq!(pointer(argc), 0);
    }

    #[test]
    fn the_command_traps_if_main_fails_or_memory_is_short() {
        let unreachable = |args: &[&str]| {
            let trap = start(args).err().and_then(|error| error.downcast::<wasmtime::Trap>().ok());
            assert_eq!(trap, Some(wasmtime::Trap::UnreachableCodeReached));
        };
        unreachable(&[]);
        unreachable(&["name", &"long".repeat(1024)]);
    }

    #[test]
    fn a_reactor_without_the_functions_is_refused_by_name() {
        let refused = |wat: &str| {
            let wasm = wat::parse_str(wat).unwrap();
            command(&wasm, "main_of_reactor", &["name"]).unwrap_err().to_string()
        };
        assert_eq!(refused("(module)"), "the reactor exports no function `_initialize`");
        let without_main = REACTOR.replace("main_of_reactor", "other");
        assert_eq!(refused(&without_main), "the reactor exports no function `main_of_reactor`");
    }

    #[test]
    fn an_argument_with_a_zero_in_it_is_refused() {
        let wasm = wat::parse_str(REACTOR).unwrap();
        assert!(command(&wasm, "main_of_reactor", &["name", "a\0b"]).is_err());
    }
}
