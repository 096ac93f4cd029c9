//! `agent ca root-key`: the recovery file, moved off this machine.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::super::{
    failure::Failure,
    output::{Output, note},
    paths::Paths,
    root_key::{self, Mesh},
    terminal::Terminal,
};
use crate::{ca::Root, host::state_folder::RECOVERY};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Export(ExportArguments),
    Seal(SealArguments),
}

/// Copy the root's recovery file.
///
/// The passphrase is checked first. The copy is encrypted with the same
/// passphrase. Keep it on a USB stick in a drawer, and the passphrase
/// elsewhere; then remove the file from this node with `agent ca root-key
/// seal`.
#[derive(Debug, clap::Args)]
pub struct ExportArguments {
    /// Where to write it: a new file or a folder.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The recovery file to copy [default: where `agent init` wrote it].
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Remove the root's recovery file from this node.
///
/// With --copy it is removed once that copy was opened with the passphrase.
/// Otherwise the passphrase and the mesh's domain have to be typed: without a
/// copy elsewhere no CA node can ever be added, renewed or replaced.
#[derive(Debug, clap::Args)]
pub struct SealArguments {
    /// A copy that `agent ca root-key export` wrote.
    #[arg(long, value_name = "FILE")]
    copy: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub fn run(command: &Command, paths: &Paths) -> Result<(), Failure> {
    match command {
        Command::Export(arguments) => export(arguments, paths),
        Command::Seal(arguments) => seal(arguments, paths),
    }
}

fn export(arguments: &ExportArguments, paths: &Paths) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Printed<'a> {
        file: &'a Path,
        mesh: String,
    }
    let mesh = Mesh::of(paths)?;
    let source = arguments.root_key.clone();
    let source = source.unwrap_or_else(|| root_key::place(paths));
    let text = root_key::read(&source)?;
    let root = opened(&text, &source, &mesh)?;
    let file = if arguments.file.is_dir() {
        arguments.file.join(RECOVERY)
    } else {
        arguments.file.clone()
    };
    write_new(&file, &text).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::failed(format!(
            "{} is there already, and is left as it is; choose another name",
            file.display()
        )),
        _ => Failure::failed(format!("{} can't be written: {error}", file.display())),
    })?;
    // What is on the medium now, and not what was meant to be.
    if root_key::read(&file)? != text {
        return Err(Failure::failed(format!(
            "{} doesn't hold what was written; use another medium",
            file.display()
        )));
    }
    if on_one_disk(&file, &paths.state) {
        note(&format!(
            "note: {} is on the same disk as this machine's state; take it to another",
            file.display()
        ));
    }
    let printed = Printed {
        file: &file,
        mesh: root.mesh().to_string(),
    };
    arguments.output.print(&printed, || {
        format!(
            "The recovery file of {} is copied to {}, and its passphrase opens it.\n\
             Next: `agent{} ca root-key seal --copy {}` removes it from this machine.\n",
            mesh.domain,
            file.display(),
            paths.option(),
            file.display()
        )
    })
}

fn seal(arguments: &SealArguments, paths: &Paths) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Printed<'a> {
        file: &'a Path,
        removed: bool,
    }
    let mesh = Mesh::of(paths)?;
    let file = root_key::place(paths);
    let print = |removed: bool| {
        let file = &file;
        arguments.output.print(&Printed { file, removed }, || {
            if removed {
                format!("{} is removed from this node.\n", file.display())
            } else {
                "The root's recovery file isn't on this node.\n".into()
            }
        })
    };
    match fs::metadata(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return print(false),
        Err(error) => return Err(cannot(&file, &error)),
        Ok(_) => {}
    }
    match &arguments.copy {
        Some(copy) => check_copy(copy, &file, &mesh)?,
        None => confirm(&file, &mesh)?,
    }
    remove(&file).map_err(|error| cannot(&file, &error))?;
    print(true)
}

fn opened(text: &str, file: &Path, mesh: &Mesh) -> Result<Root, Failure> {
    let root = root_key::decrypt(text, file)?;
    root_key::check_mesh(&root, &mesh.id, file)?;
    Ok(root)
}

/// Whether `copy` is another file with the key of this mesh's root, which the
/// passphrase opens.
fn check_copy(copy: &Path, file: &Path, mesh: &Mesh) -> Result<(), Failure> {
    let text = root_key::read(copy)?;
    let identity = |path: &Path| fs::metadata(path).map(|there| (there.dev(), there.ino()));
    let same = identity(copy).map_err(|error| cannot(copy, &error))?
        == identity(file).map_err(|error| cannot(file, &error))?;
    if same {
        return Err(Failure::failed(format!(
            "{} is the file itself, and no copy of it; make one with `agent ca root-key export`",
            copy.display()
        )));
    }
    opened(&text, copy, mesh).map(|_| ())
}

fn confirm(file: &Path, mesh: &Mesh) -> Result<(), Failure> {
    let text = root_key::read(file)?;
    let mut terminal = Terminal::open().ok_or_else(|| {
        Failure::usage(
            "there is no terminal to confirm this on; give a copy that was exported, with --copy FILE",
        )
    })?;
    opened(&text, file, mesh)?;
    let typed = terminal.ask(&format!(
        "Without a copy elsewhere no CA node can ever be added, renewed or replaced.\n\
         Type {} to remove the file from this machine: ",
        mesh.domain
    ))?;
    if typed.trim() == mesh.domain.as_str() {
        Ok(())
    } else {
        Err(Failure::failed("that is another name; the file stays"))
    }
}

fn write_new(file: &Path, text: &str) -> io::Result<()> {
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    let written = out.write_all(text.as_bytes()).and_then(|()| out.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(file);
    }
    written
}

/// Overwrites the file before it is removed. A disk may keep the old blocks
/// all the same; they are encrypted.
fn remove(file: &Path) -> io::Result<()> {
    let length = usize::try_from(fs::metadata(file)?.len()).unwrap_or(0);
    let mut out = OpenOptions::new().write(true).open(file)?;
    out.write_all(&vec![0; length])?;
    out.sync_all()?;
    fs::remove_file(file)?;
    match file.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn on_one_disk(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|there| there.dev()).ok();
    device(one) == device(other)
}

fn cannot(file: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!(
        "{} can't be used: {error}; run this as root, or as the agent's user",
        file.display()
    ))
}
