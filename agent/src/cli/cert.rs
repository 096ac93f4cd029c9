//! `agent cert`. The private key is made here, in this process, and only the
//! request for a certificate goes to the agent.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use innermesh_proto::{
    certificate::{Certificate, Serial, is_dns_name},
    limits,
    name::MeshDomain,
};
use serde::Serialize;

use super::{
    failure::Failure,
    output::{Output, or_dash, table},
    paths::Paths,
};
use crate::{
    ca::{csr, pem},
    control::{
        Client, UnixTime,
        api::{CertRequest, Der, Issued},
    },
    host::keys::{CaKey, Keys, SystemKeys},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Issue(IssueArguments),
    List(ListArguments),
    Revoke(RevokeArguments),
}

/// Get a certificate for a name of this machine, or renew it.
///
/// Writes NAME.key, NAME.crt (the certificate and its issuer, as servers want
/// them), NAME.chain.crt (issuer and root) and ca.crt (the root). A key that
/// is there already is kept, so that a server that reloads in between never
/// sees two files that don't fit each other.
#[derive(Debug, clap::Args)]
pub struct IssueArguments {
    /// A full name, or one that the mesh's domain is put behind.
    #[arg(value_name = "NAME")]
    name: String,
    /// Where to put the files [default: the folder certs beside the
    /// configuration].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long it is good for, in days.
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::LEAF_DAYS)))]
    days: u32,
    #[command(flatten)]
    output: Output,
}

/// Show every certificate of the mesh.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    #[command(flatten)]
    output: Output,
}

/// End a certificate before its time, and with it its key.
///
/// One of this machine's, or, on an admin's machine, any. A machine's
/// membership ends by `agent evict`.
#[derive(Debug, clap::Args)]
pub struct RevokeArguments {
    /// Its serial number, as `agent cert list` shows it.
    #[arg(value_name = "SERIAL")]
    serial: Serial,
    #[command(flatten)]
    output: Output,
}

pub async fn run(command: Command, paths: &Paths, client: &Client) -> Result<(), Failure> {
    match command {
        Command::Issue(arguments) => issue(arguments, paths, client).await,
        Command::List(arguments) => list(&arguments, client).await,
        Command::Revoke(arguments) => revoke(&arguments, client).await,
    }
}

#[derive(Debug, Serialize)]
struct Printed {
    cert: PathBuf,
    key: PathBuf,
    chain: PathBuf,
    ca: PathBuf,
    names: Vec<String>,
    serial: String,
    not_after: UnixTime,
}

async fn issue(arguments: IssueArguments, paths: &Paths, client: &Client) -> Result<(), Failure> {
    let status = client.status().await?;
    let domain: MeshDomain = status.domain.parse().map_err(Failure::failed)?;
    let name = full_name(&arguments.name, &domain)?;
    let root = client.ca_root().await?;
    let folder = arguments.out.unwrap_or_else(|| paths.certificates.clone());
    let folder = std::path::absolute(&folder).map_err(Failure::failed)?;
    let files = Files::new(&folder, &arguments.name);
    let key = files.key_of(&root.pem)?;
    let kept = key.is_some();
    let key = key.unwrap_or_else(|| SystemKeys.generate_p256());
    let dns = BTreeSet::from([name.clone()]);
    let csr = csr::make(&key, &dns, &BTreeSet::new()).map_err(Failure::failed)?;
    let request = CertRequest {
        names: vec![name.clone()],
        csr: Der(csr),
        days: arguments.days,
    };
    let issued = client.cert_issue(&request).await?;
    check(&issued, &*key, &name)?;
    files.write(&issued, (!kept).then_some(&*key))?;
    let printed = Printed {
        cert: files.cert,
        key: files.key,
        chain: files.chain,
        ca: files.ca,
        names: request.names,
        serial: issued.serial,
        not_after: issued.not_after,
    };
    arguments.output.print(&printed, || text(&printed, kept))
}

