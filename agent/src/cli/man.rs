//! The manual page, from the same definition as `--help` (man(7)).

use clap::{Arg, Command};

/// Sections that no definition of options holds.
const TAIL: &str = r#".SH FILES
.TP
.I /etc/innermesh/config.toml
The configuration, all of it optional.
.B agent config example
prints one with all keys explained,
.B agent config show
what the agent would run with.
.TP
.I /etc/innermesh/services.d/*.toml
Services of this machine, one in each file: name, port, and perhaps protocol,
check, address and share. A file counts as soon as it is saved.
.TP
.I /var/lib/innermesh
The state: keys, the ledger, known peers. Mode 0700.
.TP
.I /var/lib/innermesh/trust.json
What
.B agent ca trust install
put where; of what was installed without root,
.IR ~/.local/state/innermesh/trust.json .
.TP
.I /run/innermesh/agent.sock
Where the agent is asked: HTTP with JSON, for looking open to everybody on this
machine, for changing to root and the agent's own user.
.SH ENVIRONMENT
.TP
.B INNERMESH_DIR
As
.BR \-\-dir .
.TP
.B INNERMESH_TOKEN
As
.B \-\-token
of
.BR "agent join" ,
where nobody is there to paste it.
.TP
.B INNERMESH_ROOT_PASSPHRASE
Opens the root's recovery file, where nobody is there to type it.
.TP
.B NO_COLOR
Any text: no colours. There are none in a pipe either.
.TP
.B COLUMNS
How wide tables may be on a terminal, in place of its own width.
.TP
.B JAVA_HOME
A Java runtime whose keystore
.B agent ca trust
looks at, besides that of the
.B keytool
on the PATH.
.TP
.B INNERMESH_LOG
What is logged, such as
.B debug
or
.BR info,innermesh_net::quic=trace .
.TP
.BR OTEL_EXPORTER_OTLP_ENDPOINT ", " OTEL_*
Where traces go; TRACEPARENT is taken over.
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
Failed.
.TP
.B 2
The command line was wrong.
.TP
.B 3
The agent is not running.
.TP
.B 4
It took too long.
.TP
.B 5
Taken, and not done yet: it waits for a second admin or for a CA node.
.SH NOTES
.B innermesh
is another name of the program.
"#;

/// The page as roff source.
pub fn page(command: &Command) -> String {
    let name = command.get_name();
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let version = command.get_version().unwrap_or_default();
    let mut out = format!(
        ".TH {} 1 \"\" \"{name} {version}\"\n.SH NAME\n{name} \\- {}\n.SH SYNOPSIS\n.B {name}\n[\\fIoptions\\fR] \\fIcommand\\fR\n",
        name.to_ascii_uppercase(),
        text(&about),
    );
    out.push_str(".SH OPTIONS\n");
    command
        .get_arguments()
        .for_each(|arg| out.push_str(&option(arg)));
    out.push_str(".SH COMMANDS\n");
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        describe(sub, name, &mut out);
    }
    out.push_str(TAIL);
    out
}

fn describe(command: &Command, above: &str, out: &mut String) {
    let name = format!("{above} {}", command.get_name());
    if !command.is_subcommand_required_set() {
        entry(command, &name, out);
    }
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        describe(sub, &name, out);
    }
}

fn entry(command: &Command, name: &str, out: &mut String) {
    let arguments: Vec<String> = command
        .get_positionals()
        .map(|arg| value(arg, arg.is_required_set()))
        .collect();
    let title = format!("{} {}", text(name), arguments.join(" "));
    out.push_str(&format!(".SS {}\n", title.trim_end()));
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    out.push_str(&paragraphs(&about, ".PP"));
    for arg in command.get_arguments() {
        out.push_str(&option(arg));
    }
    if let Some(examples) = command.get_after_help() {
        out.push_str(&format!(".PP\n.nf\n{}\n.fi\n", text(&examples.to_string())));
    }
}

fn option(arg: &Arg) -> String {
    if arg.is_global_set() && arg.get_id() != "dir" {
        return String::new();
    }
    let mut head = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("\\fB\\-{short}\\fR, \\fB\\-\\-{}\\fR", text(long)),
        (None, Some(long)) => format!("\\fB\\-\\-{}\\fR", text(long)),
        (Some(short), None) => format!("\\fB\\-{short}\\fR"),
        (None, None) => String::new(),
    };
    if arg.get_action().takes_values() {
        let separator = if head.is_empty() { "" } else { " " };
        head = format!("{head}{separator}{}", value(arg, true));
    }
    let help = arg.get_long_help().or(arg.get_help());
    let mut help = help.map(ToString::to_string).unwrap_or_default();
    if let [default, ..] = arg.get_default_values()
        && arg.get_action().takes_values()
    {
        help.push_str(&format!(" [default: {}]", default.to_string_lossy()));
    }
    format!(".TP\n{head}\n{}", paragraphs(&help, ".IP"))
}

fn value(arg: &Arg, required: bool) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let name = names
        .first()
        .map_or(arg.get_id().as_str(), |name| name.as_str());
    let name = format!("\\fI{}\\fR", text(name));
    if required { name } else { format!("[{name}]") }
}

/// Running text, with `request` in place of empty lines.
fn paragraphs(running: &str, request: &str) -> String {
    running
        .split("\n\n")
        .map(|paragraph| format!("{}\n", text(paragraph)))
        .collect::<Vec<_>>()
        .join(&format!("{request}\n"))
}

/// Text that roff prints as it is.
fn text(plain: &str) -> String {
    let escaped = plain.replace('\\', "\\e").replace('-', "\\-");
    let lines = escaped.lines().map(|line| match line.chars().next() {
        // At the start of a line these begin a request.
        Some('.' | '\'') => format!("\\&{line}"),
        _ => line.to_string(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command_and_option() {
        let page = page(&super::super::definition("agent"));
        for part in [
            ".TH AGENT 1",
            ".SS agent init",
            ".SS agent invite\n",
            ".SS agent invite revoke \\fIID\\fR",
            "\\fB\\-\\-no\\-start\\fR",
            ".SS agent service add \\fINAME\\fR",
            ".SS agent dns query \\fINAME\\fR [\\fITYPE\\fR]",
            "[default: 30s]",
            "\\fB\\-c\\fR, \\fB\\-\\-count\\fR \\fIN\\fR",
            ".SH EXIT STATUS",
            "  agent cert list \\-\\-expiring 30d",
        ] {
            assert!(page.contains(part), "{part}:\n{page}");
        }
    }

    #[test]
    fn no_text_becomes_a_request_of_roff() {
        assert_eq!(text(".SH x\n'a\n\\-b"), "\\&.SH x\n\\&'a\n\\e\\-b");
    }
}
