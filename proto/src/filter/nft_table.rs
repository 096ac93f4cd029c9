//! A table of ours as `nft` reads it.

use std::{
    fmt::{self, Write},
    net::IpAddr,
};

use ipnet::IpNet;

/// The name of both tables.
pub const TABLE: &str = "innermesh";

/// Sets that there are for each address family.
const SETS: [&str; 16] = [
    "net", "own", "in", "lan", "near", "routes", "resolver", "device", "dev", "beside", "behind",
    "never", "pub", "pubin", "pubown", "closed",
];

/// A set's element: a single address without its length.
pub(super) fn element(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.trunc().to_string()
    }
}

pub(super) fn is_v4(ip: IpAddr) -> bool {
    ip.is_ipv4()
}

/// One of our tables, line by line.
pub(super) struct Table<'t> {
    text: &'t mut String,
    family: &'static str,
}

impl<'t> Table<'t> {
    pub(super) fn begin(text: &'t mut String, family: &'static str) -> Self {
        let mut table = Self { text, family };
        table.line(format_args!("add table {family} {TABLE}"));
        // The rules of all its chains, those of another build too.
        table.line(format_args!("flush table {family} {TABLE}"));
        table
    }

    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = writeln!(self.text, "{line}");
    }

    pub(super) fn set(
        &mut self,
        name: &str,
        kind: &str,
        flags: &str,
        elements: impl Iterator<Item = String>,
    ) {
        let family = self.family;
        self.line(format_args!(
            "add set {family} {TABLE} {name} {{ type {kind}; {flags} }}"
        ));
        self.line(format_args!("flush set {family} {TABLE} {name}"));
        let elements: Vec<String> = elements.collect();
        if !elements.is_empty() {
            let elements = elements.join(", ");
            self.line(format_args!(
                "add element {family} {TABLE} {name} {{ {elements} }}"
            ));
        }
    }

    pub(super) fn chain(&mut self, name: &str, hook: &str) {
        let family = self.family;
        self.line(format_args!(
            "add chain {family} {TABLE} {name} {{ type {hook}; policy accept; }}"
        ));
    }

    pub(super) fn rule(&mut self, chain: &str, rule: &str) {
        let family = self.family;
        self.line(format_args!("add rule {family} {TABLE} {chain} {rule}"));
    }

    /// A rule for each address family: `IP` stands for its word, `N` behind a
    /// set's name for its number.
    pub(super) fn both(&mut self, chain: &str, rule: &str, verdict: impl fmt::Display) {
        for v4 in [true, false] {
            self.one(chain, v4, rule, &verdict);
        }
    }

    /// As [`Table::both`], for one address family.
    pub(super) fn one(&mut self, chain: &str, v4: bool, rule: &str, verdict: impl fmt::Display) {
        let (word, number) = if v4 { ("ip", "4") } else { ("ip6", "6") };
        let mut rule = rule.replace("IP ", &format!("{word} "));
        for set in SETS {
            rule = rule.replace(&format!("@{set}N"), &format!("@{set}{number}"));
        }
        self.rule(chain, &format!("{rule} {verdict}"));
    }
}
