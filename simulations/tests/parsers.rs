//! The seeds of the fuzz targets, and what is near them, run as ordinary tests.

#![allow(
    clippy::disallowed_methods,
    reason = "the seeds are files of this repository"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use innermesh_agent::{
    ca::{Issuer, Root, revocations::ListPlan},
    enroll::token::Token,
    host::{
        Disk,
        keys::{Ed25519, Keys, SystemKeys},
    },
};
use innermesh_proto::{
    admission::{
        AdmissionAnswer, AdmissionQuery, Ask, Asking, Ending, KeyReveal, KeyedWait, News, Offer,
        Reveal, Verdict, Wait,
    },
    certificate::Serial,
    codec,
    crypto::{Hash, Sealed, Signature},
    head::Announcement,
    hold::Hold,
    ledger::{
        Content, Grant, Recovery, Role, SignedRecovery, Snapshot, State,
        record::RecordData,
        request::{
            AddRecord, Admit, Evict, HoldId, KeyedAdmit, Promote, RemoveRecords, RosterChange,
            Share, Unhold,
        },
    },
    message::{JoinQuery, Propose, Push, PushedHead},
    name::NamePattern,
    rpc::{RequestFrame, method},
    tunnel::TunnelKey,
    zone::{DomainName, RecordType},
};
use simulations::{
    World,
    mesh::{found, invite, join, resolve, until},
    parsers,
    random::Random,
};

/// A question with an OPT record.
fn question() -> Vec<u8> {
    let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    let name = b"\x06photos\x03lab\x08internal\x00\0\x01\0\x01";
    let opt = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
    [&header[..], name, &opt].concat()
}

/// What a router answers by each protocol.
fn router_answers() -> Vec<(&'static str, Vec<u8>)> {
    let pcp = [
        &[2, 0x81, 0, 0, 0, 0, 0x1c, 0x20, 0, 0, 0, 9][..],
        &[0; 12],
        b"twelve bytes",
        &[17, 0, 0, 0, 0xca, 0x6c, 0xca, 0x6c],
        &[0; 10],
        &[0xff, 0xff, 203, 0, 113, 7],
    ];
    let found = "HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\n\
                 Location: http://192.168.1.1:5000/root.xml\r\n\r\n";
    let service = "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1\
                   </serviceType><controlURL>ctl?a&amp;b</controlURL></service>";
    let fault = "<s:Fault><errorCode>718</errorCode><errorDescription>Conflict</errorDescription>";
    let entry = "<NewInternalPort>51820</NewInternalPort><NewInternalClient>192.168.1.7\
                 </NewInternalClient><NewExternalIPAddress>203.0.113.7</NewExternalIPAddress>";
    let page = |text: &str| {
        let length = text.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}").into_bytes()
    };
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n<a/>\r\n0\r\n\r\n";
    vec![
        ("pcp", pcp.concat()),
        (
            "nat-pmp-address",
            vec![0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7],
        ),
        (
            "nat-pmp",
            [
                &[0, 129, 0, 0, 0, 0, 0, 9][..],
                &[0xca, 0x6c, 0x9c, 0x41, 0, 0, 2, 0x58],
            ]
            .concat(),
        ),
        ("found", found.into()),
        (
            "services",
            page(&format!("<root>{service}{service}</root>")),
        ),
        ("fault", page(fault)),
        ("entry", page(entry)),
        ("chunked", chunked.into()),
    ]
}

/// Questions that differ in what is answered, with recursion desired.
fn questions() -> Vec<(&'static str, Vec<u8>)> {
    let plain = |name: &[u8], rtype: u8| {
        let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&header[..], name, &[0, rtype, 0, 1]].concat()
    };
    let mut cookie = plain(b"\x03Big\x03lAb\x08Internal\0", 1);
    cookie[11] = 1;
    cookie.extend([0, 0, 41, 4, 208, 0, 0, 128, 0, 0, 12, 0, 10, 0, 8]);
    cookie.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    vec![
        ("alias", plain(b"\x05alias\x03lab\x08internal\0", 1)),
        (
            "reverse",
            plain(b"\x011\x010\x0277\x0210\x07in-addr\x04arpa\0", 12),
        ),
        ("missing", plain(b"\x04none\x03lab\x08internal\0", 28)),
        (
            "service",
            plain(b"\x04_web\x04_tcp\x03lab\x08internal\0", 33),
        ),
        ("cookie", cookie),
    ]
}