fn text(printed: &Printed, kept: bool) -> String {
    let note = if kept { " (kept)" } else { "" };
    format!(
        "{} until {}, serial {}\n\n  key          {}{note}\n  certificate  {}\n  chain        {}\n  root         {}\n",
        printed.names.join(", "),
        printed.not_after,
        printed.serial,
        printed.key.display(),
        printed.cert.display(),
        printed.chain.display(),
        printed.ca.display(),
    )
}

/// What stands below the mesh's domain is a full name; any other gets the
/// domain behind it, unless a final dot says that it is full.
pub(super) fn full_name(typed: &str, domain: &MeshDomain) -> Result<String, Failure> {
    let lower = typed.to_ascii_lowercase();
    let full = match lower.strip_suffix('.') {
        Some(full) => full.to_string(),
        None if domain.contains(&lower) => lower,
        None => format!("{lower}.{domain}"),
    };
    if !is_dns_name(&full) {
        return Err(Failure::usage(format!("\"{typed}\" is not a name")));
    }
    if !domain.contains(&full) {
        return Err(Failure::usage(format!(
            "{full} is not below {domain}, and this mesh certifies nothing else"
        )));
    }
    Ok(full)
}

/// Refuses an answer that would leave a server with a certificate that
/// doesn't fit.
fn check(issued: &Issued, key: &dyn CaKey, name: &str) -> Result<(), Failure> {
    let leaf = certificates(&issued.certificate).into_iter().next();
    match leaf {
        Some(leaf) if leaf.spki == key.spki() && leaf.dns.contains(name) => Ok(()),
        _ => Err(Failure::failed(
            "the agent answered with another certificate than was asked for; nothing was written",
        )),
    }
}

/// The files of one name.
struct Files {
    folder: PathBuf,
    key: PathBuf,
    cert: PathBuf,
    chain: PathBuf,
    ca: PathBuf,
}

impl Files {
    fn new(folder: &Path, typed: &str) -> Self {
        let lower = typed.to_ascii_lowercase();
        // A star is awkward in a file's name.
        let stem = lower.trim_end_matches('.').replace('*', "_");
        let at = |suffix: &str| folder.join(format!("{stem}{suffix}"));
        Self {
            folder: folder.to_owned(),
            key: at(".key"),
            cert: at(".crt"),
            chain: at(".chain.crt"),
            ca: folder.join("ca.crt"),
        }
    }

    /// The key that is there already, if it is one that this command made
    /// for this mesh; `None` when there are no files yet.
    ///
    /// # Errors
    /// When there are files that somebody else made.
    fn key_of(&self, root: &str) -> Result<Option<Arc<dyn CaKey>>, Failure> {
        let (key, cert) = (read(&self.key)?, read(&self.cert)?);
        if key.is_none() && cert.is_none() {
            return Ok(None);
        }
        let ours = key.zip(cert).and_then(|(key, cert)| {
            let key = private_key(&key)?;
            is_ours(&certificates(&cert), &certificates(root), &*key).then_some(key)
        });
        let path = if self.key.exists() {
            &self.key
        } else {
            &self.cert
        };
        match ours {
            Some(key) => Ok(Some(key)),
            None => Err(Failure::failed(format!(
                "{} is there already and is not of this mesh; move it away, or choose another --out",
                path.display()
            ))),
        }
    }

    /// Writes all of them, the certificate last: until then the old one and
    /// its key stand.
    fn write(&self, issued: &Issued, key: Option<&dyn CaKey>) -> Result<(), Failure> {
        let failed = |path: &Path, e: io::Error| {
            Failure::failed(format!("{} can't be written: {e}", path.display()))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.folder)
            .map_err(|e| failed(&self.folder, e))?;
        let Issued {
            certificate,
            issuer,
            root,
            ..
        } = issued;
        let put = |path: &Path, mode, content: &str| {
            replace(path, mode, content.as_bytes()).map_err(|e| failed(path, e))
        };
        put(&self.ca, 0o644, root)?;
        put(&self.chain, 0o644, &format!("{issuer}{root}"))?;
        if let Some(key) = key {
            put(
                &self.key,
                0o600,
                &pem::encode(pem::PRIVATE_KEY, key.pkcs8().as_bytes()),
            )?;
        }
        put(&self.cert, 0o644, &format!("{certificate}{issuer}"))
    }
}

