//! Fetching the whole ledger from a member, checked from its genesis before
//! anything is kept.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use async_trait::async_trait;
use innermesh_proto::{
    crypto::{Hash, PublicKey},
    endpoint::is_lane,
    id::NodeId,
    ledger::{Batch, Position, SignedGenesis, State},
    limits,
    message::{Batches, Joined, LedgerQuery},
    rpc::method,
};

use super::{
    join_error::JoinError,
    seed::{STEP, ask, unreachable},
};
use crate::{
    host::{
        Host, key_files as keys,
        keys::NodeKey,
        state_folder::{self, KnownLane},
    },
    ledger::{
        file::{self, LEDGER},
        note_gone,
        start::{self, AskError, Start, Wanted},
    },
    quic::{Channel, Transport},
    tls::{Chain, MeshTls},
};

/// Where a member is.
pub(super) struct Place<'p> {
    pub transport: &'p Transport,
    pub seed: &'p str,
    pub remote: SocketAddr,
}

impl Place<'_> {
    /// Connects as the member that this machine is by now, and fetches the
    /// ledger, in which the inviter's place is to be `known`.
    pub async fn fetch(
        &self,
        host: &Host,
        identity: &Arc<dyn NodeKey>,
        signed: &SignedGenesis,
        joined: Joined,
        known: &Position,
    ) -> Result<Fetched, JoinError> {
        let genesis =
            State::genesis(signed, &*host.keys).map_err(|e| JoinError::Seeded(e.to_string()))?;
        let chain = Chain {
            leaf: joined.leaf,
            issuer: joined.issuer,
            root: genesis.root.der().to_vec(),
        };
        let stamp = Arc::new(AtomicU64::new(genesis.stamp_ms));
        let member = MeshTls::member(&chain, identity.clone(), stamp, host.keys.clone())?;
        let channel = self
            .transport
            .dial_unregistered(self.remote, Some(member.client()?))
            .await
            .map_err(|e| unreachable(self.seed, &e.to_string()))?;
        let lane = self.lane(&channel);
        let fetched = fetch(host, &channel, signed, genesis, known).await?;
        Ok(Fetched { lane, ..fetched })
    }

    /// The lane by which it is reached, for the first start.
    fn lane(&self, channel: &Channel) -> Option<KnownLane> {
        let from = self.transport.lanes()?.from(&self.remote)?;
        Some(KnownLane {
            node: channel.peer_key()?.node_id(),
            url: self.seed.parse().ok()?,
            last: Some(from.ip()),
        })
    }
}

/// A ledger on its way to the disk.
pub(super) struct Fetched {
    pub state: State,
    /// The state that it begins with, if that isn't the genesis'.
    start: Option<Start>,
    batches: Vec<Batch>,
    /// After which batch it begins, and the hashes from that one on.
    base: u64,
    hashes: Vec<Hash>,
    /// Where it came from, where that was over a lane.
    lane: Option<KnownLane>,
}

/// Fetches and checks the ledger: a state that the rosters since the genesis
/// vouch for, where that spares enough batches, and every batch from there on.
/// One that isn't later than what the inviter knew is preferred.
pub(super) async fn fetch(
    host: &Host,
    channel: &Channel,
    genesis: &SignedGenesis,
    state: State,
    known: &Position,
) -> Result<Fetched, JoinError> {
    let mut fetched = Fetched {
        base: 0,
        hashes: vec![genesis.position().hash],
        state,
        start: None,
        batches: Vec::new(),
        lane: None,
    };
    let spares = limits::SNAPSHOT_SPARES;
    fetched
        .begin(host, channel, genesis, known.index, spares)
        .await?;
    'ranges: loop {
        let from = fetched.state.position.index + 1;
        let range: Batches = ask(channel, method::LEDGER, &LedgerQuery { from }, STEP).await?;
        if range.batches.is_empty() {
            // The seed's own ledger may begin with a state.
            if from == 1 {
                for most in [known.index, u64::MAX] {
                    if fetched.begin(host, channel, genesis, most, 1).await? {
                        continue 'ranges;
                    }
                }
            }
            return Ok(fetched);
        }
        for batch in range.batches {
            let (next, _) = fetched
                .state
                .next(&batch, &*host.keys)
                .map_err(|e| JoinError::Seeded(e.to_string()))?;
            fetched.hashes.push(next.position.hash);
            fetched.state = next;
            fetched.batches.push(batch);
        }
    }
}

