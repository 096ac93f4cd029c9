//! Everything that reads bytes from outside, each as one function over any
//! bytes, which panics where the reader does or believes too much. Fuzz
//! targets and ordinary tests call these.

mod path;
mod router;
mod tunnel;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::IpAddr,
    path::Path,
    sync::LazyLock,
    time::Duration,
};

use futures_util::FutureExt;
use innermesh_agent::{
    acme::{
        self,
        ari::CertificateId,
        jwk::Jwk,
        jws::{Jws, Signer},
        order::Identifier,
    },
    ca::csr::Csr,
    cli::daemon_json::{self, Merged},
    config::{self, Config},
    dns,
    enroll::{kept::Kept, token::Token},
    gossip::{generation, known},
    host::{Disk, echo, keys::Ed25519},
    ledger::{file, raft, start::Start},
    node::parse_holds,
    overlay,
    services::{Spec, docker},
};
use innermesh_proto::{
    admission::{AdmissionAnswer, AdmissionQuery, Code, News},
    certificate::RevocationList,
    codec,
    crypto::{Sealed, Signature},
    filter::{
        FilterPlan, HostNetworks,
        access::{AccessPlan, Flow, Ports},
        nft::{Passage, render},
    },
    head::{self, Announcement, Head},
    id::NodeId,
    ledger::{
        Batch, Content, Grant, RULES, Recovery, SignedGenesis, SignedRecovery, Snapshot, State,
    },
    limits,
    links::{
        Beat,
        packet::{PacketReader, PacketWriter},
    },
    message::{
        Batches, BodyQuery, BucketsAnswer, BucketsQuery, CutOff, CutOffQuery, Decided, Endorse,
        GivenInvites, HeadsOfQuery, HeadsQuery, IssuerKeys, JoinHello, JoinQuery, Joined,
        LedgerQuery, Propose, Push, RaftProgress, RecoveryQuery, Relay, Relayed, RelayedAnswer,
        Renew, RevocationsQuery, SnapshotHead, SnapshotPartQuery, SnapshotQuery, Spenders,
        Submitted, TunnelSeen,
    },
    name::Label,
    policy::{
        self, DeviceEntry, Directory, InstanceEntry, NodeEntry, Place, Policy, ServiceEntry,
        ServicePorts,
    },
    rpc::{Hello, RequestFrame, ResponseFrame},
};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    path::{lane, pair_key, relayed, way},
    router::router,
    tunnel::{datagram, frame, recorded, wg},
};
use crate::{disk::SimDisk, questions};

/// Reads any bytes.
pub type Reader = fn(&[u8]);

/// The readers and their names, which are those of the fuzz targets.
pub const ALL: [(&str, Reader); 27] = [
    ("head", head),
    ("ledger", ledger),
    ("rpc", rpc),
    ("token", token),
    ("state", state),
    ("config", config),
    ("acme", acme),
    ("revocations", revocations),
    ("overlay", overlay),
    ("grant", grant),
    ("upstream", upstream),
    ("packet", packet),
    ("policy", policy),
    ("question", question),
    ("stranger", stranger),
    ("transfer", transfer),
    ("docker", docker),
    ("https", https),
    ("name_server", name_server),
    ("datagram", datagram),
    ("frame", frame),
    ("wg", wg),
    ("pair_key", pair_key),
    ("lane", lane),
    ("relayed", relayed),
    ("way", way),
    ("router", router),
];

/// What Docker answers and tells, the service that labels make, and Docker's own
/// configuration.
pub fn docker(bytes: &[u8]) {
    let own: [IpAddr; 2] = [[10, 77, 0, 1].into(), [0xfd77, 0, 0, 0, 0, 0, 0, 1].into()];
    let _ = docker::listed(bytes);
    let image = docker::image_labels(bytes).unwrap_or_default();
    if let Ok(read) = docker::inspected(bytes) {
        assert!(read.name.len() <= 64 && read.labels.len() <= 16);
        for image in [&BTreeMap::new(), &image] {
            if let Ok(Some(service)) = docker::service(&read, image, &own) {
                let spec = service.spec;
                assert!(spec.address.is_none_or(|ip| own.contains(&ip)));
                assert_eq!(Spec::from_toml(spec.to_toml().as_bytes()), Ok(spec));
            }
        }
    }
    // Where a stream is cut makes no difference.
    if let Ok(whole) = docker::Lines::default().take(bytes) {
        let mut lines = docker::Lines::default();
        let pieces = bytes
            .chunks(7)
            .flat_map(|piece| lines.take(piece).expect("as a whole"));
        assert_eq!(pieces.collect::<Vec<_>>(), whole);
    }
    if let Ok(Merged::Changed(text)) = daemon_json::merge(bytes, own[0], true) {
        let again = daemon_json::merge(text.as_bytes(), own[0], false);
        assert!(matches!(again, Ok(Merged::Same)), "{text}");
    }
}

