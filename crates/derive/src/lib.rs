//! `#[derive(wasmpool::Schema)]`: the schema of a type, with nothing to add that says where `wasmpool` is.
//!
//! It expands to an implementation of `postcard_schema::Schema` like that crate's own derive, which guests use; so
//! the two sides of a task may derive it by either. Unlike that one it refuses what serde is told to put on the wire
//! in another way than the schema says.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Field, Fields, GenericParam, LitStr, Path, Token, WherePredicate,
    parse_quote,
};

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
/// Names of fields and variants count where types are compared; `#[serde(rename = "…")]` is heeded. Attributes of
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
    let shown = name_of(&input.attrs, &name.to_string())?;
    let ty = match &input.data {
        Data::Struct(data) => {
            let (kind, of) = fields(&data.fields, &home)?;
            match kind {
                Kind::Unit => quote!(DataModelType::UnitStruct),
                Kind::Newtype => quote!(DataModelType::NewtypeStruct(#of)),
                Kind::Tuple => quote!(DataModelType::TupleStruct(&[#of])),
                Kind::Named => quote!(DataModelType::Struct(&[#of])),
            }
        }
        Data::Enum(data) => {
            let variants = data.variants.iter().map(|variant| {
                let name = name_of(&variant.attrs, &variant.ident.to_string())?;
                let (kind, of) = fields(&variant.fields, &home)?;
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
fn fields(fields: &Fields, home: &TokenStream) -> syn::Result<(Kind, TokenStream)> {
    let kind = match fields {
        Fields::Unit => Kind::Unit,
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Kind::Newtype,
        Fields::Unnamed(_) => Kind::Tuple,
        Fields::Named(_) => Kind::Named,
    };
    let all = fields.iter().map(|field| schema_of(field, home)).collect::<syn::Result<Vec<_>>>()?;
    Ok((kind, quote!(#(#all),*)))
}

fn schema_of(field: &Field, home: &TokenStream) -> syn::Result<TokenStream> {
    let ty = &field.ty;
    let schema = quote_spanned!(field.span()=> <#ty as #home::Schema>::SCHEMA);
    let own = field.ident.as_ref().map(ToString::to_string);
    let name = name_of(&field.attrs, own.as_deref().unwrap_or_default())?;
    Ok(match own {
        None => schema,
        Some(_) => {
            quote_spanned!(field.span()=> &#home::schema::NamedValue { name: #name, ty: #schema })
        }
    })
}

/// By these of serde's attributes a value's bytes are not those that its type's schema says.
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

/// Returns the name that serde gives it, or else its own.
fn name_of(attributes: &[Attribute], own: &str) -> syn::Result<String> {
    let mut name = own.trim_start_matches("r#").to_string();
    let mut unlike = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        // What serde cannot read is serde's to complain about.
        let _: syn::Result<()> = attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") {
                name = meta.value()?.parse::<LitStr>()?.value();
            } else {
                if let Some(word) = UNLIKE.iter().find(|word| meta.path.is_ident(word)) {
                    unlike = Some(meta.error(format!("a value that is `{word}` to serde has no schema")));
                }
                if meta.input.peek(Token![=]) {
                    meta.value()?.parse::<syn::Expr>()?;
                }
            }
            Ok(())
        });
    }
    unlike.map_or(Ok(name), Err)
}

/// What `#[schema(…)]` says.
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
