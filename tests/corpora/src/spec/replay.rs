//! An instance's script as code inside of the module: each step calls an export and compares the
//! results where they are, bit by bit; one task replays the steps from the instantiation to the one
//! that its input names.

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    AbstractHeapType, BlockType, Catch, Function, Ieee32, Ieee64, InstructionSink, MemArg, ValType,
};
use wasmparser::ExternalKind;
use wast::core::{NanPattern, V128Pattern, WastArgCore, WastRetCore};
use wast::token::{F32, F64};

use crate::outline::Outline;
use crate::rewrite::{Definitions, Imports, Rewrite, RewriteError};
use crate::values::{bottom_of, heap};

/// The one task.
pub(crate) const TASK: &str = "replay";

/// The input that asks for the instantiation alone.
pub(crate) const INSTANTIATION: u32 = u32::MAX;

/// The address of the input; the envelope stands behind it.
const INPUT: i32 = 64;

const ENVELOPE: i32 = 128;

/// Bytes of an envelope that says what was got: status, `result  `, the index, ` got 0x `, the bits.
const MISMATCH_BYTES: i32 = 1 + 8 + 16 + 8 + 32;

/// The index of a result that should not have come.
const COMPLETED: i32 = -1;

/// The action of a step.
pub(crate) enum Action<'s> {
    Invoke { name: &'s str, args: Vec<&'s WastArgCore<'s>> },
    Get { global: &'s str },
}

/// The result that a step must have.
pub(crate) enum Expected<'s> {
    Results(Vec<&'s WastRetCore<'s>>),
    /// Whatever it returns.
    Completion,
    /// A trap: what runs behind it cannot catch it, so that it is left out there.
    Trap,
    Exception,
}

pub(crate) struct Step<'s> {
    pub(crate) action: Action<'s>,
    pub(crate) expected: Expected<'s>,
}

