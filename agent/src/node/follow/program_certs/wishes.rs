//! What a person wishes of the certificates of this host's programs.

use crate::{
    control::{
        ControlError, ErrorCode,
        certificates::{CertKind, CertRow},
        renewals::{
            RenewNowRequest, RenewalCheckRequest, RenewalChecked, RenewalRow, RenewalWish,
            WhichRenewal,
        },
    },
    host::outside::SetPlace,
    node::{
        follow::program_certs::{
            entries::CertEntry,
            errors::{BlockedError, HiddenError},
            keeper::CertKeeper,
        },
        shared::refusals::{invalid, refused},
    },
    program_certs::{
        RENEWALS,
        kept::{self, Kept},
    },
};

impl CertKeeper {
    /// Answers [`RenewalAddRequest`](crate::control::renewals::RenewalAddRequest).
    pub async fn add(&self, mut wish: RenewalWish, uid: u32) -> Result<RenewalRow, ControlError> {
        let certs = &self.certs;
        let _working = certs.working.lock().await;
        let place = kept::place(&wish);
        let uid = match wish.exec.as_deref() {
            Some("") => {
                wish.exec = None;
                uid
            }
            Some(_) => uid,
            // It goes on as the user who asked for it.
            None => match certs.with(&place, |entry| entry.kept.clone()) {
                Some(earlier) if earlier.wish.exec.is_some() => {
                    wish.exec = earlier.wish.exec;
                    earlier.uid
                }
                _ => uid,
            },
        };
        kept::check(&wish).map_err(invalid)?;
        let mut jitter = [0; 2];
        self.host.keys.random(&mut jitter);
        let exec_pending = wish.exec.is_some() && wish.exec_now;
        let kept = Kept {
            wish,
            uid,
            jitter: u16::from_le_bytes(jitter),
            serial: String::new(),
            not_after_ms: 0,
            failures: 0,
            failure: None,
            exec_pending,
            exec_failures: 0,
            exec_failure: None,
        };
        {
            let entries = certs.entries();
            if entries.len() >= RENEWALS && !entries.contains_key(&place) {
                return Err(invalid(format!(
                    "this machine renews {RENEWALS} certificates, and no more; end one with `agent cert rm`"
                )));
            }
        }
        let stored = self.store(&kept).await;
        stored.map_err(|why| {
            let why = format!("the renewal can't be kept: {why}");
            ControlError::new(ErrorCode::Internal, why)
        })?;
        certs.entries().insert(place.clone(), CertEntry::new(kept));
        let looked = self.look(&place).await;
        let kept = certs.with(&place, |entry| {
            if let Some(looked) = &looked {
                entry.kept.serial = looked.found.leaf.serial.to_string();
                entry.kept.not_after_ms = looked.found.leaf.not_after_ms;
            }
            entry.kept.clone()
        });
        self.keep(kept).await;
        certs.wake.notify_one();
        self.row(&place)
    }

    /// Answers [`RenewalCheckRequest`].
    pub async fn check(&self, asked: RenewalCheckRequest) -> Result<RenewalChecked, ControlError> {
        let place = SetPlace {
            folder: asked.folder,
            stem: asked.stem,
        };
        kept::check_place(&place).map_err(invalid)?;
        let hidden = match self.host.outside.identity(&place.folder).await {
            Ok(Some(own)) if own == asked.seen => None,
            Ok(Some(_)) => Some(HiddenError::Another),
            Ok(None) => Some(HiddenError::Nothing),
            Err(error) => Some(HiddenError::Closed(error)),
        };
        if let Some(why) = hidden {
            let folder = place.folder;
            return Err(refused(BlockedError::Hidden { folder, why }));
        }
        self.writable(&place).await.map_err(refused)?;
        let earlier = self.certs.with(&place, |entry| entry.kept.wish.clone());
        Ok(RenewalChecked { earlier })
    }

    /// Answers [`RenewNowRequest`].
    pub async fn now(&self, request: RenewNowRequest) -> Result<RenewalRow, ControlError> {
        let certs = &self.certs;
        let place = certs.find(&request.which)?;
        let _working = certs.working.lock().await;
        let done = match self.look(&place).await {
            Some(looked) => self.renew(&place, looked, request.new_key).await,
            None => Ok(()),
        };
        done.map_err(refused)?;
        let blocked = certs.with(&place, |entry| entry.blocked.clone());
        match blocked.flatten() {
            Some(failure) => Err(refused(failure.why)),
            None => self.row(&place),
        }
    }

    /// Answers [`RenewalRmRequest`](crate::control::renewals::RenewalRmRequest).
    pub async fn remove(&self, which: WhichRenewal) -> Result<RenewalRow, ControlError> {
        let certs = &self.certs;
        let place = certs.find(&which)?;
        let _working = certs.working.lock().await;
        let row = self.row(&place)?;
        let removed = self.host.disk.remove(&kept::file(&place)).await;
        removed.map_err(|error| ControlError::new(ErrorCode::Internal, error))?;
        certs.entries().remove(&place);
        Ok(row)
    }

    fn row(&self, place: &SetPlace) -> Result<RenewalRow, ControlError> {
        let (now, wall_ms) = (self.host.clock.now(), self.host.clock.wall_ms());
        let row = self.certs.with(place, |entry| entry.row(now, wall_ms));
        row.ok_or_else(|| ControlError::new(ErrorCode::NotFound, "it was removed meanwhile"))
    }

    /// Says of each certificate of this node's by which renewal it is followed,
    /// and of each renewal whose certificate the ledger doesn't know.
    pub fn join(&self, rows: &mut Vec<CertRow>) {
        let (now, wall_ms) = (self.host.clock.now(), self.host.clock.wall_ms());
        let entries = self.certs.entries();
        let node = self.ledger.state().name_of(self.me);
        for entry in entries.values() {
            let renewal = entry.row(now, wall_ms);
            let known = rows
                .iter_mut()
                .find(|row| row.serial == renewal.serial && row.renewal.is_none());
            match known {
                Some(row) => row.renewal = Some(renewal),
                None => rows.push(CertRow {
                    serial: renewal.serial.clone(),
                    names: renewal.names.clone(),
                    node: node.clone(),
                    not_before: renewal.not_after,
                    not_after: renewal.not_after,
                    kind: CertKind::Service,
                    revoked: false,
                    renewal: Some(renewal),
                }),
            }
        }
    }
}
