//! The serde attributes of `#[data]`.
//!
//! Postcard writes the fields of a value one after the other, without their names, and the
//! module's schema says which they are. Most of serde's attributes change what is written, and
//! the schema does not follow: a caller would then read one field's bytes as another's. So
//! each attribute is here either made right (the names), known to change nothing, or refused
//! where it stands.

use std::collections::HashSet;

use crate::case::Case;
use proc_macro2::Span;
use quote::ToTokens as _;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    parse_quote, Attribute, Data, DeriveInput, Error, Expr, Field, Fields, Ident, LitStr, Meta, Token,
    WherePredicate,
};

/// What is said of an attribute that changes the bytes.
const REFUSED: &str =
    "changes what serde writes, which postcard and the module's schema cannot follow: the caller \
                       would read wrong values";

/// What may follow where renaming names each field anyway.
const KNOWN: &str = "`rename = \"…\"`, `rename_all = \"…\"` and `rename_all_fields = \"…\"` are";

/// Holds an item to what postcard and its schema can carry, and gives each field and variant
/// the name that its attributes ask for.
///
/// # Errors
/// At the attribute that cannot be followed.
pub(crate) fn check(item: &mut DeriveInput) -> syn::Result<()> {
    let of_item = take_names(&mut item.attrs)?;
    match &mut item.data {
        Data::Struct(data) => name_fields(&mut data.fields, of_item.all)?,
        Data::Enum(data) => {
            let mut names = HashSet::new();
            for variant in &mut data.variants {
                let of_variant = take_names(&mut variant.attrs)?;
                let all = of_variant.all.or(of_item.all_fields);
                name_fields(&mut variant.fields, all)?;
                let ident = &variant.ident;
                let name = of_variant.name(ident, of_item.all, Case::of_variant);
                set_name(&mut variant.attrs, ident, &name, &mut names)?;
            }
        }
        Data::Union(data) => {
            return Err(Error::new(data.union_token.span, "a union cannot be written: use an enum"));
        }
    }
    if let Some(name) = of_item.rename {
        item.attrs.push(parse_quote!(#[serde(rename = #name)]));
    }
    Ok(())
}

fn name_fields(fields: &mut Fields, all: Option<Case>) -> syn::Result<()> {
    let mut names = HashSet::new();
    for Field { attrs, ident, .. } in fields {
        let of_field = take_names(attrs)?;
        if of_field.all.is_some() || of_field.all_fields.is_some() {
            return Err(Error::new(of_field.span, "a field has one name: use `rename`"));
        }
        let Some(ident) = ident else {
            if of_field.rename.is_some() {
                return Err(Error::new(of_field.span, "a field of a tuple has no name"));
            }
            continue;
        };
        let name = of_field.name(ident, all, Case::of_field);
        set_name(attrs, ident, &name, &mut names)?;
    }
    Ok(())
}

/// Says the name by the one attribute that serde and the schema both heed.
fn set_name(
    attributes: &mut Vec<Attribute>,
    ident: &Ident,
    name: &str,
    names: &mut HashSet<String>,
) -> syn::Result<()> {
    if !names.insert(name.to_owned()) {
        return Err(Error::new(ident.span(), format!("there is another `{name}` beside it")));
    }
    if ident != name {
        attributes.push(parse_quote!(#[serde(rename = #name)]));
    }
    Ok(())
}

/// What the attributes of one place say of names.
struct Names {
    rename: Option<LitStr>,
    all: Option<Case>,
    all_fields: Option<Case>,
    /// The last of them.
    span: Span,
}

impl Names {
    fn name(&self, ident: &Ident, all: Option<Case>, in_case: fn(Case, &str) -> String) -> String {
        let plain = super::plain(ident);
        match (&self.rename, all) {
            (Some(name), _) => name.value(),
            (None, Some(case)) => in_case(case, &plain),
            (None, None) => plain,
        }
    }
}

/// Takes serde's attributes out, and keeps those that are to stay.
fn take_names(attributes: &mut Vec<Attribute>) -> syn::Result<Names> {
    let mut names = Names { rename: None, all: None, all_fields: None, span: Span::call_site() };
    let mut kept = Vec::new();
    for attribute in std::mem::take(attributes) {
        if attribute.path().is_ident("cfg_attr") {
            refuse_hidden(&attribute)?;
        }
        if attribute.path().is_ident("postcard") {
            let why = "the schema is derived by `data`, which sets its attributes itself";
            return Err(Error::new(attribute.span(), why));
        }
        if !attribute.path().is_ident("serde") {
            kept.push(attribute);
            continue;
        }
        attribute.parse_nested_meta(|meta| {
            if let Some(harmless) = names.set(&meta)? {
                kept.push(harmless);
            }
            Ok(())
        })?;
    }
    *attributes = kept;
    Ok(names)
}

impl Names {
    /// Takes one of serde's attributes; gives back what changes nothing that is written.
    fn set(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<Option<Attribute>> {
        self.span = meta.path.span();
        let name = meta.path.to_token_stream().to_string().replace(' ', "");
        match name.as_str() {
            "rename" => self.rename = Some(literal(meta)?),
            "rename_all" => self.all = Some(Case::parse(&literal(meta)?)?),
            "rename_all_fields" => self.all_fields = Some(Case::parse(&literal(meta)?)?),
            "bound" => {
                let bound = literal(meta)?;
                Punctuated::<WherePredicate, Token![,]>::parse_terminated.parse_str(&bound.value())?;
                return Ok(Some(parse_quote!(#[serde(bound = #bound)])));
            }
            "expecting" => {
                let text = literal(meta)?;
                return Ok(Some(parse_quote!(#[serde(expecting = #text)])));
            }
            // Fields are found by their place, so there are no unknown ones.
            "deny_unknown_fields" => return Ok(Some(parse_quote!(#[serde(deny_unknown_fields)]))),
            "transparent" => {
                return Err(
                    meta.error("leave `transparent` out: a tuple struct of one field is its content already")
                );
            }
            "crate" => return Err(meta.error("`data` names serde's crate itself")),
            "alias" => {
                return Err(meta
                    .error("`alias` has no effect: a value's fields and variants are found by their place"));
            }
            "default" => {
                return Err(meta.error("`default` has no effect: every field is written. Use an `Option`"));
            }
            other => return Err(meta.error(format!("`{other}` {REFUSED}. Known: {KNOWN}"))),
        }
        Ok(None)
    }
}

/// The text of `name = "text"`.
fn literal(meta: &ParseNestedMeta<'_>) -> syn::Result<LitStr> {
    let one = "one text is wanted, such as `name = \"text\"`: what is written is also what is read";
    let value = meta.value().map_err(|_| meta.error(one))?;
    match value.parse::<Expr>()? {
        Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Ok(text),
        _ => Err(meta.error(one)),
    }
}

/// A condition is not known yet where `data` is expanded, so that what it brings could not be
/// looked at.
fn refuse_hidden(attribute: &Attribute) -> syn::Result<()> {
    let Meta::List(list) = &attribute.meta else { return Ok(()) };
    let mentions = |name: &str| mentions(list.tokens.clone(), name);
    if mentions("serde") || mentions("postcard") {
        let why = "serde's attributes cannot stand under a condition here: they decide what callers see";
        return Err(Error::new(attribute.span(), why));
    }
    Ok(())
}

fn mentions(tokens: proc_macro2::TokenStream, name: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        proc_macro2::TokenTree::Ident(ident) => ident == name,
        proc_macro2::TokenTree::Group(group) => mentions(group.stream(), name),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(mut item: DeriveInput) -> String {
        check(&mut item).expect_err("it is refused").to_string()
    }

    /// Every attribute of serde 1.0's documentation that changes what is written or read.
    #[test]
    fn what_changes_the_bytes_is_refused_wherever_it_stands() {
        let items: [DeriveInput; 8] = [
            parse_quote!(
                #[serde(untagged)]
                enum E {
                    A,
                }
            ),
            parse_quote!(
                #[serde(tag = "t")]
                enum E {
                    A {},
                }
            ),
            parse_quote!(
                #[serde(tag = "t", content = "c")]
                enum E {
                    A,
                }
            ),
            parse_quote!(
                #[serde(from = "u8", into = "u8")]
                struct S {
                    a: u8,
                }
            ),
            parse_quote!(
                #[serde(try_from = "u8")]
                struct S {
                    a: u8,
                }
            ),
            parse_quote!(
                #[serde(remote = "T")]
                struct S {
                    a: u8,
                }
            ),
            parse_quote!(
                #[serde(variant_identifier)]
                enum E {
                    A,
                }
            ),
            parse_quote!(
                #[serde(rename = "R")]
                #[serde(untagged)]
                enum E {
                    A,
                }
            ),
        ];
        for item in items {
            let shown = item.to_token_stream().to_string();
            assert!(refusal(item).contains("wrong values"), "{shown}");
        }
        for attribute in [
            "skip",
            "skip_serializing",
            "skip_deserializing",
            "skip_serializing_if = \"Option::is_none\"",
            "flatten",
            "with = \"m\"",
            "serialize_with = \"m\"",
            "deserialize_with = \"m\"",
            "getter = \"m\"",
            "borrow",
            "some_day",
        ] {
            let attribute: proc_macro2::TokenStream = attribute.parse().expect("tokens");
            let why = refusal(parse_quote!(
                struct S {
                    #[serde(#attribute)]
                    a: u8,
                }
            ));
            assert!(why.contains("wrong values"), "{attribute}: {why}");
            let why = refusal(parse_quote!(
                enum E {
                    A {
                        #[serde(#attribute)]
                        a: u8,
                    },
                }
            ));
            assert!(why.contains("wrong values"), "{attribute}: {why}");
            let why = refusal(parse_quote!(
                enum E {
                    A(#[serde(#attribute)] u8),
                }
            ));
            assert!(why.contains("wrong values"), "{attribute}: {why}");
        }
        for attribute in ["skip", "other", "untagged", "with = \"m\"", "skip_serializing"] {
            let attribute: proc_macro2::TokenStream = attribute.parse().expect("tokens");
            let why = refusal(parse_quote!(
                enum E {
                    #[serde(#attribute)]
                    A,
                }
            ));
            assert!(why.contains("wrong values"), "{attribute}: {why}");
        }
    }

    #[test]
    fn what_has_no_effect_is_refused_with_what_has() {
        let cases: [(DeriveInput, &str); 9] = [
            (
                parse_quote!(
                    struct S {
                        #[serde(default)]
                        a: u8,
                    }
                ),
                "Use an `Option`",
            ),
            (
                parse_quote!(
                    #[serde(default = "d")]
                    struct S {
                        a: u8,
                    }
                ),
                "Use an `Option`",
            ),
            (
                parse_quote!(
                    struct S {
                        #[serde(alias = "b")]
                        a: u8,
                    }
                ),
                "by their place",
            ),
            (
                parse_quote!(
                    #[serde(transparent)]
                    struct S(u8);
                ),
                "leave `transparent` out",
            ),
            (
                parse_quote!(
                    #[serde(crate = "other")]
                    struct S(u8);
                ),
                "names serde's crate",
            ),
            (
                parse_quote!(
                    struct S {
                        #[serde(rename(serialize = "x", deserialize = "y"))]
                        a: u8,
                    }
                ),
                "one text",
            ),
            (
                parse_quote!(
                    #[serde(rename_all = "Title Case")]
                    struct S {
                        a: u8,
                    }
                ),
                "none of serde's spellings",
            ),
            (
                parse_quote!(
                    #[postcard(bound = "T: Schema")]
                    struct S<T>(T);
                ),
                "sets its attributes itself",
            ),
            (parse_quote!(union U { a: u8 }), "use an enum"),
        ];
        for (item, words) in cases {
            let why = refusal(item);
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn an_attribute_under_a_condition_is_refused_since_it_cannot_be_looked_at() {
        let why = refusal(parse_quote!(
            #[cfg_attr(all(), serde(untagged))]
            enum E {
                A,
            }
        ));
        assert!(why.contains("under a condition"), "{why}");
        let why = refusal(parse_quote!(
            struct S {
                #[cfg_attr(all(), cfg_attr(all(), serde(skip)))]
                a: u8,
            }
        ));
        assert!(why.contains("under a condition"), "{why}");
        let mut harmless: DeriveInput = parse_quote!(
            #[cfg_attr(test, derive(Debug))]
            struct S {
                a: u8,
            }
        );
        check(&mut harmless).expect("it has nothing to do with serde");
    }

    /// The names that serde and the schema will both see.
    fn named(mut item: DeriveInput) -> String {
        check(&mut item).expect("it is fine");
        item.to_token_stream().to_string()
    }

    #[test]
    fn every_field_and_variant_gets_its_name_by_the_attribute_that_both_heed() {
        let text = named(parse_quote!(
            #[serde(rename_all = "camelCase")]
            struct S {
                one_two: u8,
                r#type: u8,
                #[serde(rename = "x")]
                y: u8,
            }
        ));
        assert!(text.contains("# [serde (rename = \"oneTwo\")] one_two"), "{text}");
        assert!(text.contains("# [serde (rename = \"type\")] r#type"), "{text}");
        assert!(text.contains("# [serde (rename = \"x\")] y") && !text.contains("rename_all"), "{text}");
        let text = named(parse_quote!(
            #[serde(rename_all = "kebab-case", rename_all_fields = "UPPERCASE")]
            enum E {
                OneTwo {
                    a: u8,
                },
                #[serde(rename_all = "PascalCase")]
                B {
                    a_b: u8,
                },
            }
        ));
        assert!(
            text.contains("# [serde (rename = \"one-two\")] OneTwo { # [serde (rename = \"A\")] a"),
            "{text}"
        );
        assert!(text.contains("# [serde (rename = \"b\")] B { # [serde (rename = \"AB\")] a_b"), "{text}");
    }

    #[test]
    fn two_fields_of_one_name_are_refused() {
        let why = refusal(parse_quote!(
            struct S {
                a: u8,
                #[serde(rename = "a")]
                b: u8,
            }
        ));
        assert!(why.contains("another `a`"), "{why}");
    }

    #[test]
    fn what_changes_nothing_that_is_written_stays() {
        let text = named(parse_quote!(
            #[serde(deny_unknown_fields, bound = "", expecting = "an S")]
            #[derive(Debug)]
            struct S {
                a: u8,
            }
        ));
        for part in ["deny_unknown_fields", "bound = \"\"", "expecting = \"an S\"", "derive (Debug)"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    /// serde_derive's own table.
    #[test]
    fn the_spellings_are_serdes() {
        let all = [
            ("lowercase", "outcome", "very_tasty"),
            ("UPPERCASE", "OUTCOME", "VERY_TASTY"),
            ("PascalCase", "Outcome", "VeryTasty"),
            ("camelCase", "outcome", "veryTasty"),
            ("snake_case", "outcome", "very_tasty"),
            ("SCREAMING_SNAKE_CASE", "OUTCOME", "VERY_TASTY"),
            ("kebab-case", "outcome", "very-tasty"),
            ("SCREAMING-KEBAB-CASE", "OUTCOME", "VERY-TASTY"),
        ];
        let long = [
            "verytasty",
            "VERYTASTY",
            "VeryTasty",
            "veryTasty",
            "very_tasty",
            "VERY_TASTY",
            "very-tasty",
            "VERY-TASTY",
        ];
        for ((spelling, variant, field), long) in all.into_iter().zip(long) {
            let case = Case::parse(&LitStr::new(spelling, Span::call_site())).expect("a spelling");
            assert_eq!(case.of_variant("Outcome"), variant);
            assert_eq!(case.of_variant("VeryTasty"), long);
            assert_eq!(case.of_field("very_tasty"), field);
        }
    }
}
