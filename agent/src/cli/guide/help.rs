//! Puts the examples into each `--help`.

use clap::{Command, builder::Str};

use super::examples::EXAMPLES;

/// The first steps, for the program's own help.
const FIRST: [(&str, &str); 4] = [
    (
        "init --domain in.example.org",
        "Create a mesh, on the first machine",
    ),
    ("invite", "Print what the next machine needs to join"),
    ("service add photos --port 8080", "Give a service a name"),
    ("cert issue photos", "Get it a certificate"),
];

/// The command with examples in each of its helps; `program` is what it is
/// called by.
pub fn with_examples(command: Command, program: &'static str) -> Command {
    let codes = command.get_after_help().cloned().unwrap_or_default();
    let first = section(program, &FIRST);
    decorated(command, "", program)
        .name(Str::from(program))
        .after_help(format!("{first}\n\n{codes}"))
}

fn decorated(command: Command, above: &str, program: &'static str) -> Command {
    let command = command.mut_subcommands(|below| {
        let path = format!("{above} {}", below.get_name());
        decorated(below, path.trim_start(), program)
    });
    let own = EXAMPLES.iter().find(|(path, _)| *path == above);
    let own = own.map(|(_, examples)| examples.to_vec());
    // A group shows the first of each of its commands.
    let below = || {
        let prefix = format!("{above} ");
        let commands = EXAMPLES
            .iter()
            .filter(|(path, _)| path.starts_with(&prefix));
        commands
            .filter_map(|(_, examples)| examples.first().copied())
            .collect()
    };
    let examples: Vec<_> = own.unwrap_or_else(below);
    if examples.is_empty() {
        return command;
    }
    command.after_help(section(program, &examples))
}

fn section(program: &str, examples: &[(&str, &str)]) -> String {
    let examples = examples
        .iter()
        .map(|(line, what)| format!("\n  # {what}\n  {program} {line}"));
    format!("Examples:{}", examples.collect::<String>())
}