/// A key as tsig-keygen prints it. The messages beside it are dig's.
const KEY: &str = "key \"ns2.lab.internal\" {\n\talgorithm hmac-sha256;\n\tsecret \
                   \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\";\n};\n";

/// What is text: heads of requests, and name servers.
fn texts() -> [(&'static str, &'static str, &'static str); 6] {
    [
        (
            "https",
            "get",
            "GET\n/dns-query\ndns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB",
        ),
        (
            "https",
            "post",
            "POST\n/dns-query\n\napplication/dns-message",
        ),
        ("name_server", "address", "[2620:fe::fe]:5353"),
        ("name_server", "tls", "tls://9.9.9.9:8853#dns.quad9.net"),
        (
            "name_server",
            "https",
            "https://9.9.9.9/dns-query#dns.quad9.net",
        ),
        (
            "name_server",
            "pinned",
            "tls://192.0.2.1?pin=qQRtgLwPkHm9A0IqPzDCLLdqG8Pf5oy4zFKOr0SzAgU=",
        ),
    ]
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

#[test]
fn the_seeds_and_what_is_near_them_are_read_without_harm() {
    for (target, read) in parsers::ALL {
        let mut seeds = 0;
        for entry in fs::read_dir(corpus(target)).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            seeds += 1;
            read(&bytes);
            let mut random = Random::named(1, target);
            for _ in 0..300 {
                let at = random.below(bytes.len() as u64) as usize;
                read(&bytes[..at]);
                let mut other = bytes.clone();
                other[at] ^= 1 << random.below(8);
                read(&other);
                // A length that is claimed and isn't there.
                other[at] = 253 + random.below(3) as u8;
                read(&other);
                other.push(0);
                read(&other);
            }
        }
        assert!(seeds > 0, "{target} has no seeds");
        read(b"");
    }
}

/// Events in any order, as no seed has them.
#[test]
fn ways_are_chosen_by_what_was_heard_whatever_happens() {
    let mut random = Random::named(1, "way");
    for _ in 0..5000 {
        let events: Vec<u8> = (0..180).map(|_| random.below(256) as u8).collect();
        parsers::way(&events);
    }
}

#[tokio::test(start_paused = true)]
#[ignore = "writes the seeds of the fuzz targets anew"]
async fn the_seeds_are_written_from_a_small_mesh() {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let folder = corpus(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    };
    let mut world = World::new(1);
    let (one, two) = (world.machine("one"), world.machine("two"));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    until("they have met", Duration::from_secs(10), async || {
        !resolve(&first, "two").await.is_empty() && first.heads().len() == 1
    })
    .await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let invited = invite(&first).await.unwrap();
    put("token", "one-use", invited.as_bytes());
    let plain = Token::parse(&invited).unwrap().grant;
    put("grant", "plain", &plain.bytes);
    let mut wide = Grant::peek(&plain).unwrap();
    wide.addresses = ["192.168.1.0/24", "2001:db8::/64"]
        .map(|net| net.parse().unwrap())
        .into();
    let wide = wide.seal(&Ed25519::from_seed(&[1; 32]));
    put("grant", "addresses", &wide.bytes);
    put("upstream", "alias", &upstream_message());
    let pong = [&[0x45; 20][..], &[0, 0, 1, 2, 3, 4, 5, 6], b"data"].concat();
    put("packet", "pong", &pong);
    put("packet", "question", &question());
    put("question", "plain", &question());
    for (name, asked) in questions() {
        put("question", name, &asked);
        put("stranger", name, &asked);
    }
    put("transfer", "key", KEY.as_bytes());
    for (target, name, text) in texts() {
        put(target, name, text.as_bytes());
    }
    for (name, answer) in router_answers() {
        put("router", name, &answer);
    }
    let state = first.view().borrow().ledger.clone();
    put("ledger", "snapshot", &Snapshot::of(&state).bytes);
    for content in contents(&state) {
        let (kind, bytes) = content.encode();
        let hash = Hash::of(&bytes).to_string();
        put("ledger", &format!("content-{kind}-{hash:.4}"), &bytes);
    }
    let recovery = Recovery {
        mesh: state.mesh,
        number: 1,
        position: state.position,
        roster: state.roster_keys().values().copied().collect(),
        issuers: Vec::new(),
    };
    let signed = SignedRecovery {
        bytes: codec::encode(&recovery),
        signature: vec![0x30; 70],
    };
    put("ledger", "recovery", &signed.bytes);
    put("ledger", "signed-recovery", &codec::encode(&signed));
    let (_, head) = first.heads().remove(0);
    put("head", "sealed", &codec::encode(&head));
    let body = second.view().borrow().nodes[&second.view().borrow().me]
        .announcement
        .encode();
    put("head", "body", &body);
    let push = Push {
        heads: vec![PushedHead {
            head: head.clone(),
            body: Some(body),
        }],
    };
    let frame = RequestFrame::new(method::PUSH, 0, None, codec::encode(&push));
    put("rpc", "push", &frame.encode());
    for (name, message) in admission(&state) {
        put("rpc", name, &message);
    }
    put("token", "code", b"abcd-EFGH ijkm");
    let hold = Hold {
        id: HoldId([3; 16]),
        node: *state.members.keys().next().expect("a member"),
    };
    let holding = Announcement {
        holds: vec![hold],
        ..Announcement::default()
    };
    put("head", "holding", &holding.encode());
    put("state", "holds", &codec::encode(&vec![hold]));
    let propose = codec::encode(&Propose { request: head });
    put("rpc", "propose", &propose);
    second.stop().await;
    for file in [
        "ledger",
        "peers.a",
        "peers.b",
        "generation.a",
        "generation.b",
    ] {
        if let Some(bytes) = two.disk.read(Path::new(file)).await.unwrap() {
            put("state", file, &bytes);
        }
    }
    let ledger = two.disk.read(Path::new("ledger")).await.unwrap().unwrap();
    let loaded = innermesh_agent::ledger::file::parse(ledger).unwrap();
    put("ledger", "genesis", &loaded.genesis.bytes);
    for (number, batch) in loaded.batches.iter().enumerate() {
        put("ledger", &format!("batch-{number}"), &codec::encode(batch));
        for (entry, sealed) in requests(batch).iter().enumerate() {
            put(
                "ledger",
                &format!("request-{number}-{entry}"),
                &codec::encode(sealed),
            );
        }
    }
    let config = "listen = [\"[::]:51819\"]\n\n[log]\nformat = \"json\"\n";
    put("config", "short", config.as_bytes());
    put("config", "service", b"port = 443\nprotocol = \"tcp\"\n");
    put(
        "overlay",
        "plan",
        br#"{"interface": "im0", "networks": ["10.77.0.0/16"], "own": ["10.77.1.1"],
            "resolvers": ["10.77.0.53"], "containers_reach_mesh": true,
            "containers": [{"bridge": "docker0", "subnet": "172.17.0.0/16"}]}"#,
    );
    put(
        "overlay",
        "counters",
        br#"{"nftables": [{"counter": {"name": "leak", "table": "innermesh", "packets": 7}}]}"#,
    );
    put("datagram", "session", &parsers::recorded());
    for (name, text) in docker() {
        put("docker", name, text.as_bytes());
    }
    let rule = "allow=[{from=[\"devices\"],to=[\"members:*\"]}]\n";
    put("policy", "rule", rule.as_bytes());
    for (name, revoked) in [("empty", 0), ("three", 3)] {
        put("revocations", name, &revocation_list(revoked));
    }
}

