//! `agent cert list`.

use super::super::{
    failure::Failure,
    output::{Detail, Output},
    show::{Cell, Column, Screen, Table, now, until},
};
use crate::{
    control::{
        Client,
        certificates::{CertListRequest, CertRow},
        renewals::RenewalRow,
    },
    host::{UnixTime, duration::Span},
};

/// Digits of a serial number that tell certificates apart.
const SHORT: usize = 8;
/// Days before its end from which a certificate stands out.
const SOON: i64 = 14;

/// Show all certificates, and how this node renews its own.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    /// Only those that end within a time, such as 30d.
    ///
    /// Without those that were revoked or have ended.
    #[arg(long, value_name = "TIME")]
    expiring: Option<Span>,
    /// Only those of this node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

pub async fn list(arguments: &ListArguments, client: &Client) -> Result<(), Failure> {
    let mut certificates = client.ask(&CertListRequest {}).await?;
    let now = now();
    certificates.retain(|row| arguments.wants(row, now));
    let ListArguments { detail, output, .. } = *arguments;
    output.show(detail, &certificates, |screen| draw(screen, &certificates))
}

impl ListArguments {
    fn wants(&self, row: &CertRow, now: UnixTime) -> bool {
        let ends_in_time = self.expiring.is_none_or(|span| {
            let last = now.ms().saturating_add(span.0.saturating_mul(1000));
            !row.revoked && row.not_after > now && row.not_after.ms() <= last
        });
        // Also by its full name.
        let node = self.node.as_deref().and_then(|node| node.split('.').next());
        ends_in_time && node.is_none_or(|node| row.node.eq_ignore_ascii_case(node))
    }
}

fn draw(screen: &mut Screen, certificates: &[CertRow]) {
    if certificates.is_empty() {
        return screen.say("there is no such certificate\n");
    }
    let mut table = Table::new([
        Column::new("NAMES"),
        Column::new("NODE"),
        Column::whole("KIND"),
        Column::whole("ENDS"),
        Column::whole("SERIAL"),
        Column::extra("BEGAN"),
    ]);
    for row in certificates {
        table.add([
            Cell::new(row.names.join(", ")),
            Cell::new(&row.node),
            Cell::new(row.kind),
            ends(row, screen.now()),
            Cell::new(row.serial.get(..SHORT).unwrap_or(&row.serial)).in_full(&row.serial),
            Cell::new(row.not_before),
        ]);
    }
    screen.table(&table.sorted());
    let renewals: Vec<&RenewalRow> = certificates
        .iter()
        .filter_map(|row| row.renewal.as_ref())
        .collect();
    if !renewals.is_empty() {
        draw_renewals(screen, &renewals);
    }
}

fn ends(row: &CertRow, now: UnixTime) -> Cell {
    // Of one that the agent never saw in its files nothing is known.
    if row.serial.is_empty() {
        return Cell::new("-");
    }
    let told = until(now, row.not_after);
    if row.revoked {
        return Cell::bad("revoked").in_full(format!("revoked ({})", row.not_after));
    }
    let cell = match row.not_after.days_from(now) {
        ..0 => Cell::bad(told),
        0..SOON => Cell::care(told),
        _ => Cell::new(told),
    };
    cell.in_full(row.not_after)
}

