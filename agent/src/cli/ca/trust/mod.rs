//! `agent ca trust`: the root in the trust stores of this machine.

mod anchor;
mod java;
mod machine;
mod nss;
mod program;
mod record;
mod report;
mod store;
mod system;
mod work;

use self::{
    anchor::Anchor,
    machine::Machine,
    record::{Elsewhere, Record},
    report::{Changes, OtherRoot, Status},
    work::Stores,
};
use super::super::{
    failure::{FAILED, Failure},
    output::{Detail, Output, note},
    paths::Paths,
    show::Progress,
};
use crate::control::Client;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Install(InstallArguments),
    Uninstall(UninstallArguments),
    Status(StatusArguments),
}

/// Install the root into this machine's trust stores.
///
/// Browsers and other programs then accept the mesh's certificates.
///
/// These are the system's store (which needs root), the databases of your
/// Chromium and Firefox (with `certutil`), and Java's keystore. With sudo the
/// browsers are those of whoever ran sudo. What was installed is written down,
/// and `agent ca trust uninstall` undoes exactly that. Ends with 1 when any
/// store is left without the root.
#[derive(Debug, clap::Args)]
pub struct InstallArguments {
    #[command(flatten)]
    output: Output,
}

/// Remove every root that `agent ca trust install` installed.
///
/// Leaves alone what others put into the stores. Ends with 1 when anything is
/// left.
#[derive(Debug, clap::Args)]
pub struct UninstallArguments {
    #[command(flatten)]
    output: Output,
}

/// Show which trust stores have the mesh's root.
#[derive(Debug, clap::Args)]
pub struct StatusArguments {
    #[command(flatten)]
    output: Output,
}

pub async fn run(command: Command, paths: &Paths, client: &Client) -> Result<(), Failure> {
    let machine = Machine::this()?;
    match command {
        Command::Install(arguments) => {
            let anchor = Anchor::of(paths, client).await?;
            install(arguments.output, &anchor, paths, &machine).await
        }
        Command::Uninstall(arguments) => uninstall(arguments.output, paths, &machine).await,
        Command::Status(arguments) => {
            let anchor = Anchor::of(paths, client).await?;
            status(arguments.output, &anchor, paths, &machine).await
        }
    }
}

async fn install(
    output: Output,
    anchor: &Anchor,
    paths: &Paths,
    machine: &Machine,
) -> Result<(), Failure> {
    if anchor.has_expired() {
        return Err(Failure::failed(format!(
            "the root of {} ended on {}; no client accepts what it signed, so it isn't installed",
            anchor.domain, anchor.not_after
        )));
    }
    let Stores {
        found,
        missing,
        unknown,
    } = Stores::find(machine, &paths.state);
    let mut record = Record::open(paths, machine)?;
    let mut changes = Changes::default();
    let mut progress = Progress::default();
    for store in &found {
        if !output.is_json() {
            progress.show(&format!(
                "{}: {}",
                store.kind().title(),
                store.place(anchor)
            ));
        }
        match work::install(&**store, anchor, machine, &mut record).await {
            Ok(changed) => changes.stores.push(changed),
            Err(failure) => {
                changes.stopped = Some(failure);
                break;
            }
        }
    }
    drop(progress);
    changes.notes.extend(missing);
    changes.notes.extend(sudo(&changes, paths, "install"));
    if found.is_empty() {
        changes
            .notes
            .push("no trust store was found on this machine".into());
    }
    let all = !found.is_empty() && !unknown;
    tell(output, changes, "Nothing was installed.\n", all)
}

