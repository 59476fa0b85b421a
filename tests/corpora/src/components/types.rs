//! Types of the component model, made at random.

use std::fmt;

use crate::random::Random;

/// Types are nested so deep, but for those that are used once more.
const DEPTH_MAX: u32 = 5;

/// Nodes that the schema of a type may have. A worker takes 2048.
const NODES_MAX: usize = 900;

/// The words that names begin with. Some of them mean something in JSON, in WIT or to us.
const WORDS: [&str; 16] = [
    "a",
    "null",
    "true",
    "some",
    "none",
    "ok",
    "err",
    "base64",
    "nan",
    "inf",
    "type",
    "X",
    "HTTP-url",
    "a1-B2-c3",
    "long-name-of-several-words",
    "x9",
];

/// A type of the component model. Those with a name are declared and exported before a function uses them.
#[derive(Debug, Clone)]
pub(super) enum Type {
    Bool,
    /// An integer of so many bits.
    Signed(u32),
    Unsigned(u32),
    F32,
    F64,
    Char,
    String,
    List(Box<Type>),
    Record {
        name: String,
        fields: Vec<(String, Type)>,
    },
    Tuple(Vec<Type>),
    Variant {
        name: String,
        cases: Vec<(String, Option<Type>)>,
    },
    Enum {
        name: String,
        cases: Vec<String>,
    },
    Option(Box<Type>),
    Result(Option<Box<Type>>, Option<Box<Type>>),
    /// There are at most 32 of them.
    Flags {
        name: String,
        flags: Vec<String>,
    },
}

/// A type of core WebAssembly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Core {
    I32,
    I64,
    F32,
    F64,
}

impl Core {
    pub(super) fn name(self) -> &'static str {
        match self {
            Core::I32 => "i32",
            Core::I64 => "i64",
            Core::F32 => "f32",
            Core::F64 => "f64",
        }
    }

    /// The type that has room for either.
    fn join(self, other: Core) -> Core {
        match (self, other) {
            (one, other) if one == other => one,
            (Core::I32 | Core::F32, Core::I32 | Core::F32) => Core::I32,
            _ => Core::I64,
        }
    }
}

impl Type {
    /// The types of a record or a tuple; none of any other type.
    pub(super) fn parts(&self) -> Vec<&Type> {
        match self {
            Type::Record { fields, .. } => fields.iter().map(|(_, ty)| ty).collect(),
            Type::Tuple(types) => types.iter().collect(),
            _ => Vec::new(),
        }
    }

    /// The number of cases of a variant, enum, option or result.
    pub(super) fn case_count(&self) -> usize {
        match self {
            Type::Variant { cases, .. } => cases.len(),
            Type::Enum { cases, .. } => cases.len(),
            Type::Option(_) | Type::Result(..) => 2,
            _ => 0,
        }
    }

    /// The type of what this case has with it.
    pub(super) fn payload(&self, case: usize) -> Option<&Type> {
        match self {
            Type::Variant { cases, .. } => cases[case].1.as_ref(),
            Type::Option(of) => (case == 1).then_some(of),
            Type::Result(ok, err) => [ok, err][case].as_deref(),
            _ => None,
        }
    }

    fn payloads(&self) -> impl Iterator<Item = &Type> {
        (0..self.case_count()).filter_map(|case| self.payload(case))
    }

