//! Write tasks for `wasmpool`: ordinary functions, compiled to WebAssembly,
//! called by the pool with typed arguments.
//!
//! ```
//! /// How often does each letter occur?
//! #[wasmpool_guest::task]
//! fn letters(text: String) -> std::collections::BTreeMap<char, u64> {
//!     let mut counts = std::collections::BTreeMap::new();
//!     for letter in text.chars().filter(|c| c.is_alphabetic()) {
//!         *counts.entry(letter).or_default() += 1;
//!     }
//!     counts
//! }
//! # assert_eq!(letters("wasm".into())[&'w'], 1);
//! ```
//!
//! The crate is a `cdylib`, built for `wasm32-unknown-unknown` or
//! `wasm32-wasip1` (where it becomes a reactor). On every other target the
//! attributes only check the function, so `cargo test` calls it as it stands.
//!
//! # What a task may be
//!
//! - Up to 16 arguments and a result, each owned, each with serde and
//!   [`Schema`]. [`data`] derives all of them without further dependencies.
//! - A fallible one returns `Result<T, E>` with `E: Display`. The caller sees
//!   the error's alternate form, `{:#}`, in which `anyhow` prints its whole
//!   chain. The type decides, not its name: `anyhow::Result<T>`, or an alias
//!   `type Answer = Result<u8, String>`, is one as well.
//! - `#[task(raw)] fn f(input: &[u8]) -> Vec<u8>` skips the codec on both sides.
//! - `#[task(name = "other")]` changes the name that callers use.
//!
//! [`init`] marks one function without arguments that prepares the instance
//! before any task runs. It runs in each fresh instance, as a part of the first task
//! there: what it does is done for every task.
//!
//! [`shared`] gives a task the large inputs that it shares with others.
//!
//! # The heap
//!
//! For `wasm32-unknown-unknown` the feature `allocator`, on by default, brings a
//! `#[global_allocator]`: the standard library's, `dlmalloc`, except that it first uses
//! what the linker has left of the initial memory, between `__heap_base` and
//! `__heap_end`. The first `memory.grow` of an instance is a considerable part of what a
//! tiny task costs. Without the feature the standard library's own serves. Turn it off
//! (`default-features = false`, and `features = ["log"]`) in a guest that
//!
//! - has a global allocator of its own: the compiler refuses two;
//! - links an allocator of another language, or any other code, that takes the memory
//!   behind `__heap_base` for itself. One that only ever uses what its own `memory.grow`
//!   returned is no such.
//!
//! A snapshot of an instance's memory (by wizer, for example) has the heap in it, and
//! goes on with it; but nothing may cut or reuse what lies behind `__heap_base`.
//! On WASI, whose libc has the same idea, and where there are threads (`atomics`), the
//! feature does nothing.
//!
//! # What happens otherwise
//!
//! Before the first call the SDK installs a panic hook, which sends message and
//! location to the host before the trap, and a logger for the `log` facade (the
//! feature `tracing` adds a subscriber). An input that does not decode is
//! answered with its own status, before the task runs. What is absent: threads,
//! asynchrony, unwinding.
//!
//! # What is printed
//!
//! For `wasm32-wasip1`, the target of choice, what a task prints is in the log of the pool's
//! host, a record for each line. `wasm32-unknown-unknown` has no stdout, and there the standard
//! library drops what is printed without a word. `use wasmpool_guest::{println, eprintln}` takes
//! the place of its macros, and reaches the log on either target.
//!
//! # Reading order
//!
//! `record` describes tasks at compile time, `answer` turns a call into an
//! envelope (both pure), `memory` owns the buffers that cross the boundary,
//! `host` holds the imports, `logging`, `spans` and `console` feed them; `shared` reads what many
//! tasks have in common; `allocator` is the heap.

// The derives of `data` name this crate by its public name, also in our tests.
extern crate self as wasmpool_guest;

