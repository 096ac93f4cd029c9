//! The structure of the production code, read from its syntax: which file uses
//! which, what is long, what is named twice. Tests and examples aren't read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{spanned::Spanned, visit::Visit};

/// A file of a crate's library or program.
#[derive(Debug, Default)]
pub struct SourceFile {
    /// The crate's name in paths, such as `innermesh_proto`.
    pub package: String,
    /// Below the crate's root; empty for `lib.rs`.
    pub module: Vec<String>,
    /// With comments and blank lines.
    pub lines: usize,
    /// Name and lines of each function.
    pub functions: Vec<(String, usize)>,
    /// Names of structs, enums, traits and aliases.
    pub types: Vec<String>,
    /// `match` with an arm for `true` or `false`.
    pub bool_matches: usize,
    /// `Result<_, String>`.
    pub string_errors: usize,
    uses: Vec<Vec<String>>,
    reexports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
}

/// All files of the workspace, by path from its root.
pub type Tree = BTreeMap<String, SourceFile>;

/// Who uses whom.
pub type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The crates of the product, with their folders: not those that only test it.
pub fn crates(root: &Path) -> Result<Vec<(String, String)>, String> {
    let read = |path: &Path| -> Result<toml::Table, String> {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        text.parse().map_err(|e| format!("{}: {e}", path.display()))
    };
    let workspace = read(&root.join("Cargo.toml"))?;
    let members = workspace["workspace"]["members"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut crates = Vec::new();
    for folder in members.iter().filter_map(toml::Value::as_str) {
        if !folder.starts_with("tests") && folder != "proto/testing" {
            let manifest = read(&root.join(folder).join("Cargo.toml"))?;
            let name = manifest["package"]["name"].as_str().unwrap_or_default();
            crates.push((name.replace('-', "_"), folder.to_owned()));
        }
    }
    Ok(crates)
}

/// Reads the crates in these folders of the workspace.
pub fn read(root: &Path, crates: &[(String, String)]) -> Result<Tree, String> {
    let mut tree = Tree::new();
    for (package, folder) in crates {
        for entry in ["lib.rs", "main.rs"] {
            let path = root.join(folder).join("src").join(entry);
            // A program beside a library is a crate of its own.
            let name = if entry == "main.rs" && root.join(folder).join("src/lib.rs").exists() {
                format!("{package}::main")
            } else {
                package.clone()
            };
            if path.exists() {
                read_module(root, &path, &name, Vec::new(), &mut tree)?;
            }
        }
    }
    Ok(tree)
}

fn read_module(
    root: &Path,
    path: &Path,
    package: &str,
    module: Vec<String>,
    tree: &mut Tree,
) -> Result<(), String> {
    let words = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = fs::read_to_string(path).map_err(|e| words(&e))?;
    let syntax = syn::parse_file(&text).map_err(|e| words(&e))?;
    let mut reader = Reader {
        file: SourceFile {
            package: package.to_owned(),
            module: module.clone(),
            lines: text.lines().count(),
            ..SourceFile::default()
        },
        inside: Vec::new(),
        children: Vec::new(),
    };
    reader.visit_file(&syntax);
    let folder = children_folder(path, module.is_empty());
    for (inside, name, given) in reader.children {
        let mut below = folder.clone();
        below.extend(inside.iter());
        let candidates = match given {
            Some(given) => vec![path.parent().unwrap_or(root).join(given)],
            None => vec![
                below.join(format!("{name}.rs")),
                below.join(&name).join("mod.rs"),
            ],
        };
        let Some(child) = candidates.iter().find(|path| path.exists()) else {
            return Err(words(&format!("no file of the module {name}")));
        };
        let mut module = module.clone();
        module.extend(inside);
        module.push(name);
        read_module(root, child, package, module, tree)?;
    }
    let name = path.strip_prefix(root).unwrap_or(path);
    tree.insert(name.to_string_lossy().into_owned(), reader.file);
    Ok(())
}

/// Where the modules lie that a file declares.
fn children_folder(path: &Path, is_root: bool) -> PathBuf {
    let parent = path.parent().unwrap_or(path);
    if is_root || path.file_name().is_some_and(|name| name == "mod.rs") {
        parent.to_owned()
    } else {
        path.with_extension("")
    }
}

/// Who uses whom, through what is handed on as well: a path that ends in a name
/// which another module defines leads to the latter.
pub fn arrows(tree: &Tree) -> Arrows {
    let places: BTreeMap<(&str, &[String]), &str> = tree
        .iter()
        .map(|(path, file)| {
            (
                (file.package.as_str(), file.module.as_slice()),
                path.as_str(),
            )
        })
        .collect();
    let resolver = Resolver { tree, places };
    let mut arrows = Arrows::new();
    for (path, file) in tree {
        let to = arrows.entry(path.clone()).or_default();
        for used in file.uses.iter().chain(&file.globs) {
            if let Some(found) = resolver.file_of(file, used, 0)
                && found != path
            {
                to.insert(found.to_owned());
            }
        }
    }
    arrows
}

struct Resolver<'a> {
    tree: &'a Tree,
    places: BTreeMap<(&'a str, &'a [String]), &'a str>,
}

