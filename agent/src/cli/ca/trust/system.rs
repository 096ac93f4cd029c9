//! The system's store, by the tool that keeps it. What a tool reads says whose
//! it is: Debian and SUSE both have an `update-ca-certificates`, Fedora and
//! Arch both have an `update-ca-trust`, and folders may be there without any
//! tool that looks into them.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use async_trait::async_trait;

use super::{
    anchor::Anchor,
    machine::{self, Barrier, Machine},
    program::Call,
    store::{Held, Kind, Store, StoreError},
};
use crate::{
    ca::pem,
    host::{
        Disk,
        disk::{SystemDisk, read_limited},
    },
};

/// Most bytes of a tool that are looked at; scripts, or small programs.
const TOOL_BYTES: u64 = 1 << 20;
/// Most bytes of a bundle that are read.
const BUNDLE_BYTES: u64 = 16 << 20;

/// The tools, in the order in which they are asked for: where there is another,
/// `trust` alone would leave out its hooks.
const TOOLS: [&str; 3] = ["update-ca-trust", "update-ca-certificates", "trust"];

/// The system's store.
pub struct System {
    kind: Kind,
    tool: PathBuf,
    /// Where roots are put as files; on Arch the tool does that.
    anchors: Option<PathBuf>,
    /// What programs read, made by the tool.
    bundles: Vec<PathBuf>,
    /// For what the tool is to read.
    scratch: PathBuf,
    is_root: bool,
}

impl System {
    /// The one of this machine; in its place the tools that are there but read
    /// from nowhere that is known here.
    ///
    /// # Errors
    /// The tools.
    pub fn find(machine: &Machine, scratch: &Path) -> Result<Option<Self>, Vec<PathBuf>> {
        let there: Vec<(&str, PathBuf)> = TOOLS
            .into_iter()
            .filter_map(|name| Some((name, machine.find(name)?)))
            .collect();
        for (name, tool) in &there {
            let text = read_limited(tool, TOOL_BYTES).unwrap_or_default();
            if let Some(kind) = kind(name, &text) {
                return Ok(Some(Self::new(kind, tool.clone(), machine, scratch)));
            }
        }
        if there.is_empty() {
            Ok(None)
        } else {
            Err(there.into_iter().map(|(_, tool)| tool).collect())
        }
    }

    fn new(kind: Kind, tool: PathBuf, machine: &Machine, scratch: &Path) -> Self {
        let (anchors, bundles): (&[&str], &[&str]) = match kind {
            Kind::Fedora => (
                &["/etc/pki/ca-trust/source/anchors"],
                &["/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"],
            ),
            Kind::Suse => (
                &["/etc/pki/trust/anchors", "/usr/share/pki/trust/anchors"],
                &["/var/lib/ca-certificates/ca-bundle.pem"],
            ),
            Kind::Arch => (
                &[],
                &[
                    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
                    "/etc/ssl/certs/ca-certificates.crt",
                    "/etc/ssl/cert.pem",
                ],
            ),
            _ => (
                &["/usr/local/share/ca-certificates"],
                &["/etc/ssl/certs/ca-certificates.crt"],
            ),
        };
        let anchors: Vec<PathBuf> = anchors.iter().map(|path| machine.at(path)).collect();
        let there = anchors.iter().find(|folder| folder.is_dir());
        // Arch's `update-ca-trust` is what `trust` runs afterwards.
        let tool = match kind {
            Kind::Arch => machine.find("trust").unwrap_or(tool),
            _ => tool,
        };
        Self {
            kind,
            tool,
            anchors: there.or(anchors.first()).cloned(),
            bundles: bundles.iter().map(|path| machine.at(path)).collect(),
            scratch: scratch.to_owned(),
            is_root: machine.is_root,
        }
    }

    /// The root's own file.
    fn file(&self, anchor: &Anchor) -> Option<PathBuf> {
        let folder = self.anchors.as_ref()?;
        Some(folder.join(format!("{}.crt", anchor.name())))
    }

    /// Has the tool look into its folders again; `removed` when there is less
    /// in them than before.
    async fn refresh(&self, removed: bool) -> Result<(), StoreError> {
        let call = Call::new(&self.tool);
        let call = match self.kind {
            Kind::Fedora => call.with(&["extract"]),
            // Debian's otherwise leaves links behind that lead nowhere, and
            // others that are numbered after them aren't found any more.
            Kind::Debian if removed => call.with(&["--fresh"]),
            _ => call,
        };
        call.run().await?;
        Ok(())
    }

