//! A component for a type, in the text format.

use std::fmt::Write;

use super::types::{Core, Type, TypeCase, declaration};

/// Arguments behind the value, so that all of them together are too many to be flat: they are put into memory then, in the
/// layout of a tuple, and the place of them is that of a result.
pub(super) const PADS: u8 = 17;

/// So many values of core WebAssembly are passed as such.
const FLAT_MAX: usize = 16;

/// Where `keep` stores what it was given, the list that says so, and where the memory that is given out begins.
const LIST_AT: usize = 8;
const SLOTS_AT: usize = 64;
const HEAP_AT: usize = 1024;

/// The names of `canon` for how texts lie in memory.
pub(super) const ENCODINGS: [&str; 3] = ["utf8", "utf16", "latin1+utf16"];

/// The text of a component, and which functions it has beside those that all have.
#[derive(Debug)]
pub(super) struct ComponentText {
    pub(super) text: String,
    /// `keep: func(x: T)` takes the value flat, and `slots: func() -> list<u64>` tells what that was.
    pub(super) has_slots: bool,
    /// `one: func(x: T) -> T` returns the value flat as well, and `raw: func(bits: u64) -> T` makes one of any bits.
    /// Without it there is `first: func(x: T, p0: u8, …) -> T`: it begins where all of them do.
    pub(super) has_one: bool,
}

impl ComponentText {
    pub(super) fn new(case: &TypeCase, encoding: &str) -> ComponentText {
        let ty = &case.ty;
        let flat = ty.flat();
        let has_slots = flat.len() <= FLAT_MAX;
        let has_one = flat.len() == 1;
        let pads: String = (0..PADS).map(|pad| format!(" (param \"p{pad}\" u8)")).collect();
        let all = format!("(param \"x\" {ty}){pads}");
        let tuple = format!("(result (tuple {ty}{}))", " u8".repeat(PADS.into()));
        let mut functions = vec![("same", format!("{all} {tuple}")), ("put", all.clone()), ("get", tuple)];
        functions.push(("reset", String::new()));
        functions.push(("spoil", "(param \"at\" u32) (param \"byte\" u8)".into()));
        if has_slots {
            functions.push(("keep", format!("(param \"x\" {ty})")));
            functions.push(("slots", "(result (list u64))".into()));
        }
        if has_one {
            functions.push(("one", format!("(param \"x\" {ty}) (result {ty})")));
            functions.push(("raw", format!("(param \"bits\" u64) (result {ty})")));
        } else {
            functions.push(("first", format!("{all} (result {ty})")));
        }
        let mut text = format!("(component\n  {}\n", core(&flat));
        text.push_str(
            "  (core instance $i (instantiate $m))\n  \
             (alias core export $i \"memory\" (core memory $memory))\n  \
             (alias core export $i \"realloc\" (core func $realloc))\n  ",
        );
        text.extend(case.named.iter().map(declaration));
        for (name, signature) in functions {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "(func ${name} {signature}\n    \
                 (canon lift (core func $i \"{name}\") (memory $memory) (realloc $realloc) \
                 string-encoding={encoding}))\n  \
                 (export \"{name}\" (func ${name}))\n  "
            );
        }
        text.push_str(")\n");
        ComponentText { text, has_slots, has_one }
    }
}

/// The module inside, which knows nothing of the type but how it is when it is flat.
fn core(flat: &[Core]) -> String {
    let params: String = flat.iter().map(|core| format!(" {}", core.name())).collect();
    let stores = flat.iter().enumerate().map(|(index, core)| {
        let (name, at) = (core.name(), SLOTS_AT + 8 * index);
        format!("\n      ({name}.store (i32.const {at}) (local.get {index}))")
    });
    let keep = match flat.len() <= FLAT_MAX {
        true => format!("(func (export \"keep\") (param{params}){})", stores.collect::<String>()),
        false => String::new(),
    };
    let one = match flat {
        [one] => {
            let bits = match one {
                Core::I32 => "i32.wrap_i64 (local.get 0)",
                Core::I64 => "local.get 0",
                Core::F32 => "f32.reinterpret_i32 (i32.wrap_i64 (local.get 0))",
                Core::F64 => "f64.reinterpret_i64 (local.get 0)",
            };
            let one = one.name();
            format!(
                "(func (export \"one\") (param {one}) (result {one}) (local.get 0))\n    \
                 (func (export \"raw\") (param i64) (result {one}) ({bits}))"
            )
        }
        _ => String::new(),
    };
    let word = |number: usize| (number as u32).to_le_bytes().map(|byte| format!("\\{byte:02x}")).concat();
    let list = word(SLOTS_AT) + &word(flat.len());
    format!(
        r#"(core module $m
    (memory (export "memory") 1)
    (data (i32.const {LIST_AT}) "{list}")
    (global $end (mut i32) (i32.const {HEAP_AT}))
    (global $kept (mut i32) (i32.const 0))
    (func (export "realloc") (param $old i32) (param $old_len i32) (param $align i32) (param $len i32) (result i32)
      (local $at i32) (local $pages i32)
      (if (i32.and (i32.ne (local.get $old_len) (i32.const 0)) (i32.le_u (local.get $len) (local.get $old_len)))
        (then (return (local.get $old))))
      (local.set $at (i32.and (i32.add (global.get $end) (i32.sub (local.get $align) (i32.const 1)))
                              (i32.sub (i32.const 0) (local.get $align))))
      (global.set $end (i32.add (local.get $at) (local.get $len)))
      (local.set $pages
        (i32.sub (i32.shr_u (i32.add (global.get $end) (i32.const 65535)) (i32.const 16)) (memory.size)))
      (if (i32.gt_s (local.get $pages) (i32.const 0))
        (then (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1)) (then unreachable))))
      (memory.copy (local.get $at) (local.get $old) (local.get $old_len))
      (local.get $at))
    (func (export "same") (param i32) (result i32) (local.get 0))
    (func (export "first") (param i32) (result i32) (local.get 0))
    (func (export "put") (param i32) (global.set $kept (local.get 0)))
    (func (export "get") (result i32) (global.get $kept))
    ;; All memory is given out anew, with what was written there.
    (func (export "reset") (global.set $end (i32.const {HEAP_AT})))
    ;; A byte behind the place that is kept becomes another one.
    (func (export "spoil") (param $at i32) (param $byte i32)
      (i32.store8 (i32.add (global.get $kept) (local.get $at)) (local.get $byte)))
    (func (export "slots") (result i32) (i32.const {LIST_AT}))
    {keep}
    {one})"#
    )
}

/// Whether values of this type hold texts, so that their encoding matters.
pub(super) fn has_text(ty: &Type) -> bool {
    let mut has_text = false;
    ty.visit(&mut |ty| has_text |= matches!(ty, Type::String));
    has_text
}
