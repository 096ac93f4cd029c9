//! What the host says by D-Bus that may undo settings: systemd-resolved came or
//! went, and the machine woke up (org.freedesktop.login1(5)).

use std::num::NonZeroUsize;

use futures_util::StreamExt;
use tokio::sync::Mutex;
use zbus::{MatchRule, MessageStream, message::Type};

use super::resolved;

/// Signals that wait to be looked at; one says as much as ten.
const QUEUE: Option<NonZeroUsize> = NonZeroUsize::new(16);

/// Open on the bus from the first question on.
#[derive(Default)]
pub(super) struct Signals(Mutex<Option<Streams>>);

struct Streams {
    owner: MessageStream,
    sleep: MessageStream,
}

impl Signals {
    /// Waits for one, or for the end of the bus; for ever where there is no bus.
    pub(super) async fn next(&self) {
        let mut open = self.0.lock().await;
        if open.is_none() {
            *open = Streams::open().await.ok();
        }
        let Some(streams) = &mut *open else {
            drop(open);
            return std::future::pending().await;
        };
        let news = tokio::select! {
            news = streams.owner.next() => news,
            news = streams.sleep.next() => news,
        };
        if !matches!(news, Some(Ok(_))) {
            *open = None;
        }
    }
}

impl Streams {
    async fn open() -> zbus::Result<Self> {
        // A connection of its own: a full queue holds up all that it carries.
        let bus = resolved::bus().await?;
        let owner = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .arg(0, resolved::NAME)
            .build()?;
        let sleep = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.login1")
            .interface("org.freedesktop.login1.Manager")
            .member("PrepareForSleep")
            .build()?;
        Ok(Self {
            owner: MessageStream::for_match_rule(owner, &bus, QUEUE).await?,
            sleep: MessageStream::for_match_rule(sleep, &bus, QUEUE).await?,
        })
    }
}