fn draw_renewals(screen: &mut Screen, renewals: &[&RenewalRow]) {
    let mut table = Table::new([
        Column::whole("RENEWED HERE"),
        Column::whole("NEXT"),
        Column::new("CERTIFICATE"),
        Column::new("COMMAND"),
    ]);
    let now = screen.now();
    for row in renewals {
        table.add([
            Cell::new(&row.name),
            Cell::or_dash(row.next.map(|next| until(now, next)))
                .in_full(row.next.map_or_else(|| "-".into(), |next| next.to_string())),
            Cell::new(row.cert.display()),
            Cell::or_dash(row.exec.as_ref()),
        ]);
    }
    screen.table(&table.sorted());
    for row in renewals {
        let told = [
            ("", &row.last_error, row.last_error_at),
            (", command", &row.exec_error, row.exec_error_at),
        ];
        for (what, why, at) in told {
            if let Some(why) = why {
                let at = at.map_or_else(String::new, |at| format!(" ({})", until(now, at)));
                screen.say("\n");
                screen.paragraph(&format!("{}{what}{at}: {why}", row.name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::show::{fits, plain},
        control::certificates::CertKind,
    };

    fn at(day: u64) -> UnixTime {
        UnixTime::from_ms(day * 86_400_000)
    }

    fn row(name: &str, node: &str, ends: u64) -> CertRow {
        CertRow {
            serial: "0a1b2c3d4e5f60718293a4b5c6d7e8f9".into(),
            names: vec![name.into()],
            node: node.into(),
            not_before: at(0),
            not_after: at(ends),
            kind: CertKind::Service,
            revoked: false,
            renewal: None,
        }
    }

    fn renewal(name: &str) -> RenewalRow {
        let file = |end: &str| format!("/etc/innermesh/certs/{name}{end}").into();
        RenewalRow {
            name: name.into(),
            names: vec![format!("{name}.in.example.org")],
            serial: "0a".into(),
            not_after: at(90),
            cert: file(".crt"),
            key: file(".key"),
            chain: file(".chain.crt"),
            pem: file(".pem"),
            ca: "/etc/innermesh/certs/ca.crt".into(),
            next: Some(at(60)),
            new_key: false,
            failures: 0,
            last_error: Some("no CA node is reached".into()),
            last_error_at: Some(at(0)),
            exec: Some("systemctl reload nginx".into()),
            exec_pending: false,
            exec_error: Some("it ended with 1".into()),
            exec_error_at: Some(at(0)),
        }
    }

    #[test]
    fn a_renewal_is_told_with_its_files_its_next_time_and_its_errors() {
        let mut row = row("photos.in.example.org", "alpha", 90);
        row.renewal = Some(renewal("photos"));
        assert_eq!(
            plain(|screen| draw(screen, &[row])),
            "\
NAMES                  NODE   KIND     ENDS    SERIAL
photos.in.example.org  alpha  service  in 90d  0a1b2c3d

RENEWED HERE  NEXT    CERTIFICATE                      COMMAND
photos        in 60d  /etc/innermesh/certs/photos.crt  systemctl reload nginx

photos (in 0s): no CA node is reached

photos, command (in 0s): it ended with 1
"
        );
    }

    #[test]
    fn certificates_fit_the_terminal_and_are_sorted() {
        let node = "raspberry-pi-in-the-garage-02";
        let mut long = row("home-assistant.in.example.org", node, 825);
        long.names
            .push(format!("home-assistant.{node}.in.example.org"));
        long.renewal = Some(renewal("home-assistant"));
        let mut revoked = row("alpha.in.example.org", "alpha", 90);
        revoked.revoked = true;
        let text = fits(|screen| draw(screen, &[long.clone(), revoked.clone()]));
        for part in ["in 825d  0a1b2c3d", "revoked", "home-assistant  in 60d"] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(text.find("alpha") < text.find("home"), "{text}");
    }

    #[test]
    fn those_that_end_soon_and_those_of_a_node_can_be_asked_for() {
        let wants = |line: &[&str], row: &CertRow| {
            use clap::Parser;
            #[derive(Parser)]
            struct List {
                #[command(flatten)]
                arguments: ListArguments,
            }
            let words = std::iter::once(&"list").chain(line);
            List::parse_from(words).arguments.wants(row, at(10))
        };
        let mut soon = row("photos.in.example.org", "alpha", 40);
        let month = ["--expiring", "30d"];
        assert!(wants(&month, &soon) && !wants(&["--expiring", "29d"], &soon));
        assert!(!wants(&month, &row("x", "alpha", 9)), "it has ended");
        assert!(wants(&["--node", "Alpha"], &soon));
        assert!(wants(&["--node", "alpha.in.example.org"], &soon));
        assert!(!wants(&["--node", "alph"], &soon));
        assert!(!wants(&["--expiring", "30d", "--node", "beta"], &soon));
        soon.revoked = true;
        assert!(!wants(&month, &soon) && wants(&[], &soon));
    }
}
