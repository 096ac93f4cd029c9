//! This node's WireGuard key and its place in the ledger (S26): asked for once
//! the ledger has none of it, and changed without losing what was agreed.
//!
//! The next key is on disk before it is asked for, and stays there until it is
//! in use: a crash at any point leaves both, and the ledger says which one
//! counts.

use std::{sync::Arc, time::Duration};

use innermesh_proto::{
    id::NodeId,
    ledger::{Content, Outcome, Refusal, State},
    tunnel::TunnelKey,
};
use tokio::sync::{Mutex, watch};

use crate::node::Inner;
use crate::node::follow::view;
use crate::{
    control::{ControlError, ErrorCode, node::Rekeyed},
    host::Host,
    host::key_files::{self as keys, KeyFileError},
    ledger::client::SubmitError,
    tunnel::{BackendChoice, TunnelError, public_key},
};

/// How long the ledger may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two attempts: at first, and at most.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// What each member adds to the time within which all ask.
const EACH: Duration = Duration::from_millis(20);

/// The key in use, and one change at a time.
pub struct OwnKey {
    in_use: watch::Sender<TunnelKey>,
    changing: Mutex<()>,
}

impl OwnKey {
    /// The device has this one.
    pub fn new(key: TunnelKey) -> Self {
        Self {
            in_use: watch::Sender::new(key),
            changing: Mutex::default(),
        }
    }

    /// The key that the device has.
    pub fn get(&self) -> TunnelKey {
        *self.in_use.borrow()
    }
}

/// Why a key isn't the ledger's yet.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The ledger said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The ledger wasn't reached.
    #[error(transparent)]
    Unavailable(#[from] SubmitError),
    /// The disk.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The device.
    #[error(transparent)]
    Device(#[from] TunnelError),
}

/// The private key that an agent begins with, and the public half of the one
/// that its device may still have from an earlier run.
///
/// # Errors
/// [`KeyFileError`].
pub async fn at_start(
    host: &Host,
    state: &State,
    me: NodeId,
) -> Result<([u8; 32], Option<TunnelKey>), KeyFileError> {
    let own = keys::wireguard(host).await?;
    let listed = state.tunnel_keys(&me).map(|keys| keys.current);
    let next = keys::next_wireguard(host).await?;
    match next.filter(|next| listed == Some(public_key(next))) {
        Some(next) => Ok((next, Some(public_key(&own)))),
        None => Ok((own, None)),
    }
}

/// Keeps the ledger's key and the device's the same.
pub async fn run(inner: Arc<Inner>) {
    if inner.config.backend == BackendChoice::None {
        return;
    }
    let clock = inner.host.clock.clone();
    let mut states = inner.ledger.subscribe();
    let mut pause = RETRY_MIN;
    let mut rules = 0;
    let mut not_before = clock.now();
    loop {
        states.mark_unchanged();
        let state = inner.ledger.state();
        if state.rules > rules {
            rules = state.rules;
            not_before = clock.now() + spread(&inner, &state);
        }
        if clock.now() >= not_before {
            let settled = {
                let _changing = inner.tunnel_key.changing.lock().await;
                settle(&inner).await
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
fn spread(inner: &Inner, state: &State) -> Duration {
    let mut random = [0; 2];
    inner.host.keys.random(&mut random);
    let members = u32::try_from(state.members.len()).unwrap_or(u32::MAX);
    let within = EACH.saturating_mul(members);
    within.mul_f64(f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX))
}

async fn settle(inner: &Inner) -> Result<(), KeyError> {
    let state = inner.ledger.state();
    if state.rules == 0 || !state.members.contains_key(&inner.me) {
        return Ok(());
    }
    let listed = state.tunnel_keys(&inner.me).map(|keys| keys.current);
    let own = inner.tunnel_key.get();
    if listed == Some(own) {
        return tidy(inner, own).await;
    }
    let next = keys::next_wireguard(&inner.host).await?;
    if let Some(next) = next.filter(|next| listed == Some(public_key(next))) {
        return switch(inner, &next).await;
    }
    match ask(inner, own).await {
        // Somebody had it written down as its own: this node makes another.
        Err(KeyError::Refused(Refusal::TunnelKey)) => change(inner).await,
        other => other,
    }
}

/// What a crash left of a change that is done.
async fn tidy(inner: &Inner, own: TunnelKey) -> Result<(), KeyError> {
    if let Some(next) = keys::next_wireguard(&inner.host).await?
        && public_key(&next) == own
    {
        keys::switch_wireguard(&inner.host, &next).await?;
    }
    Ok(())
}

/// Has the ledger give this node a new key, and uses it.
async fn change(inner: &Inner) -> Result<(), KeyError> {
    tidy(inner, inner.tunnel_key.get()).await?;
    let next = keys::next_wireguard_or_new(&inner.host).await?;
    match ask(inner, public_key(&next)).await {
        Ok(()) => switch(inner, &next).await,
        Err(error) => {
            // Another one next time; this one is known to somebody.
            if let KeyError::Refused(Refusal::TunnelKey) = error {
                keys::drop_next_wireguard(&inner.host).await?;
            }
            Err(error)
        }
    }
}

async fn ask(inner: &Inner, key: TunnelKey) -> Result<(), KeyError> {
    let content = Content::TunnelKey(key);
    let request = inner.client.request(&content, inner.now_ms());
    match inner.client.submit(&request, PATIENCE).await? {
        Outcome::Done(_) | Outcome::Waiting(_) => Ok(()),
        Outcome::Refused(refusal) => Err(KeyError::Refused(refusal)),
    }
}

/// The device first, and at once the word to the others: until they have heard
/// it they use the old key. The file comes last; the new key is on disk beside
/// it.
async fn switch(inner: &Inner, private: &[u8; 32]) -> Result<(), KeyError> {
    inner.tunnel.set_private_key(*private).await?;
    inner.tunnel_key.in_use.send_replace(public_key(private));
    view::announce(inner, None);
    keys::switch_wireguard(&inner.host, private).await?;
    tracing::info!(key = %public_key(private), "this node has a new WireGuard key");
    Ok(())
}

/// Changes this node's key, by a person's wish.
///
/// # Errors
/// Why it has the old one still.
pub async fn rekey(inner: &Inner) -> Result<Rekeyed, ControlError> {
    let refused = |why: &str| Err(ControlError::new(ErrorCode::Refused, why));
    if inner.config.backend == BackendChoice::None {
        return refused("this node has no tunnel: `tunnel.backend` is \"none\"");
    }
    if inner.ledger.state().rules == 0 {
        return refused(
            "the ledger doesn't know WireGuard keys yet: update the agent on all CA nodes, and \
             try again",
        );
    }
    let _changing = inner.tunnel_key.changing.lock().await;
    let previous = inner.tunnel_key.get();
    change(inner).await.map_err(|error| {
        let code = match error {
            KeyError::Refused(_) => ErrorCode::Refused,
            KeyError::Unavailable(_) => ErrorCode::Unavailable,
            KeyError::File(_) | KeyError::Device(_) => ErrorCode::Internal,
        };
        ControlError::new(code, error)
    })?;
    Ok(Rekeyed {
        key: inner.tunnel_key.get().to_string(),
        previous: previous.to_string(),
    })
}