    /// The name under which it is declared.
    fn name(&self) -> Option<&str> {
        match self {
            Type::Record { name, .. }
            | Type::Variant { name, .. }
            | Type::Enum { name, .. }
            | Type::Flags { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The nodes of its schema.
    fn nodes(&self) -> usize {
        1 + match self {
            Type::List(of) => of.nodes(),
            Type::Flags { flags, .. } => flags.len(),
            // A side that has nothing with it is a node as well.
            Type::Result(..) => (0..2).map(|side| self.payload(side).map_or(1, Type::nodes)).sum(),
            _ => self.parts().into_iter().chain(self.payloads()).map(Type::nodes).sum(),
        }
    }

    /// The values of core WebAssembly that a value becomes when it is flat.
    pub(super) fn flat(&self) -> Vec<Core> {
        match self {
            Type::Bool | Type::Char | Type::Flags { .. } => vec![Core::I32],
            Type::Signed(64) | Type::Unsigned(64) => vec![Core::I64],
            Type::Signed(_) | Type::Unsigned(_) => vec![Core::I32],
            Type::F32 => vec![Core::F32],
            Type::F64 => vec![Core::F64],
            Type::String | Type::List(_) => vec![Core::I32; 2],
            Type::Record { .. } | Type::Tuple(_) => self.parts().into_iter().flat_map(Type::flat).collect(),
            Type::Variant { .. } | Type::Enum { .. } | Type::Option(_) | Type::Result(..) => {
                let mut joined: Vec<Core> = Vec::new();
                for payload in self.payloads() {
                    for (index, core) in payload.flat().into_iter().enumerate() {
                        match joined.get_mut(index) {
                            Some(slot) => *slot = slot.join(core),
                            None => joined.push(core),
                        }
                    }
                }
                joined.insert(0, Core::I32);
                joined
            }
        }
    }

    /// Calls `each` with this type and all that it is made of, as often as they stand there.
    pub(super) fn visit(&self, each: &mut impl FnMut(&Type)) {
        each(self);
        if let Type::List(of) = self {
            of.visit(each);
        }
        for ty in self.parts().into_iter().chain(self.payloads()) {
            ty.visit(each);
        }
    }
}

/// The type as it stands where it is used, in the text format: those with a name are referred to.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            return write!(f, "${name}");
        }
        match self {
            Type::Bool => f.write_str("bool"),
            Type::Signed(bits) => write!(f, "s{bits}"),
            Type::Unsigned(bits) => write!(f, "u{bits}"),
            Type::F32 => f.write_str("f32"),
            Type::F64 => f.write_str("f64"),
            Type::Char => f.write_str("char"),
            Type::String => f.write_str("string"),
            Type::List(of) => write!(f, "(list {of})"),
            Type::Option(of) => write!(f, "(option {of})"),
            Type::Tuple(types) => {
                f.write_str("(tuple")?;
                types.iter().try_for_each(|ty| write!(f, " {ty}"))?;
                f.write_str(")")
            }
            Type::Result(ok, err) => {
                f.write_str("(result")?;
                ok.iter().try_for_each(|ty| write!(f, " {ty}"))?;
                err.iter().try_for_each(|ty| write!(f, " (error {ty})"))?;
                f.write_str(")")
            }
            Type::Record { .. } | Type::Variant { .. } | Type::Enum { .. } | Type::Flags { .. } => Ok(()),
        }
    }
}

/// The text that declares a type with a name, and exports it.
pub(super) fn declaration(ty: &Type) -> String {
    let quoted = |names: &[String]| names.iter().map(|name| format!(" \"{name}\"")).collect::<String>();
    let (name, definition) = match ty {
        Type::Record { name, fields } => {
            let fields = fields.iter().map(|(name, ty)| format!(" (field \"{name}\" {ty})"));
            (name, format!("(record{})", fields.collect::<String>()))
        }
        Type::Variant { name, cases } => {
            let cases = cases.iter().map(|(name, ty)| match ty {
                Some(ty) => format!(" (case \"{name}\" {ty})"),
                None => format!(" (case \"{name}\")"),
            });
            (name, format!("(variant{})", cases.collect::<String>()))
        }
        Type::Enum { name, cases } => (name, format!("(enum{})", quoted(cases))),
        Type::Flags { name, flags } => (name, format!("(flags{})", quoted(flags))),
        _ => return String::new(),
    };
    format!("(type ${name}' {definition})\n  (export ${name} \"{name}\" (type ${name}'))\n  ")
}

/// A type, and those with a name that it is made of, each after those that it uses.
#[derive(Debug)]
pub(super) struct TypeCase {
    pub(super) ty: Type,
    pub(super) named: Vec<Type>,
}

impl TypeCase {
    pub(super) fn random(random: &mut Random) -> TypeCase {
        let mut maker = Maker { random, named: Vec::new(), nodes_left: NODES_MAX };
        let ty = match maker.random.percent(90) {
            true => maker.composite(DEPTH_MAX),
            false => maker.scalar(),
        };
        TypeCase { ty, named: maker.named }
    }
}

struct Maker<'a> {
    random: &'a mut Random,
    named: Vec<Type>,
    nodes_left: usize,
}

