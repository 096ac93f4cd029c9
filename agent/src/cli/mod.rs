//! The command line: arguments in, text or JSON and an exit code out.
//!
//! A client of the running agent, except for `init` and `join`, which write
//! the state that an agent needs, and `run`, which is the agent. Runs outside
//! the simulation, so it reads clocks and files by itself.

#![allow(
    clippy::disallowed_methods,
    reason = "the command line runs outside the agent, on a real host"
)]

mod admins;
mod alone;
mod ca;
mod cert;
mod config;
mod consent;
mod context;
pub mod daemon_json;
mod demo;
mod device;
mod dns;
mod dns_docker;
mod dns_log;
mod dns_public;
mod dns_secondary;
mod dns_setup;
mod evict;
mod exit;
mod failure;
mod files;
mod guide;
mod init;
mod invite;
mod join;
mod leave;
mod log;
mod man;
mod names;
mod netcheck;
mod network;
mod notify;
mod output;
mod overlay;
mod paths;
mod policy;
mod port_mapping;
mod ports;
mod publish;
mod record;
mod requests;
mod role;
mod root_key;
mod root_word;
mod route;
mod run;
mod seed;
mod service;
mod services_folder;
mod show;
mod start;
mod status;
mod stopped;
mod terminal;
mod tunnel;
mod unit;
mod wait;
mod zone_file;

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde::Serialize;
use tracing::{Instrument, Span};

use self::{context::Context, failure::Failure, output::Output, paths::Paths};
use crate::config::LogConfig;

const PROGRAM: &str = "agent";
/// What it is called by too.
const ALIAS: &str = "innermesh";

/// Names, certificates and encrypted routes for your own machines, without a
/// server in the middle.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    version,
    disable_version_flag = true,
    about = "Names, certificates and encrypted routes for your machines",
    max_term_width = 100,
    after_help = failure::CODES
)]
struct Arguments {
    /// Keep configuration, state and socket all below DIR.
    ///
    /// Without it they are in /etc/innermesh, /var/lib/innermesh and
    /// /run/innermesh.
    #[arg(long, global = true, env = "INNERMESH_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the version.
    ///
    /// Behind a command that lists things, -v shows each entry in full.
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Arguments),
    Join(join::Arguments),
    Run(run::Arguments),
    Invite(invite::Arguments),
    Requests(requests::RequestsArguments),
    Approve(requests::ApproveArguments),
    Deny(requests::DenyArguments),
    Evict(evict::Arguments),
    /// Manage the roles of nodes.
    #[command(subcommand)]
    Role(role::Command),
    Leave(leave::Arguments),
    Status(status::Arguments),
    Peers(network::PeersArguments),
    Ping(network::PingArguments),
    Netcheck(netcheck::Arguments),
    Wait(wait::Arguments),
    /// Tell this node where another one is.
    #[command(subcommand)]
    Seed(seed::Command),
    /// Manage what the agent logs.
    #[command(subcommand)]
    Log(log::Command),
    /// Manage this node's tunnel.
    #[command(subcommand)]
    Tunnel(tunnel::Command),
    /// Manage services and their names.
    #[command(subcommand)]
    Service(service::Command),
    /// Manage further DNS records.
    #[command(subcommand)]
    Record(record::Command),
    /// Manage phones and other devices without an agent.
    #[command(subcommand)]
    Device(device::Command),
    /// Manage networks that gateways bring.
    #[command(subcommand)]
    Route(route::Command),
    Publish(publish::Arguments),
    Unpublish(publish::UnpublishArguments),
    Exit(exit::Arguments),
    /// Manage who may reach what.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Manage certificates for services.
    #[command(subcommand)]
    Cert(cert::Command),
    /// Manage the mesh's certificate authority.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Query the mesh's names, and have this host find them.
    #[command(subcommand)]
    Dns(dns::Command),
    /// Check and explain the configuration.
    #[command(subcommand)]
    Config(config::Command),
    #[command(subcommand, hide = true)]
    Overlay(overlay::Command),
    Demo(demo::Demo),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
    /// Print the version.
    Version {
        #[command(flatten)]
        output: Output,
    },
}