impl Resolver<'_> {
    /// The file in which what a path of `from` names is defined.
    fn file_of(&self, from: &SourceFile, path: &[String], depth: usize) -> Option<&str> {
        let (package, full) = absolute(from, path)?;
        for length in (0..=full.len()).rev() {
            let Some(found) = self.places.get(&(package.as_str(), &full[..length])) else {
                continue;
            };
            let file = &self.tree[*found];
            let Some(next) = full.get(length) else {
                return Some(found);
            };
            if depth < 8 {
                if let Some(target) = file.reexports.get(next) {
                    let further: Vec<String> =
                        target.iter().chain(&full[length + 1..]).cloned().collect();
                    return self.file_of(file, &further, depth + 1);
                }
                if !file.types.contains(next)
                    && !file.functions.iter().any(|(name, _)| name == next)
                {
                    let through = file.globs.iter().find_map(|glob| {
                        let target = self.file_of(file, glob, depth + 1)?;
                        let target_file = &self.tree[target];
                        let has = target_file.types.contains(next)
                            || target_file.functions.iter().any(|(name, _)| name == next);
                        has.then_some(target)
                    });
                    if through.is_some() {
                        return through;
                    }
                }
            }
            return Some(found);
        }
        None
    }
}

/// A path from the root of its crate; none if it leads out of the workspace.
fn absolute(from: &SourceFile, path: &[String]) -> Option<(String, Vec<String>)> {
    let first = path.first()?;
    let mut module = from.module.clone();
    let mut rest = &path[1..];
    match first.as_str() {
        "crate" => return Some((from.package.clone(), rest.to_vec())),
        "self" => {}
        "super" => {
            module.pop();
        }
        name if name.starts_with("innermesh_") => return Some((name.to_owned(), rest.to_vec())),
        _ => return None,
    }
    while rest.first().is_some_and(|word| word == "super") {
        module.pop();
        rest = &rest[1..];
    }
    module.extend(rest.iter().cloned());
    Some((from.package.clone(), module))
}

/// Files that use each other in a loop, the largest circle first.
pub fn circles(arrows: &Arrows) -> Vec<Vec<String>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> = arrows
        .keys()
        .map(|from| (from.as_str(), reachable(arrows, from)))
        .collect();
    let mut circles = Vec::new();
    let mut done: BTreeSet<String> = BTreeSet::new();
    for (from, there) in &reach {
        if done.contains(*from) || !there.contains(from) {
            continue;
        }
        let circle: Vec<String> = there
            .iter()
            .filter(|to| reach.get(**to).is_some_and(|back| back.contains(from)))
            .map(|to| (*to).to_owned())
            .collect();
        done.extend(circle.iter().cloned());
        circles.push(circle);
    }
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

fn reachable<'a>(arrows: &'a Arrows, from: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&str> = arrows
        .get(from)
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    while let Some(file) = next.pop() {
        if found.insert(file) {
            next.extend(arrows.get(file).into_iter().flatten().map(String::as_str));
        }
    }
    found
}

struct Reader {
    file: SourceFile,
    /// Modules within the file that are being read.
    inside: Vec<String>,
    /// The modules within the file, the name and the `path` of each child.
    children: Vec<(Vec<String>, String, Option<String>)>,
}

impl Reader {
    /// A path as from the top of the file.
    fn at_file_level(&self, mut path: Vec<String>) -> Vec<String> {
        let mut depth = self.inside.len();
        while depth > 0 && path.first().is_some_and(|word| word == "super") {
            path.remove(0);
            depth -= 1;
        }
        if depth < self.inside.len() && path.first().is_none_or(|word| word != "super") {
            path.insert(0, "self".to_owned());
        }
        path
    }

    fn function(&mut self, name: &syn::Ident, span: proc_macro2::Span) {
        let lines = span.end().line + 1 - span.start().line;
        self.file.functions.push((name.to_string(), lines));
    }

