//! `agent cert`. The first private key is made here, in this process, and only
//! the request for a certificate goes to the agent, which is then told to renew
//! what stands in the files.

mod issue;
mod list;
mod owner;
mod place;

use std::{path::PathBuf, time::Duration};

use innermesh_proto::certificate::Serial;

use self::{issue::IssueArguments, list::ListArguments};
use super::{failure::Failure, output::Output, paths::Paths};
use crate::control::{
    Client,
    certificates::{CertListRequest, CertRevokeRequest, CertRow},
    renewals::{RenewNowRequest, RenewalRmRequest, RenewalRow, WhichRenewal},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Issue(IssueArguments),
    Renew(RenewArguments),
    #[command(visible_alias = "ls")]
    List(ListArguments),
    Revoke(RevokeArguments),
    Rm(RmArguments),
}

/// Renew a certificate of this node now.
///
/// The agent renews each certificate by itself in time, and one that failed
/// again and again; this is for when it should not wait, and for a new key after
/// the old one was revoked.
#[derive(Debug, clap::Args)]
pub struct RenewArguments {
    #[command(flatten)]
    which: Which,
    /// Make a new key, this time.
    #[arg(long)]
    new_key: bool,
    #[command(flatten)]
    output: Output,
}

/// Stop renewing a certificate.
///
/// Its files stay as they are, and it is valid until its end; `agent cert
/// revoke` ends it before.
#[derive(Debug, clap::Args)]
pub struct RmArguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// As it was issued, or a full name.
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder of its files, where several are of that name.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Which {
    fn renewal(&self) -> Result<WhichRenewal, Failure> {
        let out = self.out.as_ref().map(std::path::absolute).transpose();
        Ok(WhichRenewal {
            name: self.name.clone(),
            folder: out.map_err(Failure::failed)?,
        })
    }
}

/// Revoke a certificate.
///
/// Its key is revoked with it. A node revokes its own, an admin's node any. A
/// node's membership ends by `agent evict`. The node that renews the
/// certificate gets no other in its place until somebody there asks for a new
/// key with `agent cert renew NAME --new-key`.
#[derive(Debug, clap::Args)]
pub struct RevokeArguments {
    /// Its serial number, or the beginning of it.
    ///
    /// As `agent cert list` shows it.
    #[arg(value_name = "SERIAL", value_parser = serial_start)]
    serial: String,
    #[command(flatten)]
    output: Output,
}

pub async fn run(command: Command, paths: &Paths, client: &Client) -> Result<(), Failure> {
    match command {
        Command::Issue(arguments) => issue::issue(arguments, paths, client).await,
        Command::Renew(arguments) => renew(&arguments, client).await,
        Command::List(arguments) => list::list(&arguments, client).await,
        Command::Revoke(arguments) => revoke(&arguments, client).await,
        Command::Rm(arguments) => remove(&arguments, client).await,
    }
}

async fn renew(arguments: &RenewArguments, client: &Client) -> Result<(), Failure> {
    let request = RenewNowRequest {
        which: arguments.which.renewal()?,
        new_key: arguments.new_key,
    };
    let row = client.ask(&request).await?;
    arguments.output.print(&row, || {
        format!(
            "{} until {}, serial {}\n",
            row.names.join(", "),
            row.not_after,
            row.serial
        )
    })?;
    command_done(client, row).await
}

async fn remove(arguments: &RmArguments, client: &Client) -> Result<(), Failure> {
    let row = client
        .ask(&RenewalRmRequest(arguments.which.renewal()?))
        .await?;
    arguments.output.print(&row, || {
        format!(
            "{} is not renewed any more; {} and the other files stay, and the certificate ends \
             at {}\n",
            row.names.join(", "),
            row.cert.display(),
            row.not_after
        )
    })
}

async fn revoke(arguments: &RevokeArguments, client: &Client) -> Result<(), Failure> {
    let rows = client.ask(&CertListRequest {}).await?;
    let serial = serial_of(&rows, &arguments.serial)?;
    let revoked = client.ask(&CertRevokeRequest { serial }).await?;
    arguments.output.print(&revoked, || {
        let own = rows.into_iter().find(|row| row.serial == serial.to_string());
        let next = match own.and_then(|row| row.renewal) {
            Some(renewal) => format!(
                "no other is made in its place by itself: `agent cert renew {name} --new-key` makes \
                 a new key and certificate, `agent cert rm {name}` ends its renewal",
                name = renewal.name
            ),
            None => "a new one there needs a new key (`agent cert renew NAME --new-key`, or \
                     `agent cert issue NAME --new-key`)"
                .into(),
        };
        format!(
            "the certificate of {} for {} is revoked; {next}\n",
            revoked.node,
            revoked.names.join(", ")
        )
    })
}

