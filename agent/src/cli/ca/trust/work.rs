//! One root and one store: putting it in, taking it out, looking; each time
//! the store is read again, and what it then holds is what is told.

use std::path::Path;

use super::{
    super::super::failure::Failure,
    anchor::Anchor,
    java::Java,
    machine::{Barrier, Machine},
    nss::{DATABASE, Nss},
    record::{Entry, Record},
    report::{Change, Changed, Looked, State},
    store::{Held, Kind, Store, StoreError},
    system::System,
};

/// All stores of this machine, and what is to be said about those that aren't
/// among them.
pub struct Stores {
    /// The system's first: where it feeds Java's keystore, that has the root
    /// then.
    pub found: Vec<Box<dyn Store>>,
    /// Why the system's store isn't among them, if it isn't.
    pub missing: Option<String>,
    /// Whether the system has one all the same.
    pub unknown: bool,
}

impl Stores {
    /// Those of `machine`. `scratch` is a folder that only this user writes in.
    pub fn find(machine: &Machine, scratch: &Path) -> Self {
        let (system, missing, unknown) = match System::find(machine, scratch) {
            Ok(Some(system)) => (Some(system), None, false),
            Ok(None) => {
                let why =
                    "the system's store has no tool here; install the package ca-certificates";
                (None, Some(why.to_string()), false)
            }
            Err(tools) => {
                let tools: Vec<_> = tools.iter().map(|t| t.display().to_string()).collect();
                let why = "reads its roots from nowhere that is known here; put `agent ca root` \
                           where its manual says";
                (None, Some(format!("{} {why}", tools.join(", "))), true)
            }
        };
        let mut found: Vec<Box<dyn Store>> = Vec::new();
        found.extend(system.map(|s| Box::new(s) as _));
        found.extend(Nss::find(machine).into_iter().map(|s| Box::new(s) as _));
        found.extend(Java::find(machine).into_iter().map(|s| Box::new(s) as _));
        Self {
            found,
            missing,
            unknown,
        }
    }
}

/// Puts the root into a store, after noting that in the record.
///
/// # Errors
/// When the record can't be written; the store wasn't changed then.
pub async fn install(
    store: &dyn Store,
    anchor: &Anchor,
    machine: &Machine,
    record: &mut Record,
) -> Result<Changed, Failure> {
    let place = store.place(anchor);
    let told = |change, detail| Changed::new(store.kind(), place.clone(), anchor, change, detail);
    let held = match store.held().await {
        Ok(held) => held,
        Err(error) => return Ok(told(unusable(&error), Some(error.to_string()))),
    };
    let entry = Entry {
        kind: store.kind(),
        place: place.clone(),
        owner: (store.kind().is_nss()).then_some(machine.caller.owner),
        root: anchor.pem(),
    };
    match held.iter().find(|h| h.der == anchor.der) {
        Some(ours) if trusted(&held, anchor) => {
            let named = called(store, anchor, ours);
            // A hook of the system's tool put it there, as its consequence.
            let ours = store.has(anchor, &held) && record.feeds(&entry);
            if ours {
                record.note(entry).await?;
            }
            return Ok(told(Change::Already, named));
        }
        Some(ours) => return Ok(told(Change::Failed, Some(distrusted(ours)))),
        None => {}
    }
    match store.barrier(anchor) {
        Some(Barrier::Rights) => return Ok(told(Change::NeedsRoot, None)),
        Some(Barrier::Other(why)) => return Ok(told(Change::Failed, Some(why))),
        None => {}
    }
    record.note(entry.clone()).await?;
    let done = match store.add(anchor).await {
        Ok(()) => store.held().await,
        Err(error) => Err(error),
    };
    let why = match done {
        Ok(held) if trusted(&held, anchor) => {
            return Ok(told(Change::Installed, beside(&held, anchor)));
        }
        Ok(_) => "its tool said that all is well, and yet the root isn't in it".to_string(),
        Err(error) => error.to_string(),
    };
    // Half done is not done.
    let why = match store.remove(anchor).await {
        Ok(()) => {
            record.strike(&entry).await?;
            why
        }
        Err(error) => format!("{why}; and what was begun isn't undone: {error}"),
    };
    Ok(told(Change::Failed, Some(why)))
}

