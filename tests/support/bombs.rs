//! Modules that are valid, small, and made to cost the compiler as much as they can.

#![allow(dead_code, unreachable_pub, reason = "every suite has its own copy and uses a part of it")]

use wasm_encoder::{
    BlockType, Catch, CodeSection, DataSection, Function, FunctionSection, Ieee64, InstructionSink,
    MemorySection, MemoryType, Module, TypeSection, ValType,
};

/// A module with one function type, and so many functions of the same body.
fn module(params: &[ValType], results: &[ValType], functions: u32, body: &Function) -> Vec<u8> {
    let mut module = Module::new();
    let mut types = TypeSection::new();
    types.ty().function(params.iter().copied(), results.iter().copied());
    module.section(&types);
    let mut section = FunctionSection::new();
    (0..functions).for_each(|_| {
        section.function(0);
    });
    module.section(&section);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    module.section(&memories);
    let mut code = CodeSection::new();
    (0..functions).for_each(|_| {
        code.function(body);
    });
    module.section(&code);
    module.finish()
}

fn function(locals: u32, write: impl FnOnce(&mut InstructionSink<'_>)) -> Function {
    let mut function = Function::new((locals > 0).then_some((locals, ValType::I32)));
    let mut sink = function.instructions();
    write(&mut sink);
    sink.end();
    function
}

/// Loops in loops: each level is a header that dominates the next, and a way back.
pub fn nested_loops(depth: u32) -> Vec<u8> {
    let body = function(0, |sink| {
        (0..depth).for_each(|_| {
            sink.loop_(BlockType::Empty);
        });
        (0..depth).for_each(|_| {
            sink.local_get(0).br_if(0).end();
        });
    });
    module(&[ValType::I32], &[], 1, &body)
}

/// Blocks in blocks, each left from the innermost.
pub fn nested_blocks(depth: u32) -> Vec<u8> {
    let body = function(0, |sink| {
        (0..depth).for_each(|_| {
            sink.block(BlockType::Empty);
        });
        (0..depth).for_each(|level| {
            sink.local_get(0).br_if(level);
        });
        (0..depth).for_each(|_| {
            sink.end();
        });
    });
    module(&[ValType::I32], &[], 1, &body)
}

/// `tables` times a `br_table` to each of `targets` enclosing blocks: edges by multiplication.
pub fn br_tables(tables: u32, targets: u32) -> Vec<u8> {
    let body = function(0, |sink| {
        (0..targets).for_each(|_| {
            sink.block(BlockType::Empty);
        });
        let all: Vec<u32> = (0..targets).collect();
        (0..tables).for_each(|_| {
            sink.block(BlockType::Empty)
                .local_get(0)
                .br_if(0)
                .local_get(0)
                .br_table(all.iter().map(|target| target + 1), 0)
                .end();
        });
        (0..targets).for_each(|_| {
            sink.end();
        });
    });
    module(&[ValType::I32], &[], 1, &body)
}

/// Two values of a local meet, for each of `joins`, `locals` of them in turn.
fn join_in_turn(sink: &mut InstructionSink<'_>, joins: u32, locals: u32) {
    for join in 0..joins {
        let local = 1 + join % locals;
        sink.local_get(0)
            .if_(BlockType::Empty)
            .local_get(local)
            .i32_const(join as i32)
            .i32_add()
            .local_set(local)
            .end();
    }
}

/// One after another, `joins` places where two values of a local meet, `locals` of them in turn.
pub fn joins(joins: u32, locals: u32) -> Vec<u8> {
    let body = function(locals, |sink| {
        join_in_turn(sink, joins, locals);
        (1..=locals).for_each(|local| {
            sink.i32_const(0).local_get(local).i32_store(wasm_encoder::MemArg {
                offset: 0,
                align: 2,
                memory_index: 0,
            });
        });
    });
    module(&[ValType::I32], &[], 1, &body)
}

/// Makes what [`joins`] makes, but in a loop, so that every local is alive in every block.
pub fn joins_in_a_loop(joins: u32, locals: u32) -> Vec<u8> {
    let body = function(locals, |sink| {
        sink.loop_(BlockType::Empty);
        join_in_turn(sink, joins, locals);
        sink.local_get(1).br_if(0).end();
    });
    module(&[ValType::I32], &[], 1, &body)
}

/// Makes this many functions that do nothing.
pub fn trivial_functions(functions: u32) -> Vec<u8> {
    module(&[], &[], functions, &function(0, |_| {}))
}

/// Makes functions like those that compilers write, each of about this many bytes: they are no bombs.
pub fn ordinary_functions(functions: u32, bytes: u32) -> Vec<u8> {
    let body = function(2, |sink| {
        for index in 0..bytes / 22 {
            sink.local_get(0).i32_load(wasm_encoder::MemArg {
                offset: u64::from(index),
                align: 2,
                memory_index: 0,
            });
            sink.local_get(1).i32_const(64 + index as i32).i32_add().i32_mul().local_tee(2);
            sink.if_(BlockType::Empty).local_get(2).local_set(1).end();
        }
        sink.local_get(0).i32_const(0).i32_lt_s().if_(BlockType::Empty).local_get(0).call(0).end();
    });
    module(&[ValType::I32], &[], functions, &body)
}

/// One function of about so many bytes, in one block.
pub fn straight_line(bytes: u32) -> Vec<u8> {
    let body = function(1, |sink| {
        (0..bytes / 7).for_each(|index| {
            sink.local_get(0).i32_const(64 + (index % 64) as i32).i32_add().local_set(0);
        });
    });
    module(&[ValType::I32], &[], 1, &body)
}

/// One function of about so many bytes whose values all stay alive to the end.
pub fn many_values_alive(bytes: u32) -> Vec<u8> {
    let body = function(0, |sink| {
        let values = bytes / 6;
        (0..values).for_each(|index| {
            sink.local_get(0).i32_load(wasm_encoder::MemArg {
                offset: u64::from(index),
                align: 0,
                memory_index: 0,
            });
        });
        (0..values).for_each(|_| {
            sink.call(0);
        });
    });
    module(&[ValType::I32], &[], 1, &body)
}

/// Blocks that hand on many values each: block parameters by multiplication.
pub fn wide_blocks(blocks: u32, width: usize) -> Vec<u8> {
    let mut module = Module::new();
    let wide = vec![ValType::F64; width];
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], []);
    types.ty().function(wide.clone(), wide);
    module.section(&types);
    let mut functions = FunctionSection::new();
    functions.function(0);
    module.section(&functions);
    let mut code = CodeSection::new();
    code.function(&function(0, |sink| {
        (0..width).for_each(|_| {
            sink.f64_const(Ieee64::from(1.0));
        });
        (0..blocks).for_each(|_| {
            sink.block(BlockType::FunctionType(1)).local_get(0).br_if(0).end();
        });
        (0..width).for_each(|_| {
            sink.drop();
        });
    }));
    module.section(&code);
    module.finish()
}

/// `calls` calls in a `try_table` of `handlers` handlers: each call has an edge to each.
pub fn handlers(handlers: usize, calls: u32) -> Vec<u8> {
    let body = function(0, |sink| {
        sink.block(BlockType::Empty);
        sink.try_table(BlockType::Empty, vec![Catch::All { label: 0 }; handlers]);
        (0..calls).for_each(|_| {
            sink.call(0);
        });
        sink.end().end();
    });
    module(&[], &[], 1, &body)
}

/// `bodies` functions of so many bytes each that do nothing, one instruction a byte; then a data segment.
pub fn nops(bodies: u32, bytes: u32) -> Vec<u8> {
    let mut module = Module::new();
    let mut types = TypeSection::new();
    types.ty().function([], []);
    module.section(&types);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    let body = function(0, |sink| {
        (0..bytes).for_each(|_| {
            sink.nop();
        });
    });
    (0..bodies).for_each(|_| {
        functions.function(0);
        code.function(&body);
    });
    module.section(&functions).section(&code);
    let mut data = DataSection::new();
    data.passive(*b"x");
    module.section(&data);
    module.finish()
}