/// What Docker says of a container with labels, and its own configuration.
fn docker() -> [(&'static str, String); 5] {
    let id = "e90e34656806f4b1f6d9d7a6f0b1a4f2b1b6a6d5c4b3a29180706050403020ff";
    let event = |action: &str| {
        format!(
            r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{id}","Attributes":{{"innermesh.name":"photos"}}}},"timeNano":1}}"#
        ) + "\n"
    };
    let state = r#""State":{"Running":true,"Paused":false,"Restarting":false,"StartedAt":"2026-11-29T20:00:01.5Z","Health":{"Status":"healthy"}}"#;
    let labels = r#""Labels":{"innermesh.name":"photos","innermesh.port":"80","innermesh.proto":"tcp","innermesh.check":"http://localhost:8080/health"}"#;
    let ports = r#""Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"90/udp":null}"#;
    let inspect = format!(
        r#"{{"Id":"{id}","Name":"/web","Image":"sha256:{id}",{state},"Config":{{{labels}}},"HostConfig":{{"NetworkMode":"default"}},"NetworkSettings":{{{ports}}}}}"#
    );
    [
        ("inspect", inspect),
        (
            "list",
            format!(r#"[{{"Id":"{id}","Labels":{{"innermesh.name":"photos"}}}}]"#),
        ),
        (
            "image",
            r#"{"Config":{"Labels":{"innermesh.name":"photos"}}}"#.to_owned(),
        ),
        ("events", event("health_status: healthy") + &event("die")),
        (
            "daemon",
            "{\n  \"log-driver\": \"journald\",\n  \"dns\": [\"9.9.9.9\"]\n}\n".to_owned(),
        ),
    ]
}

/// An alias that leads to a signed address, proof that nothing stands nearer, and
/// what is about something else.
fn upstream_message() -> Vec<u8> {
    const CLASS_TTL: [u8; 6] = [0, 1, 0, 0, 0, 60];
    fn name(text: &str) -> Vec<u8> {
        let labels = text.split('.').filter(|label| !label.is_empty());
        let mut out = Vec::new();
        for label in labels {
            out.push(label.len() as u8);
            out.extend(label.bytes());
        }
        out.push(0);
        out
    }
    fn record(owner: &str, rtype: u16, data: &[u8]) -> Vec<u8> {
        let mut out = name(owner);
        out.extend(rtype.to_be_bytes());
        out.extend(CLASS_TTL);
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
        out
    }
    fn signature(owner: &str, covers: u16) -> Vec<u8> {
        let mut data = covers.to_be_bytes().to_vec();
        data.extend([13, 3, 0, 0, 0, 60, 0x70, 0, 0, 0, 0x60, 0, 0, 0, 0, 9]);
        data.extend(name("example.org"));
        data.extend([0x5a; 64]);
        record(owner, 46, &data)
    }
    let mut nsec = name("a.example.org");
    nsec.extend([0, 1, 0x40]);
    let mut out = vec![0, 1, 0x81, 0x80, 0, 1, 0, 4, 0, 3, 0, 1];
    out.extend(name("X.example.org"));
    out.extend([0, 1, 0, 1]);
    let records = [
        record("X.example.org", 5, &name("y.example.org")),
        signature("X.example.org", 5),
        record("y.example.org", 1, &[192, 0, 2, 1]),
        signature("y.example.org", 1),
        record("w.example.org", 47, &nsec),
        signature("w.example.org", 47),
        record("example.org", 2, &name("ns.bank.test")),
        record("ns.bank.test", 1, &[192, 0, 2, 66]),
    ];
    out.extend(records.concat());
    out
}

/// A list of a new issuer with so many entries.
fn revocation_list(revoked: u8) -> Vec<u8> {
    let keys = SystemKeys;
    let now_ms = 1_790_000_000_000;
    let domain = "lab.internal".parse().expect("a domain");
    let net = "10.77.0.0/16".parse().expect("a network");
    let root = Root::generate(keys.generate_p256(), &domain, net, now_ms, &keys).expect("a root");
    let key = keys.generate_p256();
    let der = root.issuer(&key.spki(), now_ms, &keys).expect("an issuer");
    let plan = ListPlan {
        number: now_ms / 1000,
        now_ms,
        revoked: (0..revoked)
            .map(|n| (Serial([n + 1; 16]), now_ms - 1000))
            .collect(),
    };
    let issuer = Issuer::new(key, der).expect("its own certificate");
    issuer.sign_list(&plan, &keys).expect("a list")
}

/// One of each message by which a machine is let in without a token.
fn admission(state: &State) -> Vec<(&'static str, Vec<u8>)> {
    let member = state.members.values().next().expect("a member");
    let (node, name) = (member.key, member.name.clone());
    let signature = Signature::from_bytes(&[2; 64]);
    let commitment = Hash([4; 32]);
    let reveal = Reveal {
        nonce: [5; 32],
        possession: signature,
    };
    let offer = Offer {
        admin: node,
        nonce: [6; 32],
        position: state.position,
    };
    let ask = JoinQuery::Ask(Ask {
        node,
        name: name.clone(),
        commitment,
        possession: signature,
    });
    let wait = Wait {
        node,
        possession: signature,
        reveal: Some(reveal.clone()),
    };
    let key = KeyReveal {
        tunnel: TunnelKey([8; 32]),
        possession: signature,
    };
    let keyed_wait = JoinQuery::KeyedWait(KeyedWait {
        wait: wait.clone(),
        key: key.clone(),
    });
    let asking = Asking {
        node,
        name,
        remote: "192.0.2.7:4000".parse().expect("an address"),
        commitment,
        age_ms: 5,
        admin: Some(node.node_id()),
    };
    let refused = Ending::Refused("no".into());
    let end = AdmissionQuery::End(commitment, Verdict::Ended(refused.clone()));
    vec![
        ("ask", codec::encode(&ask)),
        ("wait", codec::encode(&JoinQuery::Wait(wait))),
        ("keyed-wait", codec::encode(&keyed_wait)),
        ("key", codec::encode(&AdmissionAnswer::Key(Some(key)))),
        ("ask-key", codec::encode(&AdmissionQuery::Key(commitment))),
        ("offer", codec::encode(&News::Offer(offer))),
        ("ended", codec::encode(&News::Ended(refused))),
        ("end", codec::encode(&end)),
        (
            "asking",
            codec::encode(&AdmissionAnswer::List(vec![asking])),
        ),
        (
            "reveal",
            codec::encode(&AdmissionAnswer::Reveal(Some(reveal))),
        ),
    ]
}

fn requests(batch: &innermesh_proto::ledger::Batch) -> Vec<Sealed> {
    let entries = batch.entries.iter();
    entries.map(|entry| entry.request.clone()).collect()
}

/// One content of each kind that a small mesh doesn't come to by itself.
fn contents(state: &State) -> Vec<Content> {
    let (node, member) = state.members.iter().next().expect("a member");
    let serial = member.certificate.expect("every member has one");
    let name: DomainName = "tv.lab.internal".parse().expect("a name");
    let records = [
        (RecordType::A, "192.0.2.9"),
        (RecordType::TXT, "v=spf1 -all"),
        (RecordType::SRV, "1 2 3 one.lab.internal"),
        (RecordType::MX, "10 one.lab.internal"),
        (RecordType::CAA, "0 issue \"ca.example.org\""),
    ];
    let admit = Admit {
        node: member.key,
        name: "two".parse().expect("a label"),
        roles: [Role::Relay].into(),
        names: [NamePattern::any()].into(),
        routes: ["192.0.2.0/24".parse().expect("a network")].into(),
        transcript: [1; 32],
        possession: Signature::from_bytes(&[2; 64]),
    };
    let issuers = state.issuers.values();
    let mut all = vec![
        Content::Unshare(Share {
            name: "wiki".parse().expect("a label"),
            with: *node,
        }),
        Content::Admit(Box::new(admit.clone())),
        Content::KeyedAdmit(Box::new(KeyedAdmit {
            admit,
            tunnel: TunnelKey([8; 32]),
        })),
        Content::TunnelKey(TunnelKey([8; 32])),
        Content::Promote(Promote {
            node: *node,
            issuers: issuers
                .map(|issuer| issuer.certificate.der().to_vec())
                .collect(),
        }),
        Content::Demote(*node),
        Content::Roster(RosterChange {
            voters: state.roster.clone(),
        }),
        Content::Evict(Evict {
            node: *node,
            hold: Some(HoldId([3; 16])),
            root: Some(vec![0x30; 70]),
        }),
        Content::Unhold(Unhold {
            author: *node,
            hold: HoldId([3; 16]),
        }),
        Content::Revoke(serial),
        Content::RemoveRecords(RemoveRecords {
            name: name.clone(),
            rtype: RecordType::TXT.0,
        }),
    ];
    for (rtype, text) in records {
        all.push(Content::AddRecord(AddRecord {
            name: name.clone(),
            data: RecordData::parse(rtype, text).expect("a record"),
            ttl_s: None,
            public: true,
        }));
    }
    all
}