/// Takes out what an entry of the record says, and strikes it out.
///
/// # Errors
/// When the record can't be read or written.
pub async fn uninstall(
    entry: &Entry,
    machine: &Machine,
    scratch: &Path,
    record: &mut Record,
) -> Result<Changed, Failure> {
    let anchor = entry.anchor(record)?;
    let told =
        |change, detail| Changed::new(entry.kind, entry.place.clone(), &anchor, change, detail);
    let store = match store_of(entry, &anchor, machine, scratch) {
        Ok(Some(store)) => store,
        Ok(None) => {
            record.strike(entry).await?;
            let gone = "the store itself is gone".to_string();
            return Ok(told(Change::Absent, Some(gone)));
        }
        Err(why) => return Ok(told(Change::Failed, Some(why))),
    };
    match store.barrier(&anchor) {
        Some(Barrier::Rights) => return Ok(told(Change::NeedsRoot, None)),
        Some(Barrier::Other(why)) => return Ok(told(Change::Failed, Some(why))),
        None => {}
    }
    let there = match store.held().await {
        Ok(held) => store.has(&anchor, &held),
        Err(error) => return Ok(told(unusable(&error), Some(error.to_string()))),
    };
    // Also where it is gone: a tool that failed before may have left the rest.
    if let Err(error) = store.remove(&anchor).await {
        return Ok(told(unusable(&error), Some(error.to_string())));
    }
    let held = match store.held().await {
        Ok(held) if store.has(&anchor, &held) => {
            let why = "its tool said that all is well, and yet the root is still in it";
            return Ok(told(Change::Failed, Some(why.into())));
        }
        Ok(held) => held,
        Err(error) => return Ok(told(unusable(&error), Some(error.to_string()))),
    };
    record.strike(entry).await?;
    let left = held.iter().find(|h| h.der == anchor.der).map(|ours| {
        format!(
            "it is still there as {}, which something else put there",
            ours.name
        )
    });
    if there {
        Ok(told(Change::Removed, left))
    } else {
        Ok(told(Change::Absent, left))
    }
}

/// What a store says of the root.
pub async fn look(store: &dyn Store, anchor: &Anchor, recorded: bool) -> Looked {
    let barrier = store.barrier(anchor);
    let (state, detail) = match store.held().await {
        Err(error) => (State::Unknown, Some(error.to_string())),
        Ok(held) => match held.iter().find(|h| h.der == anchor.der) {
            Some(_) if trusted(&held, anchor) && anchor.has_expired() => (State::Expired, None),
            Some(ours) if trusted(&held, anchor) => {
                let detail = called(store, anchor, ours).or_else(|| beside(&held, anchor));
                (State::Installed, detail)
            }
            Some(ours) => (State::Untrusted, Some(distrusted(ours))),
            None => match beside(&held, anchor) {
                Some(other) => (State::Other, Some(other)),
                None => (State::Absent, None),
            },
        },
    };
    Looked::new(store, anchor, state, detail, barrier.as_ref(), recorded)
}

/// The store that an entry of the record names; `None` when that is gone.
fn store_of(
    entry: &Entry,
    anchor: &Anchor,
    machine: &Machine,
    scratch: &Path,
) -> Result<Option<Box<dyn Store>>, String> {
    let place = Path::new(&entry.place);
    match entry.kind {
        // Whatever a record says, only a `keytool` that this machine's own
        // settings name is run.
        Kind::Java => {
            let mut found = Java::find(machine).into_iter();
            match found.find(|java| java.place(anchor) == entry.place) {
                Some(java) => Ok(Some(Box::new(java) as _)),
                None if !place.exists() => Ok(None),
                None => Err(format!("set JAVA_HOME to {} and try again", entry.place)),
            }
        }
        Kind::Chromium | Kind::Firefox => {
            let owner = entry.owner.unwrap_or(machine.caller.owner);
            let there = place.join(DATABASE).exists();
            let nss = || Nss::new(entry.kind, place.to_owned(), owner, machine);
            Ok(there.then(|| Box::new(nss()) as _))
        }
        _ => match System::find(machine, scratch) {
            Ok(Some(system)) if system.place(anchor) == entry.place => {
                Ok(Some(Box::new(system) as _))
            }
            _ => Err(format!(
                "the tool that keeps it isn't here any more; remove {} yourself",
                entry.place
            )),
        },
    }
}

/// Whether servers are believed by the root.
fn trusted(held: &[Held], anchor: &Anchor) -> bool {
    held.iter().any(|h| h.trusted && h.der == anchor.der)
}

/// Its name, where that isn't the one that it gets here.
fn called(store: &dyn Store, anchor: &Anchor, ours: &Held) -> Option<String> {
    let other = !store.kind().is_system() && ours.name != anchor.name();
    other.then(|| format!("it is there as {}", ours.name))
}

fn distrusted(ours: &Held) -> String {
    format!(
        "it is there as \"{}\", and not trusted for servers; trust or delete it in the \
         browser's settings",
        ours.name
    )
}

/// Roots of the same name that are there too.
fn beside(held: &[Held], anchor: &Anchor) -> Option<String> {
    let other = held.iter().find(|h| anchor.is_namesake(&h.der))?;
    let fingerprint = innermesh_proto::crypto::Hash::of(&other.der).to_string();
    Some(format!(
        "another root of {} is there: {fingerprint:.16}…, in {}",
        anchor.domain, other.name
    ))
}

fn unusable(error: &StoreError) -> Change {
    match error {
        StoreError::NoTool { .. } => Change::NoTool,
        _ => Change::Failed,
    }
}
