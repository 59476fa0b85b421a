//! What a file is that is no WebAssembly, by its first bytes, or is WebAssembly for another host or for a linker; and what
//! would make a module of it. People give such files by mistake, and "no magic number" tells them nothing.

use wasmparser::{Parser, Payload};

use proto::message::CompileError;

/// ELF: the kind of program stands at 16. At 7 stands whose calls it makes; wasmtime puts its own number there.
const ELF: &[u8] = b"\x7fELF";
const ELF_RELOCATABLE: u8 = 1;
const ELF_OF_WASMTIME: u8 = 200;

const NATIVE: &str = "it is a native program: build it for WebAssembly (such as clang --target=wasm32-wasi, or cargo build --target wasm32-wasip1)";
const NATIVE_OBJECT: &str = "it is an object file of native code, and not linked: build it for WebAssembly and link it (clang --target=wasm32-wasi)";
const MACHINE_CODE: &str =
    "it is machine code that wasmtime compiled ahead of time, which is not taken: give the .wasm file";
const LIBRARY: &str = "it is a static library (.a): link the objects in it to a module first (wasm-ld, or clang --target=wasm32-wasi)";
const BITCODE: &str = "it is LLVM bitcode: compile and link it first (clang --target=wasm32-wasi)";
const GZIP: &str = "it is compressed (gzip): unpack it first";
const COMPRESSED: &str = "it is compressed: unpack it first";
const ARCHIVE: &str = "it is an archive of files (zip): unpack it and give the .wasm file in it";
const SCRIPT: &str = "it is a script (#!): give the .wasm file that it runs";
const TEXT_FORMAT: &str = "it is WebAssembly text: translate it to binary first (wat2wasm, wasm-tools parse)";
const TEXT: &str = "it is text, and does not start with the magic number of WebAssembly";
const UNKNOWN: &str = "it does not start with the magic number of WebAssembly";

/// Files by the bytes at their beginning.
const BEGINNINGS: [(&[u8], &str); 14] = [
    (b"!<arch>\n", LIBRARY),
    (b"!<thin>\n", LIBRARY),
    (b"BC\xc0\xde", BITCODE),
    (b"MZ", NATIVE),
    (b"\xfe\xed\xfa\xce", NATIVE),
    (b"\xce\xfa\xed\xfe", NATIVE),
    (b"\xfe\xed\xfa\xcf", NATIVE),
    (b"\xcf\xfa\xed\xfe", NATIVE),
    (b"\x1f\x8b", GZIP),
    (b"\x28\xb5\x2f\xfd", COMPRESSED),
    (b"\xfd7zXZ\0", COMPRESSED),
    (b"BZh", COMPRESSED),
    (b"PK\x03\x04", ARCHIVE),
    (b"#!", SCRIPT),
];

/// As much of a file is looked at to tell whether it is text.
const LOOKED_AT_BYTES: usize = 512;

/// Says what the file is.
pub(super) fn named(file: &[u8]) -> &'static str {
    if file.starts_with(ELF) {
        return match (file.get(7), file.get(16..18)) {
            (Some(&ELF_OF_WASMTIME), _) => MACHINE_CODE,
            // The two bytes of the number are in the order of the machine for which it is.
            (_, Some([ELF_RELOCATABLE, 0] | [0, ELF_RELOCATABLE])) => NATIVE_OBJECT,
            _ => NATIVE,
        };
    }
    if let Some((_, what)) = BEGINNINGS.iter().find(|(begin, _)| file.starts_with(begin)) {
        return what;
    }
    let begin = &file[..file.len().min(LOOKED_AT_BYTES)];
    match text(begin) {
        Some(text) if is_text_format(text) => TEXT_FORMAT,
        Some(_) => TEXT,
        None => UNKNOWN,
    }
}

