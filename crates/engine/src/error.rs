//! Errors of the engine's that the system is behind.

use std::io;

use rustix::io::Errno;

use proto::refused::calling;

/// Describes an engine's error, with the system's error if one is behind it.
pub(crate) fn engine_error(doing: &'static str, error: &wasmtime::Error) -> io::Error {
    let errno = error.chain().find_map(|cause| {
        let of_io = || Errno::from_io_error(cause.downcast_ref::<io::Error>()?);
        cause.downcast_ref::<Errno>().copied().or_else(of_io)
    });
    match errno.map(calling(doing)) {
        Some(named) => io::Error::new(named.kind(), format!("{named} ({error:#})")),
        None => io::Error::other(format!("{doing}: {error:#}")),
    }
}
