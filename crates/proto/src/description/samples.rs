//! Descriptions of modules for tests and fuzz targets, which compile no module for them.

use crate::description::{
    CallingConvention, Codec, Interrupt, MemoryKind, ModuleDescription, ModuleForm, ModuleKind, SourceLines,
    TaskDescription,
};
use crate::schema::TypeSchema;

/// Describes a module that has these tasks.
pub fn of_tasks(tasks: Vec<TaskDescription>) -> ModuleDescription {
    ModuleDescription {
        kind: ModuleKind::Tasks,
        form: ModuleForm::Core,
        tasks,
        uncallable: Vec::new(),
        imports: vec!["wasmpool.log: (i32, i32, i32, i32, i32, i32, i32) -> ()".into()],
        exports: vec!["memory: memory, 17 pages".into()],
        memories: Vec::new(),
        uses_wasi: false,
        has_initializer: false,
        has_reactor_start: false,
        has_start: false,
        memory_kind: MemoryKind::Pooled,
        metered: false,
        deterministic: false,
        interrupt: Interrupt::Check,
        wasm_bytes: 4,
        machine_code_bytes: 12,
        source_lines: SourceLines::Known,
    }
}

/// Describes a typed task.
pub fn task(name: &str, params: &[&str], input: TypeSchema, output: TypeSchema) -> TaskDescription {
    TaskDescription {
        name: name.into(),
        doc: "What it does.".into(),
        export: name.into(),
        convention: CallingConvention::Bytes,
        codec: Codec::Postcard,
        params: params.iter().map(ToString::to_string).collect(),
        input,
        output,
        error: None,
    }
}
