//! Texts at the end of help pages.

/// The table of `Exit`, for the help texts.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  the task failed: its own error, a trap, a panic, or a limit; doctor: an
     attack came through a layer that is there to stop it; test: a case failed
  2  wrong usage, or an input that does not fit the task
  3  the module cannot be loaded, or has no such task
  4  map: some of the inputs failed
  5  not the task's fault: a worker died and broke the pool, the pool or its
     workers cannot start, or the output cannot be written
  129, 130, 131, 143, 152  a signal ended it: SIGHUP, Ctrl-C, SIGQUIT, SIGTERM,
     SIGXCPU (its CPU time is used up: ulimit -t)
  A WASI command's own exit code is passed on, and may be one of these; --json
  tells them apart.";

pub(super) const PRECEDENCE: &str = "\
The first that says something counts:
  1. the flag, such as --workers 4
  2. the environment variable, such as WASMPOOL_WORKERS=4
  3. wasmpool.toml in the working directory: a line such as workers = 4
  4. ~/.config/wasmpool/wasmpool.toml ($XDG_CONFIG_HOME)
  5. the default
--config FILE (WASMPOOL_CONFIG) names a file in place of 3 and 4. A file in the
working directory may come with what somebody else wrote: it may lower limits,
not raise them, and say how things look (color, progress); all other settings
are refused there. It must be a regular file. Files of 3 and 4 are read only if
they and their folders belong to you or root, and not every user may write there
(members of their groups may): another's is left out, and a warning says whose it is. So is one of 3 where this
command's tasks may write.";
