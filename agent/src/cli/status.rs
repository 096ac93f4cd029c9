//! `agent status`.

use std::{io::IsTerminal, time::Duration};

use innermesh_proto::filter::nft::Dropped;

use super::{
    failure::Failure,
    init,
    output::{self, Output, health, table, yes_no},
};
use crate::control::{
    Client,
    node::{Status, StatusRequest},
};
use crate::host::duration::Span;

/// Show this node, the mesh and what needs attention.
///
/// Warnings are written to stderr, and change nothing about the exit code. Ends
/// with 3 when the agent isn't running.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Keep running and redraw on change.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    output: Output,
}

/// How often a watched status is looked at.
const PAUSE: Duration = Duration::from_secs(1);

pub async fn status(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    let mut last = String::new();
    loop {
        let status = client.ask(&StatusRequest {}).await?;
        let shown = arguments.output.render(&status, || text(&status))?;
        if !arguments.watch {
            output::raw(&shown)?;
            warn(arguments, &status);
            return Ok(());
        }
        // These rise with every look, which is no news.
        let mut told = status;
        (told.uptime_s, told.counters) = (0, Default::default());
        if let Some(overlay) = &mut told.overlay {
            overlay.dropped.clear();
            overlay.dropped_by_others.clear();
        }
        let news = arguments
            .output
            .render(&told, || format!("{}{:?}", text(&told), told.warnings))?;
        if news != last {
            let redraw = std::io::stdout().is_terminal() && !arguments.output.is_json();
            let clear = if redraw { "\x1b[2J\x1b[H" } else { "" };
            output::raw(&format!("{clear}{shown}"))?;
            warn(arguments, &told);
            last = news;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn text(status: &Status) -> String {
    let Status {
        mesh,
        domain,
        node,
        version,
        ledger,
        ..
    } = status;
    let up = Span(status.uptime_s);
    let dns = match status.dns.address {
        Some(address) => address.to_string(),
        None => "not answered".to_string(),
    };
    let tunnel = status.tunnel.as_ref().map(|tunnel| {
        let (interface, port) = (&tunnel.interface, tunnel.port);
        format!("tunnel  {interface}, UDP port {port}\n")
    });
    let mut out = format!(
        "mesh    {domain} ({})\nnode    {node}, version {version}, up {up}\ndns     {dns}\n{}{}\
         ledger  {} ({})\n\n",
        short(mesh),
        names(status),
        tunnel.unwrap_or_default(),
        ledger.index,
        short(&ledger.hash),
    );
    let rows: Vec<_> = status
        .nodes
        .iter()
        .map(|node| {
            [
                node.name.clone(),
                yes_no(node.live),
                node.path.to_string(),
                node.roles.join(","),
                init::join(&node.addresses),
            ]
        })
        .collect();
    out.push_str(&table(
        ["NODE", "LIVE", "PATH", "ROLES", "ADDRESSES"],
        &rows,
    ));
    if !status.services.is_empty() {
        let rows: Vec<_> = status
            .services
            .iter()
            .map(|s| {
                [
                    s.name.clone(),
                    s.node.clone(),
                    s.port.to_string(),
                    health(s.healthy, s.checked),
                ]
            })
            .collect();
        out.push('\n');
        out.push_str(&table(["SERVICE", "NODE", "PORT", "HEALTHY"], &rows));
    }
    if !status.pending.is_empty() {
        let rows: Vec<_> = status
            .pending
            .iter()
            .map(|p| [p.name.clone(), p.reason.clone()])
            .collect();
        out.push('\n');
        out.push_str(&table(["PENDING", "BECAUSE"], &rows));
    }
    out.push_str(&dropped(status));
    out
}

/// How programs of this host come to ask the agent.
fn names(status: &Status) -> String {
    let Some(resolver) = &status.dns.resolver else {
        return String::new();
    };
    let how = match (resolver.method, &resolver.error) {
        _ if !resolver.managed => format!("this host's resolver is left alone: {}", resolver.why),
        (_, Some(error)) => format!("this host's resolver isn't set: {error}"),
        (Some(method), None) => format!(
            "{method} asks the agent for names of {} ({})",
            status.domain, resolver.why
        ),
        (None, None) => "this host's resolver isn't set yet".to_owned(),
    };
    format!("names   {how}\n")
}

/// What was kept out of the overlay; nothing where nothing was.
fn dropped(status: &Status) -> String {
    let counted = status.overlay.iter().flat_map(|overlay| &overlay.dropped);
    let rows: Vec<_> = counted
        .filter(|(_, packets)| **packets > 0)
        .map(|(name, packets)| {
            let why = Dropped::ALL.into_iter().find(|d| d.counter() == name);
            [
                packets.to_string(),
                why.map_or_else(|| name.clone(), |why| why.to_string()),
            ]
        })
        .collect();
    if rows.is_empty() {
        String::new()
    } else {
        format!("\n{}", table(["DROPPED", "PACKETS"], &rows))
    }
}

/// Beside the output; in JSON they are part of it.
fn warn(arguments: &Arguments, status: &Status) {
    if !arguments.output.is_json() {
        output::warn(&status.warnings);
    }
}

/// The beginning of an id or a hash: enough for a person.
fn short(hex: &str) -> String {
    hex.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::sample_status;

    #[test]
    fn the_text_names_everything_that_a_person_looks_for() {
        assert_eq!(
            text(&sample_status()),
            "\
mesh    in.example.org (00ff)
node    alpha, version 0.1.0, up 7s
dns     10.9.0.53:53
names   systemd-resolved asks the agent for names of in.example.org (nsswitch.conf has `resolve` before `dns`)
tunnel  im0, UDP port 51821
ledger  3 (aa)

NODE   LIVE  PATH    ROLES  ADDRESSES
alpha  yes   direct  admin  10.9.0.2, fd00::2
beta   no    none    admin  10.9.0.2, fd00::2

SERVICE  NODE   PORT  HEALTHY
photos   alpha  8080  yes

PENDING  BECAUSE
wiki     the CA is not reached

DROPPED  PACKETS
2        would have left this host unencrypted
"
        );
    }
}