/// Whether this is a leaf for `key` below an issuer below the root.
fn is_ours(chain: &[Certificate], root: &[Certificate], key: &dyn CaKey) -> bool {
    match (chain, root) {
        ([leaf, issuer, ..], [root, ..]) => {
            leaf.spki == key.spki()
                && leaf.is_signed_by(&issuer.spki, &SystemKeys)
                && issuer.is_signed_by(&root.spki, &SystemKeys)
        }
        _ => false,
    }
}

/// The certificates of a PEM text; none where one of them can't be read.
fn certificates(text: &str) -> Vec<Certificate> {
    let blocks = pem::decode(text).unwrap_or_default();
    let parsed: Result<_, _> = blocks
        .iter()
        .filter(|block| block.label == pem::CERTIFICATE)
        .map(|block| Certificate::parse(&block.content))
        .collect();
    parsed.unwrap_or_default()
}

fn private_key(text: &str) -> Option<Arc<dyn CaKey>> {
    let blocks = pem::decode(text).ok()?;
    let block = blocks.iter().find(|b| b.label == pem::PRIVATE_KEY)?;
    SystemKeys.load_p256(&block.content).ok()
}

/// A file as text; `None` when it isn't there. What isn't text isn't ours.
fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::failed(format!(
            "{} can't be read: {e}",
            path.display()
        ))),
    }
}

