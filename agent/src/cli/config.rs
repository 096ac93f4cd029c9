//! `agent config`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    context::Context,
    failure::Failure,
    files,
    output::{self, Output},
    run,
};
use crate::config;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Check(CheckArguments),
    /// Print the configuration with all defaults.
    Show,
    /// Print a configuration with all keys explained.
    ///
    /// Each key stands there with its default, behind a #.
    Example,
}

/// Check the configuration without starting the agent.
///
/// Without FILE that is config.toml with the services in services.d. Ends with 1
/// when the agent would not start with it, or would leave a service out.
#[derive(Debug, clap::Args)]
pub struct CheckArguments {
    /// Another file [default: the agent's own config.toml].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// A configuration that can be used.
#[derive(Serialize)]
struct Checked<'a> {
    file: &'a Path,
    /// Whether it is there: without it the defaults count.
    exists: bool,
    services: usize,
}

pub fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Check(arguments) => check(arguments, context),
        Command::Show => run::show(&context.paths),
        Command::Example => output::raw(config::EXAMPLE),
    }
}

fn check(arguments: &CheckArguments, context: &Context) -> Result<(), Failure> {
    let paths = &context.paths;
    let (file, services) = match &arguments.file {
        Some(file) => {
            let read = files::config_file(file).map_err(Failure::failed)?;
            if read.is_none() {
                let file = file.display();
                return Err(Failure::failed(format!("{file} is not there")));
            }
            (file, 0)
        }
        None => {
            let config = files::configuration(paths).map_err(Failure::failed)?;
            (&paths.config, config.services.len())
        }
    };
    let checked = Checked {
        file,
        exists: file.exists(),
        services,
    };
    arguments.output.print(&checked, || text(&checked))
}

fn text(checked: &Checked<'_>) -> String {
    let file = checked.file.display();
    let services = match checked.services {
        0 => String::new(),
        1 => ", with one service".into(),
        count => format!(", with {count} services"),
    };
    if checked.exists {
        format!("{file} can be used{services}\n")
    } else {
        format!("there is no {file}, so that the defaults count{services}\n")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::{paths::Paths, tests::parse};

    fn checked(dir: &Path, line: &str) -> Result<(), String> {
        let arguments = parse(line).unwrap();
        let super::super::Command::Config(command) = arguments.command else {
            panic!("{line}");
        };
        let context = Context {
            program: "agent",
            paths: Paths::new(Some(dir.to_owned())).unwrap(),
            telemetry: None,
        };
        run(&command, &context).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_configuration_is_checked_with_its_services_and_a_typo_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        assert_eq!(checked(path, "config check"), Ok(()));
        fs::write(path.join("config.toml"), "[tunnel]\nlisten_prt = 1\n").unwrap();
        let told = checked(path, "config check").unwrap_err();
        assert!(told.contains("config.toml, line 2"), "{told}");
        assert!(told.ends_with("did you mean `listen_port`?"), "{told}");
        fs::write(path.join("config.toml"), "[tunnel]\nlisten_port = 1\n").unwrap();
        assert_eq!(checked(path, "config check --json"), Ok(()));
        fs::create_dir(path.join("services.d")).unwrap();
        fs::write(path.join("services.d/a.toml"), "name = 'a'\nprt = 80").unwrap();
        let told = checked(path, "config check").unwrap_err();
        assert!(
            told.contains("a.toml") && told.contains("`port`?"),
            "{told}"
        );
    }

    #[test]
    fn another_file_can_be_checked_and_has_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("other.toml");
        let line = format!("config check {}", file.display());
        assert!(
            checked(dir.path(), &line)
                .unwrap_err()
                .contains("not there")
        );
        fs::write(&file, config::EXAMPLE).unwrap();
        assert_eq!(checked(dir.path(), &line), Ok(()));
        fs::write(&file, "[page]\nport = 0").unwrap();
        assert!(checked(dir.path(), &line).unwrap_err().contains("port 0"));
    }
}
