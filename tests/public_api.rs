//! The public API, held: `tests/public_api.txt` lists every name of it, and each function with its signature. The list
//! is read off the sources, so that of what macros and derives make there are no more than the names of types; but for
//! the options of tasks, whose methods `task_options!` makes of a list.
//!
//! Whoever changes the API on purpose has the list written anew
//! (`WASMPOOL_WRITE_API=1 cargo test --release --test public_api`), and says it in CHANGELOG.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use quote::ToTokens;
use syn::{
    Attribute, Fields, File, ImplItem, Item, ItemImpl, ItemMod, Meta, TraitItem, Type, UseTree, Visibility,
};

/// These modules are public without being promised.
const NO_PART_OF_IT: [&str; 3] = ["internal", "postcard_schema", "python"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn parse(path: &Path) -> File {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => {
            let text = list.tokens.to_string();
            (list.path.is_ident("doc") && text.contains("hidden"))
                || (list.path.is_ident("cfg") && text == "test")
        }
        _ => false,
    })
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Source text as it would be typed, on one line.
fn shown(tokens: impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (from, to) in [
        (" :: ", "::"),
        ("& ", "&"),
        (" ,", ","),
        (" < ", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" : ", ": "),
        ("' ", "'"),
        (">(", "> ("),
    ] {
        text = text.replace(from, to);
    }
    text.replace("> (", ">(")
}

/// The items of both crates whose names are public somewhere, and the files that they stand in, by name.
#[derive(Default)]
struct Items {
    by_name: BTreeMap<String, Vec<(PathBuf, Item)>>,
    impls: BTreeMap<String, Vec<(PathBuf, ItemImpl)>>,
}

impl Items {
    fn add(&mut self, file: &Path, items: Vec<Item>) {
        for item in items {
            let name = match &item {
                Item::Struct(item) if is_public(&item.vis) => item.ident.to_string(),
                Item::Enum(item) if is_public(&item.vis) => item.ident.to_string(),
                Item::Trait(item) if is_public(&item.vis) => item.ident.to_string(),
                Item::Fn(item) if is_public(&item.vis) => item.sig.ident.to_string(),
                Item::Const(item) if is_public(&item.vis) => item.ident.to_string(),
                Item::Impl(item) => {
                    if let Type::Path(ty) = &*item.self_ty
                        && let Some(last) = ty.path.segments.last()
                    {
                        let impls = self.impls.entry(last.ident.to_string()).or_default();
                        impls.push((file.to_path_buf(), item.clone()));
                    }
                    continue;
                }
                Item::Mod(ItemMod { content: Some((_, items)), attrs, .. }) if !is_hidden(attrs) => {
                    self.add(file, items.clone());
                    continue;
                }
                _ => continue,
            };
            self.by_name.entry(name).or_default().push((file.to_path_buf(), item));
        }
    }

    fn read(&mut self, folder: &Path) {
        let mut entries: Vec<_> =
            std::fs::read_dir(folder).expect("reads").flatten().map(|e| e.path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                self.read(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.add(&path, parse(&path).items);
            }
        }
    }

    /// Lists what belongs to a name.
    fn list(&self, path: &str, name: &str, into: &mut BTreeSet<String>) {
        let found = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        // If two items have the same name, one stands in the files of the module that shows it.
        let home = root().join("src").join(path.trim_start_matches("wasmpool::"));
        let is_alone = found.len() <= 1;
        let mut found =
            found.iter().filter(|(file, _)| is_alone || file.with_extension("").starts_with(&home));
        let (file, item) = found.next().map_or((None, None), |(file, item)| (Some(file), Some(item)));
        assert!(is_alone || (item.is_some() && found.next().is_none()), "{path}::{name} is there twice");
        let full = format!("{path}::{name}");
        match item {
            Some(Item::Fn(item)) => drop(into.insert(format!("fn {full}: {}", shown(&item.sig)))),
            Some(Item::Const(item)) => drop(into.insert(format!("const {full}: {}", shown(&item.ty)))),
            Some(Item::Struct(item)) => {
                into.insert(format!("struct {full}{}", shown(&item.generics)));
                fields(&full, &item.fields, true, into);
            }
            Some(Item::Enum(item)) => {
                into.insert(format!("enum {full}"));
                for variant in &item.variants {
                    let full = format!("{full}::{}", variant.ident);
                    into.insert(format!("variant {full}"));
                    fields(&full, &variant.fields, false, into);
                }
            }
            Some(Item::Trait(item)) => {
                into.insert(format!("trait {full}{}", shown(&item.generics)));
                for item in &item.items {
                    match item {
                        TraitItem::Fn(item) if !is_hidden(&item.attrs) => {
                            into.insert(format!("fn {full}::{}: {}", item.sig.ident, shown(&item.sig)));
                        }
                        TraitItem::Type(item) => drop(into.insert(format!("type {full}::{}", item.ident))),
                        _ => {}
                    }
                }
            }
            // A macro makes it, or it is another crate's.
            _ => drop(into.insert(format!("use {full}"))),
        }
        let impls = self.impls.get(name).into_iter().flatten();
        for (_, one) in impls.filter(|(at, _)| is_alone || Some(at) == file) {
            if let Some((_, of, _)) = &one.trait_ {
                let of = shown(of);
                if !of.contains("sealed") {
                    into.insert(format!("impl {of} for {full}"));
                }
                continue;
            }
            for item in &one.items {
                match item {
                    ImplItem::Fn(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
                        into.insert(format!("fn {full}::{}: {}", item.sig.ident, shown(&item.sig)));
                    }
                    ImplItem::Const(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
                        into.insert(format!("const {full}::{}: {}", item.ident, shown(&item.ty)));
                    }
                    _ => {}
                }
            }
        }
    }
}

