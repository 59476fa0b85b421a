//! Gives a generated module something that a pool can call: tasks that pass their input on as
//! arguments, or a `_start`.

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{AbstractHeapType, Function, HeapType, Ieee32, Ieee64, InstructionSink, MemArg, ValType};
use wasmparser::ExternalKind;

use crate::outline::Outline;
use crate::random::Random;
use crate::rewrite::{Imports, Rewrite};
use crate::values::bottom_of;

/// Exports that are called, at the most.
const CALLS_MAX: usize = 8;

/// Bytes of one argument in an input, and of one result in an output.
const VALUE_BYTES: u64 = 16;

/// The address of inputs and outputs, if the module does not lie.
const INPUT: i32 = 64;
const OUTPUT: i32 = 4096;

/// A module that can be called, and how.
#[derive(Debug)]
pub(crate) enum Dressed {
    Tasks { wasm: Vec<u8>, tasks: Vec<String> },
    Command { wasm: Vec<u8> },
}

/// `None` if the module exports no function that can be called.
pub(crate) fn dress(wasm: &[u8], random: &mut Random) -> Option<Dressed> {
    let outline = Outline::of(wasm).ok()?;
    let mut rewrite = Rewrite::new(&outline, Imports::Keep);
    // The module can write to what the host reads in half of the cases.
    let shared = if random.percent(50) { rewrite.shared_memory() } else { None };
    let memory = shared.unwrap_or_else(|| rewrite.own_memory());
    let exports = outline.exports.iter().filter(|export| export.kind == ExternalKind::Func);
    let mut callers = Vec::new();
    for export in exports.take(CALLS_MAX) {
        callers.extend(Caller::of(&outline, export.index, memory));
    }
    if callers.is_empty() {
        return None;
    }
    if random.percent(20) {
        let start = start(&callers, random);
        let start = rewrite.function(&[], &[], start);
        rewrite.export("_start", start);
        return Some(Dressed::Command { wasm: rewrite.finish().ok()? });
    }
    // Some allocators lie: null, beyond the memory, negative.
    let input = if random.percent(5) { [0, i32::MAX, -1, 65530][random.below(4) as usize] } else { INPUT };
    rewrite.byte_abi(input);
    let mut tasks = Vec::new();
    for (index, caller) in callers.iter().enumerate() {
        let (body, name) = if caller.results[..] == [ValType::I64] && random.percent(30) {
            (caller.liar(), format!("liar {index}"))
        } else {
            (caller.task(), format!("task {index}"))
        };
        let function = rewrite.function(&[ValType::I32, ValType::I32], &[ValType::I64], body);
        rewrite.export(name.clone(), function);
        if index == 0 && random.percent(5) {
            rewrite.export("wasmpool_init", function);
        }
        tasks.push(name);
    }
    if random.percent(5) {
        let start = start(&callers, random);
        let start = rewrite.function(&[], &[], start);
        rewrite.export("_initialize", start);
    }
    Some(Dressed::Tasks { wasm: rewrite.finish().ok()?, tasks })
}

/// One export, and how it is called.
struct Caller {
    function: u32,
    params: Vec<Param>,
    results: Vec<ValType>,
    memory: u32,
}

/// The origin of an argument.
#[derive(Clone, Copy)]
enum Param {
    /// The input, or a constant.
    Number(ValType),
    /// An `i31`, as it is.
    I31,
    /// An `i31`, as a host would pass it.
    Extern,
    Null(HeapType),
    Function(u32),
}

impl Caller {
    /// `None` if nobody can make its arguments.
    fn of(outline: &Outline<'_>, function: u32, memory: u32) -> Option<Caller> {
        let ty = outline.function_type(function)?;
        let params = ty.params().iter().map(|ty| Param::of(outline, function, *ty));
        let results = ty.results().iter().map(|ty| RoundtripReencoder.val_type(*ty).ok());
        Some(Caller {
            function,
            params: params.collect::<Option<_>>()?,
            results: results.collect::<Option<_>>()?,
            memory,
        })
    }

    fn at(&self, index: usize) -> MemArg {
        MemArg { offset: index as u64 * VALUE_BYTES, align: 0, memory_index: self.memory }
    }

