//! The frames of a panic in Rust. Between the function that panics and the trap that ends the task there are a dozen of the
//! standard library's, from which nobody learns where the panic is: Rust's own short backtraces leave them out as well.

use proto::trap::Frame;

/// Leaves the frames out that a panic has put on the stack, and those of the library's function that found a reason to panic.
/// The first frame that is kept says how many they were. All are kept of a stack that has no others, or no panic.
pub(super) fn left_out(mut frames: Vec<Frame>) -> Vec<Frame> {
    let is = |test: fn(&str) -> bool| move |frame: &Frame| frame.function.as_deref().is_some_and(test);
    let Some(panicking) = frames.iter().position(is(is_panicking)) else { return frames };
    // What stands before it was called by it: hooks, and what writes the message.
    let library = frames[panicking..].iter().take_while(|frame| is(is_library)(frame)).count();
    let count = panicking + library;
    if count < frames.len() {
        frames.drain(..count);
        frames[0].left_out = u32::try_from(count).unwrap_or(u32::MAX);
        leave_out_start(&mut frames);
    }
    frames
}

/// Leaves the frames out with which the library calls the program.
fn leave_out_start(frames: &mut Vec<Frame>) {
    let name = |frame: &Frame| frame.function.clone().unwrap_or_default();
    let Some(start) = frames.iter().position(|frame| name(frame).contains("__rust_begin_short_backtrace"))
    else {
        return;
    };
    // What calls the program's function there is a trait's method.
    let calls = |frame: &&Frame| name(frame).ends_with("::call_once") || is_library(&name(frame));
    let calling = frames[..start].iter().rev().take_while(calls).count();
    let left = frames.len() - (start - calling);
    if left < frames.len() {
        frames.truncate(frames.len() - left);
        if let Some(last) = frames.last_mut() {
            last.left_out_behind = u32::try_from(left).unwrap_or(u32::MAX);
        }
    }
}

/// Returns whether a function begins a panic, or goes on with one. Those that catch panics are at the other end of the stack.
fn is_panicking(name: &str) -> bool {
    let catches = ["std::panicking::try", "std::panicking::catch_unwind"];
    let panics = ["core::panicking::", "std::panicking::", "std::rt::begin_panic", "std::rt::panic_fmt"];
    // The whole name counts, so that a function of a guest's own that is called alike stays.
    let symbols = ["rust_begin_unwind", "__rust_start_panic", "__rust_end_short_backtrace", "rust_panic"];
    let last = name.rsplit("::").next().unwrap_or(name);
    symbols.contains(&last)
        || panics.iter().any(|start| name.starts_with(start))
            && !catches.iter().any(|start| name.starts_with(start))
}

/// Returns whether a function is of the standard library, or is what it makes of another's for its own traits alone.
fn is_library(name: &str) -> bool {
    let is_own = |path: &str| ["core::", "alloc::", "std::"].iter().any(|root| path.starts_with(root));
    match name.strip_prefix('<') {
        Some(inner) => is_own(inner) && inner.rsplit_once(" as ").is_none_or(|(_, of)| is_own(of)),
        None => is_own(name) || name.starts_with("__rust") || is_panicking(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(names: &[&str]) -> (Vec<String>, u32) {
        let frames = names.iter().map(|name| Frame::new(Some(name.to_string()), 0, None)).collect();
        let left = left_out(frames);
        let count = left.first().map_or(0, |frame| frame.left_out);
        (left.into_iter().filter_map(|frame| frame.function).collect(), count)
    }

    #[test]
    fn the_frames_of_a_panic_are_left_out_and_counted() {
        let panic = [
            "wasmpool_guest::hook",
            "<alloc::boxed::Box<F,A> as core::ops::function::Fn<Args>>::call",
            "std::panicking::panic_with_hook",
            "std::sys::backtrace::__rust_end_short_backtrace",
            "__rustc::rust_begin_unwind",
            "core::panicking::panic_fmt",
            "core::option::unwrap_failed",
            "core::option::Option<T>::unwrap",
            "<alloc::vec::Vec<T> as core::ops::index::Index<I>>::index",
        ];
        let guest = ["<alloc::vec::Vec<T> as app::Sum>::sum", "core::iter::Iterator::map", "app::main"];
        let expected = (guest.map(String::from).to_vec(), 9);
        assert_eq!(left(&[&panic[..], &guest[..]].concat()), expected);
        let start = [
            "<fn() as core::ops::function::FnOnce<()>>::call_once",
            "std::sys::backtrace::__rust_begin_short_backtrace::<fn(), ()>",
            "std::rt::lang_start_internal",
            "__main_void",
        ];
        assert_eq!(left(&[&panic[..], &guest[..], &start[..]].concat()), expected);
    }

    #[test]
    fn a_stack_without_a_panic_or_without_anything_else_is_kept() {
        let trap = ["app::f", "core::iter::Iterator::map", "std::panicking::catch_unwind::do_call", "main"];
        assert_eq!(left(&trap), (trap.map(String::from).to_vec(), 0));
        let only = ["__rust_start_panic", "core::panicking::panic"];
        assert_eq!(left(&only), (only.map(String::from).to_vec(), 0));
        assert_eq!(left(&[]), (vec![], 0));
        let alike = ["read", "rust_panic_button_pressed", "my_rust_begin_unwind", "go"];
        assert_eq!(left(&alike), (alike.map(String::from).to_vec(), 0));
    }
}
