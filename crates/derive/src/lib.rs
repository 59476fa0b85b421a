//! `#[derive(wasmpool::Schema)]`: the schema of a type, with nothing to add that says where `wasmpool` is.
//!
//! It expands to an implementation of `postcard_schema::Schema` like that crate's own derive, which guests use; so
//! the two sides of a task may derive it by either. Unlike that one it refuses what serde is told to put on the wire
//! in another way than the schema says.

mod case;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Field, Fields, GenericParam, Ident, LitStr, Path, Token,
    WherePredicate, parse_quote,
};

use case::Case;

/// Derives the schema of a type that a task takes or returns.
///
/// ```no_run
/// #[derive(serde::Serialize, wasmpool::Schema)]
/// struct Tile {
///     left: f64,
///     top: f64,
/// }
/// ```
///
/// Names of fields and variants count where types are compared; `rename`, `rename_all` and
/// `rename_all_fields` of serde are heeded. Attributes of
/// serde by which a value's bytes are not those of its type (`skip`, `flatten`, `tag`, `untagged` and the like) are
/// refused.
///
/// `#[schema(crate = path)]` names the path of `wasmpool` where it is not `::wasmpool`, and
/// `#[schema(bound = "T: Trait")]` replaces the bound `Schema` of each type parameter.
#[proc_macro_derive(Schema, attributes(schema, serde))]
pub fn derive_schema(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: DeriveInput) -> syn::Result<TokenStream> {
    let Options { home, bound } = Options::of(&input.attrs)?;
    let home = quote!(#home::postcard_schema);
    let name = &input.ident;
    let names = Names::of(&input.attrs)?;
    let all = names.all;
    let all_fields = names.all_fields;
    // A type's own name is spelled in no other way.
    let shown = names.name(name, None, Case::of_variant);
    let ty = match &input.data {
        Data::Struct(data) => {
            let (kind, of) = fields(&data.fields, all, &home)?;
            match kind {
                Kind::Unit => quote!(DataModelType::UnitStruct),
                Kind::Newtype => quote!(DataModelType::NewtypeStruct(#of)),
                Kind::Tuple => quote!(DataModelType::TupleStruct(&[#of])),
                Kind::Named => quote!(DataModelType::Struct(&[#of])),
            }
        }
        Data::Enum(data) => {
            let variants = data.variants.iter().map(|variant| {
                let names = Names::of(&variant.attrs)?;
                let (kind, of) = fields(&variant.fields, names.all.or(all_fields), &home)?;
                let name = names.name(&variant.ident, all, Case::of_variant);
                let ty = match kind {
                    Kind::Unit => quote!(UnitVariant),
                    Kind::Newtype => quote!(NewtypeVariant(#of)),
                    Kind::Tuple => quote!(TupleVariant(&[#of])),
                    Kind::Named => quote!(StructVariant(&[#of])),
                };
                Ok(quote! {
                    &#home::schema::NamedVariant { name: #name, ty: &#home::schema::DataModelVariant::#ty }
                })
            });
            let variants = variants.collect::<syn::Result<Vec<_>>>()?;
            quote!(DataModelType::Enum(&[#(#variants),*]))
        }
        Data::Union(_) => return Err(Error::new(input.span(), "a union has no schema")),
    };
    let mut generics = input.generics.clone();
    match bound {
        Some(bound) => generics.make_where_clause().predicates.extend(bound),
        None => {
            for parameter in &mut generics.params {
                if let GenericParam::Type(parameter) = parameter {
                    parameter.bounds.push(parse_quote!(#home::Schema));
                }
            }
        }
    }
    let (parameters, arguments, conditions) = generics.split_for_impl();
    Ok(quote! {
        impl #parameters #home::Schema for #name #arguments #conditions {
            const SCHEMA: &'static #home::schema::NamedType =
                &#home::schema::NamedType { name: #shown, ty: &#home::schema::#ty };
        }
    })
}

/// The shape of the fields of a struct or a variant.
enum Kind {
    Unit,
    Newtype,
    Tuple,
    Named,
}

/// Returns the schemas of the fields, with their names if they have some.
fn fields(fields: &Fields, all: Option<Case>, home: &TokenStream) -> syn::Result<(Kind, TokenStream)> {
    let kind = match fields {
        Fields::Unit => Kind::Unit,
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Kind::Newtype,
        Fields::Unnamed(_) => Kind::Tuple,
        Fields::Named(_) => Kind::Named,
    };
    let all = fields.iter().map(|field| schema_of(field, all, home)).collect::<syn::Result<Vec<_>>>()?;
    Ok((kind, quote!(#(#all),*)))
}

fn schema_of(field: &Field, all: Option<Case>, home: &TokenStream) -> syn::Result<TokenStream> {
    let ty = &field.ty;
    let schema = quote_spanned!(field.span()=> <#ty as #home::Schema>::SCHEMA);
    let names = Names::of(&field.attrs)?;
    let Some(own) = &field.ident else { return Ok(schema) };
    let name = names.name(own, all, Case::of_field);
    Ok(quote_spanned!(field.span()=> &#home::schema::NamedValue { name: #name, ty: #schema }))
}

/// These attributes of serde's make a value's bytes differ from what its type's schema says.
const UNLIKE: [&str; 8] = [
    "skip",
    "skip_serializing",
    "skip_serializing_if",
    "skip_deserializing",
    "flatten",
    "tag",
    "content",
    "untagged",
];

/// serde's attributes about names.
#[derive(Default)]
struct Names {
    rename: Option<String>,
    /// `rename_all` names all fields, or variants, in this case.
    all: Option<Case>,
    /// `rename_all_fields` names the fields of all variants in this case.
    all_fields: Option<Case>,
}

impl Names {
    fn of(attributes: &[Attribute]) -> syn::Result<Names> {
        let mut names = Names::default();
        let mut refused = None;
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
            // serde itself complains about attributes that it cannot read.
            let _: syn::Result<()> = attribute.parse_nested_meta(|meta| {
                let is = |word: &str| meta.path.is_ident(word);
                if let Some(word) = UNLIKE.iter().find(|word| is(word)) {
                    refused = Some(meta.error(format!("a value that is `{word}` to serde has no schema")));
                } else if is("rename") {
                    names.rename = Some(meta.value()?.parse::<LitStr>()?.value());
                } else if is("rename_all") || is("rename_all_fields") {
                    let case = Case::parse(&meta.value()?.parse()?)?;
                    *(if is("rename_all") { &mut names.all } else { &mut names.all_fields }) = Some(case);
                } else if meta.input.peek(Token![=]) {
                    meta.value()?.parse::<syn::Expr>()?;
                } else if meta.input.peek(syn::token::Paren) {
                    meta.parse_nested_meta(|meta| meta.value()?.parse::<syn::Expr>().map(drop))?;
                }
                Ok(())
            });
        }
        refused.map_or(Ok(names), Err)
    }

    /// Returns the name that serde gives what is called `own`.
    fn name(self, own: &Ident, all: Option<Case>, in_case: fn(Case, &str) -> String) -> String {
        let own = own.unraw().to_string();
        self.rename.unwrap_or_else(|| all.map_or_else(|| own.clone(), |case| in_case(case, &own)))
    }
}

/// The options that `#[schema(…)]` gives.
struct Options {
    /// The path of `wasmpool`.
    home: Path,
    bound: Option<Punctuated<WherePredicate, Token![,]>>,
}

impl Options {
    fn of(attributes: &[Attribute]) -> syn::Result<Options> {
        let mut options = Options { home: parse_quote!(::wasmpool), bound: None };
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("schema")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("crate") {
                    options.home = meta.value()?.parse()?;
                    Ok(())
                } else if meta.path.is_ident("bound") {
                    let text = meta.value()?.parse::<LitStr>()?;
                    options.bound = Some(text.parse_with(Punctuated::parse_terminated)?);
                    Ok(())
                } else {
                    Err(meta.error("`schema` knows `crate` and `bound`"))
                }
            })?;
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(input: &str) -> Result<String, String> {
        let input = syn::parse_str(input).expect("is Rust");
        expand(input).map(|tokens| tokens.to_string().replace(' ', "")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_path_of_the_crate_is_known_or_given() {
        let usual = expanded("struct A { x: u8 }").expect("has a schema");
        assert!(usual.contains("impl::wasmpool::postcard_schema::SchemaforA"), "{usual}");
        let given = expanded("#[schema(crate = other::pool)] struct A;").expect("has a schema");
        assert!(given.contains("implother::pool::postcard_schema::SchemaforA"), "{given}");
        assert!(expanded("#[schema(krate = other)] struct A;").is_err());
    }

    #[test]
    fn serdes_names_are_heeded() {
        let text = expanded("struct A { #[serde(default, rename = \"y\")] x: u8, r#type: u8 }")
            .expect("has a schema");
        assert!(
            text.contains("name:\"y\"") && !text.contains("name:\"x\"") && text.contains("name:\"type\""),
            "{text}"
        );
    }

    #[test]
    fn all_names_are_spelled_as_serde_spells_them() {
        let text = expanded(
            "#[serde(rename_all = \"camelCase\")] struct A { first_one: u8, #[serde(rename = \"b\")] c: u8 }",
        );
        let text = text.expect("has a schema");
        assert!(
            text.contains("name:\"firstOne\"") && text.contains("name:\"b\"") && text.contains("name:\"A\""),
            "{text}"
        );
        let text = expanded(
            "#[serde(deny_unknown_fields, rename_all = \"snake_case\", rename_all_fields = \"UPPERCASE\")] \
             enum A { FirstOne { x: u8 }, #[serde(rename_all = \"kebab-case\")] B { y_z: u8 } }",
        );
        let text = text.expect("has a schema");
        for name in ["first_one", "X", "b", "y-z"] {
            assert!(text.contains(&format!("name:\"{name}\"")), "{name} in {text}");
        }
    }

    #[test]
    fn what_is_not_on_the_wire_as_its_type_says_is_refused() {
        for input in [
            "struct A { #[serde(skip)] x: u8 }",
            "struct A { #[serde(default, skip_serializing_if = \"Option::is_none\")] x: Option<u8> }",
            "struct A { #[serde(flatten)] x: B }",
            "#[serde(untagged)] enum A { X(u8) }",
            "#[serde(tag = \"kind\")] enum A { X { y: u8 } }",
            "union A { x: u8 }",
        ] {
            expanded(input).expect_err(input);
        }
    }
}
