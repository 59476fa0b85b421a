//! Guests for WASI preview 0 (`wasi_unstable`), made of those for preview 1: the suites below a module `preview0` are run
//! with them once more.
//!
//! Four functions are called in another way there. A guest calls them as before, by functions of its own that translate:
//! so what the tests assert is the same.

use std::borrow::Cow;

const NEW: &str = "\"wasi_snapshot_preview1\"";
const OLD: &str = "\"wasi_unstable\"";

/// Returns whether the tests of a module (its `module_path!()`) are about preview 0.
pub fn is_meant(module: &str) -> bool {
    module.contains("::preview0::")
}

/// Returns the text of a guest, for the version of WASI that the tests of a module are about.
pub fn guest<'a>(module: &str, text: &'a str) -> Cow<'a, str> {
    match is_meant(module) {
        true => Cow::Owned(translated(text)),
        false => Cow::Borrowed(text),
    }
}

/// The functions that differ: name, parameters, and the body of the function that has the arguments of preview 1 and calls
/// `$old`, whose parameters are as many.
const DIFFERING: [(&str, &str, &str); 5] = [
    // The order is that of lseek(2) in preview 1.
    (
        "fd_seek",
        "i32 i64 i32 i32",
        "(call $old (local.get 0) (local.get 1)
            (i32.rem_u (i32.add (local.get 2) (i32.const 2)) (i32.const 3)) (local.get 3))",
    ),
    (
        "fd_filestat_get",
        "i32 i32",
        "(local $errno i32)
        (local.set $errno (call $old (local.get 0) (local.get 1)))
        (if (i32.eqz (local.get $errno)) (then (WIDENED (local.get 1))))
        (local.get $errno)",
    ),
    (
        "path_filestat_get",
        "i32 i32 i32 i32 i32",
        "(local $errno i32)
        (local.set $errno
            (call $old (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4)))
        (if (i32.eqz (local.get $errno)) (then (WIDENED (local.get 4))))
        (local.get $errno)",
    ),
    // The subscriptions of the old layout stand at 12288, where no guest has anything. Many are only ever zeros, which mean
    // the same in both.
    (
        "poll_oneoff",
        "i32 i32 i32 i32",
        "(local $n i32) (local $from i32) (local $to i32)
        (if (i32.gt_u (local.get 2) (i32.const 8))
            (then (return (call $old (local.get 0) (local.get 1) (local.get 2) (local.get 3)))))
        (local.set $from (local.get 0))
        (local.set $to (i32.const 12288))
        (block $all (loop $more
            (br_if $all (i32.ge_u (local.get $n) (local.get 2)))
            (memory.copy (local.get $to) (local.get $from) (i32.const 24))
            (if (i32.eqz (i32.load8_u offset=8 (local.get $from))) (then
                ;; The number in front of the clock means nothing to anybody.
                (i64.store offset=16 (local.get $to) (i64.const -1))
                (memory.copy (i32.add (local.get $to) (i32.const 24))
                    (i32.add (local.get $from) (i32.const 16)) (i32.const 32))))
            (local.set $from (i32.add (local.get $from) (i32.const 48)))
            (local.set $to (i32.add (local.get $to) (i32.const 56)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br $more)))
        (call $old (i32.const 12288) (local.get 1) (local.get 2) (local.get 3))",
    ),
    // It came with preview 1: a descriptor that is none, and one that is no socket.
    (
        "sock_accept",
        "i32 i32 i32",
        "(select (i32.const 57) (i32.const 8) (i32.lt_u (local.get 0) (i32.const 3)))",
    ),
];

/// Makes a `filestat` of preview 0 one of preview 1, in place: the number of links has four bytes more.
const WIDENED: &str = "(func $widened (param $at i32)
    (memory.copy (i32.add (local.get $at) (i32.const 32)) (i32.add (local.get $at) (i32.const 24)) (i32.const 32))
    (i64.store offset=24 (local.get $at) (i64.load32_u offset=20 (local.get $at))))";

fn translated(text: &str) -> String {
    let mut text = text.replace(NEW, OLD);
    let mut added = String::new();
    for (name, params, body) in DIFFERING {
        let import = format!("(import {OLD} \"{name}\"");
        let Some(at) = text.find(&import) else { continue };
        // Behind it comes `(func $name (param …) (result i32)))`.
        let behind = at + import.len();
        let begin = behind + text[behind..].find('$').expect("the import has a name");
        let end = begin + text[begin..].find(' ').expect("parameters follow");
        let called = text[begin..end].to_string();
        let old = format!("{called}_of_preview_0");
        let body = body.replace("$old", &old).replace("WIDENED", "call $widened");
        added += &format!("(func {called} (param {params}) (result i32) {body})\n");
        text.replace_range(begin..end, &old);
        if name == "sock_accept" {
            let close = at + text[at..].find(")))").expect("the import's end") + 3;
            text.replace_range(at..close, "");
        }
    }
    if added.contains("$widened") {
        added += WIDENED;
    }
    let module = text.trim_end().strip_suffix(')').expect("the module's end");
    format!("{module} {added})")
}