async fn uninstall(output: Output, paths: &Paths, machine: &Machine) -> Result<(), Failure> {
    let mut changes = Changes::default();
    if let Some(mut record) = Record::existing(paths, machine)? {
        let mut progress = Progress::default();
        // The last one first: what fed Java's keystore goes after it.
        let entries: Vec<_> = record.entries().iter().rev().cloned().collect();
        for entry in &entries {
            if !output.is_json() {
                progress.show(&format!("{}: {}", entry.kind.title(), entry.place));
            }
            match work::uninstall(entry, machine, &paths.state, &mut record).await {
                Ok(changed) => changes.stores.push(changed),
                Err(failure) => {
                    changes.stopped = Some(failure);
                    break;
                }
            }
        }
    }
    changes.notes.extend(sudo(&changes, paths, "uninstall"));
    let elsewhere = record::elsewhere(paths, machine);
    let all = !matches!(elsewhere, Some(Elsewhere::Filled(_)));
    if let Some(Elsewhere::Filled(how) | Elsewhere::Unseen(how)) = elsewhere {
        changes.notes.push(how);
    }
    let nothing = "Nothing that was installed from here is left to undo.\n";
    tell(output, changes, nothing, all)
}

/// How the rest is done, where only root may.
fn sudo(changes: &Changes, paths: &Paths, command: &str) -> Option<String> {
    let option = paths.option();
    changes
        .need_root()
        .then(|| format!("what needs sudo is done by `sudo agent{option} ca trust {command}`"))
}

/// Prints what was done; ends with 1 where that isn't `all`.
fn tell(output: Output, mut changes: Changes, nothing: &str, all: bool) -> Result<(), Failure> {
    if changes.concern_browsers() {
        changes
            .notes
            .push("browsers that run read their database when they start again".into());
    }
    output.show(Detail::default(), &changes, |screen| {
        if changes.stores.is_empty() {
            screen.say(nothing);
        } else {
            changes.draw(screen);
        }
    })?;
    if !output.is_json() {
        for text in &changes.notes {
            note(&format!("note: {text}"));
        }
    }
    // All that was done before is told above.
    if let Some(failure) = changes.stopped {
        return Err(failure);
    }
    if changes.are_done() && all {
        Ok(())
    } else {
        Err(Failure::silent(FAILED))
    }
}

async fn status(
    output: Output,
    anchor: &Anchor,
    paths: &Paths,
    machine: &Machine,
) -> Result<(), Failure> {
    let Stores { found, missing, .. } = Stores::find(machine, &paths.state);
    let recorded: Vec<_> = record::look(paths, machine)
        .into_iter()
        .filter_map(|entry| Some((Anchor::from_pem(&entry.root).ok()?, entry)))
        .collect();
    let mut stores = Vec::new();
    for store in &found {
        let (kind, place) = (store.kind(), store.place(anchor));
        let ours = recorded
            .iter()
            .any(|(root, entry)| root == anchor && (entry.kind, &entry.place) == (kind, &place));
        stores.push(work::look(&**store, anchor, ours).await);
    }
    let others = recorded.iter().filter(|(root, _)| root != anchor);
    let others: Vec<_> = others
        .map(|(root, entry)| OtherRoot {
            kind: entry.kind,
            place: entry.place.clone(),
            name: root.name(),
        })
        .collect();
    let option = paths.option();
    let mut notes: Vec<String> = missing.into_iter().collect();
    let open: Vec<_> = stores.iter().filter(|store| store.is_open()).collect();
    if anchor.has_expired() {
        notes.push("the root has ended, and clients refuse all that it signed".into());
    } else if !open.is_empty() {
        let all = open.iter().all(|store| store.writable);
        let sudo = if all { "" } else { "sudo " };
        notes.push(format!(
            "`{sudo}agent{option} ca trust install` installs it"
        ));
    }
    if !others.is_empty() {
        notes.push(format!(
            "`agent{option} ca trust uninstall` takes out all roots that were installed from here"
        ));
    }
    let status = Status {
        domain: anchor.domain.to_string(),
        name: anchor.name(),
        fingerprint_sha256: anchor.fingerprint.clone(),
        not_after: anchor.not_after,
        expired: anchor.has_expired(),
        stores,
        others,
        notes,
    };
    output.show(Detail::default(), &status, |screen| status.draw(screen))?;
    if !output.is_json() {
        for text in &status.notes {
            note(&format!("note: {text}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
