//! The recovery file: the root's key, encrypted with a passphrase, and the
//! root's certificate, both as PEM in one text. `openssl pkey -in FILE` reads
//! the key too, so that nobody depends on this program to get at it.

use innermesh_proto::certificate::{Certificate, CertificateError};
use pkcs8::{
    EncryptedPrivateKeyInfo, PrivateKeyInfo, SecretDocument,
    pkcs5::pbes2::{EncryptionScheme, Kdf, Parameters, ScryptParams},
};

use super::{CaError, Root, pem};
use innermesh_host::keys::{KeyError, Keys};

/// Why a recovery file was not read. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// There is no encrypted key in the text.
    #[error(
        "not a recovery file: it holds no encrypted private key; `agent init` wrote one for this mesh"
    )]
    NotRecovery,
    /// A key, but no certificate with it.
    #[error("the recovery file holds no certificate; append the root certificate to it")]
    NoCertificate,
    /// The file is damaged.
    #[error("the recovery file is damaged: {0}; use another copy")]
    Damaged(String),
    /// Encrypted in a way that isn't known here, or at a cost that is refused.
    #[error(
        "the recovery file is encrypted in an unknown way; rewrite it with \
         `openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256`"
    )]
    Encryption,
    /// The passphrase doesn't decrypt the key.
    #[error("wrong passphrase; it was shown once, by `agent init`")]
    Passphrase,
    /// The key is no P-256 key.
    #[error("the recovery file holds another kind of key: {0}")]
    Key(#[from] KeyError),
    /// The certificate can't be read.
    #[error("the recovery file's certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// Key and certificate don't belong together.
    #[error("the recovery file's key and certificate don't belong together")]
    Mismatch,
    /// The key could not be encrypted.
    #[error("the key could not be encrypted: {0}")]
    Sealing(String),
}

/// The text of a recovery file for `root`.
///
/// # Errors
/// [`RecoveryError::Sealing`].
pub fn seal(root: &Root, passphrase: &str, keys: &dyn Keys) -> Result<String, RecoveryError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    keys.random(&mut salt);
    keys.random(&mut iv);
    let parameters = Parameters {
        kdf: Kdf::Scrypt(ScryptParams {
            salt: &salt,
            cost_parameter: SCRYPT_N,
            block_size: SCRYPT_R,
            parallelization: SCRYPT_P,
            key_length: None,
        }),
        encryption: EncryptionScheme::Aes256Cbc { iv: &iv },
    };
    let sealing = |e: pkcs8::Error| RecoveryError::Sealing(e.to_string());
    let plain = root.key().pkcs8();
    let encrypted = PrivateKeyInfo::try_from(plain.as_bytes())
        .and_then(|key| key.encrypt_with_params(parameters, passphrase))
        .map_err(sealing)?;
    let domain = root
        .certificate()
        .constraints
        .as_ref()
        .and_then(|constraints| constraints.dns.first())
        .map_or("", String::as_str);
    Ok(format!(
        "Innermesh recovery file for {domain}\nmesh {}\n\
         Keep it off this machine, and the passphrase elsewhere.\n\n{}{}",
        root.mesh(),
        pem::encode(pem::ENCRYPTED_PRIVATE_KEY, encrypted.as_bytes()),
        pem::encode(pem::CERTIFICATE, root.der()),
    ))
}

/// The root in the text of a recovery file. White space around the passphrase
/// doesn't count.
///
/// # Errors
/// [`RecoveryError`]; a wrong passphrase and a wrong file are told apart.
pub fn open(text: &str, passphrase: &str, keys: &dyn Keys) -> Result<Root, RecoveryError> {
    let blocks = pem::decode(text).map_err(|e| RecoveryError::Damaged(e.to_string()))?;
    let block = |label: &str| blocks.iter().find(|block| block.label == label);
    let encrypted = block(pem::ENCRYPTED_PRIVATE_KEY).ok_or(RecoveryError::NotRecovery)?;
    let certificate = block(pem::CERTIFICATE).ok_or(RecoveryError::NoCertificate)?;
    let plain = decrypt(&encrypted.content, passphrase.trim())?;
    let key = keys.load_p256(plain.as_bytes())?;
    match Root::new(key, certificate.content.clone()) {
        Ok(root) => Ok(root),
        Err(CaError::Refused(why)) => Err(why.into()),
        Err(_) => Err(RecoveryError::Mismatch),
    }
}

/// The root certificate in the text of a recovery file, without the passphrase.
///
/// # Errors
/// [`RecoveryError`].
pub fn certificate(text: &str) -> Result<Certificate, RecoveryError> {
    let blocks = pem::decode(text).map_err(|e| RecoveryError::Damaged(e.to_string()))?;
    let block = blocks
        .iter()
        .find(|block| block.label == pem::CERTIFICATE)
        .ok_or(RecoveryError::NoCertificate)?;
    Ok(Certificate::parse(&block.content)?)
}

/// A new passphrase: six groups of five characters, 150 bits, without
/// characters that look alike (0 and o, 1 and l).
pub fn passphrase(keys: &dyn Keys) -> String {
    let mut random = [0; GROUPS * GROUP];
    keys.random(&mut random);
    let characters: Vec<char> = random
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect();
    let groups: Vec<String> = characters
        .chunks(GROUP)
        .map(|group| group.iter().collect())
        .collect();
    groups.join("-")
}

const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const GROUPS: usize = 6;
const GROUP: usize = 5;

