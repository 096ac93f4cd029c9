//! Renews in time.

use std::{sync::Arc, time::Duration};

use crate::{
    host::outside::SetPlace,
    node::follow::program_certs::{errors::Trouble, keeper::CertKeeper},
};

/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_secs(60);

impl CertKeeper {
    /// Renews in time, for as long as the agent runs.
    pub async fn run(self: Arc<Self>) {
        let clock = self.host.clock.clone();
        loop {
            for place in self.certs.places() {
                let _working = self.certs.working.lock().await;
                self.renew_due(&place).await;
            }
            self.run_due().await;
            let now = clock.now();
            let pause = {
                let entries = self.certs.entries();
                let soon = entries
                    .values()
                    .flat_map(|entry| [entry.not_before, entry.exec_not_before])
                    .filter(|at| *at > now);
                soon.min().map_or(LOOK, |at| LOOK.min(at - now))
            };
            tokio::select! {
                () = self.certs.wake.notified() => {}
                () = clock.sleep(pause) => {}
            }
        }
    }

    /// Looks at one, and renews it when it is due.
    async fn renew_due(&self, place: &SetPlace) {
        let Some(looked) = self.look(place).await else {
            return;
        };
        let now = self.host.clock.now();
        let is_due = self.host.clock.wall_ms() >= looked.due_ms;
        let may = self.certs.with(place, |entry| now >= entry.not_before);
        if !is_due || may != Some(true) {
            return;
        }
        match self.renew(place, looked, false).await {
            Ok(()) => {}
            Err(Trouble::Blocked(why)) => self.block(place, &why),
            Err(Trouble::Failed(why)) => self.fail(place, &why).await,
        }
    }
}
