//! The schemas of a function of a component, made from the types of its parameters and its result.

use std::collections::HashMap;

use wasmparser::PrimitiveValType as Primitive;
use wasmparser::component_types::{
    ComponentDefinedType, ComponentDefinedTypeId, ComponentFuncTypeId, ComponentValType,
};
use wasmparser::types::TypesRef;

use proto::description::TaskDescription;
use proto::limits::{SCHEMA_DEPTH_MAX, SCHEMA_NODES_MAX};
use proto::schema::{Node, NodeId, SchemaBuilder, SchemaError, TypeSchema, Unfit, Variant};

type TypeNames = HashMap<ComponentDefinedTypeId, String>;

/// Bytes of a function's type, as it is shown, after which it is cut off.
const SHOWN_BYTES_MAX: usize = 2048;

/// Describes a function as a task, or says why it cannot be one.
pub(super) fn task(
    types: &TypesRef<'_>,
    names: &TypeNames,
    export: &str,
    id: ComponentFuncTypeId,
) -> Result<TaskDescription, String> {
    let function = &types[id];
    if function.async_ {
        return Err("it is asynchronous (WASI 0.3), which is not offered: build it for WASI 0.2".into());
    }
    let params: Vec<_> = function.params.iter().map(|(name, _)| name.to_string()).collect();
    let inputs: Vec<_> = function.params.iter().map(|(_, ty)| Some(*ty)).collect();
    let input = values(types, names, &inputs).map_err(|why| format!("of its parameters, {why}"))?;
    let of_result = |why: Unfit| format!("of its result, {why}");
    let (output, error) = match function.result.map(|result| resolved(types, result)) {
        Some(Resolved::Defined(_, ComponentDefinedType::Result { ok, err, .. })) => {
            let output = values(types, names, &[*ok][..ok.iter().len()]).map_err(of_result)?;
            let error = values(types, names, &[*err][..err.iter().len()]).map_err(of_result)?;
            (output, Some(error))
        }
        _ => (
            values(types, names, &[function.result][..function.result.iter().len()]).map_err(of_result)?,
            None,
        ),
    };
    let task = TaskDescription::canonical(export, params, input, output, error);
    task.check().map_err(|defect| defect.to_string())?;
    Ok(task)
}

/// Returns the schema of so many values: none, one, or a tuple of several.
fn values(
    types: &TypesRef<'_>,
    names: &TypeNames,
    values: &[Option<ComponentValType>],
) -> Result<TypeSchema, Unfit> {
    let mut maker = Maker { types, names, builder: SchemaBuilder::default() };
    let values: Vec<_> = values.iter().flatten().copied().collect();
    match &values[..] {
        [] => maker.push(Node::Unit)?,
        [one] => maker.value(*one, 0)?,
        several => {
            let parts = several.iter().map(|ty| maker.value(*ty, 1)).collect::<Result<_, _>>()?;
            maker.push(Node::Tuple(parts))?
        }
    };
    Ok(maker.builder.finish()?)
}

enum Resolved<'a> {
    Primitive(Primitive),
    Defined(ComponentDefinedTypeId, &'a ComponentDefinedType),
}

fn resolved<'a>(types: &'a TypesRef<'_>, ty: ComponentValType) -> Resolved<'a> {
    match ty {
        ComponentValType::Primitive(primitive) => Resolved::Primitive(primitive),
        ComponentValType::Type(id) => match &types[id] {
            ComponentDefinedType::Primitive(primitive) => Resolved::Primitive(*primitive),
            defined => Resolved::Defined(id, defined),
        },
    }
}

struct Maker<'a> {
    types: &'a TypesRef<'a>,
    names: &'a TypeNames,
    builder: SchemaBuilder,
}

