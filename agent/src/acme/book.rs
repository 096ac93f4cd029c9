//! Accounts and orders, kept in the state folder: a file for each account,
//! written before a client is told of a change.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use innermesh_proto::crypto::Hash;
use serde::{Deserialize, Serialize};

use super::{
    jwk::Jwk,
    order::{Order, Status},
};
use crate::host::Disk;

/// The folder, below the state folder.
pub const FOLDER: &str = "acme";
/// Where keys for external accounts are.
const BINDINGS: &str = "acme/bindings.json";
/// Accounts at one agent.
pub const ACCOUNTS: usize = 256;
/// Orders of one account that are under way.
pub const OPEN_ORDERS: usize = 100;
/// Orders of one account that are kept.
const KEPT_ORDERS: usize = 1000;

/// Whether an account is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountStatus {
    /// It is.
    Valid,
    /// Its owner has ended it.
    Deactivated,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its key.
    pub key: Jwk,
    /// Whether it is in use.
    pub status: AccountStatus,
    /// How its owner can be reached: `mailto:` URLs.
    pub contact: Vec<String>,
    /// The binding's id, for an account that isn't a local process's.
    pub binding: Option<String>,
    /// What the client sent as its binding, given back to it.
    pub bound: Option<serde_json::Value>,
    /// Its orders, by id.
    pub orders: BTreeMap<String, Order>,
}

/// A key by which a source that is no local process may have an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The one name that its account may have certificates for, and what is
    /// below it.
    pub name: String,
    /// The key, base64url.
    pub key: String,
}

/// All accounts of this agent.
#[derive(Debug, Default)]
pub struct Book {
    /// By id.
    pub accounts: BTreeMap<String, Account>,
    /// By id.
    pub bindings: BTreeMap<String, Binding>,
}

/// The id of an account that begins with this key.
pub fn account_id(key: &Jwk) -> String {
    HEXLOWER.encode(&Hash::of(key.canonical().as_bytes()).0[..16])
}

impl Book {
    /// Reads what is kept. A file that isn't whole is passed over: its client
    /// makes a new account.
    ///
    /// # Errors
    /// The disk's.
    pub async fn load(disk: &dyn Disk) -> std::io::Result<Self> {
        let mut book = Self::default();
        for file in disk.list(Path::new(FOLDER)).await? {
            let stem = file.file_stem().and_then(|stem| stem.to_str());
            let Some(id) = stem.and_then(|stem| stem.strip_prefix("account-")) else {
                continue;
            };
            let bytes = disk.read(&file).await?.unwrap_or_default();
            match serde_json::from_slice::<Account>(&bytes) {
                Ok(mut account) => {
                    account.orders.values_mut().for_each(resume);
                    book.accounts.insert(id.to_owned(), account);
                }
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "an ACME account can't be read");
                }
            }
        }
        if let Some(bytes) = disk.read(Path::new(BINDINGS)).await? {
            match serde_json::from_slice(&bytes) {
                Ok(bindings) => book.bindings = bindings,
                Err(error) => {
                    tracing::warn!(%error, "{BINDINGS} can't be read: external accounts are refused");
                }
            }
        }
        Ok(book)
    }

    /// The account with this key.
    pub fn by_key(&self, key: &Jwk) -> Option<(&String, &Account)> {
        self.accounts
            .iter()
            .find(|(_, account)| account.key == *key)
    }

    /// The order with this id, and whose it is.
    pub fn order(&self, account: &str, id: &str) -> Option<&Order> {
        self.accounts.get(account)?.orders.get(id)
    }

    /// As [`Book::order`], to change it.
    pub fn order_mut(&mut self, account: &str, id: &str) -> Option<&mut Order> {
        self.accounts.get_mut(account)?.orders.get_mut(id)
    }

    /// Its file, and what is to be in it.
    pub fn file_of(&self, account: &str) -> Option<(PathBuf, Vec<u8>)> {
        let kept = self.accounts.get(account)?;
        Some((file_named(account), serde_json::to_vec(kept).ok()?))
    }

    /// The bindings' file, and what is to be in it.
    pub fn bindings_file(&self) -> (PathBuf, Vec<u8>) {
        let bytes = serde_json::to_vec(&self.bindings).unwrap_or_default();
        (BINDINGS.into(), bytes)
    }
}

/// The file of an account.
pub fn file_named(account: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("account-{account}.json"))
}

/// What was under way when the agent ended is nobody's work any more: the
/// client asks for it again.
fn resume(order: &mut Order) {
    if order.status == Status::Processing {
        order.status = Status::Ready;
    }
    let challenges = order.authorizations.iter_mut();
    for challenge in challenges.flat_map(|authorization| &mut authorization.challenges) {
        if challenge.status == Status::Processing {
            challenge.status = Status::Pending;
        }
    }
}

impl Account {
    /// Lets go of orders that nobody asks for any more, the oldest first where
    /// there are too many.
    pub fn tidy(&mut self, now_ms: u64) {
        self.orders.retain(|_, order| !order.is_over(now_ms));
        while self.orders.len() >= KEPT_ORDERS {
            let closed = self.orders.iter().filter(|(_, order)| !order.is_open());
            let Some((id, _)) = closed.min_by_key(|(_, order)| order.created_ms) else {
                return;
            };
            let id = id.clone();
            self.orders.remove(&id);
        }
    }
}
