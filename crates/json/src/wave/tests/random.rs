//! Random values of random types, as wasm-wave writes them and as JSON.

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use wasm_wave::value::{Type, Value as Wave};
use wasm_wave::wasm::WasmValue;

use proto::description::{TaskDescription, samples};
use proto::schema::{Node, NodeId, SchemaBuilder, TypeSchema, Variant};

/// A task, and arguments for it.
#[derive(Debug)]
pub(super) struct Sample {
    pub task: TaskDescription,
    pub wave: String,
    pub json: Json,
}

/// Says in which case the schema has its names. WAVE has them in kebab case.
#[derive(Debug, Clone, Copy)]
enum Case {
    Kebab,
    Snake,
    Camel,
}

/// The names in WAVE, of which a type takes the first few. Two are words of WAVE itself.
const NAMES: [&str; 6] = ["a", "some-thing", "none", "x1-2b", "true", "HTTP-x"];

impl Case {
    fn name(self, index: usize) -> String {
        let kebab = NAMES[index];
        match self {
            Case::Kebab => kebab.into(),
            Case::Snake => kebab.replace('-', "_"),
            Case::Camel => kebab.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect(),
        }
    }
}

#[derive(Debug, Clone)]
enum Kind {
    Bool,
    S8,
    U8,
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
    F32,
    F64,
    Char,
    String,
    List(Box<Kind>),
    Option(Box<Kind>),
    Tuple(Vec<Kind>),
    Map(Box<Kind>, Box<Kind>),
    Record(Case, Vec<Kind>),
    Flags(Case, usize),
    Variant(Case, Vec<Option<Kind>>),
    Result([Option<Box<Kind>>; 2]),
}

fn kind() -> impl Strategy<Value = Kind> {
    let key = prop::sample::select(vec![
        Kind::Bool,
        Kind::S8,
        Kind::U8,
        Kind::S16,
        Kind::U16,
        Kind::S32,
        Kind::U32,
        Kind::S64,
        Kind::U64,
        Kind::Char,
        Kind::String,
    ]);
    let leaf = prop_oneof![4 => key.clone(), 1 => Just(Kind::F32), 1 => Just(Kind::F64)];
    let case = prop::sample::select(vec![Case::Kebab, Case::Snake, Case::Camel]);
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let side = prop::option::of(boxed.clone());
        let several = prop::collection::vec(inner.clone(), 1..NAMES.len());
        let cases = prop::collection::vec(prop::option::of(inner), 1..=NAMES.len());
        prop_oneof![
            boxed.clone().prop_map(Kind::List),
            boxed.clone().prop_map(Kind::Option),
            several.clone().prop_map(Kind::Tuple),
            (key.clone(), boxed).prop_map(|(key, of)| Kind::Map(Box::new(key), of)),
            (case.clone(), several).prop_map(|(case, of)| Kind::Record(case, of)),
            (case.clone(), 1..=NAMES.len()).prop_map(|(case, count)| Kind::Flags(case, count)),
            (case.clone(), cases).prop_map(|(case, of)| Kind::Variant(case, of)),
            (side.clone(), side).prop_map(|(ok, err)| Kind::Result([ok, err])),
        ]
    })
}

impl Kind {
    fn push(&self, builder: &mut SchemaBuilder) -> NodeId {
        let mut all = |kinds: &[Kind]| kinds.iter().map(|kind| kind.push(builder)).collect::<Vec<_>>();
        let named = |case: &Case, ids: Vec<NodeId>| {
            ids.into_iter().enumerate().map(|(index, id)| (case.name(index), id)).collect()
        };
        let node = match self {
            Kind::Bool => Node::Bool,
            Kind::S8 => Node::I8,
            Kind::U8 => Node::U8,
            Kind::S16 => Node::I16,
            Kind::U16 => Node::U16,
            Kind::S32 => Node::I32,
            Kind::U32 => Node::U32,
            Kind::S64 => Node::I64,
            Kind::U64 => Node::U64,
            Kind::F32 => Node::F32,
            Kind::F64 => Node::F64,
            Kind::Char => Node::Char,
            Kind::String => Node::String,
            Kind::List(of) => Node::Seq(of.push(builder)),
            Kind::Option(of) => Node::Option(of.push(builder)),
            Kind::Tuple(of) => Node::Tuple(all(of)),
            Kind::Map(key, of) => Node::Map(key.push(builder), of.push(builder)),
            Kind::Record(case, of) => Node::Struct { name: "r".into(), fields: named(case, all(of)) },
            Kind::Flags(case, count) => {
                Node::Struct { name: "f".into(), fields: named(case, all(&vec![Kind::Bool; *count])) }
            }
            Kind::Variant(case, of) => {
                let variant = |(index, of): (usize, &Option<Kind>)| {
                    let kind = of.as_ref().map_or(Variant::Unit, |of| Variant::Newtype(of.push(builder)));
                    (case.name(index), kind)
                };
                Node::Enum { name: "v".into(), variants: of.iter().enumerate().map(variant).collect() }
            }
            Kind::Result(sides) => {
                let variant = |(name, of): (&str, &Option<Box<Kind>>)| {
                    let of = of.as_ref().map(|of| of.push(builder));
                    let id = of.unwrap_or_else(|| builder.push(Node::Unit).expect("is small"));
                    (name.to_string(), Variant::Newtype(id))
                };
                let variants = ["Ok", "Err"].into_iter().zip(sides).map(variant).collect();
                Node::Enum { name: "Result".into(), variants }
            }
        };
        builder.push(node).expect("is small")
    }