/// Returns the text at the beginning; `None` if there is none. A character may be cut off at its end.
fn text(begin: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(begin) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&begin[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let is_shown = |char: char| !char.is_control() || matches!(char, '\n' | '\r' | '\t' | '\x0c');
    text.chars().all(is_shown).then_some(text)
}

/// Behind blanks and comments it begins with a parenthesis.
fn is_text_format(text: &str) -> bool {
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    while let Some(comment) = rest.strip_prefix(";;") {
        rest = comment.split_once('\n').map_or("", |(_, behind)| behind).trim_start();
    }
    rest.starts_with("(module") || rest.starts_with("(component") || rest.starts_with("(;")
}

/// Returns why a module that imports what nobody has is for a linker, if it is.
pub(super) fn unlinked(wasm: &[u8]) -> Option<CompileError> {
    let unsupported = |feature: &str, message: &str| {
        Some(CompileError::Unsupported { feature: feature.into(), message: message.into() })
    };
    for payload in Parser::new(0).parse_all(wasm) {
        let Payload::CustomSection(section) = payload.ok()? else { continue };
        match section.name() {
            "linking" => {
                return unsupported(
                    "a linker",
                    "it is an object file (.o): link it first (wasm-ld, or clang --target=wasm32-wasi without -c)",
                );
            }
            "dylink.0" | "dylink" => {
                return unsupported(
                    "dynamic linking",
                    "it is a shared library (its first section says so): link it statically into a module of its own",
                );
            }
            _ => {}
        }
    }
    None
}

/// Returns for which host a module was made that imports from this one.
pub(super) fn host_of(module: &str) -> Option<&'static str> {
    match module {
        "wbg" | "__wbindgen_placeholder__" => Some("of wasm-bindgen, for JavaScript"),
        script if script.ends_with("_bg.js") => Some("of wasm-bindgen, for JavaScript"),
        "go" | "gojs" => Some("of Go for JavaScript: build it with GOOS=wasip1"),
        "wasix_32v1" | "wasix_64v1" => Some("of WASIX"),
        "wasi" => Some("of wasi-threads: a task has one thread"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_shared_libraries_are_for_a_linker() {
        let custom = |name: &str| {
            let mut wasm = b"\0asm\x01\0\0\0\0".to_vec();
            wasm.extend([name.len() as u8 + 1, name.len() as u8]);
            wasm.extend(name.bytes());
            wasm
        };
        for (name, wanted) in
            [("linking", Some("a linker")), ("dylink.0", Some("dynamic linking")), ("name", None)]
        {
            let feature = match unlinked(&custom(name)) {
                Some(CompileError::Unsupported { feature, .. }) => Some(feature),
                _ => None,
            };
            assert_eq!(feature.as_deref(), wanted, "{name}");
        }
    }

    #[test]
    fn what_people_give_by_mistake_is_named() {
        let elf = |abi: u8, kind: u8| {
            let mut file = b"\x7fELF\x02\x01\x01".to_vec();
            file.push(abi);
            file.extend([0; 8]);
            file.extend([kind, 0]);
            file
        };
        let files: [(&[u8], &str); 20] = [
            (&elf(0, 2), NATIVE),
            (&elf(0, 3), NATIVE),
            (&elf(0, 1), NATIVE_OBJECT),
            (&elf(200, 1), MACHINE_CODE),
            (b"\x7fELF", NATIVE),
            (b"!<arch>\no.o/ ", LIBRARY),
            (b"BC\xc0\xde\x35", BITCODE),
            (b"MZ\x90", NATIVE),
            (b"\x1f\x8b\x08", GZIP),
            (b"PK\x03\x04\x14", ARCHIVE),
            (b"#!/bin/sh\n", SCRIPT),
            (b"(module)", TEXT_FORMAT),
            (b"\xef\xbb\xbf\n(module\n", TEXT_FORMAT),
            (b" ;; one (\n;; two\n  (component)", TEXT_FORMAT),
            (b"(; a comment ;) (module)", TEXT_FORMAT),
            (b"hello", TEXT),
            (b"(print 1)", TEXT),
            (";; caf\u{e9}".as_bytes(), TEXT),
            (b"\x01\x02\x03", UNKNOWN),
            (b"hello\x00", UNKNOWN),
        ];
        for (file, what) in files {
            assert_eq!(named(file), what, "{}", file.escape_ascii());
        }
        // A long text may be cut within a character.
        for blanks in 0..4 {
            let long = " ".repeat(blanks) + &"\u{20ac}".repeat(LOOKED_AT_BYTES);
            assert_eq!(named(long.as_bytes()), TEXT);
        }
    }
}
