//! A chain made once by `agent::ca`, which also has the tests of what is
//! accepted and refused; here is how bytes are read.

use proptest::prelude::*;

use super::*;

const ROOT: &[u8] = include_bytes!("fixtures/root.der");
const ISSUER: &[u8] = include_bytes!("fixtures/issuer.der");
const LEAF: &[u8] = include_bytes!("fixtures/leaf.der");

#[test]
fn a_chain_is_read_in_full() {
    let [root, issuer, leaf] = [ROOT, ISSUER, LEAF].map(|der| Certificate::parse(der).unwrap());
    assert!(root.is_ca && issuer.is_ca && !leaf.is_ca);
    assert_eq!(
        (root.path_len, issuer.path_len, leaf.path_len),
        (Some(1), Some(0), None)
    );
    assert_eq!(
        (&leaf.issuer, &issuer.issuer),
        (&issuer.subject, &root.subject)
    );
    assert_eq!(
        (&leaf.authority_key_id, &issuer.authority_key_id),
        (&issuer.key_id, &root.key_id)
    );
    let constraints = root.constraints.unwrap();
    assert_eq!(constraints.dns, ["lab.internal"]);
    assert_eq!(constraints.ips[0], "10.77.0.0/16".parse::<IpNet>().unwrap());
    assert!(constraints.critical && constraints.others == 0);
    assert_eq!(leaf.dns, BTreeSet::from(["nas.lab.internal".to_string()]));
    assert_eq!(leaf.ips, BTreeSet::from(["10.77.3.4".parse().unwrap()]));
    let id = leaf.ed25519().unwrap().node_id();
    assert_eq!(leaf.common_name, Some(id.to_string()));
    assert!(leaf.key_usage.digital_signature && leaf.server_auth && leaf.client_auth);
    assert!(p256_point(&root.spki).is_some() && p256_point(&leaf.spki).is_none());
    assert_eq!(p256_spki(p256_point(&root.spki).unwrap()), root.spki);
    assert!(leaf.is_valid_at(leaf.not_before_ms) && !leaf.is_valid_at(leaf.not_after_ms + 1));
}

#[test]
fn more_or_less_than_one_certificate_is_refused() {
    let two = [LEAF, &[0]].concat();
    assert_eq!(Certificate::parse(&two), Err(CertificateError::Trailing(1)));
    let long = vec![0x30; limits::CERTIFICATE_BYTES + 1];
    assert_eq!(
        Certificate::parse(&long),
        Err(CertificateError::TooLong(long.len()))
    );
    for end in 0..LEAF.len() {
        let cut = Certificate::parse(&LEAF[..end]);
        assert!(matches!(cut, Err(CertificateError::Malformed(_))), "{end}");
    }
}

/// `der` with the first `from` in it replaced.
fn with(der: &[u8], from: &[u8], to: &[u8]) -> Result<Certificate, CertificateError> {
    let place = der.windows(from.len()).position(|w| w == from).unwrap();
    let mut changed = der.to_vec();
    changed[place..place + to.len()].copy_from_slice(to);
    Certificate::parse(&changed)
}

#[test]
fn what_is_not_understood_is_refused() {
    use CertificateError as E;
    // Key usage, critical, under an identifier that nobody knows.
    let unknown = with(LEAF, &[0x55, 0x1d, 0x0f], &[0x55, 0x1d, 0x7f]);
    assert_eq!(unknown, Err(E::Critical("2.5.29.127".into())));
    // Extended key usage becomes a second key usage, and then its content is wrong.
    let twice = with(LEAF, &[0x55, 0x1d, 0x25], &[0x55, 0x1d, 0x0f]);
    assert!(
        matches!(twice, Err(E::Twice(_) | E::Extension(_))),
        "{twice:?}"
    );
    // Version 2.
    assert_eq!(
        with(LEAF, &[0xa0, 3, 2, 1, 2], &[0xa0, 3, 2, 1, 1]),
        Err(E::Version)
    );
    // ecdsa-with-SHA384 in the first of the two places.
    let ecdsa = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3];
    assert_eq!(
        with(
            LEAF,
            &[&ecdsa[..], &[2]].concat(),
            &[&ecdsa[..], &[3]].concat()
        ),
        Err(E::Algorithm)
    );
    assert_eq!(
        with(LEAF, b"nas.lab", b"Nas.lab"),
        Err(E::Name("Nas.lab.internal".into()))
    );
    assert_eq!(
        with(LEAF, b"nas.lab", b"nas\0lab"),
        Err(E::Name("nas\0lab.internal".into()))
    );
}

#[test]
fn serial_numbers_are_positive_and_of_128_bits() {
    let mut one = [0; 16];
    one[15] = 1;
    assert_eq!(serial(&[1]), Ok(Serial(one)));
    assert_eq!(
        serial(&[&[0][..], &[0xff; 16]].concat()),
        Ok(Serial([0xff; 16]))
    );
    for bad in [&[][..], &[0], &[0x80], &[0xff; 16], &[1; 17], &[0, 0]] {
        assert_eq!(serial(bad), Err(CertificateError::Serial), "{bad:?}");
    }
}

#[test]
fn a_serial_number_survives_its_text_in_all_common_spellings() {
    let serial = Serial([0xa5; 16]);
    assert_eq!(serial.to_string().parse(), Ok(serial));
    assert_eq!(["A5"; 16].join(":").parse(), Ok(serial));
    for bad in ["", "a5", &"0".repeat(32), &"g".repeat(32), &"a".repeat(34)] {
        assert_eq!(bad.parse::<Serial>(), Err(SerialError), "{bad}");
    }
}

#[test]
fn host_names_are_told_from_everything_else() {
    for good in ["a", "a.b", "*.a.b", "x-1.lab.internal"] {
        assert!(is_dns_name(good), "{good}");
    }
    for bad in [
        "",
        "*",
        "*.",
        ".",
        "a.",
        "*a.b",
        "a.*.b",
        "*.*.a",
        "A.b",
        "a_b",
        "a b",
        "ü.de",
        &"a.".repeat(200),
    ] {
        assert!(!is_dns_name(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Certificate::parse(&bytes);
    }

    #[test]
    fn no_damaged_certificate_makes_the_reader_panic_or_stay_signed(
        which in 0usize..3,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        shorten in proptest::bool::weighted(0.1),
    ) {
        let original = [ROOT, ISSUER, LEAF][which];
        let mut der = original.to_vec();
        for (place, byte) in &changes {
            let place = place.index(der.len());
            der[place] = *byte;
        }
        if shorten {
            der.truncate(cut.index(der.len()));
        }
        if let Ok(read) = Certificate::parse(&der) {
            let sound = Certificate::parse(original).unwrap();
            // What the signature covers is what was read.
            prop_assert!(der == original || read.tbs != sound.tbs || read.signature != sound.signature
                || read == sound);
        }
    }

    #[test]
    fn no_spliced_certificate_makes_the_reader_panic(
        a in any::<prop::sample::Index>(),
        b in any::<prop::sample::Index>(),
        middle in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (head, tail) = (&LEAF[..a.index(LEAF.len())], &ISSUER[b.index(ISSUER.len())..]);
        let _ = Certificate::parse(&[head, &middle, tail].concat());
    }
}
