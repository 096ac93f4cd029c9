//! The root that is to be trusted.

use std::{fs, time::SystemTime};

use innermesh_proto::{certificate::Certificate, crypto::Hash, name::MeshDomain};

use super::super::super::{failure::Failure, paths::Paths, root_key::Mesh};
use crate::{
    ca::pem,
    control::{Client, ClientError, ca::CaRootRequest},
    host::UnixTime,
    host::keys::SystemKeys,
    ledger::file::LEDGER,
};

/// How many hexadecimal digits of the fingerprint stand in a name.
const DIGITS: usize = 12;

/// A mesh's root certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// In DER.
    pub der: Vec<u8>,
    /// The domain that it is constrained to.
    pub domain: MeshDomain,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// When it ends.
    pub not_after: UnixTime,
    /// The subject's name in DER.
    pub subject: Vec<u8>,
}

/// Why a certificate isn't put into any store. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// It isn't a certificate.
    #[error("the root can't be read: {0}")]
    Unreadable(String),
    /// It isn't a root, or its signature is another's.
    #[error("the certificate is no root that signed itself")]
    NoRoot,
    /// Without constraints it could vouch for any name on earth.
    #[error("the root isn't constrained to the names of one mesh; no machine should trust it")]
    Unconstrained,
}

impl Anchor {
    /// From a certificate in DER.
    ///
    /// # Errors
    /// [`AnchorError`].
    pub fn new(der: Vec<u8>) -> Result<Self, AnchorError> {
        let root = Certificate::parse(&der).map_err(|e| AnchorError::Unreadable(e.to_string()))?;
        if !root.is_ca || !root.is_signed_by(&root.spki, &SystemKeys) {
            return Err(AnchorError::NoRoot);
        }
        let constraints = root.constraints.as_ref().filter(|c| c.critical);
        let domain = constraints
            .and_then(|c| c.dns.first()?.parse().ok())
            .ok_or(AnchorError::Unconstrained)?;
        Ok(Self {
            domain,
            fingerprint: Hash::of(&der).to_string(),
            not_after: UnixTime::from_ms(root.not_after_ms),
            subject: root.subject,
            der,
        })
    }

    /// From PEM text with one certificate in it.
    ///
    /// # Errors
    /// [`AnchorError`].
    pub fn from_pem(text: &str) -> Result<Self, AnchorError> {
        let blocks = pem::decode(text).map_err(|e| AnchorError::Unreadable(e.to_string()))?;
        match <[pem::Block; 1]>::try_from(blocks) {
            Ok([block]) if block.label == pem::CERTIFICATE => Self::new(block.content),
            _ => Err(AnchorError::Unreadable("it is not one certificate".into())),
        }
    }

    /// That of this machine's mesh: as the running agent tells it, or, where
    /// none runs and the ledger can be read, as that begins with it.
    pub async fn of(paths: &Paths, client: &Client) -> Result<Self, Failure> {
        let asked = match client.ask(&CaRootRequest {}).await {
            Ok(root) => Self::from_pem(&root.pem),
            Err(error @ ClientError::NotRunning(_)) => {
                match fs::File::open(paths.state.join(LEDGER)) {
                    Ok(_) => Self::new(Mesh::of(paths)?.root),
                    // Without either it is the agent that is missed.
                    Err(_) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        asked.map_err(Failure::failed)
    }

    /// What it is called in every store: two meshes, and two roots of one
    /// domain, have different names.
    pub fn name(&self) -> String {
        format!("innermesh-{}-{:.DIGITS$}", self.domain, self.fingerprint)
    }

    /// As text.
    pub fn pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.der)
    }

    /// Whether its time is over.
    pub fn has_expired(&self) -> bool {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = since.map_or(0, |d| d.as_millis()) as u64;
        self.not_after.ms() < now
    }

    /// Whether `der` is another certificate with the same subject: the root of
    /// a mesh that had this domain before, mostly.
    pub fn is_namesake(&self, der: &[u8]) -> bool {
        der != self.der && Certificate::parse(der).is_ok_and(|other| other.subject == self.subject)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::{
        ca::{Root, testing::NOW},
        host::keys::Keys,
    };

    /// The root of a mesh of `domain`, fresh at each call.
    pub fn anchor(domain: &str) -> Anchor {
        root(domain, NOW)
    }

    /// One that begins at `begin_ms` and ends ten years later.
    pub fn root(domain: &str, begin_ms: u64) -> Anchor {
        let key = SystemKeys.generate_p256();
        let v4 = "10.77.0.0/16".parse().unwrap();
        let root = Root::generate(key, &domain.parse().unwrap(), v4, begin_ms, &SystemKeys);
        Anchor::new(root.unwrap().der().to_vec()).unwrap()
    }

    #[test]
    fn the_name_tells_meshes_and_roots_apart() {
        let (one, two) = (anchor("lab.internal"), anchor("lab.internal"));
        assert_ne!(one.name(), two.name());
        assert!(one.is_namesake(&two.der) && !one.is_namesake(&one.der));
        assert!(!one.is_namesake(&anchor("other.internal").der));
        let name = format!("innermesh-lab.internal-{}", &one.fingerprint[..12]);
        assert_eq!(one.name(), name);
        assert_eq!(Anchor::from_pem(&one.pem()).unwrap(), one);
    }

    #[test]
    fn what_is_no_constrained_root_is_refused() {
        let root = crate::ca::testing::root();
        let key = SystemKeys.generate_p256();
        let issuer = root.issuer(&key.spki(), NOW, &SystemKeys);
        assert_eq!(Anchor::new(issuer.unwrap()), Err(AnchorError::NoRoot));
        let two = anchor("a.internal").pem() + &anchor("b.internal").pem();
        for text in ["", &two] {
            let error = Anchor::from_pem(text).unwrap_err().to_string();
            assert!(error.contains("not one certificate"), "{error}");
        }
        let cut = &anchor("a.internal").der[..80];
        let error = Anchor::new(cut.to_vec());
        assert!(
            matches!(error, Err(AnchorError::Unreadable(_))),
            "{error:?}"
        );
    }

    #[test]
    fn an_ended_root_is_told_from_one_in_force() {
        assert!(root("lab.internal", 0).has_expired());
        assert!(!anchor("lab.internal").has_expired());
    }
}
