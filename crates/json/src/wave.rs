//! Turns WAVE into postcard: the text that the component model has for values, and for calls such as
//! `add(3, 4)`. The format: <https://github.com/bytecodealliance/wasm-tools/tree/main/crates/wasm-wave>.
//!
//! | type | WAVE |
//! |---|---|
//! | integers, `f32`, `f64` | a number; of the floats also `nan`, `inf`, `-inf` |
//! | `char`, `String` | `'x'`, `"text"` |
//! | `Vec<u8>`, bytes | a list of numbers, or a string |
//! | `Option` | `none`, `some(value)`, or the value, unless that is an option or a result itself |
//! | `()` | `{}`; as the content of a case, as a field or as the last argument it may be left out |
//! | `Vec`; tuple, array | `[…]`; `(…)` or `[…]` |
//! | struct | `{name: value, …}`; an `Option` may be left out |
//! | struct of nothing but `bool` | the same, or flags: `{name, …}` names those that are true |
//! | enum | `case`, `case(value)`; several values are a tuple or a record: `case((1, 2))`, `case({x: 1})` |
//! | enum of `Ok(…)` and `Err(…)` | `ok(value)`, `err(value)`, or the value, as with an option |
//! | map | `{key: value, …}`; the last value of a key counts |
//!
//! WAVE's names are in kebab case. A field or variant may also be named as the schema has it, in snake case or
//! camel case, and a case that is a word of WAVE itself (`none`) needs no `%` before it.
//!
//! The text becomes a tree before it is encoded, since that is what wasm-wave's parser makes. It is therefore
//! bounded more tightly than JSON, which is encoded as it is read.

mod forms;
mod names;
mod words;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use wasm_wave::ast::{Node as AstNode, NodeType};
use wasm_wave::untyped::UntypedValue;

use self::forms::{are_flags, may_stand_alone, sides};
use self::names::{in_kebab_case, is_function_name, position};
use self::words::{cause, expected, found};
use crate::encode::{EncodeError, Mismatch, Step, push_bytes, push_integer, push_varint, quoted, shown};
use proto::description::TaskDescription;
use proto::limits::INPUT_BYTES_MAX;
use proto::schema::{Node, TypeSchema, Variant};

/// A longer text is refused: each value in it takes about fifty bytes in the parser's tree, and may have two in the
/// text. What a person types is far below.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A call as it was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// The function's name, with that of its interface if there is one: `demo:text/words#count`.
    pub name: &'a str,
    /// The text between the parentheses. It is not parsed yet.
    pub arguments: &'a str,
}

/// Returns the parts of a text that has the form of a call; `None` for any other text, such as a name alone.
pub fn call(text: &str) -> Option<Call<'_>> {
    let (name, rest) = text.trim_ascii().split_once('(')?;
    let arguments = rest.strip_suffix(')')?;
    is_function_name(name).then_some(Call { name, arguments })
}

/// Encodes the input of a task from its arguments in WAVE: values with commas between them, as they stand between
/// the parentheses of a call. There are as many as the task has parameters; those at the end that are options may
/// be left out.
///
/// # Errors
/// [`EncodeError::Mismatch`], also for a text that is no WAVE. Bytes of the text are counted from 0.
pub fn encode_wave(task: &TaskDescription, arguments: &str) -> Result<Vec<u8>, EncodeError> {
    if arguments.len() > TEXT_BYTES_MAX {
        let message = format!(
            "the arguments are longer than {TEXT_BYTES_MAX} bytes, the most that is read as WAVE: give them as JSON"
        );
        return Err(EncodeError::Mismatch(Mismatch {
            path: "$".into(),
            argument: None,
            message,
            is_too_long: false,
        }));
    }
    // The line feed ends a comment at the end of the arguments. A text that ends inside of a comment's `//` would
    // have the lexer panic.
    let source = format!("({arguments}\n)");
    let mut encoder =
        Encoder { schema: &task.input, source: &source, out: Vec::new(), path: Vec::new(), argument: None };
    encoder.arguments(task).map_err(EncodeError::Mismatch)?;
    Ok(encoder.out)
}