/// Runs one command line to its end.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let program = program(arguments.first());
    let typed = arguments.iter().skip(1);
    let typed: Vec<String> = typed.map(|it| it.to_string_lossy().into_owned()).collect();
    if let Some(advice) = guide::refused_anyway(program, &typed) {
        return Failure::usage(advice).report();
    }
    let (name, arguments) = match read(definition(program), arguments) {
        Ok(read) => read,
        Err(error) => {
            // Help and version are "errors" too; there the code is 0.
            let code = u8::try_from(error.exit_code()).unwrap_or(failure::USAGE);
            let _ = guide::advised(error, program, &typed).print();
            return ExitCode::from(code);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(complete(program, &name, arguments)),
        Err(error) => Err(Failure::failed(error)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// What the program is called by: `innermesh` is a link to it.
fn program(first: Option<&OsString>) -> &'static str {
    let name = first.and_then(|path| Path::new(path).file_name());
    if name == Some(OsStr::new(ALIAS)) {
        ALIAS
    } else {
        PROGRAM
    }
}

/// The command line, with its examples.
fn definition(program: &'static str) -> clap::Command {
    guide::with_examples(Arguments::command(), program)
}

/// One command line, and the words that say which command it is.
fn read<T: Into<OsString> + Clone>(
    definition: clap::Command,
    line: impl IntoIterator<Item = T>,
) -> Result<(String, Arguments), clap::Error> {
    let matches = definition.try_get_matches_from(line)?;
    Ok((spoken(&matches), Arguments::from_arg_matches(&matches)?))
}

/// The words that say which command it is, such as `service add`.
fn spoken(matches: &ArgMatches) -> String {
    match matches.subcommand() {
        Some((name, below)) => format!("{name} {}", spoken(below)).trim_end().to_string(),
        None => String::new(),
    }
}

async fn complete(program: &'static str, name: &str, arguments: Arguments) -> Result<(), Failure> {
    let mut context = Context {
        program,
        paths: Paths::new(arguments.dir)?,
        telemetry: None,
    };
    // These may become the agent, whose life is no span of a command.
    let becomes_agent = matches!(
        arguments.command,
        Command::Run(_) | Command::Init(_) | Command::Join(_)
    );
    let paths = context.paths.clone();
    let span = if becomes_agent {
        Span::none()
    } else {
        context.span(name, &LogConfig::default())?
    };
    let done = execute(arguments.command, &mut context)
        .instrument(span)
        .await;
    let done = match done {
        Err(failure) if failure.code == failure::NOT_RUNNING => {
            Err(failure.with(&stopped::remedy(&paths).await))
        }
        Err(failure) => Err(admins::told(failure, name, &context.client()).await),
        Ok(()) => Ok(()),
    };
    if let Some(guard) = context.telemetry {
        guard.shutdown().await;
    }
    done
}

async fn execute(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Init(arguments) => init::init(arguments, context).await,
        Command::Join(arguments) => join::join(arguments, context).await,
        Command::Run(arguments) => run::run(&arguments, context).await,
        Command::Invite(arguments) => invite::run(arguments, context).await,
        Command::Requests(arguments) => requests::requests(&arguments, &context.client()).await,
        Command::Approve(arguments) => requests::approve(arguments, &context.client()).await,
        Command::Deny(arguments) => requests::deny(&arguments, &context.client()).await,
        Command::Evict(arguments) => evict::evict(arguments, context).await,
        Command::Role(command) => role::run(command, context).await,
        Command::Leave(arguments) => leave::leave(&arguments, context).await,
        Command::Status(arguments) => status::status(&arguments, &context.client()).await,
        Command::Peers(arguments) => network::peers(&arguments, &context.client()).await,
        Command::Ping(arguments) => network::ping(&arguments, &context.client()).await,
        Command::Netcheck(arguments) => netcheck::netcheck(&arguments, &context.client()).await,
        Command::Wait(arguments) => wait::wait(&arguments, &context.client()).await,
        Command::Seed(command) => seed::run(command, &context.client()).await,
        Command::Log(command) => log::run(command, &context.client()).await,
        Command::Tunnel(command) => tunnel::run(command, &context.client()).await,
        Command::Service(command) => service::run(command, &context.client()).await,
        Command::Record(command) => record::run(command, &context.client()).await,
        Command::Device(command) => device::run(command, context).await,
        Command::Route(command) => route::run(command, &context.client()).await,
        Command::Publish(arguments) => publish::run(arguments, &context.client()).await,
        Command::Unpublish(arguments) => publish::unpublish(arguments, &context.client()).await,
        Command::Exit(arguments) => exit::run(arguments, &context.client()).await,
        Command::Policy(command) => policy::run(command, context).await,
        Command::Cert(command) => cert::run(command, &context.paths, &context.client()).await,
        Command::Ca(command) => ca::run(command, context).await,
        Command::Dns(command) => dns::run(&command, context).await,
        Command::Config(command) => config::run(&command, context),
        Command::Overlay(command) => overlay::run(&command, context).await,
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            let program = context.program;
            clap_complete::generate(shell, &mut Arguments::command(), program, &mut script);
            output::raw(&String::from_utf8_lossy(&script))
        }
        Command::Man => output::raw(&man::page(&definition(PROGRAM))),
        Command::Version { output } => version(context.program, output),
    }
}

fn version(program: &str, output: Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Version {
        version: &'static str,
    }
    let version = env!("CARGO_PKG_VERSION");
    output.print(&Version { version }, || format!("{program} {version}\n"))
}

#[cfg(test)]
mod tests;
