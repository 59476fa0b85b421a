//! The attributes of `wasmpool-guest`, which re-exports and documents them.
//!
//! Each leaves the function as it is, so that native tests call it, and adds a
//! constant with two things in it: the task's record and its export. Both are
//! type-checked on every target and take effect on wasm32 only.

mod case;
mod shape;

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    parse_macro_input, Error, Expr, ExprLit, FnArg, GenericArgument, ItemFn, Lit, LitStr, Meta, Pat,
    PathArguments, ReturnType, Signature, Type,
};

/// serde implements its traits for tuples of up to this many.
const ARGUMENTS_MAX: usize = 16;

/// Turns a function into a task.
///
/// - `#[task]`: owned arguments and result, each with serde and `Schema`.
/// - `#[task(raw)]`: `fn(&[u8]) -> Vec<u8>`, no codec.
/// - `#[task(name = "other")]`: the name that callers use; else the function's.
///
/// A return type that is a `Result<T, E>`, under whatever name, makes the task
/// fallible. The doc comment is kept in the module, where `wasmpool inspect` finds it.
#[proc_macro_attribute]
pub fn task(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    let mut options = Options::default();
    let parser = syn::meta::parser(|meta| options.set(&meta));
    parse_macro_input!(arguments with parser);
    expand(&function, expand_task(&options, &function))
}

/// Marks the function that prepares an instance before any task runs:
/// `fn()` or `fn() -> Result<(), E>`. At most one in a module.
#[proc_macro_attribute]
pub fn init(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    let arguments = Tokens::from(arguments);
    let expansion = if arguments.is_empty() {
        expand_init(&function)
    } else {
        Err(Error::new_spanned(arguments, "`init` takes no options: write `#[wasmpool_guest::init]`"))
    };
    expand(&function, expansion)
}

/// Derives what an argument or a result needs: serde's `Serialize` and
/// `Deserialize`, and `Schema`, all through `wasmpool_guest`, so that the guest
/// crate names no other dependency.
///
/// Names can be changed by serde's `rename`, `rename_all` and
/// `rename_all_fields`. Its attributes that change what is written (`skip`,
/// `flatten`, `tag`, `untagged`, `with` and the like) are refused: postcard and
/// the module's schema cannot follow them.
#[proc_macro_attribute]
pub fn data(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as syn::DeriveInput);
    expand_data("data", arguments, item).unwrap_or_else(|error| error.into_compile_error()).into()
}

/// Does the same as [`data`] for the error of a task: its caller gets it as data, and not its
/// text alone. The type says what it is by `Display` (write it, or derive it with `thiserror`).
#[proc_macro_attribute]
pub fn error(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as syn::DeriveInput);
    let name = item.ident.clone();
    let (generics, types, bounds) = item.generics.split_for_impl();
    let marked = quote!(impl #generics ::wasmpool_guest::ErrorData for #name #types #bounds {});
    let data = expand_data("error", arguments, item.clone());
    data.map(|data| quote!(#data #marked)).unwrap_or_else(|error| error.into_compile_error()).into()
}

fn expand_data(name: &str, arguments: TokenStream, mut item: syn::DeriveInput) -> syn::Result<Tokens> {
    if !arguments.is_empty() {
        let arguments = Tokens::from(arguments);
        return Err(Error::new_spanned(arguments, format!("`{name}` takes no options")));
    }
    shape::check(&mut item)?;
    Ok(quote! {
        #[derive(
            ::wasmpool_guest::serde::Serialize,
            ::wasmpool_guest::serde::Deserialize,
            ::wasmpool_guest::Schema,
        )]
        #[serde(crate = "::wasmpool_guest::serde")]
        #[postcard(crate = ::wasmpool_guest::postcard_schema)]
        #item
    })
}

#[derive(Default)]
struct Options {
    raw: bool,
    name: Option<LitStr>,
}

