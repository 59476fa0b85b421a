//! Room on the main thread's stack, on which modules without WASI run: a trap must come before the
//! end of the stack, which would be the worker's.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use proto::limits::HOST_STACK_BYTES;
use proto::refused::calling;

/// Raises the soft limit, if it is lower: the kernel asks for it each time that the stack grows, and
/// keeps more room free below it than can be asked for here.
///
/// # Errors
/// The hard limit has no room; the host has looked when the pool was built.
pub(super) fn make_room(wasm_stack_bytes: usize) -> io::Result<()> {
    let needed = (wasm_stack_bytes + HOST_STACK_BYTES) as u64;
    let limit = getrlimit(Resource::Stack);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        let hard = limit.maximum.unwrap_or_default() >> 10;
        let wanted = needed.div_ceil(1024);
        let why = format!(
            "tasks need {wanted} KiB of stack, and the hard limit (RLIMIT_STACK) is {hard} KiB: start this program where \
             `ulimit -Hs` is {wanted} or more"
        );
        return Err(io::Error::other(why));
    }
    setrlimit(Resource::Stack, Rlimit { current: Some(needed), maximum: limit.maximum })
        .map_err(calling("setrlimit (STACK)"))
}
