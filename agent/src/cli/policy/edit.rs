//! `agent policy edit`: the policy in an editor, checked before it is set.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{done, read, tell_errors, told};
use crate::{
    cli::{consent::Consent, failure::Failure, output, terminal::Terminal},
    control::{
        Client,
        policy::{PolicyCheckRequest, PolicySetRequest, PolicyShowRequest},
    },
};

/// What is opened where there is no policy.
const TEMPLATE: &str = include_str!("template.toml");

/// Has a person change the policy in force, until it can be set or they give up.
pub async fn edit(allow_unknown: bool, consent: Consent, client: &Client) -> Result<(), Failure> {
    let shown = client.ask(&PolicyShowRequest {}).await?;
    let before = shown.text.unwrap_or_else(|| TEMPLATE.to_owned());
    let file = Draft::new(&before)?;
    loop {
        open(&file.path)?;
        let text = match read(&file.path) {
            Ok(text) => text,
            Err(failure) => return Err(file.kept(failure)),
        };
        if text == before {
            output::note("nothing was changed");
            return Ok(());
        }
        let request = PolicyCheckRequest {
            text,
            allow_unknown,
        };
        let checked = match client.ask(&request).await {
            Ok(checked) => checked,
            Err(error) => return Err(file.kept(error.into())),
        };
        tell_errors(&checked);
        output::warn(&checked.notes);
        if !checked.errors.is_empty() {
            if again()? {
                continue;
            }
            return Err(file.kept(Failure::failed("nothing was changed")));
        }
        let what = format!(
            "This policy comes into force in the whole mesh ({} rules, {} tests).",
            checked.rules, checked.tests
        );
        let agreed = consent.ask(&what, "agent policy edit");
        if let Err(failure) = agreed {
            return Err(file.kept(failure));
        }
        let request = PolicySetRequest {
            text: request.text,
            allow_unknown,
            instead_of: Some(shown.number),
        };
        return match client.ask(&request).await {
            Ok(set) => {
                told(&set);
                output::raw(&done(&set))
            }
            Err(error) => Err(file.kept(error.into())),
        };
    }
}

/// Whether the person goes on with what can't be set yet.
fn again() -> Result<bool, Failure> {
    match Terminal::open() {
        Some(mut terminal) => terminal.confirm("Edit it again?"),
        None => Ok(false),
    }
}

/// Waits for the editor's end. What it is called by may have arguments of its own,
/// as a shell reads them.
fn open(path: &Path) -> Result<(), Failure> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR"));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let status = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(path)
        .stdin(Stdio::inherit())
        .status();
    let failed = |why: String| {
        Failure::failed(format!(
            "the editor `{editor}` {why}; nothing was changed. $EDITOR says which one is used, and \
             `agent policy set FILE` sets a file"
        ))
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(format!("ended with {status}"))),
        Err(error) => Err(failed(format!("can't be started: {error}"))),
    }
}

/// A file of this user's own, which goes unless something in it would be lost.
struct Draft {
    path: PathBuf,
    is_kept: std::cell::Cell<bool>,
}

impl Draft {
    fn new(text: &str) -> Result<Self, Failure> {
        let folder = env::temp_dir();
        let failed = |error: io::Error| {
            Failure::failed(format!("{} can't be written: {error}", folder.display()))
        };
        let id = std::process::id();
        for number in 0..1000 {
            let path = folder.join(format!("innermesh-policy-{id}-{number}.toml"));
            // Nobody else reads it, and what is there already isn't followed.
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            match made {
                Ok(mut file) => {
                    let draft = Self {
                        path,
                        is_kept: false.into(),
                    };
                    file.write_all(text.as_bytes()).map_err(failed)?;
                    return Ok(draft);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(io::ErrorKind::AlreadyExists.into()))
    }

    /// The same failure, with where the work is.
    fn kept(&self, failure: Failure) -> Failure {
        self.is_kept.set(true);
        failure.with(&format!("what you wrote is in {}", self.path.display()))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_kept.get() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