    fn ty(&self) -> Type {
        let names = |count: usize| NAMES[..count].iter().copied();
        match self {
            Kind::Bool => Type::BOOL,
            Kind::S8 => Type::S8,
            Kind::U8 => Type::U8,
            Kind::S16 => Type::S16,
            Kind::U16 => Type::U16,
            Kind::S32 => Type::S32,
            Kind::U32 => Type::U32,
            Kind::S64 => Type::S64,
            Kind::U64 => Type::U64,
            Kind::F32 => Type::F32,
            Kind::F64 => Type::F64,
            Kind::Char => Type::CHAR,
            Kind::String => Type::STRING,
            Kind::List(of) => Type::list(of.ty()),
            Kind::Option(of) => Type::option(of.ty()),
            Kind::Tuple(of) => Type::tuple(of.iter().map(Kind::ty).collect::<Vec<_>>()).expect("has parts"),
            Kind::Map(key, of) => Type::map(key.ty(), of.ty()).expect("has a key"),
            Kind::Record(_, of) => {
                Type::record(names(of.len()).zip(of.iter().map(Kind::ty))).expect("has fields")
            }
            Kind::Flags(_, count) => Type::flags(names(*count)).expect("has flags"),
            Kind::Variant(_, of) => {
                let cases = names(of.len()).zip(of.iter().map(|of| of.as_ref().map(Kind::ty)));
                Type::variant(cases).expect("has cases")
            }
            Kind::Result([ok, err]) => {
                Type::result(ok.as_ref().map(|of| of.ty()), err.as_ref().map(|of| of.ty()))
            }
        }
    }

    /// Returns a value as both have it.
    fn value(&self) -> BoxedStrategy<(Wave, Json)> {
        let ty = self.ty();
        match self {
            Kind::Bool => any::<bool>().prop_map(|value| (Wave::make_bool(value), json!(value))).boxed(),
            Kind::S8 => any::<i8>().prop_map(|value| (Wave::make_s8(value), json!(value))).boxed(),
            Kind::U8 => any::<u8>().prop_map(|value| (Wave::make_u8(value), json!(value))).boxed(),
            Kind::S16 => any::<i16>().prop_map(|value| (Wave::make_s16(value), json!(value))).boxed(),
            Kind::U16 => any::<u16>().prop_map(|value| (Wave::make_u16(value), json!(value))).boxed(),
            Kind::S32 => any::<i32>().prop_map(|value| (Wave::make_s32(value), json!(value))).boxed(),
            Kind::U32 => any::<u32>().prop_map(|value| (Wave::make_u32(value), json!(value))).boxed(),
            Kind::S64 => any::<i64>().prop_map(|value| (Wave::make_s64(value), json!(value))).boxed(),
            Kind::U64 => any::<u64>().prop_map(|value| (Wave::make_u64(value), json!(value))).boxed(),
            Kind::F32 => prop::num::f32::ANY
                .prop_map(|value| (Wave::make_f32(value), float(value.into(), json!(value))))
                .boxed(),
            Kind::F64 => prop::num::f64::ANY
                .prop_map(|value| (Wave::make_f64(value), float(value, json!(value))))
                .boxed(),
            Kind::Char => any::<char>().prop_map(|value| (Wave::make_char(value), json!(value))).boxed(),
            Kind::String => any::<String>()
                .prop_map(|value| (Wave::make_string(value.as_str().into()), json!(value)))
                .boxed(),
            Kind::List(of) => prop::collection::vec(of.value(), 0..4)
                .prop_map(move |items| {
                    let (wave, json): (Vec<_>, Vec<_>) = items.into_iter().unzip();
                    (Wave::make_list(&ty, wave).expect("fits"), json!(json))
                })
                .boxed(),
            Kind::Tuple(of) => of
                .iter()
                .map(Kind::value)
                .collect::<Vec<_>>()
                .prop_map(move |items| {
                    let (wave, json): (Vec<_>, Vec<_>) = items.into_iter().unzip();
                    (Wave::make_tuple(&ty, wave).expect("fits"), json!(json))
                })
                .boxed(),
            Kind::Option(of) => {
                let is_marked = matches!(**of, Kind::Option(_));
                prop::option::of(of.value()).prop_map(move |of| option(&ty, is_marked, of)).boxed()
            }
            Kind::Map(key, of) => {
                let is_object = matches!(**key, Kind::String);
                let entries = prop::collection::vec((key.value(), of.value()), 0..4);
                entries.prop_map(move |entries| map(&ty, is_object, entries)).boxed()
            }
            _ => self.named_value(ty),
        }
    }

