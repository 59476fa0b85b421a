//! Interpreters that were compiled to WASI, which the script `peers/venv` brings from the Python package index, and a
//! loop that each can run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::reactor;

/// Where each interpreter is, or why it is missing.
#[derive(Debug)]
pub struct Interpreters {
    cpython: Result<PathBuf, String>,
    /// A reactor, of which a command is made for each program that it is to run.
    quickjs: Result<PathBuf, String>,
}

impl Interpreters {
    /// Has the script bring the interpreters, and nothing else, if they are not in this folder yet.
    pub fn find(kept: &Path) -> Interpreters {
        match bring(kept, &["wasi"]) {
            Ok(said) => Interpreters::read(&said),
            Err(error) => {
                let why = format!("{error:#}");
                Interpreters { cpython: Err(why.clone()), quickjs: Err(why) }
            }
        }
    }

    /// Reads what the script has said.
    pub fn read(said: &str) -> Interpreters {
        let find = |word: &str, name: &str| {
            let after = |start: String| said.lines().find_map(|line| line.strip_prefix(start.as_str()));
            match after(format!("{word} ")) {
                Some(path) => Ok(path.into()),
                None => {
                    let why = after(format!("missing {name} for WASI: ")).unwrap_or("nothing was said of it");
                    Err(format!("{name} for WASI is missing: {why}"))
                }
            }
        };
        Interpreters { cpython: find("cpython", "CPython"), quickjs: find("quickjs", "QuickJS") }
    }

    /// Returns the path of CPython.
    ///
    /// # Errors
    /// If it is missing.
    pub fn cpython(&self) -> anyhow::Result<&Path> {
        self.cpython.as_deref().map_err(|why| anyhow::anyhow!("{why}"))
    }

    /// Returns a command in which QuickJS runs this program.
    ///
    /// # Errors
    /// If QuickJS is missing or is not the reactor that was expected.
    pub fn quickjs(&self, program: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.quickjs.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?;
        let wasm = std::fs::read(path).with_context(|| path.display().to_string())?;
        // Upstream, this function takes the arguments of the command `qjs`. It has run the program when it returns, and
        // each `console.log` flushes stdout; what a program leaves for the event loop would not run.
        reactor::command(&wasm, "qjs_init_argv", &["qjs", "-e", program])
    }
}

/// Runs the script, which brings what is missing and says what there is.
///
/// # Errors
/// If it does not run.
pub fn bring(kept: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/venv");
    let output = Command::new(script).arg(kept).args(arguments).stderr(Stdio::inherit()).output();
    Ok(String::from_utf8_lossy(&output.context(script)?.stdout).into_owned())
}

/// A loop over numbers and a dictionary, with so many turns.
#[derive(Debug, Clone, Copy)]
pub struct Loop(pub u32);

impl Loop {
    /// Returns the loop as a program in Python.
    pub fn python(self) -> String {
        let Loop(turns) = self;
        format!("s = 0\nd = {{}}\nfor i in range({turns}):\n  s += i * i % 7\n  d[i % 1000] = s\nprint(s)")
    }

    /// Returns the loop as a program in JavaScript.
    pub fn javascript(self) -> String {
        let Loop(turns) = self;
        format!(
            "let s = 0; const d = {{}}; for (let i = 0; i < {turns}; i++) {{ s += i * i % 7; d[i % 1000] = s; }} \
             console.log(s);"
        )
    }

    /// Returns what either program prints.
    pub fn prints(self) -> String {
        let sum: u64 = (0..u64::from(self.0)).map(|i| i * i % 7).sum();
        format!("{sum}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::Interpreters;

    #[test]
    fn what_the_script_says_is_where_each_is_or_why_it_is_missing() {
        let read =
            Interpreters::read("cpython /a folder/python.wasm\nmissing QuickJS for WASI: no network\n");
        assert_eq!(read.cpython().unwrap().to_str(), Some("/a folder/python.wasm"));
        let why = read.quickjs("").unwrap_err().to_string();
        assert_eq!(why, "QuickJS for WASI is missing: no network");
    }

    #[test]
    fn an_interpreter_of_which_nothing_is_said_is_missing() {
        assert!(Interpreters::read("python 3.12.1 /python /python\n").cpython().is_err());
    }
}