impl Options {
    fn set(&mut self, meta: &syn::meta::ParseNestedMeta<'_>) -> syn::Result<()> {
        if meta.path.is_ident("raw") {
            self.raw = true;
        } else if meta.path.is_ident("name") {
            let name: LitStr = meta.value()?.parse()?;
            let text = name.value();
            if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(Error::new(
                    name.span(),
                    "a task's name has at least one character, and none of them is a space",
                ));
            }
            self.name = Some(name);
        } else {
            return Err(meta.error("unknown option: `raw` and `name = \"…\"` are known"));
        }
        Ok(())
    }
}

/// The function, marked so that backtraces name it, and what belongs to it. An
/// error stands beside the function, so that only the error is reported.
fn expand(function: &ItemFn, expansion: syn::Result<Tokens>) -> TokenStream {
    let expansion = expansion.unwrap_or_else(Error::into_compile_error);
    let inline = if function.attrs.iter().any(|a| a.path().is_ident("inline")) {
        quote!()
    } else {
        quote!(#[cfg_attr(target_arch = "wasm32", inline(never))])
    };
    quote! { #inline #function #expansion }.into()
}

fn expand_task(options: &Options, function: &ItemFn) -> syn::Result<Tokens> {
    check_signature(&function.sig)?;
    let name = match &options.name {
        Some(name) => name.value(),
        None => plain(&function.sig.ident),
    };
    // The prefix keeps a task called `write` or `main` apart from the C
    // library's symbol.
    let export = format!("wasmpool_task_{name}");
    let doc = doc_of(function);
    let (record, call) = if options.raw { raw_task(&function.sig)? } else { typed_task(&function.sig)? };
    let record = quote! {
        __p::Record {
            kind: __p::Kind::Task,
            export: #export,
            name: #name,
            doc: #doc,
            #record
        }
    };
    Ok(emit(&export, &record, &call))
}

fn raw_task(signature: &Signature) -> syn::Result<(Tokens, Tokens)> {
    let function = &signature.ident;
    let shape = "a raw task is `fn(input: &[u8]) -> Vec<u8>`, or `-> Result<Vec<u8>, E>`";
    let arguments = arguments(signature)?;
    let [(param, Type::Reference(input))] = arguments.as_slice() else {
        return Err(Error::new(signature.span(), shape));
    };
    let is_bytes = matches!(&*input.elem, Type::Slice(slice)
        if matches!(&*slice.elem, Type::Path(path) if path.path.is_ident("u8")));
    if !is_bytes || input.mutability.is_some() {
        return Err(Error::new_spanned(input, shape));
    }
    let ReturnType::Type(_, output) = &signature.output else {
        return Err(Error::new(signature.span(), shape));
    };
    let result = result_of(output, &quote!(#function(input)));
    let record = quote! {
        codec: __p::Codec::Raw,
        params: &[#param],
        input: __p::BYTES,
        output: __p::BYTES,
        error: ::core::option::Option::None,
    };
    let call = quote! {
        __p::raw(ptr, len, |input: &[u8]| #result)
    };
    Ok((record, call))
}

fn typed_task(signature: &Signature) -> syn::Result<(Tokens, Tokens)> {
    let function = &signature.ident;
    let arguments = arguments(signature)?;
    if arguments.len() > ARGUMENTS_MAX {
        return Err(Error::new_spanned(
            &signature.inputs,
            "a task has at most 16 arguments: put them into a struct",
        ));
    }
    for (_, ty) in &arguments {
        check_owned(ty)?;
    }
    let params = arguments.iter().map(|(param, _)| param);
    let types: Vec<&Type> = arguments.iter().map(|(_, ty)| *ty).collect();
    let bindings: Vec<_> = (0..types.len()).map(|i| format_ident!("a{i}")).collect();

    let (input, input_type, pattern) = match types.as_slice() {
        [] => (quote!(__p::UNIT), quote!(()), quote!(())),
        [only] => (schema_of(only), quote!(#only), quote!(a0)),
        several => {
            let schemas = several.iter().map(|ty| schema_of(ty));
            let spelled: Vec<_> = several.iter().map(|ty| spelling_of(ty)).collect();
            let tuple = format!("({})", spelled.join(", "));
            let schema = quote! {
                &__p::NamedType {
                    name: #tuple,
                    ty: &__p::DataModelType::Tuple(&[#(#schemas),*]),
                }
            };
            (schema, quote!((#(#several),*)), quote!((#(#bindings),*)))
        }
    };
    let call = quote!(#function(#(#bindings),*));
    let none = quote!(::core::option::Option::None);
    let (output, error, result) = match &signature.output {
        ReturnType::Default => {
            (quote!(__p::UNIT), none, quote!({ #call; ::core::result::Result::<(), __p::OwnError>::Ok(()) }))
        }
        ReturnType::Type(_, ty) => {
            check_owned(ty)?;
            let schema = quote_spanned!(ty.span()=> <__p::Returned<#ty>>::SCHEMA);
            let error = quote_spanned!(ty.span()=> <__p::Returned<#ty>>::ERROR);
            (schema, error, result_of(ty, &call))
        }
    };
    let record = quote! {
        codec: __p::Codec::Postcard,
        params: &[#(#params),*],
        input: #input,
        output: #output,
        error: #error,
    };
    let call = quote! {
        __p::typed::<#input_type, _>(ptr, len, |#pattern: #input_type| #result)
    };
    Ok((record, call))
}

fn expand_init(function: &ItemFn) -> syn::Result<Tokens> {
    check_signature(&function.sig)?;
    if !function.sig.inputs.is_empty() {
        return Err(Error::new_spanned(&function.sig.inputs, "an initialiser has no arguments"));
    }
    let ident = &function.sig.ident;
    let name = plain(ident);
    let doc = doc_of(function);
    let result = match &function.sig.output {
        ReturnType::Default => {
            quote!({ #ident(); ::core::result::Result::<(), __p::OwnError>::Ok(()) })
        }
        ReturnType::Type(_, ty) => result_of(ty, &quote!(#ident())),
    };
    let record = quote! {
        __p::Record {
            kind: __p::Kind::Init,
            export: "wasmpool_init",
            name: #name,
            doc: #doc,
            codec: __p::Codec::Postcard,
            params: &[],
            input: __p::UNIT,
            output: __p::UNIT,
            error: ::core::option::Option::None,
        }
    };
    let call = quote!({
        let _ = (ptr, len);
        __p::init(|| #result)
    });
    Ok(emit("wasmpool_init", &record, &call))
}

/// The record's bytes and the exported function.
fn emit(export: &str, record: &Tokens, call: &Tokens) -> Tokens {
    quote! {
        const _: () = {
            use ::wasmpool_guest::__private as __p;
            // For a return type that is no `Result`.
            #[allow(unused_imports, reason = "the type decides, which a macro cannot see")]
            use ::wasmpool_guest::__private::{Plain as _, PlainError as _, PlainSchema as _};

            const RECORD: __p::Record<'static> = #record;
            const LEN: usize = RECORD.encoded_len();

            #[cfg_attr(target_arch = "wasm32", unsafe(link_section = "wasmpool.tasks"))]
            #[cfg_attr(target_arch = "wasm32", used)]
            static SECTION: [u8; LEN] = RECORD.encode();

            #[cfg_attr(target_arch = "wasm32", unsafe(export_name = #export))]
            extern "C" fn entry(ptr: u32, len: u32) -> u64 {
                #call
            }

            #[cfg(not(target_arch = "wasm32"))]
            let _ = (&SECTION, entry as extern "C" fn(u32, u32) -> u64);
        };
    }
}

/// What no task and no initialiser can be.
fn check_signature(signature: &Signature) -> syn::Result<()> {
    let refuse = |span: Span, why: &str| Err(Error::new(span, why));
    if let Some(keyword) = &signature.asyncness {
        return refuse(
            keyword.span(),
            "a task cannot be `async`: an instance runs one call at a time, to its end",
        );
    }
    if let Some(keyword) = &signature.unsafety {
        return refuse(keyword.span(), "a task cannot be `unsafe`: its arguments come from anyone");
    }
    if let Some(abi) = &signature.abi {
        return refuse(abi.span(), "a task has no ABI of its own: leave `extern` out");
    }
    if !signature.generics.params.is_empty() || signature.generics.where_clause.is_some() {
        return refuse(
            signature.generics.span(),
            "a task cannot be generic: its record names one concrete type for each argument",
        );
    }
    if let Some(variadic) = &signature.variadic {
        return refuse(variadic.span(), "a task cannot be variadic");
    }
    if let Some(FnArg::Receiver(receiver)) = signature.inputs.first() {
        return refuse(receiver.span(), "a task is a free function: it cannot take `self`");
    }
    Ok(())
}

/// Names and types of the arguments.
fn arguments(signature: &Signature) -> syn::Result<Vec<(String, &Type)>> {
    let mut arguments = Vec::new();
    for argument in &signature.inputs {
        let FnArg::Typed(argument) = argument else {
            return Err(Error::new_spanned(argument, "a task cannot take `self`"));
        };
        let Pat::Ident(pattern) = &*argument.pat else {
            return Err(Error::new_spanned(
                &argument.pat,
                "a task's argument is a plain name: callers and `inspect` see it",
            ));
        };
        arguments.push((plain(&pattern.ident), &*argument.ty));
    }
    Ok(arguments)
}

/// Refuses what cannot be decoded into, with a hint at what can.
fn check_owned(ty: &Type) -> syn::Result<()> {
    let why = match ty {
        Type::Reference(reference) => {
            let hint = match &*reference.elem {
                Type::Path(path) if path.path.is_ident("str") => "take and return `String`",
                Type::Slice(_) => "take and return `Vec<_>`, or use `#[task(raw)]` for plain bytes",
                _ => "take and return the value itself",
            };
            return Err(Error::new_spanned(
                ty,
                format!("a typed task owns its arguments and its result: {hint}"),
            ));
        }
        Type::ImplTrait(_) => "name the type: a task's record needs a concrete one",
        Type::Never(_) => "a task that never returns still needs a type to return: use `()`",
        Type::Ptr(_) | Type::BareFn(_) => "a pointer means nothing outside of the guest",
        Type::Path(path) => return check_inside(path),
        Type::Tuple(tuple) => return tuple.elems.iter().try_for_each(check_owned),
        _ => return Ok(()),
    };
    Err(Error::new_spanned(ty, why))
}

/// The generic arguments of a type, such as the `&str` in `Vec<&str>`.
fn check_inside(path: &syn::TypePath) -> syn::Result<()> {
    let Some(last) = path.path.segments.last() else {
        return Ok(());
    };
    let PathArguments::AngleBracketed(inside) = &last.arguments else {
        return Ok(());
    };
    // The error of a task is printed, not encoded: it may be a `&'static str`.
    let encoded = if last.ident == "Result" { 1 } else { usize::MAX };
    inside
        .args
        .iter()
        .filter_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        })
        .take(encoded)
        .try_for_each(check_owned)
}

/// A call whose value is a `Result` in either case. Which it is, is the type's to say and not
/// its name's: an alias is a `Result` as well.
fn result_of(ty: &Type, call: &Tokens) -> Tokens {
    let result = quote_spanned!(ty.span()=> <__p::Returned<#ty>>::into_result(#call));
    quote! {
        match #result {
            ::core::result::Result::Ok(value) => ::core::result::Result::Ok(value),
            ::core::result::Result::Err(error) => {
                #[allow(unused_imports, reason = "the error's type decides which one it is")]
                use __p::{ViaData as _, ViaInner as _, ViaSource as _, ViaText as _};
                ::core::result::Result::Err((&&&&__p::Own(error)).own_error())
            }
        }
    }
}

fn schema_of(ty: &Type) -> Tokens {
    quote_spanned!(ty.span()=> <#ty as __p::Schema>::SCHEMA)
}

/// A type as people write it: tokens print with spaces everywhere.
fn spelling_of(ty: &Type) -> String {
    let tokens = quote!(#ty).to_string();
    tokens.replace(" :: ", "::").replace(" < ", "<").replace(" >", ">").replace(" ,", ",").replace(" ;", ";")
}

/// An identifier without the `r#` of a raw one.
fn plain(ident: &syn::Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

/// The doc comment: a space is dropped in front of each line, as rustdoc does.
fn doc_of(function: &ItemFn) -> String {
    let mut lines = Vec::new();
    for attribute in &function.attrs {
        if !attribute.path().is_ident("doc") {
            continue;
        }
        let Meta::NameValue(pair) = &attribute.meta else { continue };
        if let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value {
            let text = text.value();
            lines.extend(
                text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned()),
            );
            if text.is_empty() {
                lines.push(String::new());
            }
        }
    }
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn refusal(options: &Options, function: &ItemFn) -> String {
        expand_task(options, function).unwrap_err().to_string()
    }

    fn typed_refusal(function: &ItemFn) -> String {
        refusal(&Options::default(), function)
    }

    #[test]
    fn what_cannot_be_a_task_is_refused_with_its_reason() {
        let cases: [(ItemFn, &str); 12] = [
            (
                parse_quote!(
                    async fn f() {}
                ),
                "async",
            ),
            (
                parse_quote!(
                    unsafe fn f() {}
                ),
                "unsafe",
            ),
            (
                parse_quote!(
                    extern "C" fn f() {}
                ),
                "extern",
            ),
            (
                parse_quote!(
                    fn f<T>(x: T) {}
                ),
                "generic",
            ),
            (
                parse_quote!(
                    fn f(&self) {}
                ),
                "self",
            ),
            (
                parse_quote!(
                    fn f(s: &str) {}
                ),
                "`String`",
            ),
            (
                parse_quote!(
                    fn f(s: Vec<&[u8]>) {}
                ),
                "`Vec<_>`",
            ),
            (
                parse_quote!(
                    fn f() -> Result<&str, String> {}
                ),
                "`String`",
            ),
            (
                parse_quote!(
                    fn f(x: impl Copy) {}
                ),
                "name the type",
            ),
            (
                parse_quote!(
                    fn f() -> ! {}
                ),
                "use `()`",
            ),
            (
                parse_quote!(
                    fn f(p: *const u8) {}
                ),
                "pointer",
            ),
            (
                parse_quote!(
                    fn f((a, b): (u8, u8)) {}
                ),
                "plain name",
            ),
        ];
        for (function, reason) in cases {
            let found = typed_refusal(&function);
            assert!(found.contains(reason), "{found}");
        }
    }

    #[test]
    fn the_error_of_a_task_may_be_borrowed() {
        let function = parse_quote!(
            fn f() -> Result<u8, &'static str> {}
        );
        assert!(expand_task(&Options::default(), &function).is_ok());
    }

    #[test]
    fn sixteen_arguments_are_the_most() {
        let arguments = (0..17).map(|i| format_ident!("a{i}"));
        let function = parse_quote!(fn f(#(#arguments: u8),*) {});
        assert!(typed_refusal(&function).contains("at most 16"));
    }

    #[test]
    fn a_raw_task_has_one_shape() {
        let raw = Options { raw: true, name: None };
        let cases: [ItemFn; 5] = [
            parse_quote!(
                fn f() -> Vec<u8> {}
            ),
            parse_quote!(
                fn f(x: Vec<u8>) -> Vec<u8> {}
            ),
            parse_quote!(
                fn f(x: &str) -> Vec<u8> {}
            ),
            parse_quote!(
                fn f(x: &mut [u8]) -> Vec<u8> {}
            ),
            parse_quote!(
                fn f(x: &[u8]) {}
            ),
        ];
        for function in cases {
            assert!(refusal(&raw, &function).contains("a raw task is"));
        }
    }

    #[test]
    fn doc_comments_are_kept_line_by_line() {
        let function: ItemFn = parse_quote! {
            /// Title.
            ///
            ///   indented
            /** block
            end */
            #[inline]
            fn f() {}
        };
        let doc = doc_of(&function);
        assert!(doc.starts_with("Title.\n\n  indented\nblock\n"), "{doc:?}");
        assert!(doc.ends_with("end"), "{doc:?}");
    }

    #[test]
    fn types_are_spelled_as_people_write_them() {
        let ty = parse_quote!(std::collections::BTreeMap<String, Vec<(u8, [i64; 3])>>);
        assert_eq!(spelling_of(&ty), "std::collections::BTreeMap<String, Vec<(u8, [i64; 3])>>");
    }
}
