use std::sync::atomic::AtomicU64;

use innermesh_proto::{
    certificate::{LeafKind, LeafPlan},
    limits,
};
use quinn::Endpoint;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use rustls::{
    ClientConnection, NamedGroup, ServerConnection,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};

use super::*;
use crate::{
    ca::testing::{NOW, World, membership, service},
    host::keys::SystemKeys,
};

const DAY: u64 = 24 * 3600 * 1000;

fn stamp(ms: u64) -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(ms))
}

/// What agents of a world show.
trait Shows {
    fn chain(&self, leaf: Vec<u8>) -> Chain;
    fn member(&self, at_ms: u64) -> MeshTls;
    fn holding(&self, plan: &LeafPlan, key: Arc<dyn NodeKey>, at_ms: u64) -> MeshTls;
}

impl Shows for World {
    fn chain(&self, leaf: Vec<u8>) -> Chain {
        Chain {
            leaf,
            issuer: self.issuer.der().to_vec(),
            root: self.root.der().to_vec(),
        }
    }

    /// A further member, whose certificate begins and ledger ends at `at_ms`.
    fn member(&self, at_ms: u64) -> MeshTls {
        let key = SystemKeys.generate_ed25519();
        let plan = LeafPlan {
            stamp_ms: at_ms,
            ..membership(&*key)
        };
        self.holding(&plan, key, at_ms)
    }

    fn holding(&self, plan: &LeafPlan, key: Arc<dyn NodeKey>, at_ms: u64) -> MeshTls {
        let chain = self.chain(self.forge(plan, |_| {}));
        MeshTls::member(&chain, key, stamp(at_ms), Arc::new(SystemKeys)).unwrap()
    }
}

/// What a handshake without a network came to, at each end.
struct Outcome {
    client: Result<(), rustls::Error>,
    server: Result<(), rustls::Error>,
    group: Option<NamedGroup>,
    shown_by_client: usize,
}

fn shake(client: ClientConfig, server: ServerConfig) -> Outcome {
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let (mut at_client, mut at_server) = (Ok(()), Ok(()));
    while (client.wants_write() || server.wants_write()) && at_client.is_ok() && at_server.is_ok() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        at_server = server.process_new_packets().map(|_| ());
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        at_client = client.process_new_packets().map(|_| ());
    }
    Outcome {
        client: at_client,
        server: at_server,
        group: server
            .negotiated_key_exchange_group()
            .map(|group| group.name()),
        shown_by_client: server.peer_certificates().map_or(0, |chain| chain.len()),
    }
}

fn between(client: &MeshTls, server: &MeshTls) -> Outcome {
    shake(
        client.client_config(true).unwrap(),
        server.server_config().unwrap(),
    )
}