/// A client's signed request and what is in it, a signing request, the
/// certificate that answers a challenge, and the name of a certificate.
pub fn acme(bytes: &[u8]) {
    if let Ok(jws) = Jws::parse(bytes) {
        let _ = jws.check_algorithm();
        if let Signer::Key(key) = &jws.signer {
            let _ = jws.check(key);
            let again = Jwk::parse(&serde_json::from_str(&key.canonical()).expect("it is JSON"));
            assert_eq!(again.as_ref(), Ok(&**key));
        }
        if let Ok(inner) = jws.json::<serde_json::Value>() {
            let _ = Jws::inner(&inner);
        }
    }
    if let Ok(csr) = Csr::parse(bytes) {
        assert!(csr.dns.len() + csr.ips.len() > 0);
    }
    let name = Identifier::Dns("photos.home.example.com".into());
    let _ = acme::check_certificate(bytes, &name, &[0; 32]);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<CertificateId>();
    }
}

/// What is read says the same again, in the same bytes.
fn canonical<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8], limit: usize) -> Option<T> {
    let value: T = codec::decode(bytes, limit).ok()?;
    assert!(bytes.len() <= limit, "{} bytes of {limit}", bytes.len());
    assert_eq!(codec::encode(&value), bytes, "{value:?}");
    Some(value)
}

/// A signed head, as bytes and as gossip's text, a body, and a packet of a link.
pub fn head(bytes: &[u8]) {
    if let Some(sealed) = canonical::<Sealed>(bytes, limits::HEAD_BYTES + 128) {
        let _ = sealed.peek::<Head>(limits::HEAD_BYTES);
        let text = head::to_text(&sealed);
        assert_eq!(head::from_text(&text), Some(sealed));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = head::from_text(text);
    }
    if let Some(body) = Announcement::decode(bytes) {
        assert!(bytes.len() <= limits::BODY_BYTES);
        assert_eq!(Announcement::decode(&body.encode()), Some(body));
    }
    if let Ok(beat) = Beat::decode(bytes) {
        assert_eq!(Beat::decode(&beat.encode()), Ok(beat.clone()));
        // Whatever follows a whole beat is read as one, or not at all.
        let now = Duration::ZERO;
        let mut reader = PacketReader::default();
        let whole = PacketWriter::default().write(&beat, now);
        let whole = whole.expect("the first one is sent");
        assert_eq!(reader.read(&whole, now), Ok(beat));
        let _ = reader.read(bytes, now);
    }
    let _ = PacketReader::default().read(bytes, Duration::ZERO);
}

/// A genesis, a batch, the contents of requests, and a snapshot.
pub fn ledger(bytes: &[u8]) {
    let genesis = SignedGenesis {
        bytes: bytes.to_vec(),
        signature: Vec::new(),
    };
    if let Ok(genesis) = genesis.peek()
        && genesis.rules <= RULES
    {
        assert_eq!(genesis.encode(), bytes);
    }
    if let Some(batch) = canonical::<Batch>(bytes, limits::BATCH_BYTES) {
        let _ = batch.position();
        if let Ok(header) = batch.read_header()
            && header.rules <= RULES
        {
            assert_eq!(header.encode(), batch.header);
        }
    }
    canonical::<SignedRecovery>(bytes, limits::HEADER_BYTES);
    canonical::<Recovery>(bytes, limits::HEADER_BYTES);
    for kind in 0..48 {
        if let Some(content) = Content::decode(kind, bytes) {
            let (kind, encoded) = content.encode();
            assert_eq!(Content::decode(kind, &encoded), Some(content));
        }
    }
    if let Some(state) = canonical::<State>(bytes, limits::BATCH_BYTES) {
        let snapshot = Snapshot::of(&state);
        assert!(codec::decode_large::<State>(&snapshot.bytes).is_ok());
    }
    for rules in 0..=RULES {
        if let Ok(state) = State::decode(bytes, rules) {
            assert_eq!(state.encode(), bytes);
        }
    }
}