/// 16 MiB of memory. OpenSSL refuses to use more than 32 MiB in all, so that
/// twice this would make a file that it can't open; lanes cost time instead.
const SCRYPT_N: u64 = 1 << 14;
const SCRYPT_R: u16 = 8;
const SCRYPT_P: u16 = 4;
/// Most work (N·r·p) that a file may ask of us; the memory is 128·N·r bytes,
/// so at most 256 MiB.
const SCRYPT_LIMIT: u64 = 1 << 21;
/// Most rounds of PBKDF2 that a file may ask of us.
const PBKDF2_LIMIT: u32 = 10_000_000;

fn decrypt(der: &[u8], passphrase: &str) -> Result<SecretDocument, RecoveryError> {
    let info = EncryptedPrivateKeyInfo::try_from(der).map_err(|_| RecoveryError::Encryption)?;
    let affordable = match &info.encryption_algorithm {
        pkcs8::pkcs5::EncryptionScheme::Pbes2(parameters) => match &parameters.kdf {
            Kdf::Scrypt(scrypt) => scrypt
                .cost_parameter
                .checked_mul(u64::from(scrypt.block_size))
                .and_then(|work| work.checked_mul(u64::from(scrypt.parallelization)))
                .is_some_and(|work| work <= SCRYPT_LIMIT),
            Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count <= PBKDF2_LIMIT,
            _ => false,
        },
        _ => false,
    };
    if !affordable {
        return Err(RecoveryError::Encryption);
    }
    match info.decrypt(passphrase) {
        // The padding fits by chance one time in 256: then what comes out isn't a key.
        Ok(plain) if PrivateKeyInfo::try_from(plain.as_bytes()).is_ok() => Ok(plain),
        Err(pkcs8::Error::EncryptedPrivateKey(
            pkcs8::pkcs5::Error::UnsupportedAlgorithm { .. }
            | pkcs8::pkcs5::Error::AlgorithmParametersInvalid { .. },
        )) => Err(RecoveryError::Encryption),
        _ => Err(RecoveryError::Passphrase),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::root;
    use innermesh_host::keys::SystemKeys;

    #[test]
    fn a_root_survives_its_recovery_file_under_its_passphrase_only() {
        let (root, keys) = (root(), SystemKeys);
        let phrase = passphrase(&keys);
        let text = seal(&root, &phrase, &keys).unwrap();
        let again = open(&text, &format!(" {phrase}\n"), &keys).unwrap();
        assert_eq!(again.der(), root.der());
        assert_eq!(
            again.key().pkcs8().as_bytes(),
            root.key().pkcs8().as_bytes()
        );
        assert_eq!(certificate(&text).unwrap(), *root.certificate());
        assert_eq!(
            open(&text, "wrong", &keys).unwrap_err(),
            RecoveryError::Passphrase
        );
    }

    #[test]
    fn what_is_no_recovery_file_is_told_from_a_wrong_passphrase() {
        let (root, keys) = (root(), SystemKeys);
        let text = seal(&root, "x", &keys).unwrap();
        let (_, from_certificate) = text.split_at(text.find("-----BEGIN CERT").unwrap());
        let key_only = text.replace(from_certificate, "");
        let other = seal(&crate::testing::root(), "x", &keys).unwrap();
        let (_, other_certificate) = other.split_at(other.find("-----BEGIN CERT").unwrap());
        let refused = |text: &str| open(text, "x", &keys).unwrap_err();
        assert_eq!(refused("hello"), RecoveryError::NotRecovery);
        assert_eq!(refused(from_certificate), RecoveryError::NotRecovery);
        assert_eq!(refused(&key_only), RecoveryError::NoCertificate);
        assert_eq!(
            refused(&text.replace(from_certificate, other_certificate)),
            RecoveryError::Mismatch
        );
        assert!(matches!(
            refused(&text[..text.len() - 30]),
            RecoveryError::Damaged(_)
        ));
    }

    #[test]
    fn a_passphrase_is_typed_easily_and_never_comes_twice() {
        let phrase = passphrase(&SystemKeys);
        assert_eq!(phrase.len(), 35);
        assert!(phrase.split('-').all(|group| group.len() == 5));
        assert!(!phrase.contains(['0', '1', 'l', 'o']));
        assert_ne!(phrase, passphrase(&SystemKeys));
    }

    #[test]
    fn openssl_reads_the_key_with_the_passphrase() {
        let (root, keys) = (root(), SystemKeys);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("recovery.pem");
        std::fs::write(&file, seal(&root, "secret words", &keys).unwrap()).unwrap();
        let Some(out) = crate::testing::openssl(
            folder.path(),
            &[
                "pkey",
                "-in",
                "recovery.pem",
                "-passin",
                "pass:secret words",
                "-pubout",
            ],
        ) else {
            return;
        };
        let blocks = pem::decode(&out.unwrap()).unwrap();
        assert_eq!(blocks[0].content, root.certificate().spki);
    }

    #[test]
    fn a_file_that_openssl_encrypted_anew_is_read() {
        let (root, keys) = (root(), SystemKeys);
        let folder = tempfile::tempdir().unwrap();
        let plain = pem::encode(pem::PRIVATE_KEY, root.key().pkcs8().as_bytes());
        std::fs::write(folder.path().join("plain.pem"), plain).unwrap();
        let Some(out) = crate::testing::openssl(
            folder.path(),
            &[
                "pkcs8",
                "-topk8",
                "-v2",
                "aes-256-cbc",
                "-v2prf",
                "hmacWithSHA256",
                "-in",
                "plain.pem",
                "-passout",
                "pass:x",
            ],
        ) else {
            return;
        };
        let text = out.unwrap() + &pem::encode(pem::CERTIFICATE, root.der());
        assert_eq!(open(&text, "x", &keys).unwrap().der(), root.der());
    }
}
