//! What a task prints, on every target.

use std::fmt::Arguments;

/// Where a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// What `println!` writes to.
    Stdout,
    /// What `eprintln!` writes to.
    Stderr,
}

/// Prints a line: to the stream where there is one, else as a record for the host's log.
pub fn print_line(stream: Stream, line: Arguments<'_>) {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    {
        let target = if stream == Stream::Stdout { "stdout" } else { "stderr" };
        crate::host::log(crate::host::Level::Info, target, &line.to_string(), "");
    }
    #[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
    match stream {
        Stream::Stdout => std::println!("{line}"),
        Stream::Stderr => std::eprintln!("{line}"),
    }
}

/// Sends what was printed without the end of a line on its way: nobody writes that end after the task.
#[cfg(target_os = "wasi")]
pub(crate) fn flush() {
    use std::io::Write as _;
    // A task that prints to a closed stream has printed nothing, and has not failed.
    let _ = std::io::stdout().flush();
}

/// `std::println!`, which also reaches the host's log where there is no stdout:
/// `use wasmpool_guest::println;`.
///
/// ```
/// use wasmpool_guest::println;
/// println!("{} of {}", 3, 7);
/// println!();
/// ```
#[macro_export]
macro_rules! println {
    () => {
        $crate::println!("")
    };
    ($($arguments:tt)*) => {
        $crate::__private::print_line(
            $crate::__private::Stream::Stdout,
            ::core::format_args!($($arguments)*),
        )
    };
}

/// `std::eprintln!`, which also reaches the host's log where there is no stderr:
/// `use wasmpool_guest::eprintln;`.
#[macro_export]
macro_rules! eprintln {
    () => {
        $crate::eprintln!("")
    };
    ($($arguments:tt)*) => {
        $crate::__private::print_line(
            $crate::__private::Stream::Stderr,
            ::core::format_args!($($arguments)*),
        )
    };
}