    /// Has `trust anchor` read the root from a file, which is the only way.
    async fn trust(&self, change: &str, anchor: &Anchor) -> Result<(), StoreError> {
        let name = format!("{}.crt", anchor.name());
        let disk = SystemDisk::new(self.scratch.clone());
        let file = self.scratch.join(&name);
        let name = Path::new(&name);
        let pem = anchor.pem();
        let written = disk.replace(name, pem.as_bytes()).await;
        written.map_err(|e| cannot(&file, &e))?;
        let call = Call::new(&self.tool).with(&["anchor", change]);
        let done = call.with(&[&file]).run().await;
        disk.remove(name).await.map_err(|e| cannot(&file, &e))?;
        done?;
        Ok(())
    }
}

#[async_trait]
impl Store for System {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn place(&self, anchor: &Anchor) -> String {
        let place = self.file(anchor).unwrap_or_else(|| self.tool.clone());
        place.display().to_string()
    }

    fn barrier(&self, anchor: &Anchor) -> Option<Barrier> {
        if !self.is_root {
            return Some(Barrier::Rights);
        }
        let file = self.file(anchor)?;
        match fs::read(&file) {
            Ok(there) if there != anchor.pem().as_bytes() => Some(Barrier::Other(format!(
                "{} holds something else than was installed; look at it, and move it away",
                file.display()
            ))),
            _ => machine::barrier(self.anchors.as_ref()?),
        }
    }

    async fn held(&self) -> Result<Vec<Held>, StoreError> {
        let mut bundles = self.bundles.iter();
        let Some(bundle) = bundles.find(|file| file.exists()) else {
            // A system without any root yet.
            return Ok(Vec::new());
        };
        let bytes = read_limited(bundle, BUNDLE_BYTES).map_err(|e| cannot(bundle, &e))?;
        let held = |der| Held {
            name: bundle.display().to_string(),
            der,
            trusted: true,
        };
        let certificates = pem::bundle(&String::from_utf8_lossy(&bytes));
        Ok(certificates.into_iter().map(held).collect())
    }

    async fn add(&self, anchor: &Anchor) -> Result<(), StoreError> {
        let Some((file, folder)) = self.file(anchor).zip(self.anchors.as_ref()) else {
            return self.trust("--store", anchor).await;
        };
        let name = file.file_name().unwrap_or_default();
        let disk = SystemDisk::new(folder.clone());
        let written = disk.replace(Path::new(name), anchor.pem().as_bytes()).await;
        // Whatever the umask: all programs are to read it.
        let written =
            written.and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o644)));
        written.map_err(|e| cannot(&file, &e))?;
        self.refresh(false).await
    }

    async fn remove(&self, anchor: &Anchor) -> Result<(), StoreError> {
        let Some(file) = self.file(anchor) else {
            return self.trust("--remove", anchor).await;
        };
        match fs::remove_file(&file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(cannot(&file, &e)),
            _ => {}
        }
        self.refresh(true).await
    }

    fn has(&self, anchor: &Anchor, held: &[Held]) -> bool {
        match self.file(anchor) {
            Some(file) => file.exists(),
            None => held.iter().any(|h| h.der == anchor.der),
        }
    }
}

/// Whose store a tool keeps, by the folders that stand in it.
fn kind(name: &str, tool: &[u8]) -> Option<Kind> {
    let names = |path: &str| tool.windows(path.len()).any(|part| part == path.as_bytes());
    match name {
        "update-ca-trust" if names("/etc/pki/ca-trust") => Some(Kind::Fedora),
        "update-ca-trust" if names("/etc/ca-certificates") => Some(Kind::Arch),
        "update-ca-certificates" if names("/usr/local/share/ca-certificates") => Some(Kind::Debian),
        // It names no folder of roots: p11-kit, which it calls, knows them.
        "update-ca-certificates"
            if names("/var/lib/ca-certificates") || names("/etc/pki/trust") =>
        {
            Some(Kind::Suse)
        }
        "trust" => Some(Kind::Arch),
        _ => None,
    }
}

fn cannot(file: &Path, error: &io::Error) -> StoreError {
    StoreError::Files(format!("{}: {error}", file.display()))
}
