//! `agent cert issue`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use innermesh_proto::{certificate::Certificate, limits, name::MeshDomain};
use serde::Serialize;

use super::{
    super::{
        failure::Failure,
        names::full_name,
        output::{self, Output},
        paths::Paths,
    },
    can_be_renewed, command_done, owner,
    place::{NewFolders, agent_may_renew},
};
use crate::{
    ca::{csr, pem},
    control::{
        Client, ClientError, Der, ErrorCode,
        ca::CaRootRequest,
        certificates::{CertRequest, Issued},
        node::StatusRequest,
        renewals::{RenewalAddRequest, RenewalRmRequest, RenewalWish, WhichRenewal},
    },
    host::{
        UnixTime,
        duration::Span,
        keys::{CaKey, Keys, SystemKeys},
        outside::{Outside, SetError, SetPlace, SystemOutside},
    },
    program_certs::{files, kept},
};

/// Get a certificate for a name of this node and renew it.
///
/// Writes NAME.key, NAME.crt (the certificate and its issuer, as nginx and most
/// servers want them), NAME.pem (certificate, issuer and key in one file, for
/// HAProxy), NAME.chain.crt (issuer and root) and ca.crt (the root). A key that
/// is there already is kept unless --new-key is given.
///
/// The files are links into the hidden folder .NAME, and all of them change in
/// one step, so that also after a crash there are a certificate and a key that
/// fit each other. A container needs the whole folder mounted, not single files.
///
/// From then on the running agent renews the certificate, at two thirds of its
/// life. It must be able to write to the folder. systemd's unit lets it write to
/// /etc/innermesh only; for another folder, `systemctl edit innermesh` and add:
///
///   [Service]
///   ReadWritePaths=/etc/ssl/photos
///
/// Another `cert issue` of the same NAME to the same folder takes the place of
/// this one. The command and the files' owner, group and mode stay as they were
/// where it says nothing of them; all else is as it says.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct IssueArguments {
    /// Full name, or a name in the mesh's domain.
    #[arg(value_name = "NAME")]
    name: String,
    /// Add another name to the certificate (repeatable).
    #[arg(long, value_name = "NAME")]
    also: Vec<String>,
    /// Folder for the files, no symbolic link [default: the folder certs beside
    /// the configuration].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Lifetime of each certificate, in days.
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::LEAF_DAYS)))]
    days: u32,
    /// Command to run after this and after each renewal.
    ///
    /// Such as "systemctl reload nginx".
    ///
    /// The agent runs it by `sh -c` as the user who asked, for a minute at most,
    /// and again later when it fails. In its environment are INNERMESH_NAME and
    /// INNERMESH_NAMES, INNERMESH_CERT, INNERMESH_KEY, INNERMESH_PEM,
    /// INNERMESH_CHAIN and INNERMESH_CA (the files), INNERMESH_SERIAL and
    /// INNERMESH_NOT_AFTER.
    #[arg(long, value_name = "CMD", conflicts_with = "no_renew")]
    exec: Option<String>,
    /// Run no command any more that an earlier `cert issue` named.
    #[arg(long, conflicts_with_all = ["exec", "no_renew"])]
    no_exec: bool,
    /// Owner of the files with the key, by name or number.
    #[arg(long, value_name = "USER[:GROUP]")]
    owner: Option<String>,
    /// Group of the files with the key.
    ///
    /// It may read them unless --mode or --owner is given.
    ///
    /// PostgreSQL takes a key that belongs to its own user with mode 600
    /// (--owner postgres:postgres), or to root with mode 640 (--group postgres).
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Permissions of the files with the key: 600, 640, 400 or 440 [default:
    /// 600; 640 with --group alone].
    #[arg(long, value_parser = owner::mode)]
    mode: Option<u32>,
    /// Make a new key, now and at each renewal.
    #[arg(long)]
    new_key: bool,
    /// Renew this long before the end, such as 20d.
    ///
    /// Otherwise a third of the life before the end.
    #[arg(long, value_name = "TIME", conflicts_with = "no_renew")]
    renew_before: Option<Span>,
    /// Don't renew it; stop renewing an earlier one.
    #[arg(long)]
    no_renew: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Printed {
    cert: PathBuf,
    key: PathBuf,
    chain: PathBuf,
    pem: PathBuf,
    ca: PathBuf,
    names: Vec<String>,
    serial: String,
    not_after: UnixTime,
    renewed: Option<UnixTime>,
    /// The command of an earlier `cert issue`, which stays.
    #[serde(skip)]
    exec: Option<String>,
    #[serde(skip)]
    kept: bool,
    #[serde(skip)]
    once: bool,
}

pub async fn issue(
    arguments: IssueArguments,
    paths: &Paths,
    client: &Client,
) -> Result<(), Failure> {
    let status = client.ask(&StatusRequest {}).await?;
    let domain: MeshDomain = status.domain.parse().map_err(Failure::failed)?;
    let mut wish = wish(&arguments, &domain, paths)?;
    let place = kept::place(&wish);
    let root = client.ask(&CaRootRequest {}).await?;
    let there = key_of(&place, &root.pem).await?;
    let kept = there.filter(|_| !arguments.new_key);
    let was_kept = kept.is_some();
    let key = kept.unwrap_or_else(|| SystemKeys.generate_p256());
    let names: BTreeSet<String> = wish.names.iter().cloned().collect();
    let csr = csr::make(&key, &names, &BTreeSet::new()).map_err(Failure::failed)?;
    let ca = place.folder.join(files::CA);
    let made = NewFolders::make(&place.folder)?;
    may_write(&place, &ca, &root.pem).await?;
    if !arguments.no_renew {
        let earlier = agent_may_renew(client, &place).await?;
        if let Some(earlier) = earlier.filter(|_| !arguments.says_access()) {
            (wish.owner, wish.group, wish.mode) = (earlier.owner, earlier.group, earlier.mode);
        }
    }
    let request = CertRequest {
        names: wish.names.clone(),
        csr: Der(csr),
        days: arguments.days,
    };
    let issued = client.ask(&request).await?;
    made.keep();
    if !files::is_for(&issued, &*key, &names) {
        return Err(Failure::failed(
            "the agent answered with another certificate than was asked for; nothing was written",
        ));
    }
    let shared = SystemOutside.share(&ca, root.pem.as_bytes()).await;
    shared.map_err(|error| refused(&error))?;
    let set = files::of(&issued, &*key, kept::access(&wish));
    let written = SystemOutside.replace(&place, set).await;
    written.map_err(|error| refused(&error))?;
    let mut printed = printed(&place, &wish.names, &issued);
    printed.kept = was_kept;
    printed.once = arguments.no_renew;
    if arguments.no_renew {
        end(client, &arguments.name, &place).await?;
        return arguments.output.print(&printed, || text(&printed));
    }
    let row = client.ask(&RenewalAddRequest(wish)).await?;
    printed.renewed = row.next;
    printed.exec = row.exec.clone().filter(|_| arguments.exec.is_none());
    arguments.output.print(&printed, || text(&printed))?;
    can_be_renewed(&row)?;
    command_done(client, row).await
}

impl IssueArguments {
    fn says_access(&self) -> bool {
        self.owner.is_some() || self.group.is_some() || self.mode.is_some()
    }
}

/// What the arguments say, in full.
fn wish(
    arguments: &IssueArguments,
    domain: &MeshDomain,
    paths: &Paths,
) -> Result<RenewalWish, Failure> {
    let mut names = vec![full_name(&arguments.name, domain)?];
    for also in &arguments.also {
        let name = full_name(also, domain)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let access = owner::access(
        arguments.owner.as_deref(),
        arguments.group.as_deref(),
        arguments.mode,
    )?;
    let folder = arguments.out.clone();
    let folder = folder.unwrap_or_else(|| paths.certificates.clone());
    let wish = RenewalWish {
        names,
        days: arguments.days,
        folder: std::path::absolute(&folder).map_err(Failure::failed)?,
        stem: kept::stem(&arguments.name),
        owner: access.uid,
        group: access.gid,
        mode: access.mode,
        new_key: arguments.new_key,
        renew_before_s: arguments.renew_before.map(|span| span.0),
        exec: if arguments.no_exec {
            Some(String::new())
        } else {
            arguments.exec.clone()
        },
        exec_now: true,
    };
    kept::check(&RenewalWish {
        exec: wish.exec.clone().filter(|_| !arguments.no_exec),
        ..wish.clone()
    })
    .map_err(Failure::usage)?;
    Ok(wish)
}

/// Ends the renewal of an earlier certificate in this place.
async fn end(client: &Client, name: &str, place: &SetPlace) -> Result<(), Failure> {
    let which = WhichRenewal {
        name: name.to_owned(),
        folder: Some(place.folder.clone()),
    };
    match client.ask(&RenewalRmRequest(which)).await {
        Ok(_) => {
            output::note("it is no longer renewed automatically");
            Ok(())
        }
        Err(ClientError::Refused(error)) if error.code == ErrorCode::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn printed(place: &SetPlace, names: &[String], issued: &Issued) -> Printed {
    Printed {
        cert: place.file(files::CERT),
        key: place.file(files::KEY),
        chain: place.file(files::CHAIN),
        pem: place.file(files::PEM),
        ca: place.folder.join(files::CA),
        names: names.to_vec(),
        serial: issued.serial.clone(),
        not_after: issued.not_after,
        renewed: None,
        exec: None,
        kept: false,
        once: false,
    }
}

fn text(printed: &Printed) -> String {
    let note = if printed.kept { " (kept)" } else { "" };
    let renewed = match (printed.once, printed.renewed) {
        (true, _) => "not by itself".into(),
        (false, Some(at)) => format!("by the agent from {at} on"),
        (false, None) => "not as things are".into(),
    };
    let exec = printed.exec.as_ref().map_or_else(String::new, |exec| {
        format!("  command      {exec} (kept; --no-exec ends it)\n")
    });
    format!(
        "{} until {}, serial {}\n\n  key          {}{note}\n  certificate  {}\n  both         {}\n  \
         chain        {}\n  root         {}\n  renewed      {renewed}\n{exec}",
        printed.names.join(", "),
        printed.not_after,
        printed.serial,
        printed.key.display(),
        printed.cert.display(),
        printed.pem.display(),
        printed.chain.display(),
        printed.ca.display(),
    )
}

/// The key that is there already, if it is one that was made for this mesh;
/// `None` when there are no files yet.
///
/// # Errors
/// When there are files that somebody else made.
async fn key_of(place: &SetPlace, root: &str) -> Result<Option<Arc<dyn CaKey>>, Failure> {
    let there = SystemOutside.read(place).await;
    let there = there.map_err(|error| refused(&error))?;
    if !there.contains_key(files::KEY) && !there.contains_key(files::CERT) {
        return Ok(None);
    }
    let root = pem::decode(root).map_err(Failure::failed)?;
    let root = root
        .first()
        .and_then(|block| Certificate::parse(&block.content).ok());
    let found = root.and_then(|root| files::found(&there, &root, &SystemKeys));
    match found {
        Some(found) => Ok(Some(found.key)),
        None => Err(Failure::failed(format!(
            "{} is there already and is not of this mesh; move it and its like away, or choose \
             another --out",
            place.file(files::KEY).display()
        ))),
    }
}

/// Refuses before the ledger is asked what could not be written after it.
async fn may_write(place: &SetPlace, ca: &Path, root: &str) -> Result<(), Failure> {
    if ca.exists() {
        let shared = SystemOutside.share(ca, root.as_bytes()).await;
        shared.map_err(|error| refused(&error))?;
    }
    let checked = SystemOutside.check(place).await;
    checked.map_err(|error| refused(&error))
}

fn refused(error: &SetError) -> Failure {
    match error {
        SetError::Foreign(path) => Failure::failed(format!(
            "{} is there already and was made by somebody else; move it away, or choose another --out",
            path.display()
        )),
        SetError::Link(_) | SetError::Io(..) => Failure::failed(error),
    }
}
