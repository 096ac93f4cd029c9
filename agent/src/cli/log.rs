//! `agent log`.

use serde::Serialize;

use super::{failure::Failure, output::Output};
use crate::{
    control::{
        Client,
        log::{LogLevels, LogRequest, LogSetRequest},
    },
    telemetry::{LogLevel, LogLevelError},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Level(LevelArguments),
}

/// Show or set how much the running agent logs.
///
/// Until it is started anew: then it is again what INNERMESH_LOG or the
/// configuration says.
#[derive(Debug, clap::Args)]
pub struct LevelArguments {
    /// off, error, warn, info, debug, trace, or a filter.
    ///
    /// A filter is such as info,innermesh_net::quic=trace. The word "configured" sets
    /// back what it was at the start.
    #[arg(value_name = "LEVEL", value_parser = level)]
    level: Option<Wanted>,
    #[command(flatten)]
    output: Output,
}

/// What somebody wants logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// So much.
    Level(LogLevel),
    /// What it was at the start.
    Configured,
}

fn level(typed: &str) -> Result<Wanted, LogLevelError> {
    if typed == "configured" {
        return Ok(Wanted::Configured);
    }
    typed.parse().map(Wanted::Level)
}

#[derive(Serialize)]
struct Printed {
    level: String,
    configured: String,
}

pub async fn run(command: Command, client: &Client) -> Result<(), Failure> {
    let Command::Level(arguments) = command;
    let LogLevels { level, configured } = match arguments.level {
        None => client.ask(&LogRequest {}).await?,
        Some(wanted) => {
            let level = match wanted {
                Wanted::Level(level) => Some(level),
                Wanted::Configured => None,
            };
            client.ask(&LogSetRequest { level }).await?
        }
    };
    let printed = Printed {
        level: level.to_string(),
        configured: configured.to_string(),
    };
    arguments.output.print(&printed, || {
        if printed.level == printed.configured {
            format!("{}\n", printed.level)
        } else {
            format!(
                "{}, until the agent is started anew; then {}\n",
                printed.level, printed.configured
            )
        }
    })
}
