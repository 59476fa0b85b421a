//! Turns the engine's error into an error that names the cause.

use wasmparser::{Validator, WasmFeatures};

use super::foreign;
use proto::description::ModuleForm;
use proto::limits::GUEST_TEXT_BYTES_MAX;
use proto::limits::compile::{CompileLimit, CompileLimits};
use proto::message::CompileError;
use proto::text::truncated;

/// These proposals are known to wasmtime 48 and not offered by this pool.
const NOT_OFFERED: [(WasmFeatures, &str); 13] = [
    (
        WasmFeatures::CM_ASYNC,
        "asynchronous functions of the component model (WASI 0.3: build it for WASI 0.2)",
    ),
    (WasmFeatures::CM_THREADING, "threads of the component model"),
    (
        WasmFeatures::CM_ERROR_CONTEXT,
        "error contexts of the component model (WASI 0.3: build it for WASI 0.2)",
    ),
    (WasmFeatures::CM_MAP, "maps of the component model"),
    (WasmFeatures::CM_FIXED_LENGTH_LISTS, "lists of fixed length of the component model"),
    (WasmFeatures::CM_VALUES, "values of the component model"),
    (WasmFeatures::SHARED_EVERYTHING_THREADS, "shared-everything-threads"),
    (WasmFeatures::LEGACY_EXCEPTIONS, "legacy exceptions (the superseded proposal)"),
    (WasmFeatures::STACK_SWITCHING, "stack-switching"),
    (WasmFeatures::CUSTOM_PAGE_SIZES, "custom-page-sizes"),
    (WasmFeatures::MEMORY_CONTROL, "memory-control"),
    (WasmFeatures::CUSTOM_DESCRIPTORS, "custom-descriptors"),
    (WasmFeatures::COMPACT_IMPORTS, "compact-imports"),
];

/// Returns what form of module it is, and rejects what is none before the compiler sees it.
pub(super) fn form(wasm: &[u8]) -> Result<ModuleForm, CompileError> {
    let invalid = |message: &str| Err(CompileError::Invalid { message: message.into() });
    match wasm {
        [] => invalid("the file is empty"),
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(ModuleForm::Core),
        [b'\0', b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(ModuleForm::Component),
        [b'\0', b'a', b's', b'm', _, 0, 1, 0, ..] => Err(CompileError::Unsupported {
            feature: "a component of another version of the component model".into(),
            message: "componentize it anew, with current tools".into(),
        }),
        [b'\0', b'a', b's', b'm', ..] if wasm.len() < 8 => invalid("it is cut off after its magic number"),
        [b'\0', b'a', b's', b'm', ..] => invalid("it is of an unknown version of WebAssembly"),
        _ => invalid(foreign::named(wasm)),
    }
}

/// Returns why the engine would not compile it.
pub(super) fn failure(wasm: &[u8], error: &wasmtime::Error, limits: &CompileLimits) -> CompileError {
    if let Some(error) = out_of_memory(error, limits) {
        return error;
    }
    let message = words(error);
    let validates = |features| Validator::new_with_features(features).validate_all(wasm).is_ok();
    let offered = NOT_OFFERED.iter().fold(WasmFeatures::all(), |all, (feature, _)| all - *feature);
    if !validates(WasmFeatures::all()) {
        return CompileError::Invalid { message };
    }
    if validates(offered) {
        // The module meets a limit of the compiler's, or something that only the validator knows.
        return CompileError::Unsupported { feature: "more than the compiler can translate".into(), message };
    }
    let needed: Vec<_> = NOT_OFFERED
        .iter()
        .filter(|(feature, _)| !validates(WasmFeatures::all() - *feature))
        .map(|(_, name)| *name)
        .collect();
    let feature = if needed.is_empty() { "a newer proposal".into() } else { needed.join(" and ") };
    CompileError::Unsupported { feature, message }
}

/// The engine's words, bounded.
pub(super) fn words(error: &wasmtime::Error) -> String {
    truncated(&format!("{error:#}"), GUEST_TEXT_BYTES_MAX / 2)
}

/// It compiles, but no instance of it fits the worker's pool.
pub(super) fn too_large_for_the_pool(error: &wasmtime::Error, limits: &CompileLimits) -> CompileError {
    out_of_memory(error, limits).unwrap_or_else(|| CompileError::Unsupported {
        feature: "more than a worker has room for".into(),
        message: format!("{error:#}"),
    })
}

/// A failed allocation ends the process in most cases, and is an error in some. Only the host knows how much
/// memory there was.
fn out_of_memory(error: &wasmtime::Error, limits: &CompileLimits) -> Option<CompileError> {
    let is_out_of_memory = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        let errno = cause.downcast_ref::<rustix::io::Errno>().map(|errno| errno.raw_os_error());
        cause.is::<wasmtime::OutOfMemory>() || io.or(errno) == Some(rustix::io::Errno::NOMEM.raw_os_error())
    };
    error.chain().any(is_out_of_memory).then(|| CompileError::CompileLimit {
        kind: CompileLimit::Memory,
        limit: limits.get(CompileLimit::Memory),
        seen: 0,
        function: None,
        offset: None,
        others: Vec::new(),
    })
}
