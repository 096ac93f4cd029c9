//! This node's WireGuard key and its place in the ledger (S26): asked for once
//! the ledger has none of it, and changed without losing what was agreed.
//!
//! The next key is on disk before it is asked for, and stays there until it is
//! in use: a crash at any point leaves both, and the ledger says which one
//! counts.

use std::{sync::Arc, time::Duration};

use innermesh_proto::{
    id::NodeId,
    ledger::{Content, Refusal, State},
    tunnel::TunnelKey,
};

use crate::{
    control::{ControlError, ErrorCode, node::Rekeyed},
    host::{
        Host,
        key_files::{self as keys, KeyFileError},
    },
    ledger::{
        Ledger,
        client::{Client, RequestError},
    },
    node::{
        config::AgentConfig,
        shared::{announce::Announcer, handles::Handles, own_key::OwnKey},
    },
    tunnel::{BackendChoice, Tunnel, TunnelError, public_key},
};

/// How long the ledger may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two attempts: at first, and at most.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// What each member adds to the time within which all ask.
const EACH: Duration = Duration::from_millis(20);

/// Keeps the ledger's key of this node and the device's the same.
pub(crate) struct TunnelKeyKeeper {
    config: Arc<AgentConfig>,
    host: Host,
    me: NodeId,
    ledger: Ledger,
    client: Client,
    tunnel: Arc<dyn Tunnel>,
    own: Arc<OwnKey>,
    announcer: Announcer,
}

impl TunnelKeyKeeper {
    pub fn new(node: &Handles, tunnel: Arc<dyn Tunnel>, announcer: Announcer) -> Self {
        Self {
            config: node.config.clone(),
            host: node.host.clone(),
            me: node.me,
            ledger: node.ledger.clone(),
            client: node.client.clone(),
            tunnel,
            own: announcer.tunnel_key.clone(),
            announcer,
        }
    }
}