impl Maker<'_> {
    fn push(&mut self, node: Node) -> Result<NodeId, SchemaError> {
        self.builder.push(node)
    }

    fn value(&mut self, ty: ComponentValType, depth: usize) -> Result<NodeId, Unfit> {
        if depth > SCHEMA_DEPTH_MAX {
            return Err(SchemaError::TooLarge.into());
        }
        let (id, defined) = match resolved(self.types, ty) {
            Resolved::Primitive(primitive) => return self.primitive(primitive),
            Resolved::Defined(id, defined) => (id, defined),
        };
        let name = self.names.get(&id).cloned().unwrap_or_default();
        let depth = depth + 1;
        let node = match defined {
            ComponentDefinedType::Primitive(primitive) => return self.primitive(*primitive),
            ComponentDefinedType::Record(record) => {
                let mut fields = Vec::with_capacity(record.fields.len().min(SCHEMA_NODES_MAX));
                for (name, ty) in &record.fields {
                    fields.push((name.to_string(), self.value(*ty, depth)?));
                }
                Node::Struct { name, fields }
            }
            ComponentDefinedType::Variant(variant) => {
                let mut variants = Vec::with_capacity(variant.cases.len().min(SCHEMA_NODES_MAX));
                for (name, case) in &variant.cases {
                    let kind = match case.ty {
                        None => Variant::Unit,
                        Some(ty) => Variant::Newtype(self.value(ty, depth)?),
                    };
                    variants.push((name.to_string(), kind));
                }
                Node::Enum { name, variants }
            }
            ComponentDefinedType::Enum(cases) => {
                let variants = cases.iter().map(|name| (name.to_string(), Variant::Unit)).collect();
                Node::Enum { name, variants }
            }
            // A set of flags is a struct that says of each whether it is set.
            ComponentDefinedType::Flags(flags) => {
                let mut fields = Vec::with_capacity(flags.len().min(SCHEMA_NODES_MAX));
                for flag in flags {
                    fields.push((flag.to_string(), self.push(Node::Bool)?));
                }
                Node::Struct { name, fields }
            }
            ComponentDefinedType::List { element, .. } => Node::Seq(self.value(*element, depth)?),
            ComponentDefinedType::Tuple(tuple) => {
                let parts = tuple.types.iter().map(|ty| self.value(*ty, depth)).collect::<Result<_, _>>()?;
                Node::Tuple(parts)
            }
            ComponentDefinedType::Option { ty, .. } => Node::Option(self.value(*ty, depth)?),
            ComponentDefinedType::Result { ok, err, .. } => {
                let mut side = |name: &str, ty: &Option<ComponentValType>| {
                    let id = match ty {
                        Some(ty) => self.value(*ty, depth)?,
                        None => self.push(Node::Unit)?,
                    };
                    Ok::<_, Unfit>((name.to_string(), Variant::Newtype(id)))
                };
                // Rust's `Result` has this form on the wire, so that a Rust handle fits.
                Node::Enum { name: "Result".into(), variants: vec![side("Ok", ok)?, side("Err", err)?] }
            }
            ComponentDefinedType::Own(_) => return Err(Unfit::Handle("a resource")),
            ComponentDefinedType::Borrow(_) => return Err(Unfit::Handle("a borrowed resource")),
            ComponentDefinedType::Future { .. } => return Err(Unfit::Handle("a future")),
            ComponentDefinedType::Stream { .. } => return Err(Unfit::Handle("a stream")),
            ComponentDefinedType::Map { .. } => return Err(Unfit::Unknown("a map")),
            ComponentDefinedType::FixedLengthList { .. } => {
                return Err(Unfit::Unknown("a list of fixed length"));
            }
        };
        Ok(self.push(node)?)
    }

    fn primitive(&mut self, primitive: Primitive) -> Result<NodeId, Unfit> {
        Ok(self.push(match primitive {
            Primitive::Bool => Node::Bool,
            Primitive::S8 => Node::I8,
            Primitive::U8 => Node::U8,
            Primitive::S16 => Node::I16,
            Primitive::U16 => Node::U16,
            Primitive::S32 => Node::I32,
            Primitive::U32 => Node::U32,
            Primitive::S64 => Node::I64,
            Primitive::U64 => Node::U64,
            Primitive::F32 => Node::F32,
            Primitive::F64 => Node::F64,
            Primitive::Char => Node::Char,
            Primitive::String => Node::String,
            Primitive::ErrorContext => return Err(Unfit::Handle("an error context")),
        })?)
    }
}

