//! How much of something bounded each source has, so that who has most gives way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

#[derive(Debug, Default)]
pub(super) struct Shares {
    each: BTreeMap<IpAddr, usize>,
    /// The same in the order of the shares.
    order: BTreeSet<(usize, IpAddr)>,
    total: usize,
}

impl Shares {
    /// Of all sources.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Of one source; 0 for one that has nothing.
    pub fn of(&self, source: IpAddr) -> usize {
        self.each.get(&source).copied().unwrap_or_default()
    }

    /// Who has most, and how much.
    pub fn largest(&self) -> Option<(IpAddr, usize)> {
        let (share, source) = self.order.last()?;
        Some((*source, *share))
    }

    pub fn add(&mut self, source: IpAddr, share: usize) {
        self.set(source, self.of(source).saturating_add(share));
    }

    pub fn take(&mut self, source: IpAddr, share: usize) {
        self.set(source, self.of(source).saturating_sub(share));
    }

    fn set(&mut self, source: IpAddr, share: usize) {
        let before = self.of(source);
        self.order.remove(&(before, source));
        self.total = self.total.saturating_sub(before).saturating_add(share);
        if share == 0 {
            self.each.remove(&source);
        } else {
            self.each.insert(source, share);
            self.order.insert((share, source));
        }
    }
}
