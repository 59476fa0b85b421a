//! Modules that were written for this: one of each thing that safepoints must get along with.

use std::io;
use std::path::{Path, PathBuf};

/// A module, and what is particular about it.
#[derive(Debug)]
pub struct Case {
    /// What is particular about it, as a name of a file.
    pub name: String,
    /// The module.
    pub wasm: Vec<u8>,
}

/// Safepoints of one function before two of them are the same.
const DISTINCT: usize = 4 * 4096;

/// Modules of at most so many bytes are worth mutating.
const SMALL_BYTES: usize = 2000;

/// All of them.
///
/// # Errors
/// A text that is none.
pub fn all() -> Result<Vec<Case>, Box<dyn std::error::Error>> {
    let fixed = TEXTS.iter().map(|(name, text)| (name.to_string(), text.to_string()));
    let made = lengths().chain(many_loops()).chain(memories());
    let mut cases = fixed
        .chain(made)
        .map(|(name, text)| {
            let wasm =
                wat::parse_str(format!("(module {text})")).map_err(|error| format!("{name}: {error}"))?;
            Ok(Case { name, wasm })
        })
        .collect::<Result<Vec<_>, String>>()?;
    cases.extend(encodings()?);
    Ok(cases)
}

/// Writes the small ones as files, to be mutated.
///
/// # Errors
/// If the folder cannot be written to.
pub fn write_small(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    let cases = all()?.into_iter().filter(|case| case.wasm.len() <= SMALL_BYTES);
    let files = cases.map(|case| {
        let path = folder.join(format!("{}.wasm", case.name));
        std::fs::write(&path, &case.wasm).map(|()| path)
    });
    Ok(files.collect::<io::Result<_>>()?)
}

