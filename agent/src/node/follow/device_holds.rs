//! Devices that a person removes: cut off at once, by this node's word, and removed
//! by the ledger as soon as that can be asked.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use innermesh_proto::{
    hold::may_hold_device,
    id::NodeId,
    ledger::{Content, device::DeviceId},
    limits,
};
use tokio::sync::Notify;

use crate::{
    host::Host,
    ledger::{
        Ledger,
        client::{Client, RequestError},
    },
    node::shared::{announce::Announcer, device_holds::DeviceHolds, handles::Handles},
};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the ledger is asked again.
const RETRY: Duration = Duration::from_secs(15);

/// Sets this node's holds on devices, and takes back those that are over.
pub(crate) struct DeviceHoldKeeper {
    host: Host,
    me: NodeId,
    ledger: Ledger,
    client: Client,
    announcer: Announcer,
    set: Arc<DeviceHolds>,
    /// Wakes who asks the ledger for what it hasn't done.
    placed: Notify,
}

impl DeviceHoldKeeper {
    pub fn new(node: &Handles, announcer: Announcer) -> Self {
        Self {
            host: node.host.clone(),
            me: node.me,
            ledger: node.ledger.clone(),
            client: node.client.clone(),
            set: announcer.device_holds.clone(),
            placed: Notify::new(),
            announcer,
        }
    }

    /// Cuts a device off: the hold is on disk before anybody hears of it. False
    /// where it isn't this node's to cut off, or there are as many as may be.
    ///
    /// # Errors
    /// The disk's; nothing was changed.
    pub async fn place(&self, device: DeviceId) -> std::io::Result<bool> {
        let mut holds = self.set.own();
        if holds.contains(&device) {
            return Ok(true);
        }
        let state = self.ledger.state();
        if !may_hold_device(&state, self.me, &device) || holds.len() >= limits::DEVICE_HOLDS {
            return Ok(false);
        }
        holds.insert(device);
        self.replace(holds).await?;
        self.placed.notify_one();
        Ok(true)
    }

    /// Takes one back.
    ///
    /// # Errors
    /// The disk's; it stands.
    pub async fn lift(&self, device: &DeviceId) -> std::io::Result<()> {
        let mut holds = self.set.own();
        if holds.remove(device) {
            self.replace(holds).await?;
        }
        Ok(())
    }

    async fn replace(&self, holds: BTreeSet<DeviceId>) -> std::io::Result<()> {
        self.set.replace(&*self.host.disk, holds).await?;
        self.announcer.announce();
        Ok(())
    }

    /// Takes back what the ledger has done, and asks it for the rest, for as long as
    /// the agent runs.
    pub async fn run(self: Arc<Self>) {
        let mut states = self.ledger.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            for device in self.set.own() {
                let over = !may_hold_device(&state, self.me, &device);
                if over && let Err(error) = self.lift(&device).await {
                    tracing::error!(%error, "a hold that is over can't be taken back");
                }
            }
            let clock = self.host.clock.clone();
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = self.placed.notified() => {}
                () = clock.sleep(RETRY), if !self.set.own().is_empty() => {
                    for device in self.set.own() {
                        self.ask_again(device).await;
                    }
                }
            }
        }
    }

    async fn ask_again(&self, device: DeviceId) {
        let asked = self
            .client
            .ask(&Content::RemoveDevice(device), PATIENCE)
            .await;
        if let Err(RequestError::Refused(refusal)) = asked {
            tracing::warn!(%refusal, "a device isn't removed: its hold is taken back");
            let _ = self.lift(&device).await;
        }
    }
}