/// Shows a function's type in the syntax of WIT, or what fits of it.
pub(super) fn show(types: &TypesRef<'_>, names: &TypeNames, id: ComponentFuncTypeId) -> String {
    let function = &types[id];
    let mut shown = Shown { types, names, text: String::new() };
    if function.async_ {
        shown.text.push_str("async ");
    }
    shown.text.push_str("func(");
    for (index, (name, ty)) in function.params.iter().enumerate() {
        shown.text.push_str(if index > 0 { ", " } else { "" });
        shown.text.push_str(name);
        shown.text.push_str(": ");
        shown.value(*ty, 0);
    }
    shown.text.push(')');
    if let Some(result) = function.result {
        shown.text.push_str(" -> ");
        shown.value(result, 0);
    }
    proto::text::truncated(&shown.text, SHOWN_BYTES_MAX)
}

struct Shown<'a> {
    types: &'a TypesRef<'a>,
    names: &'a TypeNames,
    text: String,
}

impl Shown<'_> {
    fn value(&mut self, ty: ComponentValType, depth: usize) {
        // The text is cut off there, so there is no need to write more.
        if self.text.len() > SHOWN_BYTES_MAX || depth > SCHEMA_DEPTH_MAX {
            return;
        }
        let (id, defined) = match resolved(self.types, ty) {
            Resolved::Primitive(primitive) => return self.text.push_str(&primitive.to_string()),
            Resolved::Defined(id, defined) => (id, defined),
        };
        if let Some(name) = self.names.get(&id) {
            return self.text.push_str(name);
        }
        let depth = depth + 1;
        match defined {
            ComponentDefinedType::List { element, .. } => self.around("list", &[Some(*element)], depth),
            ComponentDefinedType::Option { ty, .. } => self.around("option", &[Some(*ty)], depth),
            ComponentDefinedType::Result { ok: None, err: None, .. } => self.text.push_str("result"),
            ComponentDefinedType::Result { ok, err: None, .. } => self.around("result", &[*ok], depth),
            ComponentDefinedType::Result { ok, err, .. } => self.around("result", &[*ok, *err], depth),
            ComponentDefinedType::Tuple(tuple) => {
                let parts: Vec<_> = tuple.types.iter().map(|ty| Some(*ty)).collect();
                self.around("tuple", &parts, depth);
            }
            ComponentDefinedType::Record(_) => self.text.push_str("record"),
            ComponentDefinedType::Variant(_) => self.text.push_str("variant"),
            ComponentDefinedType::Enum(_) => self.text.push_str("enum"),
            ComponentDefinedType::Flags(_) => self.text.push_str("flags"),
            ComponentDefinedType::Own(_) => self.text.push_str("own<resource>"),
            ComponentDefinedType::Borrow(_) => self.text.push_str("borrow<resource>"),
            ComponentDefinedType::Future { .. } => self.text.push_str("future"),
            ComponentDefinedType::Stream { .. } => self.text.push_str("stream"),
            ComponentDefinedType::Map { .. } => self.text.push_str("map"),
            ComponentDefinedType::FixedLengthList { .. } => self.text.push_str("list of fixed length"),
            ComponentDefinedType::Primitive(primitive) => self.text.push_str(&primitive.to_string()),
        }
    }

    fn around(&mut self, word: &str, parts: &[Option<ComponentValType>], depth: usize) {
        self.text.push_str(word);
        self.text.push('<');
        for (index, part) in parts.iter().enumerate() {
            self.text.push_str(if index > 0 { ", " } else { "" });
            match part {
                Some(ty) => self.value(*ty, depth),
                None => self.text.push('_'),
            }
        }
        self.text.push('>');
    }
}