/// Functions whose bodies are just below and above the length at which a number takes a byte more, before or with
/// safepoints.
fn lengths() -> impl Iterator<Item = (String, String)> {
    let bodies = [90..135, 2040..2056, 16350..16390];
    bodies.into_iter().flatten().map(|bytes: usize| {
        // The rest of the body is some 15 bytes, and each `nop` is one.
        let nops = "nop ".repeat(bytes - 15);
        let text = format!(
            "(memory (export \"m\") 1) (data (i32.const 5000) \"x\")
             (func $f (export \"f\") (param i32) (result i32)
               {nops} loop end local.get 0 i32.load offset=60000)
             (func (export \"g\") (param i32) (result i32) {nops} (call $f (i32.and (local.get 0) (i32.const 8191))))"
        );
        (format!("body-of-{bytes}"), text)
    })
}

/// Functions with so many loops that their safepoints are the same again.
fn many_loops() -> impl Iterator<Item = (String, String)> {
    let counts = [4097, DISTINCT + 2];
    let after = counts.into_iter().map(|count| {
        let text = format!(
            "(memory (export \"m\") 2) (data (i32.const 65536) \"xyz\")
             (func (export \"f\") (param i32) (result i32) {} local.get 0 i32.load8_u)",
            "loop end ".repeat(count)
        );
        (format!("loops-{count}"), text)
    });
    // A module without memory gets one, and the loops are within each other.
    let within = [200].into_iter().map(|depth| {
        let text = format!(
            "(func (export \"f\") (param i32) (result i32) (local i32) {} local.get 1 i32.const 1 i32.add local.set 1 {} local.get 1)",
            "loop ".repeat(depth),
            "local.get 1 i32.const 300 i32.lt_u br_if 0 end ".repeat(depth)
        );
        (format!("loops-within-{depth}"), text)
    });
    after.chain(within)
}

/// Where the polling page is, by the memories that there are and the data in them.
fn memories() -> impl Iterator<Item = (String, String)> {
    const KINDS: [(&str, &str); 14] = [
        ("none", ""),
        ("no-data", "(memory (export \"m\") 1)"),
        ("empty", "(memory (export \"m\") 0 3)"),
        ("data-at-0", "(memory (export \"m\") 1) (data (i32.const 0) \"abc\")"),
        ("data-at-the-end", "(memory (export \"m\") 1) (data (i32.const 65535) \"a\")"),
        ("data-beyond-the-end", "(memory (export \"m\") 1) (data (i32.const 65536) \"a\")"),
        ("data-below-0", "(memory (export \"m\") 1) (data (i32.const -1) \"a\")"),
        (
            "empty-data-first",
            "(memory (export \"m\") 1) (data (i32.const 9) \"\") (data (i32.const 4097) \"abc\")",
        ),
        ("passive-data", "(memory (export \"m\") 1) (data \"abc\") (data (i32.const 8192) \"abc\")"),
        (
            "data-at-a-sum",
            "(memory (export \"m\") 1) (data (i32.add (i32.const 4000) (i32.const 200)) \"abc\")",
        ),
        (
            "data-at-a-global",
            "(global $g i32 (i32.const 4100)) (memory (export \"m\") 1) (data (global.get $g) \"abc\")",
        ),
        ("data-of-64", "(memory (export \"m\") i64 1) (data (i64.const 12288) \"abc\")"),
        (
            "several",
            "(memory (export \"m\") 1) (memory $n (export \"n\") 1) (memory i64 1) (data (memory $n) (i32.const 4096) \"b\")",
        ),
        (
            "several-with-data",
            "(memory (export \"m\") i64 1) (memory (export \"n\") 1) (data (memory 1) (i32.const 9) \"b\") (data (memory 0) (i64.const 40000) \"c\")",
        ),
    ];
    KINDS.into_iter().map(|(name, memories)| {
        let is_64 = memories.contains("\"m\") i64");
        // What the page holds is read and written by the guest as well, on both sides of safepoints.
        let body = match (memories, is_64) {
            ("", _) => "(local.set $sum (i32.add (local.get $sum) (local.get $n)))",
            (_, false) => {
                "(local.set $sum (i32.add (local.get $sum) (i32.load8_s offset=4096 (i32.const 0))))
                 (i32.store8 (i32.add (i32.const 4096) (local.get $n)) (local.get $sum))
                 (i32.store8 (local.get $n) (local.get $sum))
                 (local.set $sum (i32.add (local.get $sum) (i32.load8_s (i32.const 0))))"
            }
            (_, true) => {
                "(local.set $sum (i32.add (local.get $sum) (i32.load8_s offset=12288 (i64.const 0))))
                 (i32.store8 (i64.extend_i32_u (local.get $n)) (local.get $sum))
                 (i32.store8 offset=12288 (i64.const 0) (local.get $n))
                 (local.set $sum (i32.add (local.get $sum) (i32.load8_s (i64.const 0))))"
            }
        };
        let grow = match (memories, is_64) {
            ("", _) => "(i32.const 7)",
            (_, false) => "(i32.add (memory.grow (i32.const 1)) (memory.size))",
            (_, true) => "(i32.wrap_i64 (i64.add (memory.grow (i64.const 1)) (memory.size)))",
        };
        let text = format!(
            "{memories}
             (func $turns (export \"turns\") (param $n i32) (result i32) (local $sum i32)
               (local.set $n (i32.and (local.get $n) (i32.const 255)))
               (loop $turn {body}
                 (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                 (br_if $turn (i32.gt_s (local.get $n) (i32.const 0))))
               (local.get $sum))
             (func (export \"grow\") (result i32) {grow})
             (func (export \"again\") (param i32) (result i32) (call $turns (local.get 0)))"
        );
        (format!("memory-{name}"), text)
    })
}

/// Modules whose bytes no text says.
fn encodings() -> Result<Vec<Case>, String> {
    let parse = |text: &str| wat::parse_str(text).map_err(|error| error.to_string());
    let plain = parse(
        "(module (memory (export \"m\") 1) (func $f (export \"f\") (param i32) (result i32) (loop (br_if 0 (i32.const 0)))
           (i32.load offset=65000 (local.get 0))) (func (export \"g\") (result i32) (call $f (i32.const 600))))",
    )?;
    let custom = b"\0\x09\x04namexxxx\0\x06\x05other".to_vec();
    let mut everywhere = plain[..8].to_vec();
    let mut long = plain[..8].to_vec();
    let mut at = 8;
    while at < plain.len() {
        // The sections of this module are shorter than 128 bytes.
        let len = usize::from(plain[at + 1]);
        let contents = &plain[at + 2..at + 2 + len];
        // A section of an unknown name, before and behind each.
        everywhere.extend(&custom[11..]);
        everywhere.extend(&plain[at..at + 2 + len]);
        everywhere.extend(&custom[11..]);
        // The length and the number of entries in five and in four bytes, as some compilers leave them.
        long.push(plain[at]);
        long.extend([(len + 3) as u8 | 0x80, 0x80, 0x80, 0x80, 0]);
        long.extend([contents[0] | 0x80, 0x80, 0x80, 0]);
        long.extend(&contents[1..]);
        at += 2 + len;
    }
    let mut long_bodies = plain[..8].to_vec();
    let mut code = 0;
    for payload in wasmparser::Parser::new(0).parse_all(&plain) {
        let payload = payload.map_err(|error| error.to_string())?;
        match &payload {
            wasmparser::Payload::CodeSectionStart { count, .. } => {
                code = long_bodies.len() + 2;
                long_bodies.extend([10, 0, *count as u8]);
            }
            // With safepoints the length takes fewer bytes, and all that follows stands before its place.
            wasmparser::Payload::CodeSectionEntry(body) => {
                let bytes = &plain[body.range()];
                long_bodies.extend([bytes.len() as u8 | 0x80, 0x80, 0x80, 0x80, 0]);
                long_bodies.extend(bytes);
            }
            other => {
                // Nothing follows the code of this module but names.
                let Some((id @ 1.., contents)) = other.as_section() else { continue };
                long_bodies.extend([id, contents.len() as u8]);
                long_bodies.extend(&plain[contents]);
            }
        }
    }
    long_bodies[code - 1] = (long_bodies.len() - code) as u8;
    let mut bad_names = plain.clone();
    bad_names.extend(&custom[..11]);
    let case = |name: &str, wasm| Case { name: name.into(), wasm };
    Ok(vec![
        case("custom-sections-everywhere", everywhere),
        case("long-numbers", long),
        case("long-lengths-of-bodies", long_bodies),
        case("bad-names", bad_names),
        case("nothing", plain[..8].to_vec()),
    ])
}

const TEXTS: [(&str, &str); 27] = [
    ("start-traps", "(memory (export \"m\") 1) (data (i32.const 0) \"a\") (start $s)
        (func $s (call $deep)) (func $deep (loop (unreachable)))"),
    ("start-traps-out-of-bounds", "(memory (export \"m\") 1) (start $s) (func $s (drop (loop (result i32) (i32.load (i32.const -8)))))"),
    ("start-never-ends", "(start $s) (func $s (loop (br 0)))"),
    ("start-loops", "(memory (export \"m\") 1) (global $g (export \"g\") (mut i32) (i32.const 0)) (start $s)
        (func $s (loop $l (i32.store (global.get $g) (global.get $g)) (global.set $g (i32.add (global.get $g) (i32.const 4)))
          (br_if $l (i32.lt_u (global.get $g) (i32.const 9000)))))
        (func (export \"read\") (param i32) (result i32) (i32.load (local.get 0)))"),
    ("start-throws", "(tag $t (param i32)) (start $s) (func $s (throw $t (i32.const 5)))"),
    ("start-is-exported", "(global $g (export \"g\") (mut i32) (i32.const 0)) (start $s)
        (func $s (export \"wasmpool start\") (global.set $g (i32.add (global.get $g) (i32.const 1))))"),
    ("start-is-imported", "(import \"a\" \"b\" (func $i)) (memory (export \"m\") 1) (data (i32.const 0) \"x\") (start $i)"),
    ("start-is-first-of-two-traps", "(memory 1) (data (i32.const 65536) \"x\") (start $s) (func $s unreachable)"),
    ("names-are-taken", "(memory (export \"wasmpool polling page\") (export \"wasmpool polling page'\") 1)
        (global (export \"wasmpool start'\") i32 (i32.const 1)) (start $s)
        (func $s (export \"wasmpool start\") (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 3))))"),
    ("names-are-taken-by-others", "(memory i64 1) (func (export \"wasmpool polling page\") (result i32) (loop) (i32.const 1))
        (func $s (loop)) (start $s) (table (export \"wasmpool start\") 1 funcref)"),
    ("imports-come-first", "(import \"a\" \"f\" (func $i (param i32) (result i32))) (import \"a\" \"g\" (global $g i32))
        (memory (export \"m\") 1) (data (global.get $g) \"abc\")
        (func $own (export \"own\") (param i32) (result i32) (call $i (local.get 0)))
        (func (export \"calls\") (param i32) (result i32) (i32.div_s (i32.const 9) (call $own (local.get 0))))"),
    ("memory-is-imported", "(import \"a\" \"m\" (memory $m 1)) (memory $n (export \"n\") 1) (export \"m\" (memory $m))
        (data (i32.const 5) \"abc\") (data (memory $n) (i32.const 5) \"abc\")
        (func $f (export \"f\") (param i32) (result i32) (loop) (i32.load offset=60000 (local.get 0)))
        (func (export \"g\") (param i32) (result i32) (call $f (local.get 0)))"),
    ("loops-take-values", "(memory 1) (type $l (func (param i32 i64 f32) (result i64 i32)))
        (func (export \"f\") (param i32) (result i64 i32) (local i32)
          (i32.and (local.get 0) (i32.const 63)) (i64.const 7) (f32.const 0.5)
          (loop (type $l) drop (i64.const 3) i64.mul (local.set 0 (i32.wrap_i64)) (local.set 1)
            (i32.sub (local.get 1) (i32.const 1)) (i64.extend_i32_u (local.get 0)) (f32.const 1)
            (br_if 0 (i32.gt_s (local.get 1) (i32.const 0)))
            drop (local.set 0 (i32.wrap_i64)) drop (i64.const 1) (local.get 0)))"),
    ("exceptions", "(memory (export \"m\") 1) (tag $t (export \"t\") (param i32 i64)) (tag $u)
        (func $thrower (param i32) (if (i32.and (local.get 0) (i32.const 1)) (then (throw $t (local.get 0) (i64.const 9))))
          (if (i32.and (local.get 0) (i32.const 2)) (then (throw $u))) (if (i32.and (local.get 0) (i32.const 4)) (then unreachable)))
        (func (export \"catches\") (param i32) (result i32) (local i32)
          (loop $again
            (local.set 1 (i32.add (local.get 1) (i32.const 1)))
            (block $h (result i32 i64)
              (try_table (catch $t $h) (loop (call $thrower (i32.sub (local.get 0) (local.get 1)))))
              (return (local.get 1)))
            drop drop (br_if $again (i32.lt_u (local.get 1) (i32.const 20))))
          (i32.const -1))
        (func (export \"catches_all\") (param i32) (result i32)
          (block $h (try_table (catch_all $h) (call $thrower (local.get 0))) (return (i32.const 0))) (i32.const 1))
        (func (export \"to_the_loop\") (param i32) (result i32) (local i32)
          (loop $l (local.set 1 (i32.add (local.get 1) (i32.const 1)))
            (if (i32.gt_u (local.get 1) (i32.const 9)) (then (return (local.get 1))))
            (try_table (catch_all $l) (call $thrower (local.get 0))))
          (local.get 1))
        (func (export \"throws_on\") (param i32) (call $thrower (local.get 0)))
        (func (export \"again\") (param i32) (block $h (result exnref) (try_table (catch_all_ref $h) (call $thrower (local.get 0))) (return)) throw_ref)"),
    ("tail-calls", "(memory 1) (type $t (func (param i32 i32) (result i32))) (table funcref (elem $even $odd))
        (func $even (type $t) (if (result i32) (i32.eqz (local.get 0)) (then (local.get 1))
          (else (return_call $odd (i32.sub (local.get 0) (i32.const 1)) (i32.add (local.get 1) (i32.const 2))))))
        (func $odd (type $t) (if (i32.eqz (local.get 0)) (then unreachable))
          (return_call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (local.get 1) (i32.const 0)))
        (func (export \"f\") (param i32) (result i32) (return_call $even (i32.and (local.get 0) (i32.const 4095)) (i32.const 0)))
        (func (export \"by_reference\") (param i32) (result i32)
          (return_call_ref $t (i32.and (local.get 0) (i32.const 511)) (i32.const 0) (ref.func $even)))"),
    ("br-table-into-loops", "(memory (export \"m\") 1) (func (export \"f\") (param i32) (result i32) (local i32)
          (block $out (loop $a (loop $b (loop $c
            (local.set 1 (i32.add (local.get 1) (i32.const 1))) (br_if $out (i32.gt_u (local.get 1) (i32.const 100)))
            (i32.store (local.get 1) (local.get 0))
            (local.set 0 (i32.add (i32.mul (local.get 0) (i32.const 1103515245)) (i32.const 12345)))
            (br_table $a $b $c $out (i32.and (i32.shr_u (local.get 0) (i32.const 16)) (i32.const 7))))))) (local.get 1))"),
    ("gc-types", "(memory 1) (type $p (struct (field (mut i32)) (field (ref null $p)))) (type $a (array (mut i64))) (rec (type $r (struct (field (ref null $s)))) (type $s (sub (array (ref null $r)))))
        (func (export \"list\") (param i32) (result anyref) (local $l (ref null $p))
          (local.set 0 (i32.and (local.get 0) (i32.const 1023)))
          (loop $more (result anyref) (local.set $l (struct.new $p (local.get 0) (local.get $l)))
            (br_if $more (local.get $l) (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))) drop (local.get $l)))
        (func (export \"array\") (param i32) (result i64) (local $a (ref null $a))
          (local.set $a (array.new $a (i64.const 3) (i32.and (local.get 0) (i32.const 255))))
          (loop (array.set $a (local.get $a) (i32.const 7) (i64.const 1))) (array.get $a (local.get $a) (local.get 0)))
        (func (export \"cast\") (param anyref) (result i32) (loop (result i32) (i31.get_s (ref.cast (ref i31) (local.get 0)))))
        (func (export \"null\") (result i32) (loop (result i32) (struct.get $p 0 (ref.null $p))))
        (global (export \"g\") (mut (ref null $p)) (struct.new $p (i32.const 4) (ref.null $p)))"),
    ("data-count", "(memory (export \"m\") 1) (data $p \"passive\") (data (i32.const 5000) \"active\")
        (func (export \"f\") (param i32) (loop (memory.init $p (local.get 0) (i32.const 0) (i32.const 5))))
        (func (export \"drop\") (loop (data.drop $p)))
        (func (export \"fill\") (param i32 i32) (loop (memory.fill (local.get 0) (i32.const 7) (local.get 1)) (memory.copy (local.get 1) (local.get 0) (i32.const 64))))"),
    ("unreachable-loops", "(memory 1) (func (export \"f\") (result i32) (return (i32.const 4)) (loop (result i32) (loop (br 1)) unreachable))
        (func (export \"g\") unreachable (loop (param i32 i64) (br 0)))
        (func (export \"h\") (block (br 0) (loop (param f32) drop)) (loop (br 1 ) (loop)))"),
    ("unreachable-loops-64", "(memory i64 1) (data (i64.const 0) \"x\") (func (export \"g\") unreachable (loop (param i32 v128) (br 0)))
        (func (export \"h\") (result i32) (loop (result i32) (br 0 (br_if 1 (i32.const 6) (i32.const 1)))))"),
    ("recursion", "(memory 1) (func $f (export \"f\") (param i32) (result i32) (if (result i32) (i32.eqz (local.get 0)) (then (i32.const 1))
          (else (i32.mul (local.get 0) (call $f (i32.sub (local.get 0) (i32.const 1)))))))
        (func (export \"traps_deep\") (param i32) (result i32) (call $g (i32.and (local.get 0) (i32.const 15))))
        (func $g (param i32) (result i32) (if (i32.eqz (local.get 0)) (then unreachable)) (call $g (i32.sub (local.get 0) (i32.const 1))))
        (func $endless (export \"endless\") (call $endless))"),
    ("tables", "(table $t (export \"t\") 3 10 funcref) (elem (i32.const 1) $a) (elem $e func $a $b) (type $v (func (result i32)))
        (func $a (result i32) (loop (result i32) (i32.const 1))) (func $b (result i32) (call $a))
        (func (export \"init\") (param i32) (loop (table.init $t $e (local.get 0) (i32.const 0) (i32.const 2))))
        (func (export \"call\") (param i32) (result i32) (call_indirect (type $v) (local.get 0)))
        (func (export \"grow\") (param i32) (result i32) (table.grow $t (ref.func $b) (local.get 0)))"),
    ("memory-init-traps", "(memory (export \"m\") 1 1) (data (i32.const 65530) \"abcdefghij\")"),
    ("element-traps", "(table 1 funcref) (elem (i32.const 1) $f) (func $f) (start $f)"),
    ("no-functions", "(memory (export \"m\") 2) (global (export \"g\") i64 (i64.const 5)) (data (i32.const 7) \"z\")"),
    ("names", "(@name \"module\") (memory 1) (func $first (@name \"the first\") (param i32) (call $second (local.get 0)))
        (func $second (@name \"the second\") (param i32) (loop (if (local.get 0) (then unreachable)))) (export \"f\" (func $first))
        (@custom \"before\" (before code) \"bytes\") (@custom \"after\" (after code) \"bytes\")"),
    ("nan", "(memory (export \"m\") 1) (func (export \"f\") (param f64 f64) (result f64) (loop (f64.store (i32.const 8) (f64.div (f64.sub (local.get 0) (local.get 0)) (f64.const 0))))
          (f64.add (f64.load (i32.const 8)) (f64.mul (local.get 1) (f64.const inf))))
        (func (export \"g\") (param f32) (result f32) (loop (result f32) (f32.sqrt (f32.neg (local.get 0)))))"),
];
