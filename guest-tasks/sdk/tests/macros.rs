//! The attributes leave a function as it was, whatever its shape, and what they
//! add compiles natively.

#![expect(missing_docs, reason = "a test has no readers of its documentation")]

use std::collections::BTreeMap;
use std::fmt;

use wasmpool_guest::{Schema, data, init, task};

#[data]
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub name: String,
    pub size: Size,
    pub tags: BTreeMap<String, Vec<u8>>,
}

#[data]
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    Small,
    #[serde(rename = "big")]
    Large(u64),
    Custom {
        width: u16,
        height: Option<u16>,
    },
}

type Outcome<T> = Result<T, Failure>;

#[derive(Debug, PartialEq)]
struct Failure;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failure")
    }
}

mod io {
    pub(super) type Result<T> = std::io::Result<T>;
}

#[task]
fn nothing() {}

#[task]
fn one(n: u64) -> u64 {
    n + 1
}

#[task]
fn several(mut a: u8, r#type: String, job: Job) -> (u8, String, Job) {
    a += 1;
    (a, r#type, job)
}

#[task(name = "renamed")]
fn fallible(fail: bool) -> Result<Job, Failure> {
    if fail {
        return Err(Failure);
    }
    Ok(Job { name: "n".into(), size: Size::Small, tags: BTreeMap::new() })
}

#[task]
fn with_an_alias_of_the_same_name() -> io::Result<()> {
    Ok(())
}

#[task]
fn with_a_borrowed_error() -> std::result::Result<u8, &'static str> {
    Err("borrowed")
}

#[task(raw)]
#[inline]
fn bytes(input: &[u8]) -> Vec<u8> {
    input.to_vec()
}

#[task(raw, name = "fallible.bytes")]
fn fallible_bytes(input: &[u8]) -> Result<Vec<u8>, String> {
    Err(format!("{} bytes", input.len()))
}

#[init]
fn prepare() -> Outcome<()> {
    Ok(())
}

mod another {
    #[wasmpool_guest::init]
    pub(super) fn prepare() {}
}

#[test]
fn tasks_are_called_as_they_are_written() {
    nothing();
    assert_eq!(one(1), 2);
    let job = fallible(false).unwrap();
    let expected = (2, "t".to_owned(), job.clone());
    assert_eq!(several(1, "t".into(), job), expected);
    assert_eq!(fallible(true), Err(Failure));
    assert!(with_an_alias_of_the_same_name().is_ok());
    assert_eq!(with_a_borrowed_error(), Err("borrowed"));
    assert_eq!(bytes(b"x"), b"x");
    assert_eq!(fallible_bytes(b"x"), Err("1 bytes".into()));
    assert_eq!(prepare(), Ok(()));
    another::prepare();
}

#[test]
fn derived_data_has_a_schema_and_a_codec() {
    assert_eq!(Job::SCHEMA.name, "Job");
    let text = serde_json::to_string(&Size::Large(3)).unwrap();
    assert_eq!(text, r#"{"big":3}"#);
    assert_eq!(serde_json::from_str::<Size>(&text).unwrap(), Size::Large(3));
}
