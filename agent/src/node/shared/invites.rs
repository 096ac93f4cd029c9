//! The invites that were made on this node and are open: what an admin may want
//! to know of them and take back. Nobody can join by what is kept.

use std::{
    io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use innermesh_proto::{codec, limits, message::GivenInvite};

use crate::host::Disk;

/// Where they are kept.
const FILE: &str = "invites";
/// Of the file, and of an answer to a peer, in bytes.
const MOST_BYTES: usize = limits::RPC_BYTES / 2;

/// The invites that were made on this node.
pub(crate) struct Invites {
    open: Mutex<Vec<GivenInvite>>,
    /// Held while the file is written: two at once would lose one.
    writes: tokio::sync::Mutex<()>,
}

/// Why an invite can't be remembered, and so isn't made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error(
        "as many invites made here are open as can be remembered: `agent invite list` shows them, \
         `agent invite revoke ID` ends one"
    )]
    Full,
    #[error("the invite can't be written down, so it isn't made: {0}")]
    Io(#[from] io::Error),
}

impl Invites {
    /// Those that were there at the last stop.
    pub async fn load(disk: &dyn Disk) -> Self {
        let open = match disk.read(Path::new(FILE)).await {
            Ok(bytes) => parse(&bytes.unwrap_or_default()),
            Err(error) => {
                tracing::error!(%error, "the open invites can't be read; they aren't listed");
                Vec::new()
            }
        };
        Self {
            open: Mutex::new(open),
            writes: tokio::sync::Mutex::default(),
        }
    }

    /// Those that aren't over by then.
    pub fn open(&self, now_ms: u64) -> Vec<GivenInvite> {
        let mut open = self.lock().clone();
        open.retain(|invite| invite.expires_ms >= now_ms);
        open
    }

    /// Writes one more down, before it is given out; forgets those for which
    /// `over` says so.
    ///
    /// # Errors
    /// [`KeepError`]; nothing was changed.
    pub async fn keep(
        &self,
        disk: &dyn Disk,
        invite: GivenInvite,
        over: impl Fn(&GivenInvite) -> bool,
    ) -> Result<(), KeepError> {
        let _writes = self.writes.lock().await;
        let mut open = self.lock().clone();
        open.retain(|invite| !over(invite));
        open.push(invite);
        let bytes = codec::encode(&open);
        if open.len() > limits::INVITES_PER_NODE || bytes.len() > MOST_BYTES {
            return Err(KeepError::Full);
        }
        disk.replace(Path::new(FILE), &bytes).await?;
        *self.lock() = open;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<GivenInvite>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The invites of a file; none where it can't be read.
fn parse(bytes: &[u8]) -> Vec<GivenInvite> {
    let mut open: Vec<GivenInvite> = codec::decode(bytes, MOST_BYTES).unwrap_or_default();
    open.truncate(limits::INVITES_PER_NODE);
    open
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use innermesh_proto::crypto::PublicKey;

    use super::*;
    use crate::host::system;

    fn invite(number: u8, expires_ms: u64) -> GivenInvite {
        GivenInvite {
            token: PublicKey([number; 32]),
            roles: BTreeSet::new(),
            names: BTreeSet::new(),
            routes: BTreeSet::new(),
            addresses: BTreeSet::new(),
            uses: 1,
            made_ms: 0,
            expires_ms,
        }
    }

    #[tokio::test]
    async fn invites_are_there_after_a_restart_until_they_are_over_and_only_so_many() {
        let folder = tempfile::tempdir().unwrap();
        let host = system::host(folder.path().to_owned());
        let invites = Invites::load(&*host.disk).await;
        for (number, expires_ms) in [(1, 10), (2, 20)] {
            let kept = invites.keep(&*host.disk, invite(number, expires_ms), |_| false);
            kept.await.unwrap();
        }
        let again = Invites::load(&*host.disk).await;
        assert_eq!(again.open(11), [invite(2, 20)]);
        let over = |invite: &GivenInvite| invite.expires_ms < 11;
        again.keep(&*host.disk, invite(3, 30), over).await.unwrap();
        assert_eq!(again.open(0), [invite(2, 20), invite(3, 30)]);
        for _ in 2..limits::INVITES_PER_NODE {
            let kept = again.keep(&*host.disk, invite(4, 40), |_| false);
            kept.await.unwrap();
        }
        let full = again.keep(&*host.disk, invite(5, 50), |_| false).await;
        assert!(matches!(full, Err(KeepError::Full)));
    }
}
