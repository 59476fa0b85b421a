//! The file of cases, as it is written.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;

use crate::exit::Failure;
use crate::input;
use files::HostFiles;
use proto::text::Words;

/// Most bytes of a file of cases.
const CASES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most bytes of a file with an expected output.
pub(super) const OUTPUT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// All of a file.
#[derive(Debug)]
pub(super) struct Cases {
    path: PathBuf,
    /// Relative paths of the file begin at its folder.
    pub(super) module: PathBuf,
    pub(super) list: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    module: PathBuf,
    #[serde(default, rename = "case")]
    cases: Vec<Spanned<Case>>,
}

/// One case: a call, and what is expected of it. Without an expectation it is only to succeed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,

    /// The task; absent for a command, and where there is only one.
    pub(super) task: Option<String>,
    /// A call in WAVE, such as `count("a b")`, in place of the task and its input.
    pub(super) wave: Option<String>,
    pub(super) input: Option<toml::Value>,
    pub(super) input_json: Option<String>,
    pub(super) input_file: Option<PathBuf>,
    /// Only a command has arguments, an environment and stdin.
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    pub(super) stdin: Option<String>,

    pub(super) output: Option<toml::Value>,
    pub(super) output_json: Option<String>,
    pub(super) output_file: Option<PathBuf>,
    /// Only a command has this, and the next three.
    pub(super) stdout: Option<String>,
    pub(super) stdout_contains: Option<String>,
    pub(super) stderr_contains: Option<String>,
    pub(super) exit: Option<i64>,
    /// The whole message of the error.
    pub(super) error: Option<String>,
    pub(super) error_contains: Option<String>,
    /// The data of a task's own error.
    pub(super) error_data: Option<toml::Value>,
    /// The kind of the error as `--json` has it, such as `guest`, `trap`, `timeout`.
    pub(super) error_kind: Option<String>,
    /// A part of the trap's name, such as `unreachable`.
    pub(super) trap: Option<String>,
    /// The task may use this much fuel.
    pub(super) fuel_max: Option<u64>,
}

impl Cases {
    /// Reads the file, and checks all that can be known before the module is.
    pub(super) fn read(path: &Path, files: &HostFiles) -> Result<Cases, Failure> {
        let bytes = input::read_part(files, path, "files of cases", CASES_BYTES_MAX)?;
        let wrong = |line: usize, why: &str| {
            Failure::Usage(format!("{}, line {line}: {}", path.display(), Words(why)))
        };
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            wrong(1 + before.iter().filter(|byte| **byte == b'\n').count(), "it is not UTF-8")
        })?;
        let line = |at: usize| 1 + text.get(..at).unwrap_or_default().matches('\n').count();
        let page: Page = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(line(at), error.message())
        })?;
        if page.cases.is_empty() {
            return Err(Failure::Usage(format!("{}: it has no [[case]]", path.display())));
        }
        // The cases stand in the file's order, so that each line is looked for behind the last one only.
        let mut last = (0, 1);
        let mut lines = HashMap::new();
        let mut list = Vec::with_capacity(page.cases.len());
        for case in page.cases {
            let at = case.span().start;
            let line = last.1 + text.get(last.0..at).unwrap_or_default().matches('\n').count();
            last = (at, line);
            let case = case.into_inner();
            case.check().map_err(|why| wrong(line, &format!("case `{}`: {why}", case.name)))?;
            if let Some(first) = lines.insert(case.name.clone(), line) {
                return Err(wrong(
                    line,
                    &format!("case `{}` has the name of that of line {first}", case.name),
                ));
            }
            list.push(case);
        }
        Ok(Cases { path: path.into(), module: page.module, list })
    }

    /// Returns the folder that paths in the file are relative to.
    pub(super) fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }
}

impl Case {
    fn check(&self) -> Result<(), String> {
        let one_of = |keys: &[(&str, bool)]| {
            let given: Vec<_> = keys.iter().filter(|(_, is_given)| *is_given).map(|(key, _)| *key).collect();
            match given[..] {
                [first, second, ..] => Err(format!("`{first}` and `{second}` do not go together")),
                _ => Ok(()),
            }
        };
        if self.name.trim().is_empty() {
            return Err("it has no name".into());
        }
        one_of(&[("task", self.task.is_some()), ("wave", self.wave.is_some())])?;
        one_of(&[
            ("wave", self.wave.is_some()),
            ("input", self.input.is_some()),
            ("input_json", self.input_json.is_some()),
            ("input_file", self.input_file.is_some()),
            ("stdin", self.stdin.is_some()),
        ])?;
        one_of(&[
            ("output", self.output.is_some()),
            ("output_json", self.output_json.is_some()),
            ("output_file", self.output_file.is_some()),
            ("stdout", self.stdout.is_some()),
        ])?;
        let fails = self.wants_error();
        let wants_output =
            [self.output.is_some(), self.output_json.is_some(), self.output_file.is_some()].contains(&true);
        if fails && (wants_output || self.exit.is_some()) {
            return Err("it cannot end with an output or an exit code, and with an error".into());
        }
        if let Some(wave) = &self.wave
            && json::call(wave).is_none()
        {
            return Err("`wave` must be a call, such as count(\"a b\")".into());
        }
        for (key, text) in [("input_json", &self.input_json), ("output_json", &self.output_json)] {
            if let Some(text) = text
                && let Err(error) = serde_json::from_str::<Value>(text)
            {
                return Err(format!("`{key}` is not JSON: {error}"));
            }
        }
        Ok(())
    }

    /// Returns whether the task is expected to fail.
    pub(super) fn wants_error(&self) -> bool {
        let texts = [&self.error, &self.error_contains, &self.error_kind, &self.trap];
        texts.iter().any(|text| text.is_some()) || self.error_data.is_some()
    }

    /// Says why the case cannot be one of a task, or of a command.
    pub(super) fn unfit_for(&self, is_task: bool) -> Option<&'static str> {
        let of_task = self.input.is_some()
            || self.input_json.is_some()
            || self.output.is_some()
            || self.output_json.is_some();
        let of_command = !self.args.is_empty()
            || self.stdin.is_some()
            || self.stdout.is_some()
            || self.stdout_contains.is_some()
            || self.stderr_contains.is_some()
            || self.exit.is_some();
        match is_task {
            true if of_command => {
                Some("`args`, `stdin`, `stdout`, `stderr` and `exit` are for WASI commands")
            }
            false if of_task => Some("a WASI command takes `args` and `stdin`, and has `stdout` and `exit`"),
            _ => None,
        }
    }

    /// Returns the expected output, as JSON.
    pub(super) fn expected_output(&self) -> Option<Value> {
        let text = self.output_json.as_deref().and_then(|text| serde_json::from_str(text).ok());
        text.or_else(|| self.output.as_ref().map(to_json))
    }
}

/// Returns the value as JSON. What JSON has no number for (`nan`, `inf`) is text, as in outputs of tasks.
pub(super) fn to_json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.clone().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) if number.is_nan() => "NaN".into(),
        toml::Value::Float(number) if number.is_infinite() => {
            if *number > 0.0 { "inf" } else { "-inf" }.into()
        }
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(is_so) => (*is_so).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(values) => values.iter().map(to_json).collect(),
        toml::Value::Table(values) => {
            Value::Object(values.iter().map(|(key, value)| (key.clone(), to_json(value))).collect())
        }
    }
}