#[test]
fn two_members_agree_on_a_post_quantum_group_and_know_each_other() {
    let world = World::new();
    let outcome = between(&world.member(NOW), &world.member(NOW));
    assert_eq!((outcome.client, outcome.server), (Ok(()), Ok(())));
    assert_eq!(outcome.group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(outcome.shown_by_client, 2);
}

#[test]
fn a_member_whose_certificate_names_more_than_a_node_is_refused_at_either_end() {
    type Change = fn(&mut CertificateParams);
    let world = World::new();
    let changes: [Change; 4] = [
        |params| {
            let uri = SanType::URI("https://bank.example.org/".try_into().unwrap());
            params.subject_alt_names.push(uri);
        },
        |params| {
            let mail = SanType::Rfc822Name("a@lab.internal".try_into().unwrap());
            params.subject_alt_names.push(mail);
        },
        |params| {
            let wildcard = SanType::DnsName("*.lab.internal".try_into().unwrap());
            params.subject_alt_names.push(wildcard);
        },
        |params| {
            let usages = &mut params.extended_key_usages;
            usages.push(ExtendedKeyUsagePurpose::CodeSigning);
        },
    ];
    for change in changes {
        let key = SystemKeys.generate_ed25519();
        let chain = world.chain(world.forge(&membership(&*key), change));
        let forged = MeshTls::member(&chain, key, stamp(NOW), Arc::new(SystemKeys)).unwrap();
        let shown_to_client = between(&world.member(NOW), &forged).client.unwrap_err();
        let shown_to_server = between(&forged, &world.member(NOW)).server.unwrap_err();
        for error in [shown_to_client, shown_to_server] {
            assert!(
                error.to_string().contains("not a node's membership"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_joiner_needs_only_the_fingerprint_and_shows_nothing() {
    let world = World::new();
    let joiner = MeshTls::joining(world.root.mesh(), stamp(0), Arc::new(SystemKeys));
    let outcome = between(&joiner, &world.member(NOW));
    assert_eq!((outcome.client, outcome.server), (Ok(()), Ok(())));
    assert_eq!(outcome.shown_by_client, 0);
    assert!(matches!(joiner.server(), Err(TlsError::NotJoined)));
}

#[test]
fn a_joiner_refuses_another_mesh_and_a_root_that_did_not_sign_itself() {
    let (mine, theirs) = (World::new(), World::new());
    let joiner = MeshTls::joining(mine.root.mesh(), stamp(0), Arc::new(SystemKeys));
    let error = between(&joiner, &theirs.member(NOW)).client.unwrap_err();
    assert!(error.to_string().contains("another mesh"), "{error}");

    // The right key under other words: its own signature no longer fits.
    let mut server = mine.member(NOW);
    let root = &mut server.identity.as_mut().unwrap().chain.root;
    let place = root.windows(4).position(|w| w == b"root").unwrap();
    root[place] = b'R';
    let error = between(&joiner, &server).client.unwrap_err();
    assert!(error.to_string().contains("another mesh"), "{error}");
}

#[test]
fn members_of_two_meshes_refuse_each_other() {
    let (mine, theirs) = (World::new(), World::new());
    let error = between(&mine.member(NOW), &theirs.member(NOW))
        .client
        .unwrap_err();
    assert!(error.to_string().contains("another mesh"), "{error}");
    // A client that would accept the server is refused by it.
    let mut client = mine.member(NOW);
    client.trust = theirs.member(NOW).trust;
    let error = between(&client, &theirs.member(NOW)).server.unwrap_err();
    assert!(error.to_string().contains("another mesh"), "{error}");
}

#[test]
fn the_end_of_a_certificate_is_judged_by_the_ledger_and_not_by_a_clock() {
    let world = World::new();
    let later = NOW + 91 * DAY;
    let old = world.member(NOW);
    let expired = |result: Result<(), rustls::Error>| {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("certificate expired"), "{error}");
    };
    // The one whose ledger is further on refuses, on either side.
    expired(between(&world.member(later), &old).client);
    expired(between(&old, &world.member(later)).server);
    // Meshes that live in 1970 and in 2106, whatever the clock here says.
    for year in [DAY, 4_300_000_000_000] {
        let world = World::at(year);
        let outcome = between(&world.member(year), &world.member(year));
        assert_eq!((outcome.client, outcome.server), (Ok(()), Ok(())), "{year}");
    }
}

#[test]
fn a_node_whose_ledger_is_behind_accepts_a_certificate_of_its_future() {
    let world = World::new();
    let (behind, renewed) = (world.member(NOW), world.member(NOW + 80 * DAY));
    for (client, server) in [(&behind, &renewed), (&renewed, &behind)] {
        let outcome = between(client, server);
        assert_eq!((outcome.client, outcome.server), (Ok(()), Ok(())));
    }
}

#[test]
fn a_member_whose_certificate_has_ended_connects_without_it() {
    let world = World::new();
    let later = NOW + 91 * DAY;
    let client = world.member(NOW);
    client.time.0.store(later, Ordering::Release);
    let outcome = between(&client, &world.member(later));
    assert_eq!(
        (outcome.client, outcome.server, outcome.shown_by_client),
        (Ok(()), Ok(()), 0)
    );
}

#[test]
fn leaves_that_are_no_membership_are_refused_though_the_issuer_signed_them() {
    let world = World::new();
    let key = SystemKeys.generate_ed25519();
    let another = SystemKeys.generate_ed25519().public().node_id().to_string();
    let member = membership(&*key);
    for plan in [
        service(key.public().spki().to_vec()),
        LeafPlan {
            kind: LeafKind::Service,
            ..member.clone()
        },
        LeafPlan {
            common_name: None,
            ..member.clone()
        },
        LeafPlan {
            common_name: Some(another),
            ..member.clone()
        },
    ] {
        let impostor = world.holding(&plan, key.clone(), NOW);
        let error = between(&world.member(NOW), &impostor).client.unwrap_err();
        assert!(
            error.to_string().contains("not a node's membership"),
            "{error}"
        );
        let error = between(&impostor, &world.member(NOW)).server.unwrap_err();
        assert!(
            error.to_string().contains("not a node's membership"),
            "{error}"
        );
    }
}

#[test]
fn a_membership_that_names_what_is_outside_of_the_mesh_is_refused() {
    let world = World::new();
    let key = SystemKeys.generate_ed25519();
    let mut plan = membership(&*key);
    plan.dns.insert("bank.example.org".into());
    let outcome = between(&world.member(NOW), &world.holding(&plan, key, NOW));
    let error = outcome.client.unwrap_err();
    assert!(
        error.to_string().contains("NameConstraintViolation"),
        "{error}"
    );
}

#[test]
fn a_certificate_that_signed_itself_is_refused() {
    let world = World::new();
    let key = SystemKeys.generate_ed25519();
    let pair = rcgen::KeyPair::try_from(key.pkcs8().as_bytes()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["nas.lab.internal".to_string()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let own = params.self_signed(&pair).unwrap();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8().as_bytes().to_vec()));
    let mut impostor = world.member(NOW).server_config().unwrap();
    impostor.cert_resolver = Arc::new(Own(Arc::new(
        CertifiedKey::from_der(vec![own.der().clone()], der, impostor.crypto_provider()).unwrap(),
    )));
    let error = shake(world.member(NOW).client_config(true).unwrap(), impostor)
        .client
        .unwrap_err();
    assert!(
        error.to_string().contains("not signed with ECDSA"),
        "{error}"
    );
}

#[test]
fn a_stolen_certificate_is_of_no_use_without_its_key() {
    let world = World::new();
    for thief_is_server in [true, false] {
        let mut thief = world.member(NOW);
        thief.identity.as_mut().unwrap().signer =
            Arc::new(NodeSigner::new(SystemKeys.generate_ed25519()));
        let refused = if thief_is_server {
            between(&world.member(NOW), &thief).client
        } else {
            between(&thief, &world.member(NOW)).server
        };
        let bad = rustls::CertificateError::BadSignature;
        assert_eq!(refused, Err(rustls::Error::InvalidCertificate(bad)));
    }
}

#[test]
fn chain_and_key_that_do_not_belong_together_make_no_configuration() {
    let (world, other) = (World::new(), World::new());
    let good = world.chain(world.sign(&membership(&*world.node)).unwrap());
    let with = |chain: &Chain, key: &Arc<dyn NodeKey>| {
        MeshTls::member(chain, key.clone(), stamp(NOW), Arc::new(SystemKeys)).err()
    };
    assert_eq!(with(&good, &world.node), None);
    assert_eq!(with(&good, &other.node), Some(TlsError::Mismatch));
    let mixed = Chain {
        root: other.root.der().to_vec(),
        ..good.clone()
    };
    assert!(matches!(
        with(&mixed, &world.node),
        Some(TlsError::Certificate(_))
    ));
    let mixed = Chain {
        issuer: vec![],
        ..good
    };
    assert!(matches!(
        with(&mixed, &world.node),
        Some(TlsError::Certificate(_))
    ));
}

fn endpoint(tls: &MeshTls) -> Endpoint {
    let local = "127.0.0.1:0".parse().unwrap();
    match tls.server() {
        Ok(server) => Endpoint::server(quinn::ServerConfig::with_crypto(server.quic()), local),
        Err(_) => Endpoint::client(local),
    }
    .unwrap()
}

#[tokio::test]
async fn over_quic_each_end_learns_the_others_key_and_a_joiner_the_root() {
    let world = World::new();
    let keys = [SystemKeys.generate_ed25519(), SystemKeys.generate_ed25519()];
    let [left, right] = keys
        .clone()
        .map(|key| world.holding(&membership(&*key), key, NOW));
    let (here, there) = (endpoint(&left), endpoint(&right));
    let address = there.local_addr().unwrap();

    let config = quinn::ClientConfig::new(left.client().unwrap().quic());
    let dial = here.connect_with(config, address, SERVER_NAME).unwrap();
    let (dialled, accepted) = tokio::join!(dial, async { there.accept().await.unwrap().await });
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!(peer_key(&dialled), Some(keys[1].public()));
    assert_eq!(peer_key(&accepted), Some(keys[0].public()));
    assert_eq!(
        peer_certificate(&dialled).unwrap().not_after_ms,
        (NOW + 90 * DAY) / 1000 * 1000
    );

    let joiner = MeshTls::joining(world.root.mesh(), stamp(0), Arc::new(SystemKeys));
    let config = quinn::ClientConfig::new(joiner.client().unwrap().quic());
    let dial = endpoint(&joiner)
        .connect_with(config, address, SERVER_NAME)
        .unwrap();
    let (dialled, accepted) = tokio::join!(dial, async { there.accept().await.unwrap().await });
    assert_eq!(peer_chain(&dialled.unwrap())[2], world.root.der());
    assert_eq!(peer_certificate(&accepted.unwrap()), None);
}

#[tokio::test]
async fn a_node_that_is_refused_as_expired_learns_so_and_connects_without_a_certificate() {
    let world = World::new();
    let later = NOW + u64::from(limits::MEMBERSHIP_DAYS + 1) * DAY;
    let renewed = SystemKeys.generate_ed25519();
    let plan = LeafPlan {
        stamp_ms: later,
        ..membership(&*renewed)
    };
    let (old, server) = (
        world.member(NOW),
        world.holding(&plan, renewed.clone(), later),
    );
    let (here, there) = (endpoint(&old), endpoint(&server));
    let address = there.local_addr().unwrap();

    let config = quinn::ClientConfig::new(old.client().unwrap().quic());
    let dial = here.connect_with(config, address, SERVER_NAME).unwrap();
    let (dialled, accepted) = tokio::join!(dial, async { there.accept().await.unwrap().await });
    assert!(accepted.is_err());
    let error = match dialled {
        Err(error) => error,
        Ok(connection) => connection.closed().await,
    };
    assert!(refused_as_expired(&error), "{error:?}");

    let config = quinn::ClientConfig::new(old.client_without_certificate().unwrap().quic());
    let dial = here.connect_with(config, address, SERVER_NAME).unwrap();
    let (dialled, accepted) = tokio::join!(dial, async { there.accept().await.unwrap().await });
    assert_eq!(peer_key(&dialled.unwrap()), Some(renewed.public()));
    assert_eq!(peer_certificate(&accepted.unwrap()), None);
}
