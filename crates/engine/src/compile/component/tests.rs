//! Outlines of components: what they say, and that nothing in a file makes reading it fail otherwise than by `None`.

use proptest::prelude::*;

use super::ComponentOutline;

const TEXT: &str = r#"(component
    (import "wasi:cli/exit@0.2.0" (instance (export "exit" (func (param "status" (result))))))
    (import "only:types/here" (instance (type $t (list u8)) (export "t" (type (eq $t)))))
    (core module $m
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
        (func (export "f") (param i32 i32) (result i32) (i32.const 0)))
    (core instance $i (instantiate $m))
    (alias core export $i "memory" (core memory $memory))
    (alias core export $i "realloc" (core func $realloc))
    (type $case' (variant (case "none") (case "some-of" (tuple (list string) (option (result u8))))))
    (export $case "case" (type $case'))
    (type $flags' (flags "a" "b"))
    (export $flags "flags" (type $flags'))
    (type $record' (record (field "case" (list $case)) (field "flags" $flags)))
    (export $record "record" (type $record'))
    (func $f (param "records" (list $record)) (result (result string (error $case)))
        (canon lift (core func $i "f") (memory $memory) (realloc $realloc)))
    (export "f" (func $f)))"#;

fn component() -> Vec<u8> {
    wat::parse_str(TEXT).expect("valid text")
}

#[test]
fn an_outline_has_the_functions_with_their_types_and_what_is_imported() {
    let outline = ComponentOutline::of(&component()).expect("is valid");
    let [task] = &outline.tasks[..] else { panic!("{:?}", outline.tasks) };
    assert_eq!(task.signature(), "f(records: Vec<record>) -> Result<String, case>");
    assert_eq!(
        outline.imports,
        ["wasi:cli/exit@0.2.0: interface, 1 function", "only:types/here: interface, 0 functions"]
    );
    assert!(outline.unknown_imports.is_empty(), "types need not be provided: {:?}", outline.unknown_imports);
    assert!(
        outline
            .exports
            .iter()
            .any(|export| export == "f: func(records: list<record>) -> result<string, case>")
    );
    assert!(outline.uses_wasi && !outline.has_start && !outline.is_command());
}

#[test]
fn every_prefix_of_a_component_has_no_outline() {
    let whole = component();
    for end in 0..whole.len() {
        assert!(ComponentOutline::of(&whole[..end]).is_none_or(|outline| outline.tasks.len() <= 1), "{end}");
    }
}

proptest! {
    /// A file is a stranger's.
    #[test]
    fn whatever_is_changed_in_a_component_its_tasks_are_well_formed_or_it_has_no_outline(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = component();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(outline) = ComponentOutline::of(&bytes) {
            for task in &outline.tasks {
                prop_assert_eq!(task.check(), Ok(()));
            }
        }
    }
}
