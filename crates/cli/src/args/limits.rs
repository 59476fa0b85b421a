//! The limits of tasks, as they are typed, and the options that they set.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args as ClapArgs, ValueEnum};

use super::{duration, rate, some_time};
use proto::limits::{FRAME_PAYLOAD_BYTES_MAX, WASM_STACK_BYTES_AT_MOST, WASM_STACK_BYTES_MIN};
use wasmpool::TaskOptions;
use wasmpool::task::LogOverflow;

/// Each limit of a task is a flag here, and a line of [`set`](Limits::set). Those of inputs and of wasm's stack are the
/// pool's.
#[derive(Debug, ClapArgs)]
pub(crate) struct Limits {
    /// How long a task may run, such as 500ms or 5s [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = some_time, help_heading = "Limits", env = "WASMPOOL_TIMEOUT")]
    pub(crate) timeout: Option<Duration>,

    /// Most CPU time of a task, such as 500ms or 5s; sleeping and waiting do not count. With it, tasks are
    /// sent to workers one at a time [default: none]
    #[arg(long, value_name = "DURATION", value_parser = some_time, help_heading = "Limits", env = "WASMPOOL_CPU_TIME")]
    pub(crate) cpu_time: Option<Duration>,

    /// Most memory of a task, such as 64MiB [default: 512MiB]
    #[arg(long, value_name = "SIZE", value_parser = some_bytes, help_heading = "Limits", env = "WASMPOOL_MEMORY")]
    pub(crate) memory: Option<ByteSize>,

    /// Most fuel of a task, about one for each instruction; compiles the module for counting
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Limits")]
    pub(crate) fuel: Option<u64>,

    /// Most bytes of one input, such as 1GiB, at most 2GiB; 0 lets none but empty ones through [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = input_bytes, help_heading = "Limits", env = "WASMPOOL_INPUT_LIMIT")]
    pub(crate) input_limit: Option<ByteSize>,

    /// Most output of a task, such as 64MiB; 0 lets none but empty ones through [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = output_bytes, help_heading = "Limits", env = "WASMPOOL_OUTPUT_LIMIT")]
    pub(crate) output_limit: Option<ByteSize>,

    /// Most bytes of a task's log records and lines; 0 is none [default: 256KiB]
    #[arg(long, value_name = "SIZE", help_heading = "Limits", env = "WASMPOOL_LOG_LIMIT")]
    pub(crate) log_limit: Option<ByteSize>,

    /// What becomes of a task that logs more: the rest is dropped, or it fails
    #[arg(long, value_name = "POLICY", default_value = "drop", help_heading = "Limits")]
    pub(crate) log_overflow: LogPolicy,

    /// Most stack of a task's wasm, 64KiB to 4MiB [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = wasm_stack, help_heading = "Limits", env = "WASMPOOL_WASM_STACK")]
    pub(crate) wasm_stack: Option<ByteSize>,

    /// Step of a WASI module's clocks, such as 20us; with 0s they are as fine as the system's [default: 1ms]
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Limits")]
    pub(crate) clock_resolution: Option<Duration>,
}

impl Limits {
    /// Returns the options with what was typed.
    pub(crate) fn set(&self, options: TaskOptions) -> TaskOptions {
        let options = with(options, self.timeout, TaskOptions::timeout);
        let options = with(options, self.cpu_time, TaskOptions::cpu_time);
        let options = with(options, self.memory.map(bytes), TaskOptions::memory_bytes_max);
        let options = with(options, self.output_limit.map(bytes), TaskOptions::output_bytes_max);
        let options = with(options, self.log_limit.map(bytes), TaskOptions::log_bytes_max);
        let options = with(options, self.fuel, TaskOptions::fuel);
        let options = with(options, self.clock_resolution, TaskOptions::clock_resolution);
        options.log_overflow(match self.log_overflow {
            LogPolicy::Drop => LogOverflow::Drop,
            LogPolicy::Fail => LogOverflow::Fail,
        })
    }
}

/// Returns the options with a value, if there is one.
fn with<T>(options: TaskOptions, value: Option<T>, set: fn(TaskOptions, T) -> TaskOptions) -> TaskOptions {
    match value {
        Some(value) => set(options, value),
        None => options,
    }
}

/// [`LogOverflow`](wasmpool::task::LogOverflow) as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogPolicy {
    Drop,
    Fail,
}

pub(crate) fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// Parses a limit of memory, which must leave some.
fn some_bytes(text: &str) -> Result<ByteSize, String> {
    rate(text).map(ByteSize)
}

/// Parses a size between two bounds.
fn size_within(text: &str, min: u64, max: u64) -> Result<ByteSize, String> {
    let size = text.parse::<ByteSize>().ok().filter(|size| (min..=max).contains(&size.as_u64()));
    let shown = |bytes| ByteSize(bytes).display().iec();
    size.ok_or_else(|| format!("it must be a size from {} to {}, such as 512KiB", shown(min), shown(max)))
}

fn input_bytes(text: &str) -> Result<ByteSize, String> {
    size_within(text, 0, FRAME_PAYLOAD_BYTES_MAX)
}

fn output_bytes(text: &str) -> Result<ByteSize, String> {
    size_within(text, 0, FRAME_PAYLOAD_BYTES_MAX / 2)
}

fn wasm_stack(text: &str) -> Result<ByteSize, String> {
    size_within(text, WASM_STACK_BYTES_MIN as u64, WASM_STACK_BYTES_AT_MOST as u64)
}
