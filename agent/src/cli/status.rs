//! `agent status`.

use innermesh_proto::filter::nft::Dropped;

use super::{
    failure::Failure,
    init, network,
    output::{Detail, Output, health, well},
    show::{Cell, Column, Frame, Screen, Table, Watch},
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
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

pub async fn status(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    let Arguments {
        watch,
        detail,
        output,
    } = *arguments;
    let look = async || {
        let status = client.ask(&StatusRequest {}).await?;
        let shown = output.render(detail, &status, |screen| draw(screen, &status))?;
        let warnings = status.warnings.clone();
        // These rise with every look, which is no news.
        let mut told = status;
        (told.uptime_s, told.counters) = (0, Default::default());
        if let Some(overlay) = &mut told.overlay {
            overlay.dropped.clear();
            overlay.dropped_by_others.clear();
        }
        Ok(Frame {
            shown,
            news: format!("{told:?}"),
            warnings,
        })
    };
    watch.run(output, look).await
}

fn draw(screen: &mut Screen, status: &Status) {
    screen.fields(&head(status));
    screen.table(&nodes(status));
    if !status.services.is_empty() {
        screen.table(&services(status));
    }
    if !status.pending.is_empty() {
        let mut pending = Table::new([Column::whole("PENDING"), Column::new("BECAUSE")]);
        for row in &status.pending {
            pending.add([Cell::new(&row.name), Cell::new(&row.reason)]);
        }
        screen.table(&pending.sorted());
    }
    let dropped = dropped(status);
    if !dropped.is_empty() {
        screen.table(&dropped);
    }
}

fn head(status: &Status) -> Vec<(&'static str, String)> {
    let up = Span(status.uptime_s);
    let dns = match status.dns.address {
        Some(address) => address.to_string(),
        None => "not answered".to_string(),
    };
    let mut head = vec![
        (
            "mesh",
            format!("{} ({})", status.domain, short(&status.mesh)),
        ),
        (
            "node",
            format!("{}, version {}, up {up}", status.node, status.version),
        ),
        ("dns", dns),
    ];
    head.extend(names(status).map(|names| ("names", names)));
    if let Some(tunnel) = &status.tunnel {
        let (interface, port) = (&tunnel.interface, tunnel.port);
        head.push(("tunnel", format!("{interface}, UDP port {port}")));
    }
    let ledger = &status.ledger;
    head.push((
        "ledger",
        format!("{} ({})", ledger.index, short(&ledger.hash)),
    ));
    head
}

fn nodes(status: &Status) -> Table<6> {
    let mut nodes = Table::new([
        Column::whole("NODE"),
        Column::whole("LIVE"),
        Column::whole("PATH"),
        Column::new("ROLES"),
        Column::whole("ADDRESS"),
        Column::extra("ID"),
    ]);
    for node in &status.nodes {
        nodes.add([
            Cell::new(&node.name),
            well(node.live),
            network::path(
                node.path,
                node.linked,
                &node.through,
                (node.relay.as_deref(), node.tcp),
            ),
            Cell::new(node.roles.join(", ")),
            Cell::or_dash(node.addresses.first()).in_full(init::join(&node.addresses)),
            Cell::new(&node.id),
        ]);
    }
    nodes.sorted()
}

fn services(status: &Status) -> Table<4> {
    let mut services = Table::new([
        Column::whole("SERVICE"),
        Column::whole("NODE"),
        Column::whole("PORT"),
        Column::whole("HEALTHY"),
    ]);
    for service in &status.services {
        services.add([
            Cell::new(&service.name),
            Cell::new(&service.node),
            Cell::new(service.port),
            health(service.healthy, service.checked),
        ]);
    }
    services.sorted()
}

/// How programs of this host come to ask the agent.
fn names(status: &Status) -> Option<String> {
    let resolver = status.dns.resolver.as_ref()?;
    Some(match (resolver.method, &resolver.error) {
        _ if !resolver.managed => format!("this host's resolver is left alone: {}", resolver.why),
        (_, Some(error)) => format!("this host's resolver isn't set: {error}"),
        (Some(method), None) => format!(
            "{method} asks the agent for names of {} ({})",
            status.domain, resolver.why
        ),
        (None, None) => "this host's resolver isn't set yet".to_owned(),
    })
}

/// What was kept out of the overlay.
fn dropped(status: &Status) -> Table<2> {
    let mut table = Table::new([Column::whole("DROPPED"), Column::new("PACKETS")]);
    let counted = status.overlay.iter().flat_map(|overlay| &overlay.dropped);
    for (name, packets) in counted.filter(|(_, packets)| **packets > 0) {
        let why = Dropped::ALL.into_iter().find(|d| d.counter() == name);
        let why = why.map_or_else(|| name.clone(), |why| why.to_string());
        table.add([Cell::new(packets), Cell::new(why)]);
    }
    table
}

/// The beginning of an id or a hash: enough for a person.
fn short(hex: &str) -> String {
    hex.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::show::{fits, plain},
        control::testing::sample_status,
    };

    #[test]
    fn the_text_names_everything_that_a_person_looks_for() {
        assert_eq!(
            plain(|screen| draw(screen, &sample_status())),
            "\
mesh    in.example.org (00ff)
node    alpha, version 0.1.0, up 7s
dns     10.9.0.53:53
names   systemd-resolved asks the agent for names of in.example.org (nsswitch.conf has `resolve` before `dns`)
tunnel  im0, UDP port 51821
ledger  3 (aa)

NODE   LIVE  PATH    ROLES  ADDRESS
alpha  yes   direct  admin  10.9.0.2
beta   no    none    admin  10.9.0.2

SERVICE  NODE   PORT  HEALTHY
photos   alpha  8080  yes

PENDING  BECAUSE
wiki     the CA is not reached

DROPPED  PACKETS
2        would have left this host unencrypted
"
        );
    }

    #[test]
    fn a_status_fits_the_terminal() {
        let mut status = sample_status();
        status.node = "raspberry-pi-in-the-garage-02".into();
        status.domain = "in.example.org".into();
        for (at, node) in status.nodes.iter_mut().enumerate() {
            node.name = format!("raspberry-pi-in-the-garage-0{at}");
            node.roles = ["admin", "ca", "gateway", "sinkhole"]
                .map(String::from)
                .into();
            node.addresses = vec![
                "10.127.255.254".parse().unwrap(),
                "fd12:3456:789a:bcde:f012:3456:789a:bcde".parse().unwrap(),
            ];
        }
        status.services[0].name = "home-assistant-of-the-garage".into();
        status.services[0].node = status.node.clone();
        status.pending[0].reason = "the name belongs to raspberry-pi-in-the-garage-00, which \
                                    shares it with nobody; ask there for `--share`"
            .into();
        let text = fits(|screen| draw(screen, &status));
        assert!(text.contains("raspberry-pi-in-the-garage-01"), "{text}");
        assert!(text.contains("10.127.255.254"), "{text}");
    }
}