/// Not the beginning of a serial number.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("give 8 to 32 hexadecimal digits, as `agent cert list` shows them")]
struct SerialError;

/// Also takes colons, as openssl and browsers write them.
fn serial_start(text: &str) -> Result<String, SerialError> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && (8..=32).contains(&digits.len()) {
        Ok(digits.to_ascii_lowercase())
    } else {
        Err(SerialError)
    }
}

/// The one certificate whose serial number begins so.
fn serial_of(rows: &[CertRow], start: &str) -> Result<Serial, Failure> {
    if let Ok(whole) = start.parse() {
        return Ok(whole);
    }
    let mut found = rows.iter().filter(|row| row.serial.starts_with(start));
    match (found.next(), found.next()) {
        (Some(row), None) => row.serial.parse().map_err(Failure::failed),
        (None, _) => Err(Failure::failed(format!(
            "no certificate has a serial number that begins with {start}; `agent cert list` shows \
             them"
        ))),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "several serial numbers begin with {start}; `agent cert list -v` shows them whole"
        ))),
    }
}

/// How often it is looked whether a command has ended.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until the agent has run what it was asked to run after a renewal, and
/// tells how that failed.
async fn command_done(client: &Client, mut row: RenewalRow) -> Result<(), Failure> {
    let Some(line) = row.exec.clone() else {
        return Ok(());
    };
    // The agent ends it after a minute, and may run others before.
    let mut looks = 0u32;
    while row.exec_pending && row.exec_error.is_none() {
        if looks > 1500 {
            return Err(Failure::timed_out(format!(
                "the agent hasn't run \"{line}\" yet; `agent cert list` tells when it has"
            )));
        }
        tokio::time::sleep(PAUSE).await;
        looks += 1;
        let rows = client.ask(&CertListRequest {}).await?;
        let renewals = rows.into_iter().filter_map(|row| row.renewal);
        let Some(now) = renewals.into_iter().find(|now| now.key == row.key) else {
            return Ok(());
        };
        row = now;
    }
    match row.exec_error {
        Some(why) if row.exec_pending => Err(Failure::failed(format!(
            "the certificate is in its files, and \"{line}\" failed: {why}; it is run again, and \
             `agent cert list` tells how that goes"
        ))),
        _ => Ok(()),
    }
}

/// Whether a certificate that is in its files is renewed by the agent.
///
/// # Errors
/// What keeps it from that.
fn can_be_renewed(row: &RenewalRow) -> Result<(), Failure> {
    match &row.last_error {
        Some(why) => Err(Failure::failed(format!(
            "the certificate is in its files, and can't be renewed as things are: {why}"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::certificates::CertKind, host::UnixTime};

    #[test]
    fn a_certificate_is_named_by_the_beginning_of_its_serial_number_where_it_is_the_only_one() {
        let row = |serial: &str| CertRow {
            serial: serial.into(),
            names: vec!["photos.in.example.org".into()],
            node: "alpha".into(),
            not_before: UnixTime::from_ms(0),
            not_after: UnixTime::from_ms(1),
            kind: CertKind::Service,
            revoked: false,
            renewal: None,
        };
        let first = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
        let rows = [row(first), row("0a1b2c3d4e5f60718293a4b5c6d7e8f0")];
        let found = |start: &str| serial_of(&rows, start).map(|serial| serial.to_string());
        assert_eq!(found(first).as_deref(), Ok(first));
        assert!(
            found("0a1b2c3d")
                .unwrap_err()
                .to_string()
                .contains("several")
        );
        assert!(
            found("ffffffff")
                .unwrap_err()
                .to_string()
                .contains("no certificate")
        );
        let one = &rows[..1];
        assert_eq!(serial_of(one, "0a1b2c3d").unwrap().to_string(), first);
        for same in ["0A1B2C3D", "0a:1b:2c:3d"] {
            assert_eq!(serial_start(same).as_deref(), Ok("0a1b2c3d"));
        }
        for bad in ["", "0a1b2c3", "photos", &"0".repeat(33)] {
            assert_eq!(serial_start(bad), Err(SerialError), "{bad}");
        }
    }
}