/// Why a key isn't the ledger's yet.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The ledger didn't take it.
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    File(#[from] KeyFileError),
    #[error(transparent)]
    Device(#[from] TunnelError),
}

impl KeyError {
    /// Whether another node has the key.
    fn is_taken(&self) -> bool {
        matches!(
            self,
            Self::Request(RequestError::Refused(Refusal::TunnelKey))
        )
    }
}

/// The private key that an agent begins with, and the public half of the one
/// that its device may still have from an earlier run. A key that the ledger
/// gives to another node is never begun with, as that node's packets would come
/// here.
///
/// # Errors
/// [`KeyFileError`].
pub(crate) async fn at_start(
    host: &Host,
    state: &State,
    me: NodeId,
) -> Result<([u8; 32], Option<TunnelKey>), KeyFileError> {
    let own = keys::wireguard(host).await?;
    let listed = state.tunnel_keys(&me).map(|keys| keys.current);
    let next = keys::next_wireguard(host).await?;
    if let Some(next) = next.filter(|next| listed == Some(public_key(next))) {
        return Ok((next, Some(public_key(&own))));
    }
    let holder = state.tunnel_key_holder(&public_key(&own));
    if holder.is_some_and(|holder| holder != me) {
        tracing::warn!("wireguard.key is another node's; this node makes one of its own");
        return Ok((keys::new_wireguard(host).await?, Some(public_key(&own))));
    }
    Ok((own, None))
}

impl TunnelKeyKeeper {
    /// Keeps the ledger's key and the device's the same.
    pub async fn run(self: Arc<Self>) {
        if self.config.backend == BackendChoice::None {
            return;
        }
        let clock = self.host.clock.clone();
        let mut states = self.ledger.subscribe();
        let mut pause = RETRY_MIN;
        let mut rules = 0;
        let mut not_before = clock.now();
        loop {
            states.mark_unchanged();
            let state = self.ledger.state();
            if state.rules > rules {
                rules = state.rules;
                not_before = clock.now() + self.spread(&state);
            }
            if clock.now() >= not_before {
                let settled = {
                    let _changing = self.own.changing().await;
                    self.settle().await
                };
                if let Err(error) = settled {
                    tracing::warn!(%error, "this node's WireGuard key isn't in the ledger; trying again");
                    not_before = clock.now() + pause;
                    pause = RETRY_MAX.min(pause * 2);
                } else {
                    pause = RETRY_MIN;
                }
            }
            let wait = not_before.saturating_sub(clock.now());
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = clock.sleep(wait), if !wait.is_zero() => {}
            }
        }
    }

    /// Some time within which all that lack a key ask, when the rules change or
    /// all start at once.
    fn spread(&self, state: &State) -> Duration {
        let mut random = [0; 2];
        self.host.keys.random(&mut random);
        let members = u32::try_from(state.members.len()).unwrap_or(u32::MAX);
        let within = EACH.saturating_mul(members);
        within.mul_f64(f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX))
    }

    async fn settle(&self) -> Result<(), KeyError> {
        let state = self.ledger.state();
        if state.rules == 0 || !state.members.contains_key(&self.me) {
            return Ok(());
        }
        let listed = state.tunnel_keys(&self.me).map(|keys| keys.current);
        let own = self.own.get();
        if listed == Some(own) {
            return self.tidy(own).await;
        }
        let next = keys::next_wireguard(&self.host).await?;
        if let Some(next) = next.filter(|next| listed == Some(public_key(next))) {
            return self.switch(&next).await;
        }
        match self.ask(own).await {
            // Somebody had it written down as its own: this node makes another.
            Err(error) if error.is_taken() => self.change().await,
            other => other,
        }
    }

    /// What a crash left of a change that is done.
    async fn tidy(&self, own: TunnelKey) -> Result<(), KeyError> {
        if let Some(next) = keys::next_wireguard(&self.host).await?
            && public_key(&next) == own
        {
            keys::switch_wireguard(&self.host, &next).await?;
        }
        Ok(())
    }

    /// Has the ledger give this node a new key, and uses it.
    async fn change(&self) -> Result<(), KeyError> {
        self.tidy(self.own.get()).await?;
        let next = keys::next_wireguard_or_new(&self.host).await?;
        match self.ask(public_key(&next)).await {
            Ok(()) => self.switch(&next).await,
            Err(error) => {
                // Another one next time; this one is known to somebody.
                if error.is_taken() {
                    keys::drop_next_wireguard(&self.host).await?;
                }
                Err(error)
            }
        }
    }

    async fn ask(&self, key: TunnelKey) -> Result<(), KeyError> {
        self.client.ask(&Content::TunnelKey(key), PATIENCE).await?;
        Ok(())
    }

    /// The device first, and at once the word to the others: until they have heard
    /// it they use the old key. The file comes last; the new key is on disk beside
    /// it.
    async fn switch(&self, private: &[u8; 32]) -> Result<(), KeyError> {
        self.tunnel.set_private_key(*private).await?;
        self.own.set(private);
        self.announcer.announce();
        keys::switch_wireguard(&self.host, private).await?;
        tracing::info!(key = %public_key(private), "this node has a new WireGuard key");
        Ok(())
    }

    /// Changes this node's key, by a person's wish.
    ///
    /// # Errors
    /// Why it has the old one still.
    pub async fn rekey(&self) -> Result<Rekeyed, ControlError> {
        let refused = |why: &str| Err(ControlError::new(ErrorCode::Refused, why));
        if self.config.backend == BackendChoice::None {
            return refused("this node has no tunnel: `tunnel.backend` is \"none\"");
        }
        if self.ledger.state().rules == 0 {
            return refused(
                "the ledger doesn't know WireGuard keys yet: update the agent on all CA nodes, and \
                 try again",
            );
        }
        let _changing = self.own.changing().await;
        let previous = self.own.get();
        self.change().await.map_err(|error| {
            let code = match error {
                KeyError::Request(RequestError::Refused(_)) => ErrorCode::Refused,
                KeyError::Request(RequestError::Unavailable(_)) => ErrorCode::Unavailable,
                KeyError::File(_) | KeyError::Device(_) => ErrorCode::Internal,
            };
            ControlError::new(code, error)
        })?;
        Ok(Rekeyed {
            key: self.own.get().to_string(),
            previous: previous.to_string(),
        })
    }
}
