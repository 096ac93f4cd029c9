//! Accounts and orders, kept in the state folder: a file for each account,
//! written before a client is told of a change.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use innermesh_proto::{crypto::Hash, limits};
use serde::{Deserialize, Serialize};

use super::{
    jwk::Jwk,
    order::{Order, Status},
    problem::{Kind, Problem},
};
use innermesh_host::Disk;

/// The folder, below the state folder.
pub const FOLDER: &str = "acme";
/// Where keys for external accounts are.
const BINDINGS: &str = "acme/bindings.json";

/// Whether an account is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountStatus {
    Valid,
    /// Its owner has ended it.
    Deactivated,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
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
    /// The user of this machine that made it, where that could be told.
    #[serde(default)]
    pub user: Option<u32>,
    /// When it was made, in milliseconds since 1970.
    #[serde(default)]
    pub created_ms: u64,
}

/// Whose accounts count together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A user of this machine; all that can't be told apart are one.
    User(Option<u32>),
    /// Whoever has this binding's key.
    Bound(String),
}

impl Owner {
    /// Of an account that this user makes, perhaps with a binding.
    pub fn of(user: Option<u32>, binding: Option<&String>) -> Self {
        binding.map_or(Self::User(user), |id| Self::Bound(id.clone()))
    }
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
pub struct AccountStore {
    /// By id.
    pub accounts: BTreeMap<String, Account>,
    /// By id.
    pub bindings: BTreeMap<String, Binding>,
}

/// The id of an account that begins with this key.
pub fn account_id(key: &Jwk) -> String {
    HEXLOWER.encode(&Hash::of(key.canonical().as_bytes()).0[..16])
}

impl AccountStore {
    /// Reads what is kept. A file that isn't whole is passed over: its client
    /// makes a new account.
    ///
    /// # Errors
    /// The disk's.
    pub async fn load(disk: &dyn Disk) -> std::io::Result<Self> {
        let mut store = Self::default();
        for file in disk.list(Path::new(FOLDER)).await? {
            let stem = file.file_stem().and_then(|stem| stem.to_str());
            let Some(id) = stem.and_then(|stem| stem.strip_prefix("account-")) else {
                continue;
            };
            let bytes = disk.read(&file).await?.unwrap_or_default();
            match serde_json::from_slice::<Account>(&bytes) {
                Ok(mut account) => {
                    account.orders.values_mut().for_each(resume);
                    store.accounts.insert(id.to_owned(), account);
                }
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "an ACME account can't be read");
                }
            }
        }
        if let Some(bytes) = disk.read(Path::new(BINDINGS)).await? {
            match serde_json::from_slice(&bytes) {
                Ok(bindings) => store.bindings = bindings,
                Err(error) => {
                    tracing::warn!(%error, "{BINDINGS} can't be read: external accounts are refused");
                }
            }
        }
        Ok(store)
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

    /// As [`AccountStore::order`], to change it.
    pub fn order_mut(&mut self, account: &str, id: &str) -> Option<&mut Order> {
        self.accounts.get_mut(account)?.orders.get_mut(id)
    }

    /// Its file, and what is to be in it.
    pub fn file_of(&self, account: &str) -> Option<(PathBuf, Vec<u8>)> {
        let kept = self.accounts.get(account)?;
        Some((file_named(account), serde_json::to_vec(kept).ok()?))
    }

    /// Makes room for one more account of this owner, and says which one gave
    /// way: one without a certificate, of whoever has the most accounts, and of
    /// these one that never came to anything, else the oldest.
    ///
    /// # Errors
    /// Every account that could give way has a certificate.
    pub fn room_for_account(
        &mut self,
        owner: &Owner,
        now_ms: u64,
    ) -> Result<Option<String>, Problem> {
        let mut counts: BTreeMap<Owner, usize> = BTreeMap::new();
        for account in self.accounts.values() {
            *counts.entry(account.owner()).or_default() += 1;
        }
        let own = counts.get(owner).copied().unwrap_or(0);
        let is_over = own >= limits::ACME_ACCOUNTS_PER_OWNER;
        if !is_over && self.accounts.len() < limits::ACME_ACCOUNTS {
            return Ok(None);
        }
        let idle = self.accounts.iter().filter(|(_, account)| {
            !account.has_certificate(now_ms) && (!is_over || account.owner() == *owner)
        });
        let first = idle.max_by_key(|(_, account)| {
            let is_idle = account.status == AccountStatus::Deactivated || account.orders.is_empty();
            let count = counts.get(&account.owner()).copied();
            (count, is_idle, Reverse(account.created_ms))
        });
        let Some(first) = first.map(|(id, _)| id.clone()) else {
            return Err(Problem::new(
                Kind::RateLimited,
                "this agent has as many accounts as it may; deactivate one",
            ));
        };
        self.accounts.remove(&first);
        Ok(Some(first))
    }

    /// Makes room for so many more bytes of an account's orders, and says whose
    /// orders gave way: the account's own oldest that are over, then, where
    /// there is too much in all, the oldest without a certificate of whoever has
    /// the most. `None`: its share is taken.
    pub fn room_for_order(&mut self, account: &str, bytes: usize) -> Option<BTreeSet<String>> {
        let own = self.accounts.get_mut(account)?;
        let owner = own.owner();
        while own.bytes() + bytes > limits::ACME_BYTES_PER_ACCOUNT {
            if !own.drop_oldest(|order| !order.is_open()) {
                return None;
            }
        }
        let mut changed = BTreeSet::new();
        loop {
            let mut sizes: BTreeMap<Owner, usize> = BTreeMap::new();
            for account in self.accounts.values() {
                *sizes.entry(account.owner()).or_default() += account.bytes();
            }
            if sizes.values().sum::<usize>() + bytes <= limits::ACME_BYTES {
                return Some(changed);
            }
            let (greediest, _) = sizes.into_iter().max_by_key(|(_, size)| *size)?;
            let may = |order: &Order| {
                order.certified.is_none() && (greediest != owner || !order.is_open())
            };
            let theirs = self.accounts.iter_mut();
            let theirs = theirs.filter(|(_, account)| account.owner() == greediest);
            let oldest = |account: &Account| {
                let orders = account.orders.values().filter(|order| may(order));
                orders.map(|order| order.created_ms).min()
            };
            let theirs = theirs.filter_map(|(id, account)| Some((oldest(account)?, id, account)));
            let (_, id, account) = theirs.min_by_key(|(oldest, ..)| *oldest)?;
            account.drop_oldest(may);
            changed.insert(id.clone());
        }
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
        while self.orders.len() >= limits::ACME_KEPT_ORDERS {
            if !self.drop_oldest(|order| !order.is_open()) {
                return;
            }
        }
    }

    pub fn owner(&self) -> Owner {
        Owner::of(self.user, self.binding.as_ref())
    }

    /// Whether it has come to something that holds still.
    fn has_certificate(&self, now_ms: u64) -> bool {
        let mut certified = self.orders.values().filter_map(|o| o.certified.as_ref());
        certified.any(|certified| certified.not_after_ms > now_ms)
    }

    /// What its orders take, in bytes.
    pub fn bytes(&self) -> usize {
        self.orders.values().map(Order::bytes).sum()
    }

    fn drop_oldest(&mut self, may: impl Fn(&Order) -> bool) -> bool {
        let orders = self.orders.iter().filter(|(_, order)| may(order));
        let oldest = orders.min_by_key(|(_, order)| order.created_ms);
        let id = oldest.map(|(id, _)| id.clone());
        id.is_some_and(|id| self.orders.remove(&id).is_some())
    }
}
