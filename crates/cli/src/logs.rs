//! Logs on stderr: the pool's own from warnings up, guests' records from info up.
//!
//! `-v` shows debug records of both, and of the workers themselves, `-vv` everything, `-q` errors of the pool only, and
//! `WASMPOOL_LOG` replaces all of that by a filter in the syntax of `tracing-subscriber`.
//!
//! A log file takes the same, from info up at least, whatever `-q` says.

mod line;
mod rotate;
mod file;

use std::fmt::{self, Write as _};
use std::io;

use anstyle::{AnsiColor, Style};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{DynFilterFn, FilterExt as _, dynamic_filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt as subscriber_fmt};

use super::args::Common;
use super::console::{Console, indented};
use super::exit::Failure;
use super::profile::{self, STACK};
use files::HostFiles;
use proto::text::Escaped;
use rotate::LogFile;

/// The target of guests' records; see `src/host/logs.rs`.
const GUEST: &str = "wasmpool::guest";

/// The target of workers' own; see `src/host/logs.rs`.
const WORKER: &str = "wasmpool::worker";

/// Replaces the filter that `-v` and `-q` choose.
const VARIABLE: &str = "WASMPOOL_LOG";

pub(super) use file::FileWriter;

/// Sends events to the console, and to a file where one is named; the writer then lives as long as
/// there is something to write.
pub(super) fn init(
    common: &Common,
    files: &HostFiles,
    console: &Console,
) -> Result<Option<FileWriter>, Failure> {
    // A caller who asks for more of the workers is shown it here, too.
    let workers = format!("{WORKER}={}", common.engine_log.max(common.worker_log()).filter());
    let variable = std::env::var(VARIABLE).ok().filter(|filter| !filter.is_empty());
    let for_console = variable.clone().unwrap_or_else(|| match (common.quiet, common.verbose) {
        (true, _) => format!("error,{GUEST}=off"),
        (false, 0) => format!("warn,{GUEST}=info,{workers}"),
        (false, 1) => format!("debug,{workers}"),
        (false, _) => "trace".into(),
    });
    let on_console = subscriber_fmt::layer()
        .event_format(Short)
        .with_writer(ToConsole(console.clone()))
        .with_filter(filter(&for_console)?.and(without_samples()));
    let subscriber = tracing_subscriber::registry().with(profile::Samples).with(on_console);
    let Some(path) = &common.log_file else {
        // Another subscriber can only stand here if this process is more than the command.
        let _ = subscriber.try_init();
        return Ok(None);
    };
    let for_file = variable.unwrap_or_else(|| match common.verbose {
        0 => format!("info,{workers}"),
        1 => format!("debug,{workers}"),
        _ => "trace".into(),
    });
    let file = LogFile::open(path, common.log_rotate, common.log_keep, files)
        .and_then(|file| Ok(file::start(file, common.log_format, console)?));
    let (to_file, writer) = file.map_err(|error| {
        let hint = if error.is_missing() { "; its folder must be there" } else { "" };
        Failure::Usage(format!("cannot open the log file {}: {error}{hint}", path.display()))
    })?;
    let to_file = to_file.with_filter(filter(&for_file)?.and(without_samples()));
    let _ = subscriber.with(to_file).try_init();
    Ok(Some(writer))
}

/// Stacks that were asked for by nobody who reads logs.
fn without_samples<S: Subscriber>() -> DynFilterFn<S> {
    dynamic_filter_fn(|metadata, _| !profile::is_sample(metadata))
}

fn filter(text: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(text)
        .map_err(|error| Failure::Usage(format!("{VARIABLE} is no filter: {error}: {text}")))
}

/// One line for each event: `info: task 7, c_histogram: counted {"bytes":10}`.
struct Short;

impl<S, N> FormatEvent<S, N> for Short
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let target = event.metadata().target();
        let worker = target == WORKER;
        let guest = matches!(target, GUEST | STACK | WORKER);
        let mut fields = Fields { guest, ..Fields::default() };
        event.record(&mut fields);
        let (name, style) = level(event.metadata().level());
        write!(out, "{style}{name}:{style:#} ")?;
        if worker {
            write!(out, "worker {}", fields.pid)?;
            if !fields.task.is_empty() {
                write!(out, ", task {}", fields.task)?;
            }
            // The engine's words say whose they are.
            if !fields.origin.starts_with("wasmpool::") {
                write!(out, ", {}", fields.origin)?;
            }
            out.write_str(": ")?;
        } else if fields.guest {
            write!(out, "task {}", fields.task)?;
            // A line of stdout or stderr says so; a log record says what logged it.
            let origin = if fields.source == "log" { &fields.origin } else { &fields.source };
            if !origin.is_empty() {
                write!(out, ", {origin}")?;
            }
            out.write_str(": ")?;
        }
        writeln!(out, "{}{}", fields.message, fields.others)
    }
}

fn level(level: &Level) -> (&'static str, Style) {
    match *level {
        Level::ERROR => ("error", AnsiColor::Red.on_default()),
        Level::WARN => ("warning", AnsiColor::Yellow.on_default()),
        Level::INFO => ("info", AnsiColor::Green.on_default()),
        Level::DEBUG => ("debug", AnsiColor::Blue.on_default()),
        Level::TRACE => ("trace", AnsiColor::Magenta.on_default()),
    }
}

#[derive(Default)]
struct Fields {
    guest: bool,
    pid: String,
    task: String,
    source: String,
    origin: String,
    message: String,
    others: String,
}

impl Fields {
    /// Labels, names and paths are others' words, whoever logs them.
    fn take(&mut self, field: &Field, value: &str) {
        let value = Escaped(indented(value)).to_string();
        match (field.name(), self.guest) {
            ("message", _) => self.message = value,
            ("task", true) => self.task = value,
            ("worker_pid", true) => self.pid = value,
            ("source", true) => self.source = value,
            ("origin", true) => self.origin = value,
            ("fields", true) if value.is_empty() || value == "{}" => {}
            ("fields", true) => self.others = format!(" {value}"),
            // Known to whoever started the one module there is.
            ("label" | "module", true) => {}
            (name, _) => {
                // Writing to a String cannot fail.
                let _ = write!(self.others, " {name}={value}");
            }
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, &format!("{value:?}"));
    }
}

/// The subscriber hands over one whole event at a time.
struct ToConsole(Console);

impl<'a> MakeWriter<'a> for ToConsole {
    type Writer = ConsoleWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        ConsoleWriter(&self.0)
    }
}

struct ConsoleWriter<'a>(&'a Console);

impl io::Write for ConsoleWriter<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.print(format_args!("{}", String::from_utf8_lossy(event)));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
