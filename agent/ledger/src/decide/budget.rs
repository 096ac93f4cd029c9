//! How much each author may have the ledger decide in a time. Kept by whoever
//! leads, before it proposes: it depends on clocks, so it can't be a rule.
//!
//! After a change of leader every bucket is half full, and fills from there: who
//! leads doesn't know what others counted.

use std::{collections::BTreeMap, time::Duration};

use innermesh_host::{
    Mono,
    bucket::{Bucket, time},
};
use innermesh_proto::{
    crypto::PublicKey,
    id::NodeId,
    ledger::Request,
    limits::{self, Budget},
};

/// Whose budget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payer {
    /// A member, that is proved.
    Node(NodeId),
    /// The holder of a token that a member gave out.
    Token(PublicKey),
}

/// What is counted apart: an eviction must not wait for what its author asked
/// before, nor a membership's renewal for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Ordinary,
    /// Evictions, revocations, and what is given up.
    Removal,
    /// Of the author's own membership.
    Renewal,
    /// Who decides, and what they sign with.
    Roster,
    /// New members, counted on whoever invites them.
    Join,
    /// The policy of the mesh, which is large and no part of a share.
    Policy,
}

impl Class {
    pub fn of(request: &Request) -> Self {
        if request.is_for_roster() {
            Self::Roster
        } else if request.is_renewal() {
            Self::Renewal
        } else if request.makes_member() {
            Self::Join
        } else if request.sets_policy() {
            Self::Policy
        } else if request.takes_away() {
            Self::Removal
        } else {
            Self::Ordinary
        }
    }

    fn budget(self) -> Budget {
        match self {
            Self::Ordinary => limits::BUDGET,
            Self::Removal => limits::BUDGET_REMOVALS,
            Self::Renewal => limits::BUDGET_RENEWALS,
            Self::Roster => limits::BUDGET_ROSTER,
            Self::Join => limits::BUDGET_JOINS,
            Self::Policy => limits::BUDGET_POLICY,
        }
    }
}

/// What one request takes out.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// What it adds to the ledger; none when it is refused.
    pub bytes: usize,
    /// Requests that its class has beyond the usual at once: a token's uses.
    pub more: u32,
}

/// All authors' buckets.
#[derive(Default)]
pub struct Budgets {
    /// Since when they are kept.
    since: Mono,
    /// The term in which they are.
    term: Option<u64>,
    accounts: BTreeMap<(Payer, Class), Account>,
}

struct Account {
    requests: Bucket,
    bytes: Bucket,
    /// When it last hadn't enough.
    denied: Option<Mono>,
}

impl Budgets {
    /// Starts anew where this node leads in another term than before.
    pub fn lead(&mut self, term: u64, now: Mono) {
        if self.term != Some(term) {
            *self = Self {
                since: now,
                term: Some(term),
                accounts: BTreeMap::new(),
            };
        }
    }

    /// Whether there is enough, without taking anything.
    ///
    /// # Errors
    /// How long until there is.
    pub fn check(&self, payer: Payer, class: Class, cost: Cost, now: Mono) -> Result<(), Duration> {
        let fresh = self.fresh(class);
        let account = self.accounts.get(&(payer, class)).unwrap_or(&fresh);
        account.wait(class, cost, now)
    }

    /// Takes it out.
    ///
    /// # Errors
    /// How long until there is enough; nothing was taken.
    pub fn charge(
        &mut self,
        payer: Payer,
        class: Class,
        cost: Cost,
        now: Mono,
    ) -> Result<(), Duration> {
        let fresh = self.fresh(class);
        if self.accounts.len() >= limits::BUDGETS {
            self.forget(now);
        }
        let account = self.accounts.entry((payer, class)).or_insert(fresh);
        if let Err(wait) = account.wait(class, cost, now) {
            account.denied = Some(now);
            return Err(wait);
        }
        let budget = class.budget();
        account.requests.take(1, budget.requests_per_hour, now);
        let bytes = cost.bytes as u64;
        account.bytes.take(bytes, budget.bytes_per_hour, now);
        Ok(())
    }

    /// Takes bytes out of a bucket that was charged before, whatever is left.
    pub fn take_bytes(&mut self, payer: Payer, class: Class, bytes: usize, now: Mono) {
        if let Some(account) = self.accounts.get_mut(&(payer, class)) {
            let per_hour = class.budget().bytes_per_hour;
            account.bytes.take(bytes as u64, per_hour, now);
        }
    }

    /// Notes that an author hadn't enough for what wasn't even looked at. That
    /// it is the author isn't proved: only an account that is there is noted.
    pub fn note_denied(&mut self, payer: Payer, class: Class, now: Mono) {
        if let Some(account) = self.accounts.get_mut(&(payer, class)) {
            account.denied = Some(now);
        }
    }

