//! Figures about the house itself: circles of files, arrows against the floors,
//! what is long and what is named twice. `ops/figures` runs it.

use std::{collections::BTreeMap, error::Error, fs, path::Path};

use innermesh_tests::structure::{self, Tree, floors};

/// A file beyond is long.
const FILE_LINES: usize = 500;
/// A function beyond is long.
const FUNCTION_LINES: usize = 80;
/// A circle of files up to this size is no fault.
const CIRCLE: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("the crate lies in the workspace")?;
    let list = std::env::args().any(|word| word == "--list");
    let crates = structure::crates(root)?;
    let tree = structure::read(root, &crates)?;
    let arrows = structure::arrows(&tree);

    let circles = structure::circles(&arrows);
    let sizes: Vec<String> = circles.iter().map(|c| c.len().to_string()).collect();
    let wrong = floors::against(&tree, &arrows);
    let long_files: Vec<String> = tree
        .iter()
        .filter(|(_, file)| file.lines > FILE_LINES)
        .map(|(path, file)| format!("{path} {}", file.lines))
        .collect();
    let functions: Vec<(String, usize)> = tree
        .iter()
        .flat_map(|(path, file)| {
            let named = move |(name, lines): &(String, usize)| (format!("{path} {name}"), *lines);
            file.functions.iter().map(named)
        })
        .collect();
    let long_functions: Vec<String> = functions
        .iter()
        .filter(|(_, lines)| *lines > FUNCTION_LINES)
        .map(|(name, lines)| format!("{name} {lines}"))
        .collect();
    let twice = named_twice(&tree);
    let (mut docs, mut short_docs) = (0, 0);
    for path in tree.keys() {
        let (all, short) = structure::count_docs(&fs::read_to_string(root.join(path))?);
        docs += all;
        short_docs += short;
    }
    let sum = |count: fn(&structure::SourceFile) -> usize| tree.values().map(count).sum::<usize>();

    println!("crates                        {}", crates.len());
    println!(
        "files, lines                  {}, {}",
        tree.len(),
        sum(|file| file.lines)
    );
    println!(
        "circles of files              {} ({})",
        circles.len(),
        sizes.join(" ")
    );
    println!(
        "  above {CIRCLE}                     {}",
        circles.iter().filter(|c| c.len() > CIRCLE).count()
    );
    println!("arrows against the floors     {}", wrong.len());
    println!(
        "files over {FILE_LINES} lines          {}",
        long_files.len()
    );
    println!(
        "functions over {FUNCTION_LINES} lines       {} of {}",
        long_functions.len(),
        functions.len()
    );
    println!("type names used twice         {}", twice.len());
    println!(
        "matches on a bool             {}",
        sum(|file| file.bool_matches)
    );
    println!(
        "Result<_, String>             {}",
        sum(|file| file.string_errors)
    );
    println!("docs of at most three words   {short_docs} of {docs}");
    if list {
        for circle in circles.iter().filter(|circle| circle.len() > CIRCLE) {
            print_list("circle", circle);
            for from in circle {
                let within: Vec<&String> = arrows[from]
                    .iter()
                    .filter(|to| circle.contains(to))
                    .collect();
                println!("    {from} -> {within:?}");
            }
        }
        print_list("arrow against the floors", &wrong);
        print_list("file", &long_files);
        print_list("function", &long_functions);
        print_list("type", &twice);
    }
    Ok(())
}

fn print_list(what: &str, all: &[String]) {
    for one in all {
        println!("{what}: {one}");
    }
}

/// Types of one crate that bear the same name.
fn named_twice(tree: &Tree) -> Vec<String> {
    let mut seen: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (path, file) in tree {
        for name in &file.types {
            seen.entry((&file.package, name)).or_default().push(path);
        }
    }
    seen.into_iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|((_, name), places)| format!("{name}: {}", places.join(", ")))
        .collect()
}