/// A parameter of a task.
#[derive(Debug, Clone, Copy)]
struct Param<'a> {
    name: Option<&'a str>,
    node: &'a Node,
}

fn params(task: &TaskDescription) -> Vec<Param<'_>> {
    match (&task.params[..], task.input.root()) {
        ([], Node::Unit) => Vec::new(),
        (names, Node::Tuple(types)) if names.len() > 1 && names.len() == types.len() => {
            let nodes = types.iter().map(|id| task.input.node(*id));
            names.iter().zip(nodes).map(|(name, node)| Param { name: Some(name), node }).collect()
        }
        (names, node) => vec![Param { name: names.first().map(String::as_str), node }],
    }
}

struct Encoder<'a> {
    schema: &'a TypeSchema,
    /// The arguments as they were typed, in parentheses. Each place of the tree is one in this text.
    source: &'a str,
    out: Vec<u8>,
    path: Vec<Step<'a>>,
    argument: Option<&'a str>,
}

impl<'a> Encoder<'a> {
    fn arguments(&mut self, task: &'a TaskDescription) -> Result<(), Mismatch> {
        let kebab = in_kebab_case(self.source);
        let tree = UntypedValue::parse(&kebab);
        let given: Vec<&AstNode> = match &tree {
            Ok(tree) => tree.node().as_tuple().map(Iterator::collect).unwrap_or_default(),
            Err(error) if words::is_without_values(error, self.source) => Vec::new(),
            Err(error) => return Err(self.wrong(error.span().start, cause(error, self.source))),
        };
        let params = params(task);
        for (index, param) in params.iter().enumerate() {
            self.argument = param.name;
            if params.len() > 1 {
                self.path.push(Step::Index(index));
            }
            match given.get(index) {
                Some(value) => self.value(param.node, value)?,
                None if self.absent(param.node) => {}
                None => {
                    self.argument = None;
                    self.path.pop();
                    let ty = self.schema.show_inside(param.node);
                    let missing = param.name.map_or(ty.clone(), |name| format!("{name}: {ty}"));
                    let count = words::count(params.len(), given.len());
                    return Err(self.mismatch(format!("{count}; `{missing}` is missing")));
                }
            }
            self.path.pop();
        }
        self.argument = None;
        let Some(extra) = given.get(params.len()) else { return Ok(()) };
        let count = words::count(params.len(), given.len());
        let message = format!("{count}; the first that is too many is {}", found(self.text(extra)));
        Err(self.wrong(extra.span().start, message))
    }

