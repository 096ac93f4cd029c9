//! The files of one certificate, as servers want them: the certificate with
//! its issuer, the key, both in one file for HAProxy, and what is above.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use innermesh_proto::certificate::Certificate;

use innermesh_ca::pem;
use innermesh_control::certificates::Issued;
use innermesh_host::{
    keys::{CaKey, Keys},
    outside::{Access, SetFile},
};

pub const KEY: &str = ".key";
/// The certificate and its issuer.
pub const CERT: &str = ".crt";
/// The issuer and the root.
pub const CHAIN: &str = ".chain.crt";
/// The certificate, its issuer and the key.
pub const PEM: &str = ".pem";
/// The root, one file for all of a folder.
pub const CA: &str = "ca.crt";

/// What stands in a set of files.
pub struct Found {
    pub key: Arc<dyn CaKey>,
    /// The certificate for it.
    pub leaf: Certificate,
    pub issuer: Certificate,
}

/// The key and certificate that are in a set; `None` where they don't fit each
/// other, or are no leaf and issuer below the root.
pub fn found(
    files: &BTreeMap<String, Vec<u8>>,
    root: &Certificate,
    keys: &dyn Keys,
) -> Option<Found> {
    let key = private_key(files.get(KEY)?, keys)?;
    let mut chain = certificates(files.get(CERT)?).into_iter();
    let (leaf, issuer) = (chain.next()?, chain.next()?);
    let fits = leaf.spki == key.spki()
        && leaf.is_signed_by(&issuer.spki, keys)
        && issuer.is_signed_by(&root.spki, keys);
    fits.then_some(Found { key, leaf, issuer })
}

/// Whether what was issued is a certificate for this key and these names.
pub fn is_for(issued: &Issued, key: &dyn CaKey, names: &BTreeSet<String>) -> bool {
    let leaf = certificates(issued.certificate.as_bytes())
        .into_iter()
        .next();
    leaf.is_some_and(|leaf| leaf.spki == key.spki() && leaf.dns == *names)
}

/// All files of a set. `access` is that of those that hold the key.
pub fn of(issued: &Issued, key: &dyn CaKey, access: Access) -> Vec<SetFile> {
    let Issued {
        certificate,
        issuer,
        root,
        ..
    } = issued;
    let key = pem::encode(pem::PRIVATE_KEY, key.pkcs8().as_bytes());
    let open = Access {
        mode: 0o644,
        uid: None,
        gid: None,
    };
    let file = |suffix, content: String, access| SetFile {
        suffix,
        content: content.into_bytes(),
        access,
    };
    vec![
        file(CHAIN, format!("{issuer}{root}"), open),
        file(PEM, format!("{certificate}{issuer}{key}"), access),
        file(KEY, key, access),
        file(CERT, format!("{certificate}{issuer}"), open),
    ]
}

/// The certificates of a PEM text; none where one of them can't be read.
pub fn certificates(text: &[u8]) -> Vec<Certificate> {
    let blocks = pem::decode(&String::from_utf8_lossy(text)).unwrap_or_default();
    let parsed: Result<_, _> = blocks
        .iter()
        .filter(|block| block.label == pem::CERTIFICATE)
        .map(|block| Certificate::parse(&block.content))
        .collect();
    parsed.unwrap_or_default()
}

fn private_key(text: &[u8], keys: &dyn Keys) -> Option<Arc<dyn CaKey>> {
    let blocks = pem::decode(&String::from_utf8_lossy(text)).ok()?;
    let block = blocks.iter().find(|b| b.label == pem::PRIVATE_KEY)?;
    keys.load_p256(&block.content).ok()
}

#[cfg(test)]
mod tests {
    use innermesh_proto::{
        certificate::{LeafKind, LeafPlan},
        name::MeshDomain,
    };

    use super::*;
    use innermesh_ca::{Issuer, Root, random_serial};
    use innermesh_host::{UnixTime, keys::SystemKeys};

    struct Mesh {
        root: Root,
        issuer: Issuer,
    }

    const NOW_MS: u64 = 1_763_834_400_000;
    const NAME: &str = "photos.in.example.org";