    fn tree(&mut self, tree: &syn::UseTree, so_far: &[String], handed_on: bool) {
        let with = |word: &syn::Ident| {
            let mut path = so_far.to_vec();
            path.push(word.to_string());
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident), handed_on),
            syn::UseTree::Name(name) if name.ident == "self" => {
                let last = so_far.last().cloned().unwrap_or_default();
                self.used(&last, so_far.to_vec(), handed_on);
            }
            syn::UseTree::Name(name) => {
                self.used(&name.ident.to_string(), with(&name.ident), handed_on);
            }
            syn::UseTree::Rename(rename) if rename.ident == "self" => {
                self.used(&rename.rename.to_string(), so_far.to_vec(), handed_on);
            }
            syn::UseTree::Rename(rename) => {
                self.used(&rename.rename.to_string(), with(&rename.ident), handed_on);
            }
            syn::UseTree::Glob(_) => {
                let path = self.at_file_level(so_far.to_vec());
                self.file.globs.push(path);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(tree, so_far, handed_on);
                }
            }
        }
    }

    fn used(&mut self, name: &str, path: Vec<String>, handed_on: bool) {
        let mut path = self.at_file_level(path);
        let is_child = |word: &String| {
            self.children
                .iter()
                .any(|(inside, name, _)| inside.is_empty() && name == word)
        };
        if path.first().is_some_and(is_child) {
            path.insert(0, "self".to_owned());
        }
        if self.inside.is_empty() {
            self.file.reexports.insert(name.to_owned(), path.clone());
        }
        if !handed_on {
            self.file.uses.push(path);
        }
    }
}

/// Whether it is there for tests only.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<syn::Path>()
                    .is_ok_and(|path| path.is_ident("test")))
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Const(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_file(&mut self, file: &'ast syn::File) {
        // Declared modules first: `use child::X` names one of them.
        for item in &file.items {
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
                && !is_test(&module.attrs)
            {
                self.child(module);
            }
        }
        syn::visit::visit_file(self, file);
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attributes(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.content.is_some() {
            self.inside.push(module.ident.to_string());
            syn::visit::visit_item_mod(self, module);
            self.inside.pop();
        } else {
            if !self.inside.is_empty() {
                self.child(module);
            }
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let handed_on = !matches!(item.vis, syn::Visibility::Inherited);
        self.tree(&item.tree, &[], handed_on);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if words.len() > 1 {
            let path = self.at_file_level(words);
            // A module that the file names in a `use`, or its own child.
            let first = path.first().cloned().unwrap_or_default();
            let of_child = self.children.iter().any(|(_, name, _)| *name == first);
            if of_child {
                let mut own = vec!["self".to_owned()];
                own.extend(path);
                self.file.uses.push(own);
            } else {
                self.file.uses.push(path);
            }
        }
        if let Some(last) = path.segments.last()
            && last.ident == "Result"
            && let syn::PathArguments::AngleBracketed(given) = &last.arguments
            && let Some(syn::GenericArgument::Type(syn::Type::Path(error))) = given.args.get(1)
            && error.path.is_ident("String")
        {
            self.file.string_errors += 1;
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, item.span());
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig.ident, item.span());
            syn::visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.file.types.push(item.ident.to_string());
        syn::visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.file.types.push(item.ident.to_string());
        syn::visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.file.types.push(item.ident.to_string());
        syn::visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.file.types.push(item.ident.to_string());
        syn::visit::visit_item_type(self, item);
    }

    fn visit_expr_match(&mut self, found: &'ast syn::ExprMatch) {
        let is_bool = |pattern: &syn::Pat| matches!(pattern, syn::Pat::Lit(lit) if matches!(lit.lit, syn::Lit::Bool(_)));
        if found.arms.iter().any(|arm| is_bool(&arm.pat)) {
            self.file.bool_matches += 1;
        }
        syn::visit::visit_expr_match(self, found);
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

impl Reader {
    fn child(&mut self, module: &syn::ItemMod) {
        let given = module
            .attrs
            .iter()
            .find_map(|attribute| match &attribute.meta {
                syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                    syn::Expr::Lit(literal) => match &literal.lit {
                        syn::Lit::Str(text) => Some(text.value()),
                        _ => None,
                    },
                    _ => None,
                },
                _ => None,
            });
        self.children
            .push((self.inside.clone(), module.ident.to_string(), given));
    }
}

/// Counts blocks of `///`: all, and those of at most three words.
pub fn count_docs(text: &str) -> (usize, usize) {
    let (mut all, mut short) = (0, 0);
    let mut words = None;
    for line in text.lines().chain([""]) {
        if let Some(doc) = line.trim_start().strip_prefix("///") {
            *words.get_or_insert(0) += doc.split_whitespace().count();
        } else if let Some(count) = words.take() {
            all += 1;
            if count <= 3 {
                short += 1;
            }
        }
    }
    (all, short)
}

pub mod floors;