    fn named_value(&self, ty: Type) -> BoxedStrategy<(Wave, Json)> {
        match self.clone() {
            Kind::Record(case, of) => of
                .iter()
                .map(Kind::value)
                .collect::<Vec<_>>()
                .prop_map(move |items| {
                    let (wave, json): (Vec<_>, Vec<_>) = items.into_iter().unzip();
                    let json: serde_json::Map<_, _> = json
                        .into_iter()
                        .enumerate()
                        .map(|(index, value)| (case.name(index), value))
                        .collect();
                    (Wave::make_record(&ty, NAMES.into_iter().zip(wave)).expect("fits"), json.into())
                })
                .boxed(),
            Kind::Flags(case, count) => prop::collection::vec(any::<bool>(), count)
                .prop_map(move |are_set| {
                    let set = NAMES.into_iter().zip(&are_set).filter(|(_, is_set)| **is_set);
                    let wave = Wave::make_flags(&ty, set.map(|(name, _)| name)).expect("fits");
                    let json: serde_json::Map<_, _> =
                        are_set.iter().enumerate().map(|(index, is)| (case.name(index), json!(is))).collect();
                    (wave, json.into())
                })
                .boxed(),
            Kind::Variant(case, of) => (0..of.len())
                .prop_flat_map(move |index| {
                    let ty = ty.clone();
                    content(of[index].as_ref()).prop_map(move |content| {
                        let (wave, json) = content.unzip();
                        let wave = Wave::make_variant(&ty, NAMES[index], wave).expect("fits");
                        (wave, json.map_or(json!(case.name(index)), |json| json!({ case.name(index): json })))
                    })
                })
                .boxed(),
            Kind::Result(sides) => (0..2_usize)
                .prop_flat_map(move |side| {
                    let ty = ty.clone();
                    content(sides[side].as_deref()).prop_map(move |content| {
                        let (wave, json) = content.unzip();
                        let wave = if side == 0 { Ok(wave) } else { Err(wave) };
                        let wave = Wave::make_result(&ty, wave).expect("fits");
                        (wave, json!({ ["Ok", "Err"][side]: json }))
                    })
                })
                .boxed(),
            other => unreachable!("{other:?} has no names"),
        }
    }
}

fn content(of: Option<&Kind>) -> BoxedStrategy<Option<(Wave, Json)>> {
    match of {
        Some(of) => of.value().prop_map(Some).boxed(),
        None => Just(None).boxed(),
    }
}

/// The words that JSON lacks are strings.
fn float(value: f64, json: Json) -> Json {
    match value {
        _ if value.is_finite() => json,
        _ if value.is_nan() => json!("NaN"),
        _ if value > 0.0 => json!("inf"),
        _ => json!("-inf"),
    }
}

fn option(ty: &Type, is_marked: bool, of: Option<(Wave, Json)>) -> (Wave, Json) {
    let (wave, json) = of.unzip();
    let wave = Wave::make_option(ty, wave).expect("fits");
    (wave, json.map_or(Json::Null, |json| if is_marked { json!({ "Some": json }) } else { json }))
}

fn map(ty: &Type, is_object: bool, entries: Vec<((Wave, Json), (Wave, Json))>) -> (Wave, Json) {
    let mut distinct: Vec<((Wave, Json), (Wave, Json))> = Vec::new();
    for (key, of) in entries {
        if distinct.iter().all(|((_, known), _)| *known != key.1) {
            distinct.push((key, of));
        }
    }
    let json = match is_object {
        true => {
            let entry = |((_, key), (_, of)): &((_, Json), (_, Json))| {
                (key.as_str().unwrap_or_default().to_string(), of.clone())
            };
            Json::Object(distinct.iter().map(entry).collect())
        }
        false => distinct.iter().map(|((_, key), (_, of))| json!([key, of])).collect(),
    };
    let entries = distinct.into_iter().map(|((key, _), (of, _))| (key, of));
    (Wave::make_map(ty, entries).expect("fits"), json)
}

/// Returns a task with one to three parameters, and arguments for it.
pub(super) fn arguments() -> impl Strategy<Value = Sample> {
    prop::collection::vec(kind(), 1..4).prop_flat_map(|kinds| {
        let mut builder = SchemaBuilder::default();
        let ids: Vec<_> = kinds.iter().map(|kind| kind.push(&mut builder)).collect();
        if ids.len() > 1 {
            builder.push(Node::Tuple(ids)).expect("is small");
        }
        let input = builder.finish().expect("is fine");
        let task = samples::task("t", &["a", "b", "c"][..kinds.len()], input, TypeSchema::of::<()>());
        let values = kinds.iter().map(Kind::value).collect::<Vec<_>>();
        values.prop_map(move |values| {
            let (wave, json): (Vec<_>, Vec<_>) = values.into_iter().unzip();
            let texts: Vec<_> =
                wave.iter().map(|value| wasm_wave::to_string(value).expect("is written")).collect();
            let json = match &json[..] {
                [only] => only.clone(),
                several => json!(several),
            };
            Sample { task: task.clone(), wave: texts.join(", "), json }
        })
    })
}
