//! The attributes leave a function as it was, whatever its shape, and what they
//! add compiles natively.

#![expect(missing_docs, reason = "a test has no readers of its documentation")]

use std::collections::BTreeMap;
use std::fmt;

use wasmpool_guest::postcard_schema::schema::{DataModelType, NamedType};
use wasmpool_guest::{data, init, task, Schema};

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

/// Every name is spelled anew.
#[data]
#[serde(rename_all = "camelCase")]
#[derive(Debug, Clone, PartialEq)]
pub struct Respelled {
    pub first_name: String,
    pub r#type: u8,
}

#[data]
#[serde(rename_all = "kebab-case", rename_all_fields = "UPPERCASE")]
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    OneOf { these: u8 },
    NoneOf,
}

/// A struct of that name is no `Result`.
mod own {
    #[wasmpool_guest::data]
    #[derive(Debug, PartialEq)]
    pub(crate) struct Result {
        pub value: u8,
    }
}

type Outcome<T> = Result<T, Failure>;

/// Neither its name nor its arguments say what it is.
type Answer = Result<u64, String>;

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

#[task]
fn under_another_name(fail: bool) -> Answer {
    if fail {
        Err("failed".into())
    } else {
        Ok(7)
    }
}

#[task(raw)]
fn bytes_under_another_name(input: &[u8]) -> Bytes {
    if input.is_empty() {
        Err(Failure)
    } else {
        Ok(Vec::new())
    }
}

type Bytes = Outcome<Vec<u8>>;

#[task]
fn of_that_name_only() -> own::Result {
    own::Result { value: 1 }
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

#[expect(clippy::unused_unit, clippy::unit_arg, reason = "that it is written out makes no difference")]
mod unit {
    #[wasmpool_guest::init]
    pub(super) fn prepare() -> () {}
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
    unit::prepare();
    assert_eq!((under_another_name(false), under_another_name(true)), (Ok(7), Err("failed".into())));
    assert_eq!(bytes_under_another_name(b""), Err(Failure));
    assert_eq!(of_that_name_only(), own::Result { value: 1 });
}

/// As the attributes ask: which of two items is meant is decided by the type.
#[test]
fn a_result_is_one_under_every_name_and_nothing_else_is() {
    use wasmpool_guest::__private::{Plain as _, PlainSchema as _, Returned};
    assert_eq!(<Returned<Answer>>::SCHEMA, u64::SCHEMA);
    assert_eq!(<Returned<Answer>>::into_result(Err("own".into())), Err("own".to_owned()));
    assert_eq!(<Returned<io::Result<u8>>>::SCHEMA, u8::SCHEMA);
    assert_eq!(<Returned<Bytes>>::into_result(Err(Failure)), Err(Failure));
    assert_eq!(<Returned<own::Result>>::SCHEMA, own::Result::SCHEMA);
    assert_eq!(<Returned<own::Result>>::into_result(of_that_name_only()), Ok(own::Result { value: 1 }));
    // Inside of a value it is a value.
    assert_eq!(<Returned<Option<Result<u8, u8>>>>::SCHEMA, Option::<Result<u8, u8>>::SCHEMA);
}

#[test]
fn serde_and_the_schema_see_the_same_names() {
    fn names(ty: &'static NamedType) -> Vec<&'static str> {
        match ty.ty {
            DataModelType::Struct(fields) => fields.iter().map(|field| field.name).collect(),
            DataModelType::Enum(variants) => variants.iter().map(|variant| variant.name).collect(),
            _ => Vec::new(),
        }
    }
    let respelled = serde_json::to_value(Respelled { first_name: "a".into(), r#type: 1 }).unwrap();
    assert_eq!(respelled, serde_json::json!({"firstName": "a", "type": 1}));
    assert_eq!(names(Respelled::SCHEMA), ["firstName", "type"]);
    let choices = serde_json::to_value([Choice::OneOf { these: 1 }, Choice::NoneOf]).unwrap();
    assert_eq!(choices, serde_json::json!([{"one-of": {"THESE": 1}}, "none-of"]));
    assert_eq!(names(Choice::SCHEMA), ["one-of", "none-of"]);
}

#[test]
fn derived_data_has_a_schema_and_a_codec() {
    assert_eq!(Job::SCHEMA.name, "Job");
    let text = serde_json::to_string(&Size::Large(3)).unwrap();
    assert_eq!(text, r#"{"big":3}"#);
    assert_eq!(serde_json::from_str::<Size>(&text).unwrap(), Size::Large(3));
}
