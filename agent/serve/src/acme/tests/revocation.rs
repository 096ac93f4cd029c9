//! The end of certificates, and keys as certificates have them.

use super::*;

/// A certificate for a key, with the serial number that the fake mesh knows.
fn certificate_for(key: &rcgen::KeyPair, serial: [u8; 16]) -> Value {
    let mut params = rcgen::CertificateParams::new(vec!["photos.lab.internal".into()]).unwrap();
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
    let der = params.self_signed(key).unwrap().der().to_vec();
    json!({ "certificate": BASE64URL_NOPAD.encode(&der) })
}

#[tokio::test]
async fn a_certificate_is_revoked_by_its_key_or_by_whom_it_was_issued_to() {
    let server = server().await;
    let pair = rcgen::KeyPair::generate().unwrap();
    let wanted = certificate_for(&pair, [7; 16]);
    // By its own key.
    let own = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der());
    let own = server.client(Key::P256(own.unwrap()));
    assert_eq!(own.post("/revoke-cert", &wanted).await.status, 200);
    let mut with_reason = wanted.clone();
    with_reason["reason"] = json!(1);
    assert_eq!(own.post("/revoke-cert", &with_reason).await.status, 200);
    for reason in [2, 6, 7, 10, 99] {
        with_reason["reason"] = json!(reason);
        let refused = own.post("/revoke-cert", &with_reason).await;
        assert_problem(&refused, 400, "badRevocationReason");
    }
    let unknown = certificate_for(&pair, [8; 16]);
    assert_problem(&own.post("/revoke-cert", &unknown).await, 404, "malformed");
    let garbage = json!({ "certificate": "AAAA" });
    assert_problem(&own.post("/revoke-cert", &garbage).await, 400, "malformed");
    // By another key, or an account that has nothing to do with it.
    let other = server.client(Key::p256());
    assert_problem(
        &other.post("/revoke-cert", &wanted).await,
        403,
        "unauthorized",
    );
    let account = server.with_account().await;
    assert_problem(
        &account.post("/revoke-cert", &wanted).await,
        403,
        "unauthorized",
    );
    // By one that has shown control of its name.
    account.ready_order("photos.lab.internal").await;
    assert_eq!(account.post("/revoke-cert", &wanted).await.status, 200);
}

#[test]
fn keys_are_written_as_certificates_have_them() {
    use x509_parser::{prelude::FromDer, public_key::PublicKey, x509::SubjectPublicKeyInfo};
    for key in Key::all() {
        let jwk = jwk::Jwk::parse(&key.jwk()).unwrap();
        let der = jwk.spki();
        let (rest, spki) = SubjectPublicKeyInfo::from_der(&der).unwrap();
        assert!(rest.is_empty());
        match (&jwk, spki.parsed()) {
            (jwk::Jwk::Rsa(n, e), Ok(PublicKey::RSA(rsa))) => {
                let bare = |number: &[u8]| {
                    let from = number.iter().position(|b| *b != 0).unwrap_or(0);
                    number[from..].to_vec()
                };
                assert_eq!(
                    (bare(rsa.modulus), bare(rsa.exponent)),
                    (n.clone(), e.clone())
                );
            }
            (jwk::Jwk::P256(x, y), Ok(PublicKey::EC(point))) => {
                assert_eq!(point.data(), [&[4], &x[..], y].concat());
            }
            (jwk::Jwk::P384(x, y), Ok(PublicKey::EC(point))) => {
                assert_eq!(point.data(), [&[4], &x[..], y].concat());
            }
            (jwk::Jwk::P521(x, y), Ok(PublicKey::EC(point))) => {
                assert_eq!(point.data(), [&[4], &x[..], y].concat());
            }
            (jwk::Jwk::Ed25519(x), _) => assert_eq!(&*spki.subject_public_key.data, x),
            other => panic!("{other:?}"),
        }
    }
    let pair = rcgen::KeyPair::generate().unwrap();
    let own = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der());
    let jwk = jwk::Jwk::parse(&Key::P256(own.unwrap()).jwk()).unwrap();
    assert_eq!(
        jwk.spki(),
        rcgen::PublicKeyData::subject_public_key_info(&pair)
    );
}