    /// Members that lately hadn't enough, and how long until they have half of
    /// what they may have at once.
    pub fn spent(&self, now: Mono) -> Vec<(NodeId, Duration)> {
        let mut spent: BTreeMap<NodeId, Duration> = BTreeMap::new();
        for ((payer, class), account) in &self.accounts {
            let lately = |at: Mono| now.saturating_sub(at) < limits::BUDGET_TOLD;
            if let Payer::Node(node) = payer
                && account.denied.is_some_and(lately)
            {
                let wait = account.until_half(*class, now);
                let longest = spent.entry(*node).or_default();
                *longest = wait.max(*longest);
            }
        }
        let mut spent: Vec<(NodeId, Duration)> = spent.into_iter().collect();
        spent.sort_by_key(|(node, wait)| (std::cmp::Reverse(*wait), *node));
        spent.truncate(limits::SPENDERS);
        spent
    }

    /// As an author's is that nothing was counted for yet.
    fn fresh(&self, class: Class) -> Account {
        let budget = class.budget();
        let half = |most, per_hour| Bucket {
            paid_at: self.since + time(most, per_hour) / 2,
        };
        Account {
            requests: half(budget.requests, budget.requests_per_hour),
            bytes: half(budget.bytes, budget.bytes_per_hour),
            denied: None,
        }
    }

    /// Drops what is as if it had never been counted; where that is nothing, who
    /// has most left.
    fn forget(&mut self, now: Mono) {
        let fresh: BTreeMap<Class, Account> = [
            Class::Ordinary,
            Class::Removal,
            Class::Renewal,
            Class::Roster,
            Class::Join,
            Class::Policy,
        ]
        .map(|class| (class, self.fresh(class)))
        .into();
        let counts = |class: &Class, account: &Account| {
            let left = |bucket: Bucket, fresh: Bucket| bucket.paid_at > now.max(fresh.paid_at);
            fresh.get(class).is_some_and(|fresh| {
                left(account.requests, fresh.requests) || left(account.bytes, fresh.bytes)
            })
        };
        self.accounts
            .retain(|(_, class), account| counts(class, account));
        if self.accounts.len() >= limits::BUDGETS {
            let owes = |account: &Account| account.requests.paid_at.max(account.bytes.paid_at);
            let least = self.accounts.iter().min_by_key(|(_, one)| owes(one));
            if let Some(key) = least.map(|(key, _)| *key) {
                self.accounts.remove(&key);
            }
        }
    }
}

impl Account {
    fn wait(&self, class: Class, cost: Cost, now: Mono) -> Result<(), Duration> {
        let budget = class.budget();
        let most = budget.requests + u64::from(cost.more);
        let requests = self.requests.wait(1, most, budget.requests_per_hour, now);
        let most = budget.bytes + u64::from(cost.more) * limits::ENTRY_BYTES as u64 / 8;
        let bytes = cost.bytes as u64;
        let bytes = self.bytes.wait(bytes, most, budget.bytes_per_hour, now);
        match requests.max(bytes) {
            Duration::ZERO => Ok(()),
            wait => Err(wait),
        }
    }