/// Under a temporary name, synced, renamed, and the folder synced.
fn replace(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // One that was left behind may have another mode.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

async fn list(arguments: &ListArguments, client: &Client) -> Result<(), Failure> {
    let certificates = client.cert_list().await?;
    let rows = certificates.iter().map(|row| {
        [
            row.names.join(", "),
            row.node.clone(),
            row.kind.to_string(),
            row.not_after.to_string(),
            or_dash(row.revoked.then_some("revoked")),
            row.serial.clone(),
        ]
    });
    arguments.output.print(&certificates, || {
        table(
            ["NAMES", "NODE", "KIND", "ENDS", "STATE", "SERIAL"],
            &rows.collect::<Vec<_>>(),
        )
    })
}

async fn revoke(arguments: &RevokeArguments, client: &Client) -> Result<(), Failure> {
    let revoked = client.cert_revoke(&arguments.serial).await?;
    arguments.output.print(&revoked, || {
        format!(
            "the certificate of {} for {} is revoked; make a new key for a new one (`agent cert \
             issue` with another --out, or without the old files)\n",
            revoked.node,
            revoked.names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use innermesh_proto::certificate::{LeafKind, LeafPlan};

    use super::*;
    use crate::ca::{Issuer, Root, random_serial};

    fn domain() -> MeshDomain {
        "in.example.org".parse().unwrap()
    }

    #[test]
    fn a_short_name_gets_the_domain_and_a_foreign_one_is_refused() {
        let full = |typed| full_name(typed, &domain());
        assert_eq!(full("Photos").as_deref(), Ok("photos.in.example.org"));
        assert_eq!(full("a.alpha").as_deref(), Ok("a.alpha.in.example.org"));
        assert_eq!(full("a.in.example.org").as_deref(), Ok("a.in.example.org"));
        assert_eq!(full("a.in.example.org.").as_deref(), Ok("a.in.example.org"));
        for bad in ["a.example.com.", "", "a..b", "../x", "a b", "a/b"] {
            assert_eq!(
                full(bad).unwrap_err().code,
                super::super::failure::USAGE,
                "{bad}"
            );
        }
    }

    struct Mesh {
        root: Root,
        issuer: Issuer,
    }

    const NOW_MS: u64 = 1_763_834_400_000;

    fn mesh() -> Mesh {
        let keys = SystemKeys;
        let net = "10.9.0.0/16".parse().unwrap();
        let root = Root::generate(keys.generate_p256(), &domain(), net, NOW_MS, &keys).unwrap();
        let key = keys.generate_p256();
        let der = root.issuer(&key.spki(), NOW_MS, &keys).unwrap();
        let issuer = Issuer::new(key, der).unwrap();
        Mesh { root, issuer }
    }

    impl Mesh {
        fn root_pem(&self) -> String {
            pem::encode(pem::CERTIFICATE, self.root.der())
        }

        fn issue(&self, key: &dyn CaKey, name: &str) -> Issued {
            let plan = LeafPlan {
                kind: LeafKind::Service,
                spki: key.spki(),
                common_name: None,
                dns: [name.to_string()].into(),
                ips: BTreeSet::new(),
                days: 1,
                stamp_ms: NOW_MS,
            };
            let leaf = self
                .issuer
                .sign_leaf(&plan, random_serial(&SystemKeys), &SystemKeys)
                .unwrap();
            Issued {
                certificate: pem::encode(pem::CERTIFICATE, &leaf),
                issuer: pem::encode(pem::CERTIFICATE, self.issuer.der()),
                root: self.root_pem(),
                serial: "0a".into(),
                not_after: UnixTime::from_ms(NOW_MS),
            }
        }
    }

    #[test]
    fn what_is_written_is_found_again_and_the_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(&folder.path().join("certs"), "Photos");
        let mesh = mesh();
        assert!(files.key_of(&mesh.root_pem()).unwrap().is_none());
        let key = SystemKeys.generate_p256();
        let issued = mesh.issue(&*key, "photos.in.example.org");
        check(&issued, &*key, "photos.in.example.org").unwrap();
        files.write(&issued, Some(&*key)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(files.key, folder.path().join("certs/photos.key"));
        assert_eq!(mode(&files.key), 0o600);
        let kept = files.key_of(&mesh.root_pem()).unwrap().unwrap();
        assert_eq!(kept.spki(), key.spki());
        let served = fs::read_to_string(&files.cert).unwrap();
        assert_eq!(certificates(&served).len(), 2, "leaf and issuer");
        let above = fs::read_to_string(&files.chain).unwrap();
        assert_eq!(above, format!("{}{}", issued.issuer, issued.root));
        assert_eq!(fs::read_to_string(&files.ca).unwrap(), mesh.root_pem());
        let again = mesh.issue(&*key, "photos.in.example.org");
        files.write(&again, None).unwrap();
        assert!(
            fs::read_to_string(&files.cert)
                .unwrap()
                .starts_with(&again.certificate)
        );
    }

    #[test]
    fn files_of_somebody_else_are_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path(), "photos");
        let (mesh, other) = (mesh(), mesh());
        fs::write(&files.key, "mine").unwrap();
        let failure = files.key_of(&mesh.root_pem()).err().unwrap();
        assert!(failure.to_string().contains("photos.key"), "{failure}");
        fs::remove_file(&files.key).unwrap();
        let key = SystemKeys.generate_p256();
        files
            .write(&other.issue(&*key, "photos.in.example.org"), Some(&*key))
            .unwrap();
        assert!(files.key_of(&other.root_pem()).is_ok());
        assert!(files.key_of(&mesh.root_pem()).is_err(), "another mesh's");
        let another = pem::encode(
            pem::PRIVATE_KEY,
            SystemKeys.generate_p256().pkcs8().as_bytes(),
        );
        fs::write(&files.key, another).unwrap();
        assert!(
            files.key_of(&other.root_pem()).is_err(),
            "a key that doesn't fit"
        );
    }

    #[test]
    fn an_answer_for_another_key_or_name_is_not_written() {
        let mesh = mesh();
        let (key, other) = (SystemKeys.generate_p256(), SystemKeys.generate_p256());
        let issued = mesh.issue(&*other, "photos.in.example.org");
        assert!(check(&issued, &*key, "photos.in.example.org").is_err());
        assert!(check(&issued, &*other, "wiki.in.example.org").is_err());
    }
}
