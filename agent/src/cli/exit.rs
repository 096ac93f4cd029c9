//! `agent exit`: by which node this one reaches the internet.

use clap::ValueEnum;
use innermesh_proto::{filter::LanAccess, name::Label};

use super::{
    failure::Failure,
    output::{Detail, Output, note},
    show::{Cell, Column, Screen, Table},
};
use crate::control::{
    Client,
    exits::{ExitOffRequest, ExitShowRequest, ExitShown, ExitUseRequest, ExitUsed},
};

/// Reach the internet by another node.
///
/// Without a command it shows what is in use.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Use(UseArguments),
    Off(OffArguments),
    /// Show the exits, and which one is in use.
    Show {
        #[command(flatten)]
        detail: Detail,
        #[command(flatten)]
        output: Output,
    },
}

/// Send all that is for the internet by an exit.
///
/// An exit is a node with the role exit. What this machine's programs and
/// containers send to the internet goes by it and in no other way, also while
/// the exit or the agent is down: then nothing is reached. The agent's own
/// packets to other nodes, and its questions to name servers, go as before. It
/// stays so until `agent exit off`, over restarts too.
#[derive(Debug, clap::Args)]
struct UseArguments {
    /// Name of the exit, or off.
    #[arg(value_name = "NODE")]
    node: Label,
    /// Reach hosts in this machine's own LANs as before, or not.
    #[arg(
        long,
        value_name = "keep|cut",
        default_value = "keep",
        hide_possible_values = true
    )]
    lan: Lan,
    #[command(flatten)]
    output: Output,
}

/// Send to the internet by this machine's own way again.
#[derive(Debug, clap::Args)]
struct OffArguments {
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lan {
    Keep,
    Cut,
}

pub async fn run(arguments: Arguments, client: &Client) -> Result<(), Failure> {
    match arguments.command {
        Some(Command::Use(arguments)) if arguments.node.as_str() == "off" => {
            off(arguments.output, client).await
        }
        Some(Command::Use(arguments)) => begin(arguments, client).await,
        Some(Command::Off(OffArguments { output })) => off(output, client).await,
        Some(Command::Show { detail, output }) => show(detail, output, client).await,
        None => show(arguments.detail, arguments.output, client).await,
    }
}

async fn begin(arguments: UseArguments, client: &Client) -> Result<(), Failure> {
    let UseArguments { node, lan, output } = arguments;
    let lan = match lan {
        Lan::Keep => LanAccess::Keep,
        Lan::Cut => LanAccess::Cut,
    };
    let used = client.ask(&ExitUseRequest { node, lan }).await?;
    output.print(&used, || begun(&used))?;
    if !output.is_json() {
        for warning in &used.warnings {
            note(warning);
        }
    }
    Ok(())
}

fn begun(used: &ExitUsed) -> String {
    format!("what is for the internet goes by {} now\n", used.node)
}

async fn off(output: Output, client: &Client) -> Result<(), Failure> {
    let ended = client.ask(&ExitOffRequest {}).await?;
    output.print(&ended, || match &ended.node {
        Some(node) => format!("what is for the internet doesn't go by {node} any more\n"),
        None => "no exit was in use\n".to_owned(),
    })
}

async fn show(detail: Detail, output: Output, client: &Client) -> Result<(), Failure> {
    let shown = client.ask(&ExitShowRequest {}).await?;
    output.show(detail, &shown, |screen| draw(screen, &shown))
}

fn draw(screen: &mut Screen, shown: &ExitShown) {
    match &shown.used {
        Some(used) => {
            let lan = match used.lan {
                LanAccess::Keep => "kept",
                LanAccess::Cut => "cut",
            };
            screen.say(&format!("in use: {}; LANs are {lan}\n", used.node));
            if let Some(trouble) = &used.trouble {
                screen.say(&format!("nothing is reached by it: {trouble}\n"));
            }
        }
        None => screen.say("no exit is in use\n"),
    }
    if shown.exits.is_empty() {
        return screen.say("no node is an exit; `agent role add NODE exit` makes it one\n");
    }
    let mut table = Table::new([
        Column::whole("EXIT"),
        Column::whole("LIVE"),
        Column::whole("IPV4"),
        Column::whole("IPV6"),
        Column::whole("USED HERE"),
    ]);
    let yes = |is: bool| {
        if is {
            Cell::good("yes")
        } else {
            Cell::bad("no")
        }
    };
    let way = |way: Option<bool>| way.map_or_else(|| Cell::new("?"), yes);
    for row in &shown.exits {
        table.add([
            Cell::new(&row.node),
            yes(row.live),
            way(row.ipv4),
            way(row.ipv6),
            Cell::new(if row.used { "yes" } else { "no" }),
        ]);
    }
    screen.table(&table.sorted());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::show::plain,
        control::exits::{ExitInUse, ExitRow},
    };

    #[test]
    fn what_is_in_use_stands_above_the_exits() {
        let mut shown = ExitShown {
            used: None,
            exits: Vec::new(),
        };
        let text = plain(|screen| draw(screen, &shown));
        assert!(text.contains("no exit is in use") && text.contains("role add NODE exit"));
        shown.used = Some(ExitInUse {
            node: "attic".into(),
            lan: LanAccess::Cut,
            trouble: Some("attic is not there".into()),
        });
        shown.exits = vec![ExitRow {
            node: "attic".into(),
            live: false,
            used: true,
            ipv4: Some(true),
            ipv6: None,
        }];
        let text = plain(|screen| draw(screen, &shown));
        assert!(text.contains("in use: attic; LANs are cut"), "{text}");
        assert!(
            text.contains("attic is not there") && text.contains('?'),
            "{text}"
        );
    }
}