fn fields(full: &str, fields: &Fields, need_pub: bool, into: &mut BTreeSet<String>) {
    for (index, field) in fields.iter().enumerate() {
        if need_pub && !is_public(&field.vis) {
            continue;
        }
        let name = field.ident.as_ref().map_or(index.to_string(), ToString::to_string);
        into.insert(format!("field {full}::{name}: {}", shown(&field.ty)));
    }
}

/// The names that a `use` brings, as they are called here.
fn names(tree: &UseTree, into: &mut Vec<String>) {
    match tree {
        UseTree::Path(path) => names(&path.tree, into),
        UseTree::Name(name) => into.push(name.ident.to_string()),
        UseTree::Rename(rename) => into.push(rename.rename.to_string()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| names(tree, into)),
        UseTree::Glob(_) => panic!("a glob in the public API says not what is in it"),
    }
}

/// Lists a module that is public.
fn module(path: &str, file: &Path, items: &Items, into: &mut BTreeSet<String>) {
    for item in parse(file).items {
        match item {
            Item::Mod(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
                let name = item.ident.to_string();
                if NO_PART_OF_IT.contains(&name.as_str()) {
                    continue;
                }
                into.insert(format!("mod {path}::{name}"));
                module(
                    &format!("{path}::{name}"),
                    &root().join("src").join(format!("{name}.rs")),
                    items,
                    into,
                );
            }
            Item::Use(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
                let mut found = Vec::new();
                names(&item.tree, &mut found);
                for name in found {
                    // The root also shows what is in a module.
                    match path {
                        "wasmpool" => drop(into.insert(format!("use {path}::{name}"))),
                        _ => items.list(path, &name, into),
                    }
                }
            }
            Item::Struct(item) if is_public(&item.vis) => items.list(path, &item.ident.to_string(), into),
            Item::Enum(item) if is_public(&item.vis) => items.list(path, &item.ident.to_string(), into),
            Item::Trait(item) if is_public(&item.vis) => items.list(path, &item.ident.to_string(), into),
            Item::Fn(item) if is_public(&item.vis) => items.list(path, &item.sig.ident.to_string(), into),
            Item::Const(item) if is_public(&item.vis) => items.list(path, &item.ident.to_string(), into),
            _ => {}
        }
    }
}

/// Lists the methods that `task_options!` makes: all of them of a submission, the first group of a pool's builder.
fn task_options(into: &mut BTreeSet<String>) {
    let text = std::fs::read_to_string(root().join("src/options.rs")).expect("reads");
    let (_, list) = text.split_once("macro_rules! task_options").expect("the list of options");
    let list = list.split_once("pub(crate) use task_options;").expect("its end").0;
    let groups: Vec<Vec<_>> = list
        .split("            {\n")
        .skip(1)
        .map(|group| group.lines().filter_map(|line| line.trim().strip_suffix(");")).collect())
        .collect();
    assert_eq!(groups.len(), 2, "{list}");
    for (number, method) in
        groups.iter().enumerate().flat_map(|(number, group)| group.iter().map(move |m| (number, m)))
    {
        let (name, argument) = method.split_once('(').expect("a method");
        let signature = format!("{name}: fn {name}(mut self, {argument}) -> Self");
        into.insert(format!("fn wasmpool::pool::Submission::{signature}"));
        if number == 0 {
            into.insert(format!("fn wasmpool::pool::PoolBuilder::{signature}"));
        }
    }
}

fn public_api() -> String {
    let mut items = Items::default();
    items.read(&root().join("src"));
    items.read(&root().join("crates/proto/src"));
    let mut lines = BTreeSet::new();
    module("wasmpool", &root().join("src/lib.rs"), &items, &mut lines);
    task_options(&mut lines);
    lines.into_iter().map(|line| line + "\n").collect()
}

#[test]
fn the_public_api_is_what_the_list_says() {
    let path = root().join("tests/public_api.txt");
    let now = public_api();
    if std::env::var_os("WASMPOOL_WRITE_API").is_some() {
        std::fs::write(&path, &now).expect("writes");
        return;
    }
    let listed = std::fs::read_to_string(&path).expect("reads");
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (listed.lines().collect(), now.lines().collect());
    let removed: Vec<_> = old.difference(&new).map(|line| format!("- {line}")).collect();
    let added: Vec<_> = new.difference(&old).map(|line| format!("+ {line}")).collect();
    assert!(
        removed.is_empty() && added.is_empty(),
        "the public API has changed:\n{}\nif that is meant, have the list written anew (WASMPOOL_WRITE_API=1 cargo \
         test --release --test public_api), and say it in CHANGELOG.md",
        [removed, added].concat().join("\n")
    );
}

#[test]
fn the_root_has_about_a_dozen_names() {
    let api = public_api();
    let mut root: Vec<_> = api.lines().filter_map(|line| line.strip_prefix("use wasmpool::")).collect();
    root.retain(|name| !name.contains("::"));
    let expected = [
        "Bytes",
        "Command",
        "Module",
        "Pool",
        "PoolBuilder",
        "Schema",
        "Task",
        "TaskError",
        "TaskFailure",
        "TaskFuture",
        "TaskOptions",
        "init",
    ];
    assert_eq!(root, expected);
}