mod record;
mod answer;
mod own_error;
mod memory;
mod host;
mod console;
mod shared;
#[cfg(any(test, all(feature = "allocator", target_arch = "wasm32", target_os = "unknown")))]
mod allocator;
#[cfg(feature = "log")]
mod logging;
#[cfg(feature = "tracing")]
mod spans;

pub use postcard_schema::{self, Schema};
pub use serde;
pub use wasmpool_guest_macros::{data, error, init, task};

#[cfg(not(target_arch = "wasm32"))]
pub use shared::set_shared;
pub use shared::{shared, Shared};

pub use answer::{STATUS_ERROR, STATUS_ERROR_IN_PARTS, STATUS_OK, STATUS_UNDECODABLE};
pub use own_error::ErrorData;
#[doc(hidden)]
pub use record::{Codec, Kind, Record};

/// What does not compile, since it would give callers wrong values.
///
/// ```compile_fail
/// #[wasmpool_guest::data]
/// #[serde(untagged)]
/// enum Shape {
///     Circle(f64),
/// }
/// ```
/// ```compile_fail
/// #[wasmpool_guest::data]
/// struct Point {
///     #[serde(skip_serializing_if = "Option::is_none")]
///     z: Option<f64>,
/// }
/// ```
/// ```compile_fail
/// #[wasmpool_guest::data]
/// struct Point {
///     #[cfg_attr(all(), serde(skip))]
///     z: Option<f64>,
/// }
/// ```
/// An error that cannot be shown does not make a `Result` a value.
/// ```compile_fail,E0277
/// #[wasmpool_guest::data]
/// struct Silent;
/// type Answer = Result<u8, Silent>;
/// #[wasmpool_guest::task]
/// fn answer() -> Answer {
///     Err(Silent)
/// }
/// ```
/// A result without a schema is an error as well, and nothing is taken for something else.
/// ```compile_fail
/// struct Opaque;
/// #[wasmpool_guest::task]
/// fn answer() -> Opaque {
///     Opaque
/// }
/// ```
#[cfg(doctest)]
mod refused {}

/// What the expansions of the macros name. Not an interface: it changes with
/// them.
#[doc(hidden)]
pub mod __private {
    pub use crate::answer::{Plain, PlainSchema, Returned};
    pub use crate::console::{print_line, Stream};
    pub use crate::memory::{init, raw, typed};
    pub use crate::own_error::{Own, OwnError, PlainError, ViaData, ViaInner, ViaSource, ViaText};
    pub use crate::record::{Codec, Kind, Record, BYTES, UNIT};
    pub use postcard_schema::schema::{DataModelType, NamedType};
    pub use postcard_schema::Schema;
}

/// Puts a [`Record`] into the section `wasmpool.tasks`, for an export written
/// by hand instead of with [`task`](macro@task).
///
/// Hidden because a hand-written export must keep the whole ABI itself: the
/// function is `extern "C" fn(ptr: u32, len: u32) -> u64`, owns the input
/// buffer, and returns `ptr << 32 | len` of an envelope that stays in place
/// until the next call. The record takes the export's name; nothing checks that
/// the export is there.
///
/// ```
/// use wasmpool_guest::{Record, emit_record};
///
/// #[cfg_attr(target_arch = "wasm32", unsafe(no_mangle))]
/// extern "C" fn always_empty(_ptr: u32, _len: u32) -> u64 {
///     static ANSWER: [u8; 1] = [wasmpool_guest::STATUS_OK];
///     ((&raw const ANSWER as usize as u64) << 32) | 1
/// }
/// emit_record!(Record::raw("always_empty", "always_empty", "Answers nothing."));
/// # always_empty(0, 0);
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! emit_record {
    ($record:expr) => {
        const _: () = {
            const RECORD: $crate::Record<'static> = $record;
            const LEN: usize = RECORD.encoded_len();
            #[cfg_attr(target_arch = "wasm32", unsafe(link_section = "wasmpool.tasks"))]
            #[cfg_attr(target_arch = "wasm32", used)]
            static SECTION: [u8; LEN] = RECORD.encode();
            #[cfg(not(target_arch = "wasm32"))]
            let _ = &SECTION;
        };
    };
}