    fn node(&self, id: u32) -> &'a Node {
        self.schema.node(id)
    }

    fn text(&self, value: &AstNode) -> &'a str {
        self.source.get(value.span()).unwrap_or_default()
    }

    fn mismatch(&self, message: String) -> Mismatch {
        let path = shown(&self.path, &self.out);
        Mismatch { path, argument: self.argument.map(String::from), message, is_too_long: false }
    }

    /// Makes an error of something at a place of the source.
    fn wrong(&self, start: usize, message: String) -> Mismatch {
        // The arguments begin behind the first parenthesis, and end two bytes before the text does.
        let byte = start.saturating_sub(1).min(self.source.len().saturating_sub(3));
        self.mismatch(format!("{message} (byte {byte} of the arguments)"))
    }

    fn unfit(&self, node: &Node, value: &AstNode) -> Mismatch {
        let expected = expected(self.schema, node);
        self.wrong(value.span().start, format!("expected {expected}, found {}", found(self.text(value))))
    }

    fn value(&mut self, node: &'a Node, value: &AstNode) -> Result<(), Mismatch> {
        match node {
            Node::Bool => {
                let truth = value.as_bool().map_err(|_| self.unfit(node, value))?;
                self.out.push(u8::from(truth));
            }
            Node::F32 | Node::F64 => self.float(node, value)?,
            Node::U128 => {
                let number = value.as_number(self.source).map_err(|_| self.unfit(node, value))?;
                push_varint(&mut self.out, number);
            }
            Node::Char => {
                let c = value.as_char(self.source).map_err(|_| self.unfit(node, value))?;
                push_bytes(&mut self.out, c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Node::String | Node::Bytes => self.text_or_bytes(node, value)?,
            Node::Unit if is_empty_set(value) => {}
            Node::Unit => return Err(self.unfit(node, value)),
            Node::Option(of) => self.option(node, self.node(*of), value)?,
            Node::Seq(of) if matches!(self.node(*of), Node::U8) => self.text_or_bytes(node, value)?,
            Node::Seq(of) => self.list(node, self.node(*of), value)?,
            Node::Tuple(types) => self.tuple(types, value)?,
            Node::Map(key, of) => self.map(node, value, self.node(*key), self.node(*of))?,
            Node::Struct { fields, .. } => self.fields(node, fields, value)?,
            Node::Enum { variants, .. } => match sides(node) {
                Some(sides) => self.result(node, sides.map(|id| self.node(id)), value)?,
                None => self.variant(node, variants, value)?,
            },
            integer => match value.as_number(self.source) {
                Ok(number) if push_integer(&mut self.out, integer, number) => {}
                _ => return Err(self.unfit(integer, value)),
            },
        }
        match self.out.len() > INPUT_BYTES_MAX {
            true => Err(self.mismatch(format!("encoded, the input has more than {INPUT_BYTES_MAX} bytes"))),
            false => Ok(()),
        }
    }

    fn float(&mut self, node: &Node, value: &AstNode) -> Result<(), Mismatch> {
        let is_infinite = if matches!(node, Node::F32) {
            let number: f32 = value.as_number(self.source).map_err(|_| self.unfit(node, value))?;
            self.out.extend(number.to_le_bytes());
            number.is_infinite()
        } else {
            let number: f64 = value.as_number(self.source).map_err(|_| self.unfit(node, value))?;
            self.out.extend(number.to_le_bytes());
            number.is_infinite()
        };
        // A number that is too large is parsed as an infinity.
        match is_infinite && self.text(value).ends_with(|c: char| c.is_ascii_digit()) {
            true => Err(self.unfit(node, value)),
            false => Ok(()),
        }
    }

    /// Reads a string, or bytes as a list of numbers.
    fn text_or_bytes(&mut self, node: &Node, value: &AstNode) -> Result<(), Mismatch> {
        match value.ty() {
            NodeType::String | NodeType::MultilineString => match value.as_str(self.source) {
                Ok(text) => push_bytes(&mut self.out, text.as_bytes()),
                Err(error) => return Err(self.wrong(error.span().start, cause(&error, self.source))),
            },
            _ if matches!(node, Node::String) => return Err(self.unfit(node, value)),
            _ => self.list(node, &Node::U8, value)?,
        }
        Ok(())
    }

    /// Reads the next of several values.
    fn item(&mut self, index: usize, node: &'a Node, value: &AstNode) -> Result<(), Mismatch> {
        self.path.push(Step::Index(index));
        self.value(node, value)?;
        self.path.pop();
        Ok(())
    }

    fn list(&mut self, node: &Node, of: &'a Node, value: &AstNode) -> Result<(), Mismatch> {
        let items = value.as_list().map_err(|_| self.unfit(node, value))?;
        push_varint(&mut self.out, items.len() as u128);
        items.enumerate().try_for_each(|(index, item)| self.item(index, of, item))
    }

    fn tuple(&mut self, types: &'a [u32], value: &AstNode) -> Result<(), Mismatch> {
        let items: Vec<_> = match value.ty() {
            // Arrays of Rust are tuples in a schema, and lists of fixed length are lists in WAVE.
            NodeType::List => value.as_list().map(Iterator::collect).unwrap_or_default(),
            NodeType::Tuple => value.as_tuple().map(Iterator::collect).unwrap_or_default(),
            _ => {
                let expected = words::tuple(types.len());
                let found = found(self.text(value));
                return Err(self.wrong(value.span().start, format!("expected {expected}, found {found}")));
            }
        };
        if items.len() != types.len() {
            let message = format!("expected {} values, found {}", types.len(), items.len());
            return Err(self.wrong(value.span().start, message));
        }
        let mut both = types.iter().zip(items).enumerate();
        both.try_for_each(|(index, (id, item))| self.item(index, self.node(*id), item))
    }

    fn option(&mut self, node: &Node, of: &'a Node, value: &AstNode) -> Result<(), Mismatch> {
        let content = match value.as_option() {
            Ok(None) => {
                self.out.push(0);
                return Ok(());
            }
            Ok(Some(content)) => content,
            Err(_) if may_stand_alone(of) => value,
            Err(_) => return Err(self.unfit(node, value)),
        };
        self.out.push(1);
        self.value(of, content)
    }

    fn result(&mut self, node: &Node, [ok, err]: [&'a Node; 2], value: &AstNode) -> Result<(), Mismatch> {
        let (case, name, of, content) = match value.as_result() {
            Ok(Ok(content)) => (0, "Ok", ok, content),
            Ok(Err(content)) => (1, "Err", err, content),
            Err(_) if may_stand_alone(ok) => (0, "Ok", ok, Some(value)),
            Err(_) => return Err(self.unfit(node, value)),
        };
        self.out.push(case);
        self.content(name, of, content, value)
    }

    /// Reads the content of a case. A `()` is left out, or written as any other value.
    fn content(
        &mut self,
        name: &'a str,
        of: &'a Node,
        content: Option<&AstNode>,
        value: &AstNode,
    ) -> Result<(), Mismatch> {
        self.path.push(Step::Name(name));
        match content {
            Some(content) => self.value(of, content)?,
            None if matches!(of, Node::Unit) => {}
            None => {
                let ty = self.schema.show_inside(of);
                return Err(
                    self.wrong(value.span().start, format!("expected a value of {ty} in parentheses"))
                );
            }
        }
        self.path.pop();
        Ok(())
    }

    fn variant(
        &mut self,
        node: &Node,
        variants: &'a [(String, Variant)],
        value: &AstNode,
    ) -> Result<(), Mismatch> {
        let Some((label, content)) = self.case(value) else {
            return Err(self.unfit(node, value));
        };
        let Some(index) = position(variants, label) else {
            return Err(self.unfit(node, value));
        };
        let (name, kind) = &variants[index];
        push_varint(&mut self.out, index as u128);
        if let Some(id) = forms::content(kind) {
            return self.content(name, self.node(id), content, value);
        }
        let Some(content) = content else {
            return match kind {
                Variant::Unit => Ok(()),
                _ => Err(self.wrong(value.span().start, words::several(name, kind))),
            };
        };
        self.path.push(Step::Name(name));
        match kind {
            Variant::Tuple(types) => self.tuple(types, content)?,
            Variant::Struct(fields) => self.fields(node, fields, content)?,
            _ => {
                let message = format!("the variant has no content, found {}", found(self.text(content)));
                return Err(self.wrong(content.span().start, message));
            }
        }
        self.path.pop();
        Ok(())
    }

    /// Returns a case's name and its content. The parser takes some names for words of WAVE itself.
    fn case<'v>(&self, value: &'v AstNode) -> Option<(&'a str, Option<&'v AstNode>)> {
        let content = match value.ty() {
            NodeType::Label | NodeType::VariantWithPayload => return value.as_variant(self.source).ok(),
            NodeType::OptionSome => value.as_option().ok()?,
            NodeType::ResultOk | NodeType::ResultErr => match value.as_result().ok()? {
                Ok(content) | Err(content) => content,
            },
            NodeType::OptionNone | NodeType::BoolTrue | NodeType::BoolFalse | NodeType::Number => None,
            _ => return None,
        };
        let word = self.text(value).split(|c: char| !c.is_ascii_alphabetic()).next()?;
        (!word.is_empty()).then_some((word, content))
    }

    /// Reads a record, or flags.
    fn fields(&mut self, node: &Node, fields: &'a [(String, u32)], value: &AstNode) -> Result<(), Mismatch> {
        let are_flags = are_flags(self.schema, fields);
        match value.ty() {
            NodeType::Flags | NodeType::EmptySet if are_flags => self.flags(fields, value),
            NodeType::TupleSet | NodeType::EmptySet => self.record(fields, value),
            _ => {
                let expected = words::record(self.schema, node, fields);
                let found = found(self.text(value));
                Err(self.wrong(value.span().start, format!("expected {expected}, found {found}")))
            }
        }
    }

    fn flags(&mut self, fields: &'a [(String, u32)], value: &AstNode) -> Result<(), Mismatch> {
        let mut are_set = vec![0; fields.len()];
        for label in value.as_flags(self.source).into_iter().flatten() {
            match position(fields, label) {
                Some(index) => are_set[index] = 1,
                None => return Err(self.unknown("flag", label, fields, value)),
            }
        }
        self.out.extend(are_set);
        Ok(())
    }

    fn record(&mut self, fields: &'a [(String, u32)], value: &AstNode) -> Result<(), Mismatch> {
        let mut values: Vec<Option<&AstNode>> = vec![None; fields.len()];
        for (key, of) in value.as_map().into_iter().flatten() {
            let label = match key.ty() {
                NodeType::Label => self.text(key).trim_start_matches('%'),
                _ => {
                    let message = format!("expected the name of a field, found {}", found(self.text(key)));
                    return Err(self.wrong(key.span().start, message));
                }
            };
            match position(fields, label) {
                None => return Err(self.unknown("field", label, fields, key)),
                Some(index) if values[index].replace(of).is_some() => {
                    let message = format!("the field `{}` is there twice", fields[index].0);
                    return Err(self.wrong(key.span().start, message));
                }
                Some(_) => {}
            }
        }
        for ((name, id), of) in fields.iter().zip(values) {
            let node = self.node(*id);
            match of {
                Some(of) => {
                    self.path.push(Step::Name(name));
                    self.value(node, of)?;
                    self.path.pop();
                }
                None if self.absent(node) => {}
                None => {
                    let message = format!("missing field `{name}: {}`", self.schema.show_inside(node));
                    return Err(self.wrong(value.span().start, message));
                }
            }
        }
        Ok(())
    }

    fn unknown(&self, what: &str, label: &str, fields: &[(String, u32)], at: &AstNode) -> Mismatch {
        let known = quoted(fields.iter().map(|(name, _)| name.as_str()));
        self.wrong(at.span().start, format!("unknown {what} {}; there is {known}", found(label)))
    }

    /// Encodes a value that was left out; returns `false` if it may not be.
    fn absent(&mut self, node: &Node) -> bool {
        match node {
            Node::Option(_) => self.out.push(0),
            Node::Unit => {}
            _ => return false,
        }
        true
    }

    fn map(&mut self, node: &Node, value: &AstNode, key: &'a Node, of: &'a Node) -> Result<(), Mismatch> {
        let given = value.as_map().map_err(|_| self.unfit(node, value))?;
        if !forms::is_key(key) {
            let ty = self.schema.show_inside(key);
            let message =
                format!("WAVE has no form for a map whose keys are {ty}: give the arguments as JSON");
            return Err(self.wrong(value.span().start, message));
        }
        // The last value of a key takes the place of the first one, as with JSON.
        let mut places = HashMap::new();
        let mut entries = Vec::with_capacity(given.len());
        let start = self.out.len();
        for (written, of) in given {
            self.key(key, written)?;
            let encoded = self.out.split_off(start);
            let count = entries.len();
            match *places.entry(encoded.clone()).or_insert(count) {
                first if first < count => entries[first] = (encoded, of),
                _ => entries.push((encoded, of)),
            }
        }
        push_varint(&mut self.out, entries.len() as u128);
        for (index, (encoded, value)) in entries.iter().enumerate() {
            let at = self.out.len();
            self.out.extend_from_slice(encoded);
            self.path.push(if matches!(key, Node::String) { Step::Key(at) } else { Step::Index(index) });
            self.value(of, value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn key(&mut self, node: &'a Node, key: &AstNode) -> Result<(), Mismatch> {
        // The parser takes each word before a colon for the name of a field.
        match (node, self.text(key)) {
            (Node::Bool, "false") => self.out.push(0),
            (Node::Bool, "true") => self.out.push(1),
            _ => return self.value(node, key),
        }
        Ok(())
    }
}

/// Returns whether it is `{}` or `{:}`.
fn is_empty_set(value: &AstNode) -> bool {
    value.as_map().is_ok_and(|entries| entries.len() == 0)
}