/// Frames, and each message of theirs.
pub fn rpc(bytes: &[u8]) {
    let messages = |body: &[u8]| {
        let limit = limits::RPC_BYTES;
        canonical::<Hello>(body, limit);
        canonical::<Push>(body, limit);
        canonical::<HeadsQuery>(body, limit);
        canonical::<BodyQuery>(body, limit);
        canonical::<BucketsQuery>(body, limit);
        canonical::<BucketsAnswer>(body, limit);
        canonical::<HeadsOfQuery>(body, limit);
        canonical::<LedgerQuery>(body, limit);
        canonical::<Batches>(body, limit);
        canonical::<Propose>(body, limit);
        canonical::<Decided>(body, limit);
        let _ = codec::decode::<GivenInvites>(body, limit);
        canonical::<Submitted>(body, limit);
        canonical::<Spenders>(body, limit);
        canonical::<Relay>(body, limit);
        canonical::<Relayed>(body, limit);
        canonical::<RelayedAnswer>(body, limit);
        canonical::<TunnelSeen>(body, limit);
        canonical::<JoinHello>(body, limit);
        canonical::<Joined>(body, limit);
        canonical::<Renew>(body, limit);
        canonical::<IssuerKeys>(body, limit);
        canonical::<RaftProgress>(body, limit);
        canonical::<CutOffQuery>(body, limit);
        canonical::<CutOff>(body, limit);
        canonical::<RecoveryQuery>(body, limit);
        canonical::<RevocationsQuery>(body, limit);
        canonical::<SnapshotHead>(body, limit);
        canonical::<SnapshotPartQuery>(body, limit);
        canonical::<SnapshotQuery>(body, limit);
        canonical::<JoinQuery>(body, limit);
        canonical::<News>(body, limit);
        canonical::<AdmissionQuery>(body, limit);
        canonical::<AdmissionAnswer>(body, limit);
        canonical::<Endorse>(body, limit);
        canonical::<raft::Message>(body, limits::RAFT_MESSAGE_BYTES);
    };
    messages(bytes);
    if let Ok(frame) = RequestFrame::decode(bytes, limits::RPC_BYTES) {
        messages(&frame.body);
    }
    if let Ok(frame) = ResponseFrame::decode(bytes, limits::RPC_BYTES)
        && let Ok(body) = frame.into_result()
    {
        messages(&body);
    }
}

/// A join token and an admission code, as a person types them.
pub fn token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(code) = text.parse::<Code>()
    {
        assert_eq!(code.to_string().parse(), Ok(code), "{text}");
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(token) = Token::parse(text)
    {
        let again = Token::parse(&token.to_text());
        assert!(again.is_ok(), "{text}");
    }
}

/// The files of a state folder that are read at each start.
pub fn state(bytes: &[u8]) {
    if let Some(start) = Start::decode(bytes) {
        assert_eq!(Start::decode(&start.encode()), Some(start));
    }
    if let Ok(loaded) = file::parse(bytes.to_vec()) {
        let loaded = loaded.from(Start::decode(bytes));
        assert!(loaded.damage.is_none_or(|at| at <= bytes.len() as u64));
    }
    if let Some(kept) = Kept::parse(bytes) {
        assert!(bytes.len() <= limits::MEMBERSHIP_BYTES + 32);
        assert_eq!(codec::encode(&kept), bytes[32..], "{kept:?}");
    }
    let disk = SimDisk::default();
    let at = |path: &'static str| {
        disk.replace(Path::new(path), bytes)
            .now_or_never()
            .expect("a disk in memory")
            .expect("it works");
    };
    at("generation.a");
    let next = generation::next(&disk).now_or_never();
    assert!(!matches!(next, Some(Ok(0))), "no generation is zero");
    assert!(parse_holds(bytes).len() <= limits::HOLDS);
    at("peers.a");
    let paths = known::paths(&disk).now_or_never();
    assert!(paths.is_some());
}

/// A configuration, and the description of a service.
pub fn config(bytes: &[u8]) {
    let path = Path::new("config.toml");
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Config::parse(text, path);
    }
    let _ = config::parse_service(bytes, path);
}

