//! The pre-shared keys that this node has agreed with others, on disk and in its tunnel.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use innermesh_proto::{
    crypto::{Hash, Sealed},
    id::NodeId,
    ledger::State,
    pair_key::{Agreed, Offered, PairKeys, Reply},
    tunnel::{TunnelKey, TunnelPlan},
};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::{
    control::node::PairKey,
    host::{
        Host, Mono,
        key_files::{self, KeyFileError},
    },
    node::shared::own_key::OwnKey,
};

/// See the module.
pub(crate) struct PairSecrets {
    host: Host,
    own: Arc<OwnKey>,
    inner: Mutex<Inner>,
    /// One change at a time, each stored before it counts.
    changing: AsyncMutex<()>,
    /// The tunnel's plan has other keys now.
    changed: Notify,
}

/// Nodes that asked for a key.
#[derive(Default)]
pub(crate) struct Wanted(Mutex<BTreeSet<NodeId>>);

impl Wanted {
    pub fn insert(&self, node: NodeId) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(node);
    }

    /// Those since the last call.
    pub fn take(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Default)]
struct Inner {
    keys: PairKeys,
    /// The number of the key that the device was seen to have, and when.
    seen: BTreeMap<NodeId, (u64, Mono)>,
}

impl PairSecrets {
    /// With those of an earlier run.
    pub async fn load(host: &Host, own: Arc<OwnKey>) -> Result<Self, KeyFileError> {
        let keys = PairKeys::new(key_files::pair_keys(host).await?);
        Ok(Self {
            host: host.clone(),
            own,
            inner: Mutex::new(Inner {
                keys,
                ..Inner::default()
            }),
            changing: AsyncMutex::default(),
            changed: Notify::new(),
        })
    }

    /// Returns once a key is another one than it was.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Gives the peers of a plan their keys.
    pub fn complete(&self, plan: &mut TunnelPlan, state: &State) {
        let own = self.own.get();
        let inner = self.lock();
        for (key, peer) in &mut plan.peers {
            let holder = state.tunnel_key_holder(key);
            let agreed = holder.and_then(|node| inner.keys.with(&node));
            if let Some(secret) = agreed.and_then(|agreed| agreed.key(&own, key)) {
                peer.preshared_key = Some(secret);
            }
        }
    }

    /// When the key was agreed that is in use for this node's handshakes with `key`, in
    /// milliseconds since 1970.
    pub fn since_ms(&self, node: &NodeId, key: &TunnelKey) -> Option<u64> {
        let own = self.own.get();
        let inner = self.lock();
        let agreed = inner.keys.with(node)?;
        agreed.key(&own, key).map(|_| agreed.at_ms)
    }

    /// A number that no key with a node has had, as far as is known here.
    pub fn next_number(&self, node: &NodeId) -> u64 {
        let inner = self.lock();
        let used = inner.keys.with(node).map_or(0, |agreed| agreed.number);
        used.saturating_add(1)
    }

    /// The device has the keys that `plan` gives its peers, as is seen now.
    pub fn note_applied(&self, plan: &TunnelPlan, state: &State) {
        let (own, now) = (self.own.get(), self.host.clock.now());
        let mut inner = self.lock();
        let Inner { keys, seen } = &mut *inner;
        let mut applied = BTreeMap::new();
        for (key, peer) in &plan.peers {
            let Some(node) = state.tunnel_key_holder(key) else {
                continue;
            };
            let agreed = keys.with(&node).filter(|agreed| {
                let secret = agreed.key(&own, key);
                secret.is_some() && secret == peer.preshared_key
            });
            if let Some(agreed) = agreed {
                let before = seen
                    .get(&node)
                    .filter(|(number, _)| *number == agreed.number);
                applied.insert(node, before.copied().unwrap_or((agreed.number, now)));
            }
        }
        *seen = applied;
    }

    /// What protects the tunnel with a node, whose last handshake was so long ago.
    pub fn state(&self, node: &NodeId, handshake: Option<Duration>) -> PairKey {
        let now = self.host.clock.now();
        let inner = self.lock();
        let Some(agreed) = inner.keys.with(node) else {
            return PairKey::None;
        };
        let seen = inner.seen.get(node);
        let since = seen.filter(|(number, _)| *number == agreed.number);
        let shook = handshake.and_then(|age| now.checked_sub(age));
        match (since, shook) {
            (Some((_, since)), Some(shook)) if shook > *since => PairKey::PostQuantum,
            _ => PairKey::Agreed,
        }
    }

    /// As [`PairKeys::offered`].
    pub fn offered(&self, from: &NodeId, number: u64, offer: &Hash) -> Offered {
        self.lock().keys.offered(from, number, offer)
    }

    /// As [`PairKeys::answered`].
    pub async fn answered(&self, from: NodeId, agreed: Agreed, answer: Sealed) {
        let _changing = self.changing.lock().await;
        self.lock().keys.answered(from, agreed, answer);
    }

    /// As [`PairKeys::confirm`].
    ///
    /// # Errors
    /// Nothing has changed.
    pub async fn confirm(
        &self,
        from: &NodeId,
        offer: &Hash,
        proof: &[u8; 32],
    ) -> Result<Reply, KeyFileError> {
        self.change(|keys| keys.confirm(from, offer, proof)).await
    }

    /// As [`PairKeys::adopt`].
    ///
    /// # Errors
    /// Nothing has changed.
    pub async fn adopt(&self, node: NodeId, agreed: Agreed) -> Result<(), KeyFileError> {
        self.change(|keys| (keys.adopt(node, agreed), ())).await
    }

    /// Forgets the keys with those that are no members any more.
    ///
    /// # Errors
    /// Nothing has changed.
    pub async fn retain_members(&self, state: &State) -> Result<(), KeyFileError> {
        let is_member = |node: &NodeId| state.members.contains_key(node);
        if self.lock().keys.used().keys().all(is_member) {
            return Ok(());
        }
        self.change(|keys| (keys.retain(is_member), ())).await
    }

    async fn change<T>(
        &self,
        change: impl FnOnce(&mut PairKeys) -> (bool, T),
    ) -> Result<T, KeyFileError> {
        let _changing = self.changing.lock().await;
        let mut keys = self.lock().keys.clone();
        let (has_changed, result) = change(&mut keys);
        if has_changed {
            key_files::store_pair_keys(&self.host, keys.used()).await?;
            self.lock().keys = keys;
            self.changed.notify_one();
        }
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
