//! One look at the files of a renewal, and one attempt to renew what is in them.

use std::time::Duration;

use innermesh_proto::{
    certificate::Certificate,
    id::NodeId,
    ledger::{State, request::Certify, state::Issued as Listed},
};

use crate::{
    control::certificates::Issued,
    host::outside::{SetError, SetPlace},
    node::{
        follow::program_certs::{
            errors::{BlockedError, FailedError, Trouble},
            keeper::CertKeeper,
            seen_files::SeenFiles,
        },
        shared::{certify, issuers},
    },
    program_certs::{
        due::{self, IssuerState, Life},
        files::{self, Found},
        kept::Kept,
    },
};

/// How long the ledger may take to issue one.
const PATIENCE: Duration = Duration::from_secs(15);

impl CertKeeper {
    /// Looks at the files, and notes what is wrong with them.
    pub async fn look(&self, place: &SetPlace) -> Option<SeenFiles> {
        match self.read(place).await {
            Ok(looked) => {
                self.certs.with(place, |entry| {
                    entry.due_ms = Some(looked.due_ms);
                    // A certificate that somebody issued anew is looked after as well.
                    entry.kept.serial = looked.found.leaf.serial.to_string();
                    entry.kept.not_after_ms = looked.found.leaf.not_after_ms;
                });
                let state = self.ledger.state();
                let refused = if is_revoked(&state, &looked.found) {
                    Err(BlockedError::Revoked(place.stem.clone()))
                } else {
                    self.writable(place).await
                };
                match refused {
                    Ok(()) => {
                        self.certs.with(place, |entry| entry.blocked = None);
                    }
                    Err(why) => self.block(place, &why),
                }
                Some(looked)
            }
            Err(why) => {
                self.block(place, &why);
                self.certs.with(place, |entry| entry.due_ms = None);
                None
            }
        }
    }

    async fn read(&self, place: &SetPlace) -> Result<SeenFiles, BlockedError> {
        let files = self.host.outside.read(place).await;
        let files = files?;
        let folder = || place.folder.display().to_string();
        if files.is_empty() {
            return Err(BlockedError::Gone {
                folder: folder(),
                stem: place.stem.clone(),
            });
        }
        let state = self.ledger.state();
        let root = Certificate::parse(state.root.der())?;
        let found =
            files::found(&files, &root, &*self.host.keys).ok_or_else(|| BlockedError::NoPair {
                folder: folder(),
                stem: place.stem.clone(),
            })?;
        let wall_ms = self.host.clock.wall_ms();
        let due_ms = self
            .certs
            .with(place, |entry| {
                let leaving = issuer_is_leaving(&state, self.me, &found);
                if leaving {
                    entry.leaving_since_ms.get_or_insert(wall_ms);
                } else {
                    entry.leaving_since_ms = None;
                }
                let issuer = match entry.leaving_since_ms {
                    Some(since_ms) => IssuerState::Revoked { since_ms },
                    None => replaced(&state, &found, wall_ms),
                };
                due_of(&entry.kept, &found.leaf, issuer)
            })
            .ok_or(BlockedError::Removed)?;
        Ok(SeenFiles { found, due_ms })
    }

    pub async fn writable(&self, place: &SetPlace) -> Result<(), BlockedError> {
        let checked = self.host.outside.check(place).await;
        checked.map_err(|error| match error {
            error @ SetError::Io(..) => BlockedError::Unwritable(error),
            error => error.into(),
        })
    }

    /// Has a certificate issued and puts it into the files.
    pub async fn renew(
        &self,
        place: &SetPlace,
        looked: SeenFiles,
        new_key: bool,
    ) -> Result<(), Trouble> {
        let found = &looked.found;
        let state = self.ledger.state();
        if is_revoked(&state, found) && !new_key {
            return Err(Trouble::Blocked(BlockedError::Revoked(place.stem.clone())));
        }
        // Before the ledger is asked, which a disk that fails must not fill.
        self.writable(place).await.map_err(Trouble::Blocked)?;
        let entry = self.certs.with(place, |entry| {
            let key = if new_key || entry.kept.wish.new_key {
                // The one of an attempt that failed may be certified already.

                let made = || self.host.keys.generate_p256();
                entry.key.get_or_insert_with(made).clone()
            } else {
                found.key.clone()
            };
            (key, entry.kept.clone())
        });
        let (key, kept) = entry.ok_or(FailedError::Removed)?;
        let names = kept.names();
        let issued = match self.unused(&state, &kept, &key.spki(), &found.leaf) {
            Some(issued) => issued,
            None => {
                let certify = Certify {
                    spki: key.spki(),
                    names: names.clone(),
                    days: kept.wish.days,
                };
                let issued = self.certifier.certify(certify, PATIENCE).await;
                issued.map_err(FailedError::from)?
            }
        };
        if !files::is_for(&issued, &*key, &names) {
            return Err(FailedError::OtherCertificate.into());
        }
        let set = files::of(&issued, &*key, kept.access());
        let written = self.host.outside.replace(place, set).await;
        let written = written.map_err(BlockedError::from);
        written.map_err(FailedError::from)?;
        let looked = self.read(place).await.map_err(FailedError::from)?;
        self.succeed(place, &looked).await;
        Ok(())
    }

    /// A certificate that was issued for this and that never came into the files:
    /// the answer was lost, or they could not be written.
    fn unused(
        &self,
        state: &State,
        kept: &Kept,
        spki: &[u8],
        leaf: &Certificate,
    ) -> Option<Issued> {
        let (serial, listed) = certify::newest(state, self.me, spki)?;
        let newer = listed.not_before_ms > leaf.not_before_ms || leaf.spki != spki;
        let names = kept.names();
        let same =
            listed.names.len() == names.len() && listed.names.iter().all(|n| names.contains(n));
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
            && self.host.clock.wall_ms() < due_ms;
        good.then(|| certify::issued(state, serial, listed, &listed.der))?
    }
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
fn issuer_is_leaving(state: &State, me: NodeId, found: &Found) -> bool {
    let Some(issuer) = state.issuers.get(&found.issuer.serial) else {
        return true;
    };
    issuer.revoked.is_some() || issuers::is_leaving(state, me, issuer)
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
