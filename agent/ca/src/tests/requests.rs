//! Signing requests, as clients and OpenSSL make them.

use super::*;

#[test]
fn a_request_gives_its_key_and_names() {
    let key = SystemKeys.generate_p256();
    let dns = BTreeSet::from(["a.lab.internal".to_string(), "*.b.lab.internal".to_string()]);
    let ips: BTreeSet<IpAddr> =
        BTreeSet::from(["10.77.0.9".parse().unwrap(), "fd00::1".parse().unwrap()]);
    let der = csr::make(&key, &dns, &ips).unwrap();
    let read = Csr::parse(&der).unwrap();
    assert_eq!(
        read,
        Csr {
            spki: key.spki(),
            dns,
            ips
        }
    );

    let mut tampered = der.clone();
    let place = der.windows(3).position(|w| w == b"lab").unwrap();
    tampered[place] = b'L';
    assert_eq!(Csr::parse(&tampered), Err(CsrError::Signature));
    let cut = Csr::parse(&der[..der.len() - 1]);
    assert_eq!(cut, Err(CsrError::Malformed));
    let nothing = csr::make(&key, &BTreeSet::new(), &BTreeSet::new()).unwrap();
    assert_eq!(Csr::parse(&nothing), Err(CsrError::NoName));
    let address = BTreeSet::from(["10.77.0.9".to_owned()]);
    let address = csr::make(&key, &address, &BTreeSet::new()).unwrap();
    let refused = Csr::parse(&address);
    assert_eq!(refused, Err(CsrError::Address("10.77.0.9".into())));
}

/// A request that OpenSSL makes with these arguments; `None` where it isn't there.
fn request(arguments: &[&str]) -> Option<Result<Csr, CsrError>> {
    let folder = tempfile::tempdir().unwrap();
    let always = ["req", "-new", "-nodes", "-keyout", "k.pem"];
    let text = openssl(folder.path(), &[&always, arguments].concat())?.unwrap();
    Some(Csr::parse(&pem::decode(&text).unwrap()[0].content))
}

const NAME: [&str; 4] = ["-subj", "/", "-addext", "subjectAltName=DNS:A.lab.internal"];
const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
const P521: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"];
const RSA: [&str; 2] = ["-newkey", "rsa:2048"];

#[test]
fn every_key_is_read_with_every_signature_that_tls_clients_accept() {
    let world = World::new();
    let pss = [
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:-1",
    ];
    let longest = [
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:-3",
    ];
    for (key, signatures) in [
        (&P256[..], &[&[][..]][..]),
        (&P384, &[&[]]),
        (&P521, &[&[]]),
        (&RSA, &[&[], &pss, &longest]),
    ] {
        for signature in signatures {
            for digest in ["-sha256", "-sha384", "-sha512"] {
                let arguments = [&NAME[..], key, signature, &[digest]].concat();
                let Some(read) = request(&arguments) else {
                    return;
                };
                let read = read
                    .map_err(|error| format!("{arguments:?}: {error}"))
                    .unwrap();
                let plan = LeafPlan {
                    dns: read.dns,
                    ..service(read.spki)
                };
                let signed = world.sign(&plan).unwrap();
                assert_eq!(world.check(&signed, &plan), Ok(()), "{arguments:?}");
            }
        }
    }
    let ed25519 = [&NAME[..], &["-newkey", "ed25519"]].concat();
    assert!(request(&ed25519).unwrap().is_ok());
}

#[test]
fn weak_keys_and_signatures_are_refused_with_the_true_reason() {
    let salt = [
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:20",
    ];
    let pss_key = ["-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"];
    let secp256k1 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"];
    for (arguments, why) in [
        (&[&["-newkey", "rsa:1024"][..]][..], "too weak"),
        (&[&secp256k1], "no TLS client knows its curve"),
        (&[&pss_key], "bound to PSS"),
        (&[&["-newkey", "ed448"]], "don't know Ed448"),
        (&[&P256, &["-sha1"]], "ECDSA with SHA-1, which is broken"),
        (&[&P256, &["-sha224"]], "ECDSA with SHA-224"),
        (&[&RSA, &["-sha1"]], "RSA with SHA-1, which is broken"),
        (&[&RSA, &["-md5"]], "RSA with MD5, which is broken"),
        (&[&RSA, &salt], "PSS with another hash or salt"),
    ] {
        let arguments = [&NAME[..], &arguments.concat()].concat();
        let Some(read) = request(&arguments) else {
            return;
        };
        let error = read.unwrap_err().to_string();
        assert!(error.contains(why), "{arguments:?}: {error}");
        let accepted = error.contains("SHA-256, SHA-384 or SHA-512")
            || error.contains("use P-256, P-384, or RSA");
        assert!(accepted, "{error}");
    }
}

#[test]
fn a_name_may_be_the_common_name_alone_or_beside_others() {
    let of = |subject: &str, names: &str| {
        let names = format!("subjectAltName={names}");
        let more = if names.ends_with('=') {
            vec![]
        } else {
            vec!["-addext", &names]
        };
        request(&[&P256[..], &["-subj", subject], &more].concat())
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let Some(alone) = of("/CN=A.lab.internal", "") else {
        return;
    };
    let alone = alone.unwrap();
    assert_eq!((alone.dns, alone.ips.len()), (set(&["a.lab.internal"]), 0));
    let both = of("/CN=a.lab.internal", "DNS:b.lab.internal").unwrap();
    assert_eq!(
        both.unwrap().dns,
        set(&["a.lab.internal", "b.lab.internal"])
    );
    let wild = of("/CN=*.a.lab.internal", "").unwrap().unwrap();
    assert_eq!(wild.dns, set(&["*.a.lab.internal"]));
    let address = of("/CN=10.77.0.9", "IP:10.77.0.9").unwrap().unwrap();
    assert_eq!((address.dns, address.ips.len()), (set(&[]), 1));
    for (subject, names) in [
        ("/CN=10.77.0.9", ""),
        ("/CN=10.77.0.9", "IP:10.77.0.8"),
        ("/CN=The photos of alpha", "DNS:a.lab.internal"),
    ] {
        let refused = of(subject, names).unwrap();
        assert!(matches!(refused, Err(CsrError::CommonName(_))), "{subject}");
    }
    assert_eq!(of("/O=x", "").unwrap(), Err(CsrError::NoName));
    let many: Vec<String> = (0..limits::CERTIFICATE_NAMES)
        .map(|n| format!("DNS:n{n}.lab.internal"))
        .collect();
    let many = of("/CN=one.lab.internal", &many.join(",")).unwrap();
    assert_eq!(many, Err(CsrError::Names(limits::CERTIFICATE_NAMES + 1)));
}
