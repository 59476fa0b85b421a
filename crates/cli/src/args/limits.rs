//! The limits of tasks, as they are typed, and the options that they set.

use std::sync::LazyLock;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Arg, ArgMatches, Args as ClapArgs, FromArgMatches, ValueEnum};

use super::{duration, rate, some_time};
use proto::limits::{FRAME_PAYLOAD_BYTES_MAX, WASM_STACK_BYTES_AT_MOST, WASM_STACK_BYTES_MIN};
use wasmpool::TaskOptions;
use wasmpool::internal::{SETTINGS, SetLimit, Setting};
use wasmpool::task::LogOverflow;

/// The limits of a task that were typed.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) worded: Worded,
    made: Vec<Typed>,
}

/// The limits whose flags say or check more than their rows of the table of settings do. Each has a line in
/// [`set`](Limits::set); those of inputs and of wasm's stack are the pool's.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Worded {
    /// Most CPU time of a task, such as 500ms or 5s; sleeping and waiting do not count. With it, tasks are
    /// sent to workers one at a time [default: none]
    #[arg(long, value_name = "DURATION", value_parser = some_time, help_heading = "Limits", env = "WASMPOOL_CPU_TIME")]
    pub(crate) cpu_time: Option<Duration>,

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

/// A flag that is made of its row of the table.
struct Made {
    name: &'static str,
    id: String,
    variable: String,
    setting: &'static Setting,
    set: SetLimit,
}

static MADE: LazyLock<Vec<Made>> = LazyLock::new(|| {
    let made = |setting: &'static Setting| {
        let (name, set) = setting.flag.zip(setting.set)?;
        Some(Made {
            name,
            id: name.replace('-', "_"),
            variable: setting.variable().unwrap_or_default(),
            setting,
            set,
        })
    };
    SETTINGS.iter().filter_map(made).collect()
});

/// The value that was typed for a flag that is made from the table, with the setter that takes it.
#[derive(Debug, Clone, Copy)]
enum Typed {
    Time(fn(TaskOptions, Duration) -> TaskOptions, Duration),
    Number(fn(TaskOptions, usize) -> TaskOptions, usize),
}

impl Made {
    fn arg(&'static self) -> Arg {
        let (first, rest) = self.setting.what.split_at(1);
        let (value, example) = match self.set {
            SetLimit::Time(_) => ("DURATION", ", such as 500ms or 5s"),
            SetLimit::Bytes(_) => ("SIZE", ", such as 64MiB"),
            SetLimit::Count(_) => ("N", ""),
        };
        let default = self.setting.default;
        let help = format!("{}{rest}{example} [default: {default}]", first.to_uppercase());
        let arg = Arg::new(&*self.id).long(self.name).env(&*self.variable);
        let arg = arg.value_name(value).help(help).help_heading("Limits");
        match self.set {
            SetLimit::Time(_) => arg.value_parser(some_time),
            SetLimit::Bytes(_) => arg.value_parser(rate),
            SetLimit::Count(_) => arg.value_parser(clap::value_parser!(u64).range(1..)),
        }
    }

    fn typed(&self, matches: &mut ArgMatches) -> Option<Typed> {
        let number = |number| usize::try_from(number).unwrap_or(usize::MAX);
        match self.set {
            SetLimit::Time(set) => matches.remove_one(&self.id).map(|time| Typed::Time(set, time)),
            SetLimit::Bytes(set) | SetLimit::Count(set) => {
                matches.remove_one::<u64>(&self.id).map(|typed| Typed::Number(set, number(typed)))
            }
        }
    }
}

impl ClapArgs for Limits {
    /// Help has the flags in the order of the table of settings. One that is not there stays behind the one before it.
    fn augment_args(command: clap::Command) -> clap::Command {
        let worded = Worded::augment_args(clap::Command::new("limits").next_display_order(None));
        let place = |name| SETTINGS.iter().position(|setting| setting.flag.is_some() && setting.flag == name);
        let mut last = 0;
        let worded = worded.get_arguments().map(|arg| {
            last = place(arg.get_long()).unwrap_or(last);
            (last, arg.clone())
        });
        let mut args: Vec<_> = worded.collect();
        args.extend(MADE.iter().map(|made| (place(Some(made.name)).unwrap_or_default(), made.arg())));
        args.sort_by_key(|(place, _)| *place);
        command.args(args.into_iter().map(|(_, arg)| arg))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Limits {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let worded = Worded::from_arg_matches_mut(matches)?;
        Ok(Limits { worded, made: MADE.iter().filter_map(|made| made.typed(matches)).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Limits {
    /// Returns the options with what was typed.
    pub(crate) fn set(&self, options: TaskOptions) -> TaskOptions {
        let options = self.made.iter().fold(options, |options, made| match *made {
            Typed::Time(set, time) => set(options, time),
            Typed::Number(set, number) => set(options, number),
        });
        let typed = &self.worded;
        let options = with(options, typed.cpu_time, TaskOptions::cpu_time);
        let options = with(options, typed.output_limit.map(bytes), TaskOptions::output_bytes_max);
        let options = with(options, typed.log_limit.map(bytes), TaskOptions::log_bytes_max);
        let options = with(options, typed.fuel, TaskOptions::fuel);
        let options = with(options, typed.clock_resolution, TaskOptions::clock_resolution);
        options.log_overflow(match typed.log_overflow {
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