    fn mesh() -> Mesh {
        let keys = SystemKeys;
        let net = "10.9.0.0/16".parse().unwrap();
        let domain: MeshDomain = "in.example.org".parse().unwrap();
        let root = Root::generate(keys.generate_p256(), &domain, net, NOW_MS, &keys).unwrap();
        let key = keys.generate_p256();
        let der = root.issuer(&key.spki(), NOW_MS, &keys).unwrap();
        let issuer = Issuer::new(key, der).unwrap();
        Mesh { root, issuer }
    }

    impl Mesh {
        fn root(&self) -> Certificate {
            Certificate::parse(self.root.der()).unwrap()
        }

        fn issue(&self, key: &dyn CaKey) -> Issued {
            let plan = LeafPlan {
                kind: LeafKind::Service,
                spki: key.spki(),
                common_name: None,
                dns: [NAME.to_string()].into(),
                ips: BTreeSet::new(),
                days: 1,
                stamp_ms: NOW_MS,
            };
            let serial = random_serial(&SystemKeys);
            let leaf = self.issuer.sign_leaf(&plan, serial, &SystemKeys).unwrap();
            Issued {
                certificate: pem::encode(pem::CERTIFICATE, &leaf),
                issuer: pem::encode(pem::CERTIFICATE, self.issuer.der()),
                root: pem::encode(pem::CERTIFICATE, self.root.der()),
                serial: serial.to_string(),
                not_after: UnixTime::from_ms(NOW_MS),
            }
        }

        fn files(&self, key: &dyn CaKey) -> BTreeMap<String, Vec<u8>> {
            let access = Access {
                mode: 0o600,
                uid: None,
                gid: None,
            };
            let files = of(&self.issue(key), key, access).into_iter();
            files
                .map(|file| (file.suffix.into(), file.content))
                .collect()
        }
    }

    #[test]
    fn what_is_written_is_found_again() {
        let mesh = mesh();
        let key = SystemKeys.generate_p256();
        let files = mesh.files(&*key);
        let found = found(&files, &mesh.root(), &SystemKeys).unwrap();
        assert_eq!(found.key.spki(), key.spki());
        assert_eq!(certificates(&files[CHAIN])[1], mesh.root());
        // HAProxy wants the certificate first, and all in one file.
        let one = String::from_utf8(files[PEM].clone()).unwrap();
        let labels: Vec<_> = pem::decode(&one).unwrap();
        let labels: Vec<_> = labels.iter().map(|block| block.label.as_str()).collect();
        assert_eq!(
            labels,
            [pem::CERTIFICATE, pem::CERTIFICATE, pem::PRIVATE_KEY]
        );
        assert_eq!(certificates(&files[PEM])[0], found.leaf);
    }

    #[test]
    fn another_mesh_s_files_and_a_key_that_does_not_fit_are_not_ours() {
        let (mesh, other) = (mesh(), mesh());
        let (key, another) = (SystemKeys.generate_p256(), SystemKeys.generate_p256());
        let files = mesh.files(&*key);
        assert!(found(&files, &other.root(), &SystemKeys).is_none());
        let mut mixed = files.clone();
        mixed.extend([(KEY.into(), mesh.files(&*another)[KEY].clone())]);
        assert!(found(&mixed, &mesh.root(), &SystemKeys).is_none());
        for missing in [KEY, CERT] {
            let mut files = files.clone();
            files.remove(missing);
            assert!(found(&files, &mesh.root(), &SystemKeys).is_none());
        }
    }

    #[test]
    fn an_answer_for_another_key_or_name_is_not_taken() {
        let mesh = mesh();
        let (key, other) = (SystemKeys.generate_p256(), SystemKeys.generate_p256());
        let issued = mesh.issue(&*other);
        let names = |name: &str| BTreeSet::from([name.to_owned()]);
        assert!(!is_for(&issued, &*key, &names(NAME)));
        assert!(!is_for(&issued, &*other, &names("wiki.in.example.org")));
        assert!(is_for(&issued, &*other, &names(NAME)));
    }
}