struct Seed<'c>(&'c Channel);

#[async_trait]
impl start::Ask for Seed<'_> {
    async fn ask(&self, method: u16, body: Vec<u8>) -> Result<Vec<u8>, AskError> {
        let answer = self.0.call(method, body, STEP).await;
        answer.map_err(|error| AskError::Failed(error.to_string()))
    }
}

impl Fetched {
    /// Begins with the seed's state, if it has one that spares so many batches.
    async fn begin(
        &mut self,
        host: &Host,
        channel: &Channel,
        genesis: &SignedGenesis,
        most: u64,
        spared: u64,
    ) -> Result<bool, JoinError> {
        let seed = Seed(channel);
        let wanted = Wanted {
            genesis,
            least: spared,
            most,
        };
        // A seed of another version has none.
        let offer = start::ask(&seed, &wanted, &*host.keys).await;
        let Some(offer) = offer.ok().flatten() else {
            return Ok(false);
        };
        let Ok(start) = start::fetch(&seed, &*host.clock, offer).await else {
            return Ok(false);
        };
        self.state = start
            .open(genesis, &*host.keys)
            .map_err(|e| JoinError::Seeded(e.to_string()))?;
        self.base = self.state.position.index;
        self.hashes = vec![self.state.position.hash];
        self.start = Some(start);
        Ok(true)
    }

    /// It must know this machine, and what the inviter knew: a state that is
    /// later than that is the rosters' own word for it.
    pub fn check(&self, known: &Position, key: &PublicKey) -> Result<(), JoinError> {
        if let Some(at) = known.index.checked_sub(self.base) {
            let at = usize::try_from(at).ok();
            let held = at.and_then(|at| self.hashes.get(at));
            if held != Some(&known.hash) {
                return Err(JoinError::Stale);
            }
        }
        self.lists(key)
    }

    /// It must know this machine.
    pub fn lists(&self, key: &PublicKey) -> Result<(), JoinError> {
        match self.state.member_by_key(key) {
            Some(_) => Ok(()),
            None => Err(JoinError::Seeded(
                "its ledger doesn't list this machine".into(),
            )),
        }
    }

    /// Keeps it, last of all: until then this machine is in no mesh.
    pub async fn store(
        &self,
        host: &Host,
        genesis: &SignedGenesis,
        seeds: &[SocketAddr],
    ) -> Result<(), JoinError> {
        keys::wireguard(host).await?;
        // The address that stands for a lane leads nowhere the next time.
        let seeds = seeds.iter().filter(|seed| !is_lane(seed));
        let seeds: Vec<SocketAddr> = seeds.copied().collect();
        state_folder::store_seeds(&*host.disk, &seeds).await?;
        if let Some(lane) = &self.lane {
            let lanes = std::slice::from_ref(lane);
            state_folder::store_lanes(&*host.disk, lanes).await?;
        }
        self.store_ledger(host, genesis).await
    }

    /// Puts it in the place of a damaged ledger, of which a copy is kept.
    pub async fn replace(
        &self,
        host: &Host,
        genesis: &SignedGenesis,
        me: NodeId,
    ) -> Result<(), JoinError> {
        file::put_aside(&*host.disk).await;
        note_gone(&*host.disk, &self.state, me).await?;
        self.store_ledger(host, genesis).await
    }

    async fn store_ledger(&self, host: &Host, genesis: &SignedGenesis) -> Result<(), JoinError> {
        if let Some(start) = &self.start {
            start::store(&*host.disk, start).await?;
        }
        let bytes = file::encode(genesis, &self.batches);
        Ok(host.disk.replace(Path::new(LEDGER), &bytes).await?)
    }
}