    /// Calls with arguments from the input at local 0; the results are left on the stack.
    fn call_with_input(&self, sink: &mut InstructionSink<'_>) {
        for (index, param) in self.params.iter().enumerate() {
            let at = self.at(index);
            match param {
                Param::Number(ValType::I32) => sink.local_get(0).i32_load(at),
                Param::Number(ValType::I64) => sink.local_get(0).i64_load(at),
                Param::Number(ValType::F32) => sink.local_get(0).f32_load(at),
                Param::Number(ValType::F64) => sink.local_get(0).f64_load(at),
                Param::Number(_) => sink.local_get(0).v128_load(at),
                Param::I31 => sink.local_get(0).i32_load(at).ref_i31(),
                Param::Extern => sink.local_get(0).i32_load(at).ref_i31().extern_convert_any(),
                Param::Null(ty) => sink.ref_null(*ty),
                Param::Function(function) => sink.ref_func(*function),
            };
        }
        sink.call(self.function);
    }

    /// `(pointer, len) -> packed`: the results' bits, as the output.
    fn task(&self) -> Function {
        let mut function = Function::new(self.results.iter().map(|ty| (1, *ty)));
        let mut sink = function.instructions();
        self.call_with_input(&mut sink);
        for index in (0..self.results.len()).rev() {
            sink.local_set(2 + index as u32);
        }
        sink.i32_const(OUTPUT - 1).i32_const(0).i32_store8(self.at(0));
        for (index, ty) in self.results.iter().enumerate() {
            let at = self.at(index);
            sink.i32_const(OUTPUT).local_get(2 + index as u32);
            match ty {
                ValType::I32 => sink.i32_store(at),
                ValType::I64 => sink.i64_store(at),
                ValType::F32 => sink.f32_store(at),
                ValType::F64 => sink.f64_store(at),
                ValType::V128 => sink.v128_store(at),
                ValType::Ref(_) => sink.ref_is_null().i32_store(at),
            };
        }
        let bytes = 1 + self.results.len() as i64 * VALUE_BYTES as i64;
        sink.i64_const(i64::from(OUTPUT - 1) << 32 | bytes).end();
        function
    }

    /// Makes a task that takes what the export returns for the envelope's pointer and length.
    fn liar(&self) -> Function {
        let mut function = Function::new([]);
        let mut sink = function.instructions();
        self.call_with_input(&mut sink);
        sink.end();
        function
    }

    /// Calls with constants, and forgets the results.
    fn call_with_constants(&self, sink: &mut InstructionSink<'_>, random: &mut Random) {
        for param in &self.params {
            let number = random.number();
            match param {
                Param::Number(ValType::I32) => sink.i32_const(number as i32),
                Param::Number(ValType::I64) => sink.i64_const(number as i64),
                Param::Number(ValType::F32) => sink.f32_const(Ieee32::new(number as u32)),
                Param::Number(ValType::F64) => sink.f64_const(Ieee64::new(number)),
                Param::Number(_) => sink.v128_const(i128::from(number)),
                Param::I31 => sink.i32_const(number as i32).ref_i31(),
                Param::Extern => sink.i32_const(number as i32).ref_i31().extern_convert_any(),
                Param::Null(ty) => sink.ref_null(*ty),
                Param::Function(function) => sink.ref_func(*function),
            };
        }
        sink.call(self.function);
        for _ in &self.results {
            sink.drop();
        }
    }
}

impl Param {
    fn of(outline: &Outline<'_>, exported: u32, ty: wasmparser::ValType) -> Option<Param> {
        let encoded = RoundtripReencoder.val_type(ty).ok()?;
        let ValType::Ref(reference) = encoded else { return Some(Param::Number(encoded)) };
        match reference.heap_type {
            HeapType::Abstract { ty: AbstractHeapType::Any, .. }
            | HeapType::Abstract { ty: AbstractHeapType::Eq, .. }
            | HeapType::Abstract { ty: AbstractHeapType::I31, .. } => Some(Param::I31),
            HeapType::Abstract { ty: AbstractHeapType::Extern, .. } => Some(Param::Extern),
            HeapType::Abstract { ty: AbstractHeapType::Func, .. } => Some(Param::Function(exported)),
            _ if reference.nullable => Some(Param::Null(bottom_of(outline, ty)?)),
            _ => None,
        }
    }
}

/// `() -> ()`: every export once, with constants.
fn start(callers: &[Caller], random: &mut Random) -> Function {
    let mut function = Function::new([]);
    let mut sink = function.instructions();
    for caller in callers {
        caller.call_with_constants(&mut sink, random);
    }
    sink.end();
    function
}
