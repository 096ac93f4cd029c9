//! The program `nft`: a ruleset in, what it lists out.

#![allow(
    clippy::disallowed_methods,
    reason = "part of a backend that the simulation replaces as a whole"
)]

use std::{collections::BTreeMap, io, process::Stdio, time::Duration};

use innermesh_proto::{filter::nft::TABLE, limits};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::OverlayError;

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
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => OverlayError::NoNft,
        _ => OverlayError::Nft(format!("nft can't be run: {error}")),
    };
    let mut child = Command::new("nft")
        .args(arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let told = async {
        if let Some(mut stdin) = stdin {
            // Where it ends early, its own words say why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ended = async { tokio::join!(told, all_of(stdout), all_of(stderr), child.wait()) };
    let limit = Duration::from_millis(limits::NFT_MS);
    let Ok(((), stdout, stderr, status)) = timeout(limit, ended).await else {
        return Err(OverlayError::Nft(format!(
            "nft didn't end within {} s",
            limit.as_secs()
        )));
    };
    if status.map_err(failed)?.success() {
        return Ok(stdout);
    }
    let first = stderr.lines().find(|line| !line.trim().is_empty());
    let said = first.unwrap_or("it says nothing").trim();
    Err(OverlayError::Nft(said.chars().take(TOLD_CHARS).collect()))
}

async fn all_of(said: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(said) = said {
        let mut said = said.take(limits::NFT_OUTPUT_BYTES);
        // What came before an error is shown all the same.
        let _ = said.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
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
