//! All examples and all mistakes, each against the command line as it is.

use std::collections::BTreeMap;

use clap::Command;

use super::{
    examples::EXAMPLES,
    mistakes::{advised, refused_anyway},
    pattern::{filled, kind},
    table::{ANYWAY, MISTAKES},
    with_examples,
};
use crate::cli::definition;

/// Each command that does something, by its path.
fn leaves(command: &Command, above: &str, found: &mut BTreeMap<String, Command>) {
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        let path = format!("{above} {}", below.get_name()).trim().to_owned();
        if below.get_name() == "help" {
            continue;
        }
        if !below.is_subcommand_required_set() {
            found.insert(path.clone(), below.clone());
        }
        leaves(below, &path, found);
    }
}

fn all() -> BTreeMap<String, Command> {
    let mut command = definition("agent");
    command.build();
    let mut found = BTreeMap::new();
    leaves(&command, "", &mut found);
    found
}

/// As a shell makes words of it, up to a pipe or a file.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in line.chars().chain([' ']) {
        match c {
            '\'' => {
                quoted = !quoted;
                let _ = word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    let end = words.iter().position(|word| word == ">" || word == "|");
    words.truncate(end.unwrap_or(words.len()));
    words
}

fn parse(words: &[String]) -> Result<(), clap::Error> {
    let line = std::iter::once("agent").chain(words.iter().map(String::as_str));
    crate::cli::read(definition("agent"), line).map(|_| ())
}

#[test]
fn each_command_has_an_example_and_each_example_can_be_typed() {
    let commands = all();
    for (path, examples) in EXAMPLES {
        assert!(commands.contains_key(*path), "there is no command {path}");
        for (line, what) in *examples {
            assert!(line.starts_with(path), "{line} is no example of {path}");
            assert!(
                what.chars().count() <= 70 && line.chars().count() <= 76,
                "{line}"
            );
            if let Err(error) = parse(&words(line)) {
                panic!("{line}: {error}");
            }
        }
    }
    for (path, command) in &commands {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_else(|| panic!("{path} has no example"));
        assert!(help.contains(&format!("  agent {path}")), "{path}: {help}");
    }
}

#[test]
fn a_group_shows_an_example_of_each_of_its_commands() {
    let mut command = definition("innermesh");
    let cert = command.find_subcommand_mut("cert").unwrap();
    let help = cert.render_help().to_string();
    for line in [
        "innermesh cert issue photos",
        "innermesh cert list",
        "innermesh cert revoke",
    ] {
        assert!(help.contains(line), "{help}");
    }
    let help = command.render_help().to_string();
    assert!(
        help.contains("innermesh init --domain") && help.contains("Exit codes:"),
        "{help}"
    );
}

#[test]
fn help_fits_eighty_columns() {
    for (path, mut command) in all() {
        command = command.term_width(80);
        for help in [command.render_help(), command.render_long_help()] {
            for line in help.to_string().lines() {
                let columns = line.chars().count();
                // A line that has to be typed isn't broken.
                assert!(columns <= 80 || line.contains("  agent "), "{path}: {line}");
            }
        }
    }
}

/// A line with a sample for each word in capitals.
fn sample(pattern: &str) -> Vec<String> {
    let words = pattern.split(' ').map(|part| match kind(part) {
        Some(kind) => kind.sample().to_owned(),
        None => part.to_owned(),
    });
    words.collect()
}

fn right(template: &str, pattern: &str) -> String {
    let parts: Vec<&str> = pattern.split(' ').collect();
    let words = sample(pattern);
    let taken = parts
        .iter()
        .zip(words)
        .filter(|(part, _)| kind(part).is_some());
    let taken = taken.map(|(part, word)| (part.strip_suffix("...").unwrap_or(part), vec![word]));
    filled(template, &taken.collect())
}

#[test]
fn each_mistake_is_one_and_is_answered_with_a_command_that_can_be_typed() {
    for mistake in MISTAKES {
        let typed = sample(mistake.typed);
        let Err(error) = parse(&typed) else {
            panic!("{} is no mistake", typed.join(" "));
        };
        let told = advised(error, "agent", &typed).to_string();
        let right = right(mistake.right, mistake.typed);
        let shown = match right.strip_prefix("$ ") {
            Some(other) => format!("`{other}`"),
            None => format!("`agent {right}`"),
        };
        assert!(
            told.contains(&shown),
            "{}: {shown} in\n{told}",
            mistake.typed
        );
        if !right.starts_with("$ ")
            && let Err(error) = parse(&words(&right))
        {
            panic!("{}: {right}: {error}", mistake.typed);
        }
    }
}

#[test]
fn what_can_be_read_and_means_something_else_is_refused() {
    for mistake in ANYWAY {
        let typed = sample(mistake.typed);
        assert!(
            parse(&typed).is_ok(),
            "{typed:?} belongs to the other table"
        );
        let told = refused_anyway("agent", &typed).unwrap();
        let right = right(mistake.right, mistake.typed);
        assert!(told.contains(&format!("`agent {right}`")), "{told}");
        assert!(parse(&words(&right)).is_ok(), "{right}");
        assert_eq!(refused_anyway("agent", &words(&right)), None, "{right}");
    }
    assert_eq!(
        refused_anyway("agent", &words("join 192.0.2.1 --token -")),
        None
    );
    assert_eq!(refused_anyway("agent", &words("dns query photos A")), None);
}

#[test]
fn the_two_usual_mistakes_of_each_command_are_known() {
    for path in all().keys() {
        let of = |line: &str| line == path || line.starts_with(&format!("{path} "));
        let known = MISTAKES.iter().chain(ANYWAY);
        let known = known.filter(|it| of(it.typed) || of(it.right)).count();
        assert!(known >= 2, "{path} has {known}");
    }
}

#[test]
fn the_right_command_is_for_the_same_folder_and_by_the_name_that_was_called() {
    let typed = words("--dir /x role add admin beta --json");
    let error = parse(&typed).unwrap_err();
    let told = advised(error, "innermesh", &typed).to_string();
    assert!(
        told.contains("`innermesh --dir /x role add beta admin`"),
        "{told}"
    );
}

#[test]
fn examples_stand_before_the_exit_codes() {
    let command = with_examples(Command::new("x").after_help("Exit codes"), "agent");
    let help = command.get_after_help().unwrap().to_string();
    assert!(help.find("Examples") < help.find("Exit codes"), "{help}");
}