/// The stored plan of the overlay's filter, and what `nft` lists.
pub fn overlay(bytes: &[u8]) {
    if let Some(plan) = overlay::stored::parse(bytes) {
        // No name in it says more to nftables than a name.
        let text = render(&plan, true);
        assert!(text.lines().all(|line| {
            ["add ", "flush ", "delete "]
                .iter()
                .any(|word| line.starts_with(word))
        }));
        let again = serde_json::to_vec(&plan).expect("it is JSON");
        assert_eq!(overlay::stored::parse(&again), Some(plan));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = overlay::parse_counters(text);
        for passage in Passage::ALL {
            let lost = [((passage, true), 1)].into();
            if let Ok(tunnel) = "im0".to_owned().try_into() {
                let lost = overlay::others::conclude(&lost, text, false, &tunnel);
                assert!(lost.len() == 1 && lost[0].by.len() <= limits::OTHER_FILTERS);
            }
        }
    }
}

/// The text of a policy, and what a small mesh's gateway enforces of it.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(policy) = Policy::parse(text) else {
        return;
    };
    let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let name = |text: &str| -> Label { text.parse().expect("a name") };
    let me = NodeId([1; 16]);
    let own = BTreeSet::from([ip("10.77.1.1"), ip("fd77::1:1")]);
    let node = NodeEntry {
        id: me,
        addresses: own.clone(),
    };
    let phone = DeviceEntry {
        addresses: [ip("10.77.9.1"), ip("fd77::9:1")].into(),
        gateways: [me].into(),
        ..DeviceEntry::default()
    };
    let photos = InstanceEntry {
        addresses: own.clone(),
        ports: ServicePorts::Known(Ports::Tcp(443, 443)),
    };
    let directory = Directory {
        networks: ["10.77.0.0/16", "fd77::/48"]
            .map(|net| net.parse().expect("a network"))
            .into(),
        resolvers: [ip("10.77.0.53")].into(),
        nodes: [(name("alpha"), node)].into(),
        devices: [(name("phone"), phone)].into(),
        services: [(
            name("photos"),
            ServiceEntry {
                instances: [photos].into(),
            },
        )]
        .into(),
        routes: [("192.168.5.0/24".parse().expect("a network"), [me].into())].into(),
        exits: [me].into(),
    };
    let _ = policy::check(&policy, &directory);
    let _ = policy::unknown_names(&policy, &directory);
    let _ = policy::notes(&policy, &directory);
    let place = Place {
        me,
        own,
        is_gateway: true,
        is_exit: true,
        served: [Ports::Udp(53, 53)].into(),
    };
    let access = policy::compile(&policy, &directory, &place);
    assert!(access.is_bounded());
    // What one of a pair may, the whole policy says it may.
    let whole = policy::everywhere(&policy, &directory);
    for (from, to) in [("10.77.9.1", "10.77.1.1"), ("192.168.5.7", "10.77.1.1")] {
        for flow in [Flow::Tcp(22), Flow::Udp(5353), Flow::Other] {
            let passes = |plan: &AccessPlan| {
                plan.passes(&directory.networks, ip(from), ip(to), flow)
                    .is_some()
            };
            assert_eq!(passes(&access), passes(&whole));
        }
    }
    // No word of it says more to nftables than an address or a port.
    let host = HostNetworks::default();
    let interface = "im0".to_owned().try_into().expect("a name");
    let mut plan = FilterPlan::new(
        interface,
        directory.networks.clone(),
        place.own.clone(),
        directory.resolvers.clone(),
        &host,
        |_| true,
    );
    plan.access = access;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " \"_-.:,{}@!=;/+".contains(c);
    assert!(
        render(&plan, true)
            .lines()
            .all(|line| line.chars().all(is_plain))
    );
}

/// What an inviter signed, as it stands in a token and in a request: no two
/// encodings say the same.
pub fn grant(bytes: &[u8]) {
    let sealed = Sealed {
        bytes: bytes.to_vec(),
        signature: Signature::from_bytes(&[0; 64]),
    };
    if let Ok(grant) = Grant::peek(&sealed) {
        let again = grant.seal(&Ed25519::from_seed(&[1; 32]));
        assert_eq!(again.bytes, bytes, "{grant:?}");
    }
}

/// A message of an upstream name server: what is kept of it is kept again.
pub fn upstream(bytes: &[u8]) {
    if let Some(kept) = dns::relevant(bytes) {
        assert_eq!(dns::relevant(&kept), Some(kept));
    }
}