/// The module with its script inside.
///
/// # Errors
/// What cannot be encoded, or is not what the script says: a missing export, a wrong type.
pub(crate) fn compile(
    outline: &Outline<'_>,
    imported: &Definitions,
    steps: &[Step<'_>],
) -> Result<Vec<u8>, RewriteError> {
    let mut rewrite = Rewrite::new(outline, Imports::Define(imported));
    let memory = rewrite.own_memory();
    rewrite.byte_abi(INPUT);
    let hex = rewrite.function(&[ValType::I32, ValType::I64], &[], hex(memory));
    let report = rewrite.function(&[ValType::I32, ValType::I64, ValType::I64], &[], report(memory, hex));
    let envelope = rewrite.function(&[ValType::I32, ValType::I32], &[ValType::I64], envelope(memory));
    let mut calls = Vec::new();
    for step in steps {
        let body = StepCode { outline, report }.function(step)?;
        calls.push(rewrite.function(&[], &[ValType::I32], body));
    }
    let driver = driver(steps, &calls, memory, envelope);
    let driver = rewrite.function(&[ValType::I32, ValType::I32], &[ValType::I64], driver);
    rewrite.export(TASK, driver);
    rewrite.finish()
}

fn at(memory: u32, offset: i32) -> MemArg {
    MemArg { offset: offset as u64, align: 0, memory_index: memory }
}

/// `(at, value)`: sixteen hexadecimal digits.
fn hex(memory: u32) -> Function {
    let at_local = 0;
    let value = 1;
    let left = 2;
    let digit = 3;
    let mut function = Function::new([(2, ValType::I32)]);
    let mut sink = function.instructions();
    sink.i32_const(16).local_set(left);
    sink.loop_(BlockType::Empty);
    sink.local_get(value).i32_wrap_i64().i32_const(15).i32_and().local_set(digit);
    sink.local_get(at_local).local_get(left).i32_add().i32_const(1).i32_sub();
    sink.local_get(digit).i32_const(b'0'.into()).i32_add();
    sink.local_get(digit).i32_const((b'a' - 10).into()).i32_add();
    sink.local_get(digit).i32_const(10).i32_lt_u().select();
    sink.i32_store8(at(memory, 0));
    sink.local_get(value).i64_const(4).i64_shr_u().local_set(value);
    sink.local_get(left).i32_const(1).i32_sub().local_tee(left);
    sink.br_if(0).end().end();
    function
}

/// `(result, low, high)`: the text of a mismatch, with the bits that were got.
fn report(memory: u32, hex: u32) -> Function {
    let mut function = Function::new([]);
    let mut sink = function.instructions();
    let word = |text: &[u8; 8]| i64::from_le_bytes(*text);
    sink.i32_const(ENVELOPE).i32_const(1).i32_store8(at(memory, 0));
    sink.i32_const(ENVELOPE).i64_const(word(b"result  ")).i64_store(at(memory, 1));
    sink.i32_const(ENVELOPE + 9).local_get(0).i64_extend_i32_s().call(hex);
    sink.i32_const(ENVELOPE).i64_const(word(b" got 0x ")).i64_store(at(memory, 25));
    sink.i32_const(ENVELOPE + 33).local_get(2).call(hex);
    sink.i32_const(ENVELOPE + 49).local_get(1).call(hex);
    sink.end();
    function
}

/// `(mismatch, step) -> packed`: what the task returns. A success names the step that ran.
fn envelope(memory: u32) -> Function {
    let packed = |bytes: i32| i64::from(ENVELOPE) << 32 | i64::from(bytes);
    let mut function = Function::new([]);
    let mut sink = function.instructions();
    sink.local_get(0).if_(BlockType::Empty).i64_const(packed(MISMATCH_BYTES)).return_().end();
    sink.i32_const(ENVELOPE).i32_const(0).i32_store8(at(memory, 0));
    sink.i32_const(ENVELOPE).local_get(1).i32_store(at(memory, 1));
    sink.i64_const(packed(5)).end();
    function
}

/// `(pointer, len) -> packed`: the steps in order, up to the one that the input names.
fn driver(steps: &[Step<'_>], calls: &[u32], memory: u32, envelope: u32) -> Function {
    let pointer = 0;
    let wanted = 1;
    let mut function = Function::new([]);
    let mut sink = function.instructions();
    sink.local_get(pointer).i32_load(at(memory, 0)).local_set(wanted);
    let answer_if = |sink: &mut InstructionSink<'_>, step: i32, call: Option<u32>| {
        sink.local_get(wanted).i32_const(step).i32_eq().if_(BlockType::Empty);
        match call {
            Some(call) => sink.call(call),
            None => sink.i32_const(0),
        };
        sink.i32_const(step).call(envelope).return_().end();
    };
    answer_if(&mut sink, INSTANTIATION as i32, None);
    for (index, (step, &call)) in steps.iter().zip(calls).enumerate() {
        answer_if(&mut sink, index as i32, Some(call));
        match step.expected {
            Expected::Results(_) | Expected::Completion => {
                sink.call(call).drop();
            }
            Expected::Trap => {}
            Expected::Exception => {
                sink.block(BlockType::Empty).try_table(BlockType::Empty, [Catch::All { label: 0 }]);
                sink.call(call).drop().end().end();
            }
        }
    }
    sink.unreachable().end();
    function
}

/// The things that the code of one step needs to know.
struct StepCode<'o, 'a> {
    outline: &'o Outline<'a>,
    report: u32,
}

impl StepCode<'_, '_> {
    /// `() -> mismatch`.
    fn function(&self, step: &Step<'_>) -> Result<Function, RewriteError> {
        let wrong = |what: &str| RewriteError::Encoder(what.to_string().into());
        let types = self.result_types(&step.action).ok_or_else(|| wrong("no such export"))?;
        let mut function = Function::new(types.iter().map(|ty| (1, *ty)));
        let mut sink = function.instructions();
        self.act(&mut sink, &step.action).ok_or_else(|| wrong("no such argument"))?;
        for index in (0..types.len()).rev() {
            sink.local_set(index as u32);
        }
        match &step.expected {
            Expected::Completion => {
                sink.i32_const(0);
            }
            Expected::Trap | Expected::Exception => {
                sink.i32_const(COMPLETED).i64_const(0).i64_const(0).call(self.report).i32_const(1);
            }
            Expected::Results(results) => {
                if results.len() != types.len() {
                    return Err(wrong("another number of results"));
                }
                for (index, (expected, ty)) in results.iter().zip(&types).enumerate() {
                    let local = index as u32;
                    matches(&mut sink, local, *ty, expected).ok_or_else(|| wrong("no such result"))?;
                    sink.i32_eqz().if_(BlockType::Empty).i32_const(index as i32);
                    bits(&mut sink, local, *ty);
                    sink.call(self.report).i32_const(1).return_().end();
                }
                sink.i32_const(0);
            }
        }
        sink.end();
        Ok(function)
    }

    fn result_types(&self, action: &Action<'_>) -> Option<Vec<ValType>> {
        let types = match action {
            Action::Invoke { name, .. } => {
                let function = self.outline.export(name, ExternalKind::Func)?;
                self.outline.function_type(function)?.results().to_vec()
            }
            Action::Get { global } => {
                let global = self.outline.export(global, ExternalKind::Global)?;
                vec![self.outline.globals.get(global as usize)?.content_type]
            }
        };
        types.into_iter().map(|ty| RoundtripReencoder.val_type(ty).ok()).collect()
    }

    fn act(&self, sink: &mut InstructionSink<'_>, action: &Action<'_>) -> Option<()> {
        match action {
            Action::Invoke { name, args } => {
                let function = self.outline.export(name, ExternalKind::Func)?;
                let params = self.outline.function_type(function)?.params();
                if params.len() != args.len() {
                    return None;
                }
                for (arg, param) in args.iter().zip(params) {
                    self.argument(sink, arg, *param)?;
                }
                sink.call(function);
            }
            Action::Get { global } => {
                sink.global_get(self.outline.export(global, ExternalKind::Global)?);
            }
        }
        Some(())
    }

    /// A host's reference is an `i31` with its number: a guest of this pool meets no others.
    fn argument(
        &self,
        sink: &mut InstructionSink<'_>,
        arg: &WastArgCore<'_>,
        param: wasmparser::ValType,
    ) -> Option<()> {
        match arg {
            WastArgCore::I32(value) => sink.i32_const(*value),
            WastArgCore::I64(value) => sink.i64_const(*value),
            WastArgCore::F32(value) => sink.f32_const(Ieee32::new(value.bits)),
            WastArgCore::F64(value) => sink.f64_const(Ieee64::new(value.bits)),
            WastArgCore::V128(value) => sink.v128_const(i128::from_le_bytes(value.to_le_bytes())),
            WastArgCore::RefNull(_) => sink.ref_null(bottom_of(self.outline, param)?),
            WastArgCore::RefExtern(number) => sink.i32_const(*number as i32).ref_i31().extern_convert_any(),
            WastArgCore::RefHost(number) => sink.i32_const(*number as i32).ref_i31(),
        };
        Some(())
    }
}

/// `-> 1` if the local is what is expected.
fn matches(
    sink: &mut InstructionSink<'_>,
    local: u32,
    ty: ValType,
    expected: &WastRetCore<'_>,
) -> Option<()> {
    match (expected, ty) {
        (WastRetCore::I32(value), ValType::I32) => sink.local_get(local).i32_const(*value).i32_eq(),
        (WastRetCore::I64(value), ValType::I64) => sink.local_get(local).i64_const(*value).i64_eq(),
        (WastRetCore::F32(pattern), ValType::F32) => {
            sink.local_get(local).i32_reinterpret_f32();
            matches_f32(sink, pattern)
        }
        (WastRetCore::F64(pattern), ValType::F64) => {
            sink.local_get(local).i64_reinterpret_f64();
            matches_f64(sink, pattern)
        }
        (WastRetCore::V128(pattern), ValType::V128) => return matches_v128(sink, local, pattern),
        (WastRetCore::RefNull(_), ValType::Ref(_)) => sink.local_get(local).ref_is_null(),
        (WastRetCore::RefFunc(_) | WastRetCore::RefExtern(None), ValType::Ref(_)) => {
            sink.local_get(local).ref_is_null().i32_eqz()
        }
        (WastRetCore::RefExtern(Some(number)), ValType::Ref(_)) => {
            matches_host(sink, *number, |sink| {
                sink.local_get(local).any_convert_extern();
            });
            sink
        }
        (WastRetCore::RefHost(number), ValType::Ref(_)) => {
            matches_host(sink, *number, |sink| {
                sink.local_get(local);
            });
            sink
        }
        (WastRetCore::RefAny, ValType::Ref(_)) => {
            sink.local_get(local).ref_test_non_null(heap(AbstractHeapType::Any))
        }
        (WastRetCore::RefEq, ValType::Ref(_)) => {
            sink.local_get(local).ref_test_non_null(heap(AbstractHeapType::Eq))
        }
        (WastRetCore::RefArray, ValType::Ref(_)) => {
            sink.local_get(local).ref_test_non_null(heap(AbstractHeapType::Array))
        }
        (WastRetCore::RefStruct, ValType::Ref(_)) => {
            sink.local_get(local).ref_test_non_null(heap(AbstractHeapType::Struct))
        }
        (WastRetCore::RefI31, ValType::Ref(_)) => {
            sink.local_get(local).ref_test_non_null(heap(AbstractHeapType::I31))
        }
        (WastRetCore::Either(cases), _) => {
            sink.i32_const(0);
            for case in cases {
                matches(sink, local, ty, case)?;
                sink.i32_or();
            }
            sink
        }
        _ => return None,
    };
    Some(())
}

/// `any -> 1` if it is the `i31` that stands for the host's reference of this number.
fn matches_host(sink: &mut InstructionSink<'_>, number: u32, get: impl Fn(&mut InstructionSink<'_>)) {
    let i31 = heap(AbstractHeapType::I31);
    get(sink);
    sink.ref_test_non_null(i31).if_(BlockType::Result(ValType::I32));
    get(sink);
    sink.ref_cast_non_null(i31).i31_get_u().i32_const(number as i32).i32_eq();
    sink.else_().i32_const(0).end();
}

