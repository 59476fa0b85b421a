//! The schemas of a function, made from the types of its parameters and its result.

use wit_parser::{Handle, Resolve, Type, TypeDefKind};

use proto::limits::SCHEMA_DEPTH_MAX;
use proto::schema::{Node, NodeId, SchemaBuilder, SchemaError, TypeSchema, Unfit, Variant};

/// Returns the schema of so many values: none, one, or a tuple of several.
pub(super) fn of_values(resolve: &Resolve, values: &[Type]) -> Result<TypeSchema, Unfit> {
    let mut maker = Maker { resolve, builder: SchemaBuilder::default() };
    match values {
        [] => maker.push(Node::Unit)?,
        [one] => maker.value(*one, 0)?,
        several => {
            let parts = several.iter().map(|ty| maker.value(*ty, 1)).collect::<Result<_, _>>()?;
            maker.push(Node::Tuple(parts))?
        }
    };
    Ok(maker.builder.finish()?)
}

/// Returns the schema of a task's output, and that of its own errors: a `result` is one or the other.
pub(super) fn of_result(
    resolve: &Resolve,
    result: Option<Type>,
) -> Result<(TypeSchema, Option<TypeSchema>), Unfit> {
    let of = |ty: Option<Type>| of_values(resolve, ty.as_slice());
    match result.map(|ty| resolved(resolve, ty)) {
        Some(Resolved::Defined(_, TypeDefKind::Result(parts))) => {
            // Without a type of its own an error is text.
            Ok((of(parts.ok)?, parts.err.map(|err| of(Some(err))).transpose()?))
        }
        _ => Ok((of(result)?, None)),
    }
}

/// A type behind all its aliases.
enum Resolved<'a> {
    Primitive(Type),
    /// A type that is defined, with its name, if it has one.
    Defined(Option<&'a str>, &'a TypeDefKind),
}

fn resolved(resolve: &Resolve, mut ty: Type) -> Resolved<'_> {
    loop {
        let Type::Id(id) = ty else { return Resolved::Primitive(ty) };
        let definition = &resolve.types[id];
        match definition.kind {
            TypeDefKind::Type(of) => ty = of,
            _ => return Resolved::Defined(definition.name.as_deref(), &definition.kind),
        }
    }
}

struct Maker<'a> {
    resolve: &'a Resolve,
    builder: SchemaBuilder,
}

impl Maker<'_> {
    fn push(&mut self, node: Node) -> Result<NodeId, SchemaError> {
        self.builder.push(node)
    }

    fn value(&mut self, ty: Type, depth: usize) -> Result<NodeId, Unfit> {
        if depth > SCHEMA_DEPTH_MAX {
            return Err(SchemaError::TooLarge.into());
        }
        let (name, kind) = match resolved(self.resolve, ty) {
            Resolved::Primitive(primitive) => return self.primitive(primitive),
            Resolved::Defined(name, kind) => (name.unwrap_or_default().to_string(), kind),
        };
        let depth = depth + 1;
        let node = match kind {
            TypeDefKind::Record(record) => {
                let fields = record.fields.iter();
                let fields =
                    fields.map(|field| Ok::<_, Unfit>((field.name.clone(), self.value(field.ty, depth)?)));
                Node::Struct { name, fields: fields.collect::<Result<_, _>>()? }
            }
            // A set of flags is a struct that says of each whether it is set.
            TypeDefKind::Flags(flags) => {
                let flags = flags.flags.iter();
                let fields = flags.map(|flag| Ok::<_, Unfit>((flag.name.clone(), self.push(Node::Bool)?)));
                Node::Struct { name, fields: fields.collect::<Result<_, _>>()? }
            }
            TypeDefKind::Variant(variant) => {
                let cases = variant.cases.iter().map(|case| {
                    let kind = match case.ty {
                        None => Variant::Unit,
                        Some(ty) => Variant::Newtype(self.value(ty, depth)?),
                    };
                    Ok::<_, Unfit>((case.name.clone(), kind))
                });
                Node::Enum { name, variants: cases.collect::<Result<_, _>>()? }
            }
            TypeDefKind::Enum(cases) => {
                let cases = cases.cases.iter().map(|case| (case.name.clone(), Variant::Unit));
                Node::Enum { name, variants: cases.collect() }
            }
            TypeDefKind::Tuple(tuple) => {
                let parts = tuple.types.iter().map(|ty| self.value(*ty, depth)).collect::<Result<_, _>>()?;
                Node::Tuple(parts)
            }
            TypeDefKind::List(item) => Node::Seq(self.value(*item, depth)?),
            TypeDefKind::Option(of) => Node::Option(self.value(*of, depth)?),
            TypeDefKind::Result(result) => {
                let mut side = |name: &str, ty: Option<Type>| {
                    let id = match ty {
                        Some(ty) => self.value(ty, depth)?,
                        None => self.push(Node::Unit)?,
                    };
                    Ok::<_, Unfit>((name.to_string(), Variant::Newtype(id)))
                };
                // Rust's `Result` has this form on the wire, so that a Rust handle fits.
                let variants = vec![side("Ok", result.ok)?, side("Err", result.err)?];
                Node::Enum { name: "Result".into(), variants }
            }
            TypeDefKind::Map(key, value) => {
                let key = self.value(*key, depth)?;
                Node::Map(key, self.value(*value, depth)?)
            }
            TypeDefKind::Resource | TypeDefKind::Handle(Handle::Own(_)) => {
                return Err(Unfit::Handle("a resource"));
            }
            TypeDefKind::Handle(Handle::Borrow(_)) => return Err(Unfit::Handle("a borrowed resource")),
            TypeDefKind::Future(_) => return Err(Unfit::Handle("a future")),
            TypeDefKind::Stream(_) => return Err(Unfit::Handle("a stream")),
            TypeDefKind::FixedLengthList(..) => return Err(Unfit::Unknown("a list of fixed length")),
            // `resolved` has gone behind aliases, and nothing is imported.
            TypeDefKind::Type(_) | TypeDefKind::Unknown => return Err(Unfit::Unknown("an unknown type")),
        };
        Ok(self.push(node)?)
    }

    fn primitive(&mut self, ty: Type) -> Result<NodeId, Unfit> {
        Ok(self.push(match ty {
            Type::Bool => Node::Bool,
            Type::S8 => Node::I8,
            Type::U8 => Node::U8,
            Type::S16 => Node::I16,
            Type::U16 => Node::U16,
            Type::S32 => Node::I32,
            Type::U32 => Node::U32,
            Type::S64 => Node::I64,
            Type::U64 => Node::U64,
            Type::F32 => Node::F32,
            Type::F64 => Node::F64,
            Type::Char => Node::Char,
            Type::String => Node::String,
            Type::ErrorContext => return Err(Unfit::Handle("an error context")),
            // `resolved` has gone behind each name.
            Type::Id(_) => return Err(Unfit::Unknown("an unknown type")),
        })?)
    }
}
