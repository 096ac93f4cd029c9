//! The program `nft`: a ruleset in, what it lists out.

#![allow(
    clippy::disallowed_methods,
    reason = "part of a backend that the simulation replaces as a whole"
)]

use std::{collections::BTreeMap, io, time::Duration};

use innermesh_proto::{filter::nft::TABLE, limits};
use serde::Deserialize;
use tokio::{process::Command, time::sleep};

use super::OverlayError;
use crate::program::{self, Outputs, RunError};

/// Lines of a refusal that are told; `nft` repeats the rule below each.
const TOLD_CHARS: usize = 300;

/// Carries out one transaction.
pub(super) async fn apply(ruleset: &str) -> Result<(), OverlayError> {
    run(&["-f", "-"], ruleset).await.map(|_| ())
}

/// Both tables as they are, without counters; what differs between two
/// listings was changed in between.
pub(super) async fn list() -> Result<String, OverlayError> {
    let mut listed = run(&["-s", "list", "table", "inet", TABLE], "").await?;
    listed.push_str(&run(&["-s", "list", "table", "arp", TABLE], "").await?);
    Ok(listed)
}

/// Our counters by name, in packets.
pub(super) async fn counters() -> Result<BTreeMap<String, u64>, OverlayError> {
    let listed = run(&["-j", "list", "counters"], "").await?;
    parse_counters(&listed).ok_or_else(|| OverlayError::Nft("its counters can't be read".into()))
}

/// Everybody's rules, as JSON.
pub(super) async fn ruleset() -> Result<String, OverlayError> {
    run(&["-j", "-s", "list", "ruleset"], "").await
}

/// Whether the kernel has a filter of the older iptables, which nftables
/// doesn't list.
pub(super) fn has_legacy_filter() -> bool {
    ["ip", "ip6"].iter().any(|family| {
        let names = std::fs::read_to_string(format!("/proc/net/{family}_tables_names"));
        names.is_ok_and(|names| names.lines().any(|name| name == "filter"))
    })
}

/// The NAT tables of the older iptables, as `iptables-legacy-save` prints them, with
/// those of IPv6 behind a line `IPV6`. Empty where they aren't in use: asking would
/// make them.
pub(super) async fn legacy_nat() -> String {
    let mut all = String::new();
    for (family, program, begin) in [
        ("ip", "iptables-legacy-save", ""),
        ("ip6", "ip6tables-legacy-save", "IPV6\n"),
    ] {
        let names = std::fs::read_to_string(format!("/proc/net/{family}_tables_names"));
        if names.is_ok_and(|names| names.lines().any(|name| name == "nat")) {
            all.push_str(begin);
            let saved = run_program(program, &["-t", "nat"], "").await;
            all.push_str(&saved.unwrap_or_default());
        }
    }
    all
}

/// Reads what `nft -j list counters` prints.
pub fn parse_counters(text: &str) -> Option<BTreeMap<String, u64>> {
    #[derive(Deserialize)]
    struct Listed {
        nftables: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        counter: Option<Counter>,
    }
    #[derive(Deserialize)]
    struct Counter {
        name: String,
        table: String,
        packets: u64,
    }
    let listed: Listed = serde_json::from_str(text).ok()?;
    let counters = listed.nftables.into_iter().filter_map(|item| item.counter);
    let ours = counters.filter(|counter| counter.table == TABLE);
    Some(
        ours.map(|counter| (counter.name, counter.packets))
            .collect(),
    )
}

async fn run(arguments: &[&str], input: &str) -> Result<String, OverlayError> {
    run_program("nft", arguments, input).await
}

async fn run_program(name: &str, arguments: &[&str], input: &str) -> Result<String, OverlayError> {
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", program::PATH)
        .env("LC_ALL", "C")
        .current_dir("/");
    let limit = Duration::from_millis(limits::NFT_MS);
    let outputs = Outputs::All(limits::NFT_OUTPUT_BYTES);
    let done = program::run(command, input.as_bytes(), outputs, sleep(limit)).await;
    let ended = done.map_err(|error| match error {
        RunError::Start(error) if error.kind() == io::ErrorKind::NotFound => OverlayError::NoNft,
        RunError::Start(error) | RunError::Lost(error) => {
            OverlayError::Nft(format!("{name} can't be run: {error}"))
        }
        RunError::TimedOut => {
            OverlayError::Nft(format!("{name} didn't end within {} s", limit.as_secs()))
        }
    })?;
    if ended.status.success() {
        return Ok(ended.out);
    }
    let first = ended.err.lines().find(|line| !line.trim().is_empty());
    let said = first.unwrap_or("it says nothing").trim();
    Err(OverlayError::Nft(said.chars().take(TOLD_CHARS).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_counters_are_read() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "inet", "name": "leak", "table": "innermesh", "handle": 6, "packets": 7, "bytes": 90}},
            {"counter": {"family": "inet", "name": "leak", "table": "other", "handle": 1, "packets": 1, "bytes": 0}},
            {"counter": {"family": "arp", "name": "of_another_build", "table": "innermesh", "handle": 1, "packets": 1, "bytes": 0}}]}"#;
        let ours = [("leak".to_owned(), 7), ("of_another_build".to_owned(), 1)];
        assert_eq!(parse_counters(text), Some(ours.into()));
        for bad in ["", "{}", "[]", r#"{"nftables": [{"counter": {}}]}"#] {
            assert_eq!(parse_counters(bad), None, "{bad}");
        }
    }
}
