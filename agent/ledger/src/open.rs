//! Opening this node's ledger: what is on its disk becomes the core's state, and
//! the pump starts.

use std::sync::{Arc, OnceLock};

use innermesh_host::Host;
use innermesh_proto::{crypto::Sign, ledger::SignedGenesis};
use tokio::sync::mpsc;

use super::{
    file::{self, FileError},
    files::Files,
    furthest::Furthest,
    gone,
    ledger::{Inner, Ledger},
    past_index,
    pump::Pump,
    recover,
    sizes::Sizes,
    stored::{LedgerError, Stored},
    views::views,
};

/// Commands that may wait for the pump.
const QUEUE: usize = 1024;

impl Ledger {
    /// Writes the first frame of a new ledger.
    ///
    /// # Errors
    /// [`FileError`]; an existing ledger stands.
    pub async fn create(host: &Host, genesis: &SignedGenesis) -> Result<(), FileError> {
        file::create(&*host.disk, genesis).await
    }

    /// Opens the ledger, cuts a torn tail, applies what it holds, and starts
    /// its pump. A CA node signs with the issuers that the ledger lists and
    /// whose keys are in its folder.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open(host: &Host, key: Arc<dyn Sign>) -> Result<Self, LedgerError> {
        Stored::read(host).await?.open(host, key).await
    }

    /// As [`Ledger::open`], with files of other sizes.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open_with(
        host: &Host,
        key: Arc<dyn Sign>,
        sizes: Sizes,
    ) -> Result<Self, LedgerError> {
        Stored::read(host).await?.open_with(host, key, sizes).await
    }
}

impl Stored {
    /// Cuts what can't be used, and starts the ledger's pump.
    ///
    /// # Errors
    /// The disk's.
    pub async fn open(self, host: &Host, key: Arc<dyn Sign>) -> Result<Ledger, LedgerError> {
        self.open_with(host, key, Sizes::default()).await
    }

    async fn open_with(
        self,
        host: &Host,
        key: Arc<dyn Sign>,
        sizes: Sizes,
    ) -> Result<Ledger, LedgerError> {
        let me = key.public().node_id();
        let was_damaged = self.damage.is_some() || self.is_refetched;
        if let Some(at) = self.damage {
            tracing::error!(
                at,
                "the ledger file is damaged; taking the rest from peers again"
            );
            gone::note(&*host.disk, &self.state, me)
                .await
                .map_err(FileError::Io)?;
        }
        let (archive, file) = self.loaded.reopen(&*host.disk, self.kept).await?;
        let archive = Arc::new(archive);
        let lost = recover::load(&*host.disk).await.map_err(FileError::Io)?;
        let genesis = self.loaded.genesis;
        let state = Arc::new(self.state);
        let (views, watched) = views(state.clone(), archive.index().position(), lost);
        let sender = Arc::new(OnceLock::new());
        let opened_at = state.position.index;
        let files = Files {
            disk: host.disk.clone(),
            genesis: genesis.clone(),
            file,
            archive: archive.clone(),
            starts: self.starts.clone(),
            sizes,
        };
        let (commands, queue) = mpsc::channel(QUEUE);
        let pump = Pump::new(host.clone(), key, files, views, sender.clone(), state);
        host.tasks.spawn(pump.run(queue));
        Ok(Ledger {
            inner: Arc::new(Inner {
                me,
                genesis,
                disk: host.disk.clone(),
                archive,
                watched,
                commands,
                sender,
                starts: self.starts,
                furthest: Furthest::default(),
                past: past_index::Past::default(),
                opened_at,
                was_damaged,
            }),
        })
    }
}
