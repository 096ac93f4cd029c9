//! The keystore that Java runtimes trust, kept by their `keytool`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use async_trait::async_trait;

use super::{
    anchor::Anchor,
    machine::{self, Barrier, Machine, is_program},
    program::{Call, ProgramError},
    store::{Held, Kind, Store, StoreError},
};
use crate::ca::pem;

/// The password that all runtimes are shipped with. It keeps no secret: there
/// are only certificates in that keystore.
const PASSWORD: &str = "changeit";

/// The keystore of one runtime.
pub struct Java {
    /// The runtime's folder.
    home: PathBuf,
    keytool: PathBuf,
    cacerts: PathBuf,
}

impl Java {
    /// Those of JAVA_HOME and of the `keytool` on the PATH, once where they
    /// are one.
    pub fn find(machine: &Machine) -> Vec<Self> {
        let named = machine
            .java_home
            .iter()
            .map(|home| home.join("bin/keytool"));
        let tools = named.chain(machine.find("keytool"));
        let mut found: Vec<Self> = Vec::new();
        for java in tools.filter_map(|keytool| Self::of(&keytool)) {
            let real = |java: &Self| fs::canonicalize(&java.cacerts).ok();
            if found.iter().all(|other| real(other) != real(&java)) {
                found.push(java);
            }
        }
        found
    }

    fn of(keytool: &Path) -> Option<Self> {
        let keytool = fs::canonicalize(keytool).ok()?;
        let home = keytool.parent()?.parent()?;
        // Those of Java 8 lie below the development kit's `jre`.
        let places = ["lib/security/cacerts", "jre/lib/security/cacerts"];
        let cacerts = places.iter().map(|place| home.join(place));
        let cacerts = cacerts.into_iter().find(|file| file.exists())?;
        is_program(&keytool).then(|| Self {
            home: home.to_owned(),
            keytool: keytool.clone(),
            cacerts,
        })
    }

    async fn keytool(&self, arguments: &[&str], input: &str) -> Result<String, StoreError> {
        let call = Call::new(&self.keytool).with(&["-J-Duser.language=en"]);
        let call = call.with(arguments).with(&["-storepass", PASSWORD]);
        // Java 8 doesn't know -cacerts; from 9 on it is what is asked for.
        let call = if self.home.join("lib/modules").exists() {
            call.with(&["-cacerts"])
        } else {
            call.with(&["-keystore"]).with(&[&self.cacerts])
        };
        call.input(input).run().await.map_err(|error| match error {
            ProgramError::Failed(_, why) if why.contains("password was incorrect") => {
                StoreError::Files(format!(
                    "its password isn't \"{PASSWORD}\"; with yours, `{} -importcert -cacerts` \
                     takes what `agent ca root` prints",
                    self.keytool.display()
                ))
            }
            error => error.into(),
        })
    }
}

/// The aliases that the root gets: here, and by the hook of Debian's
/// `update-ca-certificates`, which puts in whatever the system trusts and
/// never takes it out.
fn aliases(anchor: &Anchor) -> [String; 2] {
    let name = anchor.name();
    let hooked = format!("debian:{name}.pem");
    [name, hooked]
}

#[async_trait]
impl Store for Java {
    fn kind(&self) -> Kind {
        Kind::Java
    }

    fn place(&self, _: &Anchor) -> String {
        self.home.display().to_string()
    }

    fn barrier(&self, _: &Anchor) -> Option<Barrier> {
        machine::barrier(&self.cacerts)
    }

    async fn held(&self) -> Result<Vec<Held>, StoreError> {
        let list = self.keytool(&["-list", "-rfc"], "").await?;
        let entries = list.split("Alias name: ").skip(1);
        let held = entries.flat_map(|entry| {
            let name = entry.lines().next().unwrap_or_default().trim();
            let certificates = pem::bundle(entry).into_iter();
            certificates.map(move |der| Held {
                name: name.to_string(),
                der,
                trusted: true,
            })
        });
        Ok(held.collect())
    }

    async fn add(&self, anchor: &Anchor) -> Result<(), StoreError> {
        let name = anchor.name();
        let arguments = ["-importcert", "-noprompt", "-alias", &name];
        self.keytool(&arguments, &anchor.pem()).await?;
        Ok(())
    }

    async fn remove(&self, anchor: &Anchor) -> Result<(), StoreError> {
        let held = self.held().await?;
        for alias in aliases(anchor) {
            if held.iter().any(|h| h.name == alias && h.der == anchor.der) {
                self.keytool(&["-delete", "-alias", &alias], "").await?;
            }
        }
        Ok(())
    }

    fn has(&self, anchor: &Anchor, held: &[Held]) -> bool {
        let aliases = aliases(anchor);
        let mut ours = held.iter().filter(|h| h.der == anchor.der);
        ours.any(|h| aliases.contains(&h.name))
    }
}