/// `bits -> 1` if they fit.
fn matches_f32<'i, 'b>(
    sink: &'i mut InstructionSink<'b>,
    pattern: &NanPattern<F32>,
) -> &'i mut InstructionSink<'b> {
    let (mask, bits) = match pattern {
        NanPattern::CanonicalNan => (0x7fff_ffff, 0x7fc0_0000),
        NanPattern::ArithmeticNan => (0x7fc0_0000, 0x7fc0_0000),
        NanPattern::Value(value) => (u32::MAX, value.bits),
    };
    sink.i32_const(mask as i32).i32_and().i32_const(bits as i32).i32_eq()
}

/// Does for 64 bits what [`matches_f32`] does for 32.
fn matches_f64<'i, 'b>(
    sink: &'i mut InstructionSink<'b>,
    pattern: &NanPattern<F64>,
) -> &'i mut InstructionSink<'b> {
    let (mask, bits) = match pattern {
        NanPattern::CanonicalNan => (0x7fff_ffff_ffff_ffff, 0x7ff8_0000_0000_0000),
        NanPattern::ArithmeticNan => (0x7ff8_0000_0000_0000, 0x7ff8_0000_0000_0000),
        NanPattern::Value(value) => (u64::MAX, value.bits),
    };
    sink.i64_const(mask as i64).i64_and().i64_const(bits as i64).i64_eq()
}

