//! `agent cert list`.

use super::super::{
    failure::Failure,
    output::{Output, or_dash, table},
};
use crate::control::{
    Client,
    certificates::{CertListRequest, CertRow},
    renewals::RenewalRow,
};

/// Show all certificates, and how this node renews its own.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    #[command(flatten)]
    output: Output,
}

pub async fn list(arguments: &ListArguments, client: &Client) -> Result<(), Failure> {
    let certificates = client.ask(&CertListRequest {}).await?;
    arguments
        .output
        .print(&certificates, || text(&certificates))
}

fn text(certificates: &[CertRow]) -> String {
    let rows: Vec<_> = certificates
        .iter()
        .map(|row| {
            [
                row.names.join(", "),
                row.node.clone(),
                row.kind.to_string(),
                row.not_after.to_string(),
                or_dash(row.revoked.then_some("revoked")),
                row.serial.clone(),
            ]
        })
        .collect();
    let mut out = table(["NAMES", "NODE", "KIND", "ENDS", "STATE", "SERIAL"], &rows);
    let renewals: Vec<&RenewalRow> = certificates
        .iter()
        .filter_map(|row| row.renewal.as_ref())
        .collect();
    if renewals.is_empty() {
        return out;
    }
    let rows: Vec<_> = renewals
        .iter()
        .map(|row| {
            [
                row.name.clone(),
                or_dash(row.next),
                row.cert.display().to_string(),
                or_dash(row.exec.as_ref()),
            ]
        })
        .collect();
    out.push('\n');
    out.push_str(&table(
        ["RENEWED HERE", "NEXT", "CERTIFICATE", "COMMAND"],
        &rows,
    ));
    for row in renewals {
        if let Some(why) = &row.last_error {
            out.push_str(&format!(
                "\n{}, at {}: {why}\n",
                row.name,
                or_dash(row.last_error_at)
            ));
        }
        if let Some(why) = &row.exec_error {
            out.push_str(&format!(
                "\n{}, command at {}: {why}\n",
                row.name,
                or_dash(row.exec_error_at)
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::certificates::CertKind, host::UnixTime};

    #[test]
    fn a_renewal_is_told_with_its_files_its_next_time_and_its_errors() {
        let at = |day: u64| UnixTime::from_ms(day * 86_400_000);
        let renewal = RenewalRow {
            name: "photos".into(),
            names: vec!["photos.in.example.org".into()],
            serial: "0a".into(),
            not_after: at(90),
            cert: "/etc/innermesh/certs/photos.crt".into(),
            key: "/etc/innermesh/certs/photos.key".into(),
            chain: "/etc/innermesh/certs/photos.chain.crt".into(),
            pem: "/etc/innermesh/certs/photos.pem".into(),
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
        };
        let row = CertRow {
            serial: "0a".into(),
            names: vec!["photos.in.example.org".into()],
            node: "alpha".into(),
            not_before: at(0),
            not_after: at(90),
            kind: CertKind::Service,
            revoked: false,
            renewal: Some(renewal),
        };
        assert_eq!(
            text(&[row]),
            "\
NAMES                  NODE   KIND     ENDS                  STATE  SERIAL
photos.in.example.org  alpha  service  1970-04-01T00:00:00Z  -      0a

RENEWED HERE  NEXT                  CERTIFICATE                      COMMAND
photos        1970-03-02T00:00:00Z  /etc/innermesh/certs/photos.crt  systemctl reload nginx

photos, at 1970-01-01T00:00:00Z: no CA node is reached

photos, command at 1970-01-01T00:00:00Z: it ended with 1
"
        );
    }
}
