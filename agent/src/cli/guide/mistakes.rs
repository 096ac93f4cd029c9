//! The right command where another was typed.

use clap::{
    Error,
    builder::StyledStr,
    error::{ContextKind, ContextValue},
};

use super::{
    pattern::{filled, matched},
    table::{ANYWAY, MISTAKES, Mistake},
};
use crate::cli::show::harmless;

/// A reason that ends so goes on with the command.
const LEADS: [&str; 4] = [" by", " with", " called", " run"];

/// An error of the command line, with the right line where it is known.
pub fn advised(mut error: Error, program: &str, words: &[String]) -> Error {
    if !error.use_stderr() {
        return error;
    }
    let Some(advice) = advice(MISTAKES, program, words) else {
        return error;
    };
    for kind in [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ] {
        let _ = error.remove(kind);
    }
    let told = ContextValue::StyledStrs(vec![StyledStr::from(advice)]);
    let _ = error.insert(ContextKind::Suggested, told);
    error
}

/// What is wrong with a line that could be read, and means something else.
pub fn refused_anyway(program: &str, words: &[String]) -> Option<String> {
    advice(ANYWAY, program, words)
}

fn advice(table: &[Mistake], program: &str, words: &[String]) -> Option<String> {
    let (dir, words) = without_options(words);
    let found = table
        .iter()
        .find_map(|mistake| Some((mistake, matched(mistake.typed, &words)?)));
    let (mistake, taken) = found?;
    let right = match mistake.right.strip_prefix("$ ") {
        Some(other) => filled(other, &taken),
        None => format!("{program}{dir} {}", filled(mistake.right, &taken)),
    };
    let leads = LEADS.iter().any(|lead| mistake.why.ends_with(lead));
    let colon = if leads { "" } else { ":" };
    Some(harmless(&format!("{}{colon} `{right}`", mistake.why)))
}

/// `--dir` as it is to be typed again, and the words without it and `--json`.
fn without_options(words: &[String]) -> (String, Vec<String>) {
    let (mut dir, mut rest) = (String::new(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => {}
            "--dir" => {
                dir = words
                    .next()
                    .map_or_else(String::new, |to| format!(" --dir {to}"))
            }
            other if other.starts_with("--dir=") => dir = format!(" {other}"),
            _ => rest.push(word.clone()),
        }
    }
    (dir, rest)
}