impl Maker<'_> {
    fn any(&mut self, depth: u32) -> Type {
        if !self.named.is_empty() && self.random.percent(12) {
            let index = self.random.below(self.named.len() as u64) as usize;
            let nodes = self.named[index].nodes();
            if nodes <= self.nodes_left {
                self.nodes_left -= nodes;
                return self.named[index].clone();
            }
        }
        match depth == 0 || self.nodes_left < 50 || self.random.percent(30) {
            true => self.scalar(),
            false => self.composite(depth),
        }
    }

    fn scalar(&mut self) -> Type {
        self.nodes_left = self.nodes_left.saturating_sub(1);
        let bits = 8 << self.random.below(4);
        match self.random.below(16) {
            0 | 1 => Type::Bool,
            2..5 => Type::Signed(bits),
            5..9 => Type::Unsigned(bits),
            9 | 10 => Type::F32,
            11 | 12 => Type::F64,
            13 => Type::Char,
            _ => Type::String,
        }
    }

    fn composite(&mut self, depth: u32) -> Type {
        self.nodes_left = self.nodes_left.saturating_sub(1);
        let depth = depth - 1;
        match self.random.below(100) {
            0..18 => Type::List(Box::new(self.any(depth))),
            18..34 => {
                let names = self.part_names();
                let fields = names.into_iter().map(|name| (name, self.any(depth))).collect();
                let name = self.type_name();
                self.declared(Type::Record { name, fields })
            }
            34..46 => Type::Tuple((0..self.part_names().len()).map(|_| self.any(depth)).collect()),
            46..64 => self.variant(depth),
            64..70 => {
                let cases = self.case_names();
                let name = self.type_name();
                self.declared(Type::Enum { name, cases })
            }
            70..80 => Type::Option(Box::new(self.any(depth))),
            80..92 => {
                let [ok, err] = [(); 2].map(|()| match self.random.percent(60) {
                    true => Some(Box::new(self.any(depth))),
                    false => None,
                });
                Type::Result(ok, err)
            }
            _ => {
                let count = match self.random.percent(50) {
                    true => 1 + self.random.below(32),
                    false => [1, 7, 8, 9, 15, 16, 17, 31, 32][self.random.below(9) as usize],
                };
                self.nodes_left = self.nodes_left.saturating_sub(count as usize);
                let flags = self.names(count as usize);
                let name = self.type_name();
                self.declared(Type::Flags { name, flags })
            }
        }
    }

    /// A variant has payloads in some of its cases. Where it has hundreds, they are scalars.
    fn variant(&mut self, depth: u32) -> Type {
        let names = self.case_names();
        let is_wide = names.len() > 40;
        let with_payload = [30, 70, 100][self.random.below(3) as usize];
        let cases = names.into_iter().map(|name| {
            let has_payload = self.random.percent(with_payload) && (!is_wide || self.nodes_left > 50);
            let payload = match is_wide && !self.random.percent(2) {
                true => has_payload.then(|| self.scalar()),
                false => has_payload.then(|| self.any(depth)),
            };
            (name, payload)
        });
        let cases = cases.collect();
        let name = self.type_name();
        self.declared(Type::Variant { name, cases })
    }

    fn declared(&mut self, ty: Type) -> Type {
        self.named.push(ty.clone());
        ty
    }

    fn part_names(&mut self) -> Vec<String> {
        let count =
            if self.random.percent(5) { 10 + self.random.below(20) } else { 1 + self.random.below(6) };
        self.names(count as usize)
    }

    /// With more than 256 cases, two bytes say which one it is.
    fn case_names(&mut self) -> Vec<String> {
        let count = match self.random.percent(10) {
            true => [255, 256, 257, 258, 300, 400][self.random.below(6) as usize],
            false => 1 + self.random.below(7),
        };
        self.names(count as usize)
    }

    fn names(&mut self, count: usize) -> Vec<String> {
        let is_plain = self.random.percent(50);
        let names = (0..count).map(|index| match self.word() {
            word if index == 0 && is_plain => word.to_string(),
            word => format!("{word}-n{index}"),
        });
        names.collect()
    }

    fn type_name(&mut self) -> String {
        format!("{}-t{}", self.word(), self.named.len())
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.random.below(WORDS.len() as u64) as usize]
    }
}