    fn until_half(&self, class: Class, now: Mono) -> Duration {
        let budget = class.budget();
        let half = |bucket: Bucket, most, per_hour| {
            let owed = bucket.paid_at.saturating_sub(now);
            owed.saturating_sub(time(most, per_hour) / 2)
        };
        half(self.requests, budget.requests, budget.requests_per_hour).max(half(
            self.bytes,
            budget.bytes,
            budget.bytes_per_hour,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    fn node(number: u8) -> Payer {
        Payer::Node(NodeId([number; 16]))
    }

    fn at(seconds: u64) -> Mono {
        Duration::from_secs(seconds)
    }

    fn cost(bytes: usize) -> Cost {
        Cost { bytes, more: 0 }
    }

    fn led_since(seconds: u64) -> Budgets {
        let mut budgets = Budgets::default();
        budgets.lead(1, at(seconds));
        budgets
    }

    /// How many requests of these bytes pass at once.
    fn at_once(budgets: &mut Budgets, payer: Payer, class: Class, bytes: usize, now: u64) -> usize {
        let passes = |_: &usize| budgets.charge(payer, class, cost(bytes), at(now)).is_ok();
        (0..100_000).take_while(passes).count()
    }

    #[test]
    fn what_people_do_at_once_passes_right_after_a_change_of_leader() {
        let overhead = limits::ENTRY_OVERHEAD_BYTES;
        let mut budgets = led_since(5);
        // 120 sites in Caddy, 100 records, 50 services.
        for (count, bytes) in [(120, 1500), (100, 400), (50, 300)] {
            for n in 0..count {
                let done = budgets.charge(node(1), Class::Ordinary, cost(bytes + overhead), at(5));
                assert_eq!(done, Ok(()), "{n} of {count}");
            }
        }
        // 50 join by one token; 100 records are removed again.
        for n in 0..50 {
            let cost = Cost {
                bytes: 2500 + overhead,
                more: 50,
            };
            let done = budgets.charge(node(2), Class::Join, cost, at(5));
            assert_eq!(done, Ok(()), "{n}");
        }
        let removed = at_once(&mut budgets, node(1), Class::Removal, 400 + overhead, 5);
        assert!(removed >= 100, "{removed}");
    }

    #[test]
    fn no_author_has_more_than_five_megabytes_a_day_also_with_four_leaders() {
        // As fast as it may, with the largest requests of each class that an
        // ordinary member has done, and a new leader each six hours.
        let mut budgets = led_since(0);
        let classes = [Class::Ordinary, Class::Removal, Class::Renewal];
        let mut total = 0;
        for class in classes {
            total += class.budget().bytes as usize / 2;
        }
        for second in 0..DAY {
            budgets.lead(second / (6 * HOUR), at(second));
            for class in classes {
                for bytes in [8192, 600] {
                    while budgets
                        .charge(node(1), class, cost(bytes), at(second))
                        .is_ok()
                    {
                        total += bytes;
                    }
                }
            }
        }
        assert!(total <= limits::AUTHOR_DAY_BYTES, "{total}");
        assert!(total >= limits::AUTHOR_DAY_BYTES / 2, "{total}");
    }

    #[test]
    fn ten_minutes_at_full_speed_cost_a_disk_little() {
        let mut budgets = led_since(0);
        let mut total = 0;
        // The leader had been one for long.
        for tenth in 0..6000 {
            let now = at(DAY * 2) + Duration::from_millis(tenth * 100);
            for class in [Class::Ordinary, Class::Removal, Class::Renewal] {
                while budgets.charge(node(1), class, cost(2000), now).is_ok() {
                    total += 2000;
                }
            }
        }
        assert!(total < 1_500_000, "{total}");
    }

    #[test]
    fn one_s_budget_is_nobody_else_s_and_removals_and_renewals_are_apart() {
        let mut budgets = led_since(0);
        let first = at_once(&mut budgets, node(1), Class::Ordinary, 600, 0);
        assert!(first > 100);
        let wait = budgets.charge(node(1), Class::Ordinary, cost(600), at(0));
        assert!(wait.is_err());
        assert_eq!(
            budgets.charge(node(2), Class::Ordinary, cost(600), at(0)),
            Ok(())
        );
        for class in [Class::Removal, Class::Renewal, Class::Roster, Class::Join] {
            assert_eq!(budgets.charge(node(1), class, cost(600), at(0)), Ok(()));
        }
    }

    #[test]
    fn who_waits_as_long_as_it_is_told_has_enough() {
        let mut budgets = led_since(0);
        for bytes in [600, 40_000] {
            at_once(&mut budgets, node(1), Class::Ordinary, bytes, 0);
            let wait = budgets.charge(node(1), Class::Ordinary, cost(bytes), at(0));
            let wait = wait.expect_err("it is spent");
            let soon = at(0) + wait - Duration::from_millis(10);
            let check =
                |budgets: &Budgets, now| budgets.check(node(1), Class::Ordinary, cost(bytes), now);
            assert!(check(&budgets, soon).is_err());
            assert_eq!(check(&budgets, at(0) + wait), Ok(()));
        }
    }

    #[test]
    fn an_admin_is_told_who_spent_its_budget_for_ten_minutes() {
        let mut budgets = led_since(0);
        at_once(&mut budgets, node(1), Class::Ordinary, 600, 0);
        at_once(&mut budgets, node(2), Class::Removal, 600, 0);
        let _ = budgets.charge(node(3), Class::Ordinary, cost(600), at(0));
        let spent = budgets.spent(at(1));
        let nodes: Vec<Payer> = spent.iter().map(|(one, _)| Payer::Node(*one)).collect();
        assert_eq!(nodes.len(), 2);
        assert!(nodes.contains(&node(1)) && nodes.contains(&node(2)));
        assert!(spent.iter().all(|(_, wait)| *wait > Duration::ZERO));
        assert!(budgets.spent(at(700)).is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_those_who_owe_nothing_first() {
        let mut budgets = led_since(0);
        let late = 30 * DAY;
        let payer = |n: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            Payer::Node(NodeId(id))
        };
        let debtor = payer(usize::MAX);
        at_once(&mut budgets, debtor, Class::Ordinary, 600, late);
        for n in 0..limits::BUDGETS + 10 {
            let done = budgets.charge(payer(n), Class::Ordinary, cost(1), at(late));
            assert_eq!(done, Ok(()));
            assert!(budgets.accounts.len() <= limits::BUDGETS);
        }
        let still = budgets.charge(debtor, Class::Ordinary, cost(600), at(late));
        assert!(still.is_err(), "whoever owes most is remembered");
    }
}
