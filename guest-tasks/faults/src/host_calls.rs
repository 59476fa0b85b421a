//! Tasks that misuse WASI.

use std::io::Write;

/// Leaves through `proc_exit`.
#[wasmpool_guest::task]
fn proc_exit(code: i32) {
    std::process::exit(code)
}

/// Writes as many bytes to the standard output.
#[wasmpool_guest::task]
fn stdout_flood(bytes: u64) -> Result<(), std::io::Error> {
    flood(std::io::stdout().lock(), bytes)
}

/// Writes as many bytes to the standard error.
#[wasmpool_guest::task]
fn stderr_flood(bytes: u64) -> Result<(), std::io::Error> {
    flood(std::io::stderr().lock(), bytes)
}

/// Sleeps for an hour inside a call of the host, where no epoch reaches it.
#[wasmpool_guest::task]
fn sleep_forever() {
    std::thread::sleep(std::time::Duration::from_secs(3600));
}

fn flood(mut out: impl Write, bytes: u64) -> std::io::Result<()> {
    let mut line = [b'x'; 64];
    line[63] = b'\n';
    let mut left = bytes;
    while left > 0 {
        let part = left.min(64);
        out.write_all(&line[..part as usize])?;
        left -= part;
    }
    out.flush()
}
