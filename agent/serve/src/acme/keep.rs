//! Accounts and bindings on the disk.

use std::sync::atomic::Ordering;

use super::{
    Acme,
    account_store::{Binding, file_named},
    problem::Problem,
};

impl Acme {
    /// Writes an account as it is now, once for all who wait for that: a web
    /// server with many sites asks for all of them at once.
    pub(super) async fn save(&self, account: &str) -> Result<(), Problem> {
        let own = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut written = self.written.lock().await;
        if written.get(account).is_some_and(|until| *until >= own) {
            return Ok(());
        }
        // Whoever asked until now has made its change.
        let until = self.asked.load(Ordering::SeqCst);
        let file = self.store().file_of(account);
        let Some((path, bytes)) = file else {
            return Ok(());
        };
        let done = self.host.disk.replace(&path, &bytes).await;
        self.changes.send_replace(());
        done.map_err(|error| {
            tracing::error!(%error, "an ACME account can't be written");
            Problem::internal("the agent's disk can't be written; its log says why")
        })?;
        written.insert(account.to_owned(), until);
        Ok(())
    }

    /// Removes the file of an account that isn't kept any more. One that stays
    /// does no harm but to be read again at the next start.
    pub(super) async fn forget(&self, account: &str) {
        let mut written = self.written.lock().await;
        written.remove(account);
        if let Err(error) = self.host.disk.remove(&file_named(account)).await {
            tracing::warn!(%error, "the file of an ACME account can't be removed");
        }
    }

    /// Keys for sources that are no local process, by id.
    pub fn bindings(&self) -> Vec<(String, Binding)> {
        let store = self.store();
        let bindings = store.bindings.iter();
        bindings
            .map(|(id, bound)| (id.clone(), bound.clone()))
            .collect()
    }

    /// Makes a key by which a source that is no local process may have
    /// certificates for `name`.
    ///
    /// # Errors
    /// The disk's; then there is no such key.
    pub async fn bind(&self, name: &str) -> std::io::Result<(String, Binding)> {
        let mut key = [0; 32];
        self.host.keys.random(&mut key);
        let id = self.random_id();
        let binding = Binding {
            name: name.to_owned(),
            key: data_encoding::BASE64URL_NOPAD.encode(&key),
        };
        self.store().bindings.insert(id.clone(), binding.clone());
        let written = self.save_bindings().await;
        if written.is_err() {
            self.store().bindings.remove(&id);
        }
        written.map(|()| (id, binding))
    }

    /// Takes the keys for `name` back: accounts that were bound with them
    /// get nothing more. Gives how many there were.
    ///
    /// # Errors
    /// The disk's; they hold until the agent is restarted then.
    pub async fn unbind(&self, name: &str) -> std::io::Result<usize> {
        let before = self.store().bindings.len();
        self.store().bindings.retain(|_, bound| bound.name != name);
        let gone = before - self.store().bindings.len();
        self.save_bindings().await?;
        Ok(gone)
    }

    async fn save_bindings(&self) -> std::io::Result<()> {
        let _turn = self.written.lock().await;
        let (path, bytes) = self.store().bindings_file();
        self.host.disk.replace(&path, &bytes).await
    }
}
