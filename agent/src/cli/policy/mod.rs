//! `agent policy`: who may reach what.

mod edit;
mod explain;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use innermesh_proto::limits;

use super::{
    context::Context,
    failure::{FAILED, Failure},
    output::{self, Output},
    show::{now, until},
};
use crate::control::{
    Client,
    policy::{PolicyCheckRequest, PolicyChecked, PolicySet, PolicySetRequest, PolicyShowRequest},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Show(ShowArguments),
    Edit(EditArguments),
    Check(CheckArguments),
    Set(SetArguments),
    Explain(explain::Arguments),
}

/// Show the policy in force.
#[derive(Debug, clap::Args)]
pub struct ShowArguments {
    #[command(flatten)]
    output: Output,
}

/// Change the policy in an editor.
///
/// Opens the policy in force in $VISUAL or $EDITOR, checks what was made of it,
/// shows what that changes nothing or too much, and asks before it is set. Run it
/// on an admin's node.
#[derive(Debug, clap::Args)]
pub struct EditArguments {
    #[command(flatten)]
    unknown: Unknown,
    #[command(flatten)]
    consent: super::consent::Consent,
}

/// Check a policy without setting it.
///
/// Ends with 1 where it can't be set: it can't be read, one of its tests fails, or
/// it has a name that nothing in the mesh has. Tells of rules that change nothing.
#[derive(Debug, clap::Args)]
pub struct CheckArguments {
    /// The policy's file; - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    unknown: Unknown,
    #[command(flatten)]
    output: Output,
}

/// Set the policy for the whole mesh.
///
/// It is in force on each node as soon as that node hears of it: what it doesn't
/// allow any more is cut off, open connections too. A policy whose own tests fail
/// is refused and changes nothing. Run it on an admin's node. An empty file sets
/// back what counts without a policy.
#[derive(Debug, clap::Args)]
pub struct SetArguments {
    /// The policy's file; - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    unknown: Unknown,
    #[command(flatten)]
    output: Output,
}

/// `--allow-unknown`.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Unknown {
    /// Accept names that nothing in the mesh has yet.
    #[arg(long)]
    allow_unknown: bool,
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    let client = context.client();
    match command {
        Command::Show(arguments) => show(&arguments, &client).await,
        Command::Edit(arguments) => {
            edit::edit(arguments.unknown.allow_unknown, arguments.consent, &client).await
        }
        Command::Check(arguments) => check(&arguments, &client).await,
        Command::Set(arguments) => set(&arguments, &client).await,
        Command::Explain(arguments) => explain::explain(&arguments, &client).await,
    }
}

async fn show(arguments: &ShowArguments, client: &Client) -> Result<(), Failure> {
    let shown = client.ask(&PolicyShowRequest {}).await?;
    if arguments.output.is_json() {
        return arguments.output.print(&shown, String::new);
    }
    let Some(text) = &shown.text else {
        return output::raw(
            "# There is no policy: members reach members, and devices what services offer.\n",
        );
    };
    // What `set` takes, and nothing else, stands on standard output.
    output::raw(text)?;
    if let (Some(by), Some(at)) = (&shown.by, shown.at) {
        let when = until(now(), at);
        output::note(&format!("policy {}, set on {by} {when}", shown.number));
    }
    if shown
        .enforced
        .is_some_and(|enforced| enforced != shown.number)
    {
        output::note("the filter of this host was made by another policy still");
    }
    output::warn(&shown.troubles);
    Ok(())
}

async fn check(arguments: &CheckArguments, client: &Client) -> Result<(), Failure> {
    let request = PolicyCheckRequest {
        text: read(&arguments.file)?,
        allow_unknown: arguments.unknown.allow_unknown,
    };
    let checked = client.ask(&request).await?;
    if !arguments.output.is_json() {
        tell_errors(&checked);
        output::warn(&checked.notes);
    }
    let is_good = checked.errors.is_empty();
    if is_good || arguments.output.is_json() {
        let file = arguments.file.display();
        arguments.output.print(&checked, || {
            format!(
                "{file} can be set: {}, {}, {}\n",
                count(checked.rules, "rule"),
                count(checked.groups, "group"),
                count(checked.tests, "test")
            )
        })?;
    }
    if is_good {
        return Ok(());
    }
    Err(Failure::silent(FAILED))
}

fn tell_errors(checked: &PolicyChecked) {
    for error in &checked.errors {
        output::note(&format!("error: {error}"));
    }
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

async fn set(arguments: &SetArguments, client: &Client) -> Result<(), Failure> {
    let request = PolicySetRequest {
        text: read(&arguments.file)?,
        allow_unknown: arguments.unknown.allow_unknown,
        instead_of: None,
    };
    let set = client.ask(&request).await?;
    told(&set);
    arguments.output.print(&set, || done(&set))
}

fn told(set: &PolicySet) {
    output::warn(&set.notes);
}

fn done(set: &PolicySet) -> String {
    format!("policy {} is in force\n", set.number)
}

/// The text of a file, or what comes by standard input.
fn read(file: &Path) -> Result<String, Failure> {
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let opened = File::open(file).map_err(|error| unreadable(file, &error))?;
        Box::new(opened)
    };
    let most = limits::POLICY_BYTES as u64 + 1;
    let mut text = Vec::new();
    let read = input.take(most).read_to_end(&mut text);
    read.map_err(|error| unreadable(file, &error))?;
    if text.len() > limits::POLICY_BYTES {
        return Err(Failure::failed(format!(
            "{} has more than {} bytes, which is the most that a policy may have",
            file.display(),
            limits::POLICY_BYTES
        )));
    }
    String::from_utf8(text)
        .map_err(|_| Failure::failed(format!("{} is no text in UTF-8", file.display())))
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{} can't be read: {error}", file.display()))
}