fn matches_v128(sink: &mut InstructionSink<'_>, local: u32, pattern: &V128Pattern) -> Option<()> {
    let exact = |sink: &mut InstructionSink<'_>, bytes: Vec<u8>| {
        let (low, high) = bytes.split_first_chunk::<8>()?;
        sink.local_get(local).i64x2_extract_lane(0).i64_const(i64::from_le_bytes(*low)).i64_eq();
        sink.local_get(local).i64x2_extract_lane(1);
        sink.i64_const(i64::from_le_bytes(high.try_into().ok()?)).i64_eq().i32_and();
        Some(())
    };
    match pattern {
        V128Pattern::I8x16(lanes) => exact(sink, lanes.map(|lane| lane as u8).to_vec()),
        V128Pattern::I16x8(lanes) => exact(sink, lanes.map(i16::to_le_bytes).concat()),
        V128Pattern::I32x4(lanes) => exact(sink, lanes.map(i32::to_le_bytes).concat()),
        V128Pattern::I64x2(lanes) => exact(sink, lanes.map(i64::to_le_bytes).concat()),
        V128Pattern::F32x4(lanes) => {
            sink.i32_const(1);
            for (lane, pattern) in (0..).zip(lanes) {
                sink.local_get(local).i32x4_extract_lane(lane);
                matches_f32(sink, pattern).i32_and();
            }
            Some(())
        }
        V128Pattern::F64x2(lanes) => {
            sink.i32_const(1);
            for (lane, pattern) in (0..).zip(lanes) {
                sink.local_get(local).i64x2_extract_lane(lane);
                matches_f64(sink, pattern).i32_and();
            }
            Some(())
        }
    }
}

/// `-> low high`: the local's bits; of a reference, whether there is one.
fn bits(sink: &mut InstructionSink<'_>, local: u32, ty: ValType) {
    sink.local_get(local);
    match ty {
        ValType::I32 => sink.i64_extend_i32_u().i64_const(0),
        ValType::I64 => sink.i64_const(0),
        ValType::F32 => sink.i32_reinterpret_f32().i64_extend_i32_u().i64_const(0),
        ValType::F64 => sink.i64_reinterpret_f64().i64_const(0),
        ValType::V128 => sink.i64x2_extract_lane(0).local_get(local).i64x2_extract_lane(1),
        ValType::Ref(_) => sink.ref_is_null().i32_eqz().i64_extend_i32_u().i64_const(0),
    };
}