/// What comes in a packet of its own: a question of DNS, the reply to a ping.
pub fn packet(bytes: &[u8]) {
    if let Some(reply) = dns::formerr(bytes) {
        assert!(reply.len() <= bytes.len() + 11, "it gives little back");
        assert_eq!(reply.get(..2), bytes.get(..2));
        assert_eq!(dns::formerr(&reply), None, "two servers end there");
    }
    for (is_ipv4, has_header) in [(true, true), (true, false), (false, false)] {
        if let Some(data) = echo::reply(bytes, is_ipv4, has_header) {
            assert!(bytes.ends_with(data));
        }
    }
}

/// A request for a zone's transfer and the answer to a NOTIFY, signed or not; and the
/// key of a secondary as a person gives it.
pub fn transfer(bytes: &[u8]) {
    dns::read_transfer_message(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let name = "ns2.lab.internal".parse().expect("a name");
        if let Ok(key) = dns::SharedKey::parse(text, name, dns::Algorithm::Sha256) {
            let again = key.secret_text();
            let again = dns::SharedKey::parse(&again, key.name.clone(), key.algorithm);
            assert_eq!(again, Ok(key));
        }
    }
}

/// A question of DNS as it came: what is answered at once, from what was encoded
/// before, is byte for byte what the careful path says.
pub fn question(bytes: &[u8]) {
    static DNS: LazyLock<dns::Dns> = LazyLock::new(questions::dns);
    let sources = [IpAddr::from([127, 0, 0, 1]), questions::STRANGER];
    for (source, is_udp) in sources.into_iter().flat_map(|ip| [(ip, true), (ip, false)]) {
        // Nothing is forwarded, so nothing waits.
        let both = DNS.both_ways(bytes, source, is_udp).now_or_never();
        let both = both.expect("nothing waits");
        if both.prompt.is_some() {
            assert_eq!(both.prompt, both.careful, "from {source}");
        }
    }
}

/// A request of DNS over HTTPS: method, path, query and content type, each a line.
pub fn https(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut text = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (Some(method), Some(path), query) = (text(), text(), text()) else {
        return;
    };
    let content_type = lines.next();
    match dns::DnsRequest::read(method, path, query, content_type) {
        Ok(dns::DnsRequest::Message(message)) => {
            assert!(message.len() <= bytes.len());
            let text = data_encoding::BASE64URL_NOPAD.encode(&message);
            let query = format!("dns={text}");
            let again = dns::DnsRequest::read("GET", path, Some(&query), None);
            assert_eq!(again, Ok(dns::DnsRequest::Message(message)));
        }
        Ok(dns::DnsRequest::InBody) => assert_eq!(method, "POST"),
        Err(error) => assert!((400..500).contains(&error.status())),
    }
}

/// A name server as a person writes it: what is read says the same again.
pub fn name_server(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(server) = text.parse::<dns::NameServer>()
    {
        assert_eq!(server.to_string().parse(), Ok(server), "{text}");
    }
}

/// A stranger's question to a sinkhole: the answer repeats its id, is a whole message, and
/// over UDP no longer than every client takes.
pub fn stranger(bytes: &[u8]) {
    static DNS: LazyLock<dns::PublicDns> = LazyLock::new(questions::public);
    for is_udp in [true, false] {
        let mut reply = Vec::new();
        DNS.respond(bytes, questions::STRANGER, is_udp, &mut reply);
        if !reply.is_empty() {
            assert_eq!(reply.get(..2), bytes.get(..2));
            assert!(reply.len() >= 12 && reply[2] & 0x80 != 0, "{reply:?}");
            assert!(!is_udp || reply.len() <= usize::from(limits::DNS_UDP_BYTES));
            assert_eq!(reply[3] & 0x80, 0, "no recursion");
        }
    }
}

/// A revocation list, as a peer hands it out and as it is kept on disk.
pub fn revocations(bytes: &[u8]) {
    if let Ok(list) = RevocationList::parse(bytes) {
        assert!(bytes.len() <= limits::REVOCATION_LIST_BYTES);
        assert!(list.this_update_ms < list.next_update_ms);
        assert!(list.number.checked_add(1).is_some());
        // Nothing stands behind what was signed.
        let mut more = bytes.to_vec();
        more.push(0);
        assert!(RevocationList::parse(&more).is_err());
    }
}
