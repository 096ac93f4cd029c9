//! One look at the files of a renewal, and one attempt to renew what is in them.

use innermesh_proto::{
    certificate::Certificate,
    ledger::{State, state::Issued as Listed},
};

use super::succeed;
use crate::node::Inner;
use crate::node::commands::certificates;
use crate::{
    control::certificates::Issued,
    host::outside::{SetError, SetPlace},
    renewal::{
        due::{self, IssuerState, Life},
        files::{self, Found},
        kept::Kept,
    },
};

/// What is in the files, and when it is to be renewed by wall time.
pub struct Looked {
    pub found: Found,
    pub due_ms: u64,
}

/// Why there is no new certificate. The files are as they were.
pub enum Trouble {
    /// Trying again doesn't help until somebody does something.
    Blocked(String),
    /// It may go at the next attempt.
    Failed(String),
}

/// Looks at the files, and notes what is wrong with them.
pub async fn look(inner: &Inner, place: &SetPlace) -> Option<Looked> {
    match read(inner, place).await {
        Ok(looked) => {
            inner.renewals.with(place, |entry| {
                entry.due_ms = Some(looked.due_ms);
                // A certificate that somebody issued anew is looked after as well.
                entry.kept.serial = looked.found.leaf.serial.to_string();
                entry.kept.not_after_ms = looked.found.leaf.not_after_ms;
            });
            let state = inner.ledger.state();
            let refused = if is_revoked(&state, &looked.found) {
                Err(revoked(place))
            } else {
                writable(inner, place).await
            };
            match refused {
                Ok(()) => {
                    inner.renewals.with(place, |entry| entry.blocked = None);
                }
                Err(why) => super::block(inner, place, why),
            }
            Some(looked)
        }
        Err(why) => {
            super::block(inner, place, why);
            inner.renewals.with(place, |entry| entry.due_ms = None);
            None
        }
    }
}

async fn read(inner: &Inner, place: &SetPlace) -> Result<Looked, String> {
    let files = inner.host.outside.read(place).await;
    let files = files.map_err(|error| words(&error))?;
    let folder = place.folder.display();
    let stem = &place.stem;
    if files.is_empty() {
        return Err(format!(
            "its files in {folder} are gone; `agent cert issue` makes them anew, `agent cert rm \
             {stem}` renews it no more"
        ));
    }
    let state = inner.ledger.state();
    let root = Certificate::parse(state.root.der()).map_err(|error| error.to_string())?;
    let found = files::found(&files, &root, &*inner.host.keys).ok_or_else(|| {
        format!(
            "{folder}/{stem}.key and {stem}.crt are not a pair of this mesh any more, and are left \
             as they are; move them away and `agent cert issue` again, or `agent cert rm {stem}`"
        )
    })?;
    let wall_ms = inner.host.clock.wall_ms();
    let due_ms = inner
        .renewals
        .with(place, |entry| {
            let goes = goes(&state, inner.me, &found);
            if goes {
                entry.loose_since_ms.get_or_insert(wall_ms);
            } else {
                entry.loose_since_ms = None
            }
            let issuer = match entry.loose_since_ms {
                Some(since_ms) => IssuerState::Revoked { since_ms },
                None => replaced(&state, &found, wall_ms),
            };
            due_of(&entry.kept, &found.leaf, issuer)
        })
        .ok_or("it was removed meanwhile")?;
    Ok(Looked { found, due_ms })
}

fn due_of(kept: &Kept, leaf: &Certificate, issuer: IssuerState) -> u64 {
    let life = Life {
        begin_ms: leaf.not_before_ms,
        end_ms: leaf.not_after_ms,
    };
    due::due_ms(life, kept.before_ms(), issuer, kept.jitter)
}

/// Whether the issuer was revoked, or is about to be with its CA node while
/// another could sign.
fn goes(state: &State, me: innermesh_proto::id::NodeId, found: &Found) -> bool {
    let Some(issuer) = state.issuers.get(&found.issuer.serial) else {
        return true;
    };
    let others = || {
        let mut roster = state.roster.iter();
        roster.any(|node| *node != issuer.node && state.can_issue(*node))
    };
    let evicted = || {
        let mut proposed = state.proposed_evictions();
        proposed.any(|(node, _)| node == issuer.node && node != me)
    };
    issuer.revoked.is_some() || (evicted() && others())
}

/// Since when the same node signs with a successor of the issuer, which the
/// certificate is older than.
fn replaced(state: &State, found: &Found, wall_ms: u64) -> IssuerState {
    let Some(issuer) = state.issuers.get(&found.issuer.serial) else {
        return IssuerState::InForce;
    };
    let successors = state.issuers_of(issuer.node).filter(|other| {
        let other_certificate = &other.certificate;
        other.revoked.is_none()
            && other_certificate.not_after_ms > issuer.certificate.not_after_ms
            && other_certificate.not_before_ms > found.leaf.not_before_ms
            && other_certificate.is_valid_at(wall_ms.min(state.stamp_ms))
    });
    let first = successors
        .map(|other| other.certificate.not_before_ms)
        .min();
    first.map_or(IssuerState::InForce, |since_ms| IssuerState::Replaced {
        since_ms,
    })
}

/// Whether the certificate itself or its key was revoked, by somebody's wish.
fn is_revoked(state: &State, found: &Found) -> bool {
    state.revoked.contains_key(&found.leaf.serial)
        || state.revoked_keys.contains_key(&found.leaf.key_hash)
}

fn revoked(place: &SetPlace) -> String {
    let stem = &place.stem;
    format!(
        "it was revoked, and is not replaced by itself; `agent cert renew {stem} --new-key` makes a \
         new key and certificate, `agent cert rm {stem}` renews it no more"
    )
}

async fn writable(inner: &Inner, place: &SetPlace) -> Result<(), String> {
    let checked = inner.host.outside.check(place).await;
    checked.map_err(|error| {
        let mut why = words(&error);
        if matches!(error, SetError::Io(..)) {
            why.push_str(
                "; the agent must be able to write there (systemd's unit lets it into few folders: \
                 see `agent cert issue --help`)",
            );
        }
        why
    })
}

fn words(error: &SetError) -> String {
    match error {
        SetError::Foreign(path) => format!(
            "{} was replaced by somebody and is left alone; move it away and `agent cert issue` again",
            path.display()
        ),
        SetError::Link(_) | SetError::Io(..) => error.to_string(),
    }
}

/// Has a certificate issued and puts it into the files.
pub async fn renew(
    inner: &Inner,
    place: &SetPlace,
    looked: Looked,
    new_key: bool,
) -> Result<(), Trouble> {
    let found = &looked.found;
    let state = inner.ledger.state();
    if is_revoked(&state, found) && !new_key {
        return Err(Trouble::Blocked(revoked(place)));
    }
    // Before the ledger is asked, which a disk that fails must not fill.
    writable(inner, place).await.map_err(Trouble::Blocked)?;
    let entry = inner.renewals.with(place, |entry| {
        let key = if new_key || entry.kept.wish.new_key {
            // The one of an attempt that failed may be certified already.

            let made = || inner.host.keys.generate_p256();
            entry.key.get_or_insert_with(made).clone()
        } else {
            found.key.clone()
        };
        (key, entry.kept.clone())
    });
    let (key, kept) = entry.ok_or_else(|| Trouble::Failed("it was removed meanwhile".into()))?;
    let names = kept.names();
    let issued = match unused(inner, &state, &kept, &key.spki(), &found.leaf) {
        Some(issued) => issued,
        None => {
            let certified =
                certificates::certify(inner, key.spki(), names.clone(), kept.wish.days).await;
            certified.map_err(|error| Trouble::Failed(error.to_string()))?
        }
    };
    if !files::is_for(&issued, &*key, &names) {
        return Err(Trouble::Failed(
            "another certificate was issued than was asked for".into(),
        ));
    }
    let set = files::of(&issued, &*key, kept.access());
    let written = inner.host.outside.replace(place, set).await;
    written.map_err(|error| Trouble::Failed(words(&error)))?;
    let looked = read(inner, place).await.map_err(Trouble::Failed)?;
    succeed(inner, place, &looked).await;
    Ok(())
}

/// A certificate that was issued for this and that never came into the files:
/// the answer was lost, or they could not be written.
fn unused(
    inner: &Inner,
    state: &State,
    kept: &Kept,
    spki: &[u8],
    leaf: &Certificate,
) -> Option<Issued> {
    let (serial, listed) = certificates::newest(state, inner.me, spki)?;
    let newer = listed.not_before_ms > leaf.not_before_ms || leaf.spki != spki;
    let names = kept.names();
    let same = listed.names.len() == names.len() && listed.names.iter().all(|n| names.contains(n));
    let life = |listed: &Listed| Life {
        begin_ms: listed.not_before_ms,
        end_ms: listed.not_after_ms,
    };
    let due_ms = due::due_ms(
        life(listed),
        kept.before_ms(),
        IssuerState::InForce,
        kept.jitter,
    );
    let good = newer
        && same
        && serial != leaf.serial
        && !state.is_revoked(&serial, listed)
        && inner.host.clock.wall_ms() < due_ms;
    good.then(|| certificates::issued(state, serial, listed))?
}
