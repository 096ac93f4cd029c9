use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use hickory_server::{net::xfer::Protocol, proto::op::Message as WireMessage};
use innermesh_host::{Clock, Mono};
use innermesh_proto::limits;

use super::{
    Algorithm, Secondary, SharedKey, Transfers,
    answer::{Answer, Ended, Transfer},
    journal::tests::content,
    message::{
        AXFR, IXFR, Message, NOTIFY, QR, SOA,
        tests::{question, soa},
    },
    notify::{NoticeState, Notifier},
    secondary::Grant,
    tsig::{BADKEY, BADSIG, BADTIME, BADTRUNC, Key, Refusal, Signer},
};

const NOW_S: u64 = 1_790_000_000;
const SECRET: [u8; 32] = [7; 32];

struct Stopped;

#[async_trait]
impl Clock for Stopped {
    fn now(&self) -> Mono {
        Duration::from_secs(100)
    }

    fn wall_ms(&self) -> u64 {
        NOW_S * 1000
    }

    async fn sleep(&self, _: Duration) {
        std::future::pending().await
    }
}

fn source(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 4321).into()
}

fn secondary(name: &str, last: u8) -> Secondary {
    Secondary {
        name: name.parse().unwrap(),
        key: SharedKey {
            name: format!("{name}.lab.internal").parse().unwrap(),
            algorithm: Algorithm::Sha256,
            secret: SECRET.to_vec(),
        },
        addresses: vec![([192, 0, 2, last], 53).into()],
        zones: Vec::new(),
        listen: ([192, 0, 2, 1], 53).into(),
    }
}

fn key(name: &str, secret: &[u8]) -> Key {
    let name = format!("{name}.lab.internal").parse().unwrap();
    Key::new(name, Algorithm::Sha256, secret)
}

/// With `ns2` at 192.0.2.2, and a zone of so many hosts.
fn transfers(hosts: u16) -> Arc<Transfers> {
    let transfers = Transfers::new(Arc::new(Stopped));
    transfers.grant(vec![secondary("ns2", 2)]);
    transfers.publish(vec![(content(0..hosts), 10)]);
    transfers
}

/// A signed request, and its MAC.
fn request(key: &Key, qtype: u16, serial: Option<u32>, now_s: u64) -> (Vec<u8>, Vec<u8>) {
    let soa = serial.map(soa);
    let records: Vec<&[u8]> = soa.iter().map(Vec::as_slice).collect();
    let mut bytes = question(qtype, [0, records.len() as u8, 0], &records);
    let mac = Signer::request(key).sign(&mut bytes, 0, now_s);
    (bytes, mac)
}

fn message(answer: Option<Answer>) -> Vec<u8> {
    match answer {
        Some(Answer::Message(bytes)) => bytes,
        Some(Answer::Transfer(_)) => panic!("a transfer"),
        None => panic!("no answer"),
    }
}

fn transfer(transfers: &Arc<Transfers>, bytes: &[u8]) -> Box<Transfer> {
    match transfers.answer(bytes, source(2), Protocol::Tcp) {
        Some(Answer::Transfer(transfer)) => transfer,
        Some(Answer::Message(bytes)) => panic!("{bytes:?}"),
        None => panic!("no answer"),
    }
}

/// All messages of a transfer, each checked to be signed behind the one before, and
/// the SOA serials and the number of all other records between them.
fn fetch(transfers: &Arc<Transfers>, qtype: u16, serial: Option<u32>) -> (usize, Vec<String>) {
    let key = key("ns2", &SECRET);
    let (bytes, mac) = request(&key, qtype, serial, NOW_S);
    let mut transfer = transfer(transfers, &bytes);
    let mut checker = Signer::answer(&key, &mac);
    let (mut messages, mut told) = (0, Vec::new());
    let mut others = 0;
    loop {
        let mut out = Vec::new();
        let more = transfer.next(&mut out).unwrap();
        messages += 1;
        let read = Message::read(&out).unwrap();
        let tsig = read.tsig.clone().unwrap();
        let mut again = out[..tsig.start].to_vec();
        let count = u16::from_be_bytes([again[10], again[11]]) - 1;
        again[10..12].copy_from_slice(&count.to_be_bytes());
        assert_eq!(checker.sign(&mut again, 0, tsig.time_s), tsig.mac);
        assert_eq!(again, out);
        for record in WireMessage::from_vec(&out).unwrap().answers {
            if record.record_type().to_string() == "SOA" {
                if others > 0 {
                    told.push(format!("{others} records"));
                    others = 0;
                }
                let text = record.data.to_string();
                told.push(text.split_whitespace().nth(2).unwrap().to_owned());
            } else {
                others += 1;
            }
        }
        if !more {
            transfer.finished();
            return (messages, told);
        }
    }
}

#[test]
fn the_whole_zone_comes_in_as_many_messages_as_it_needs() {
    let transfers = transfers(5_000);
    let (messages, told) = fetch(&transfers, AXFR, None);
    assert_eq!(told, ["10", "5000 records", "10"]);
    assert!((5..20).contains(&messages), "{messages}");
    let (messages, told) = fetch(&self::transfers(3), AXFR, None);
    assert_eq!((messages, told.len()), (1, 3));
}

#[test]
fn changes_alone_are_sent_from_a_serial_that_this_node_gave() {
    let transfers = transfers(100);
    // It may have that number from another primary, for something else.
    transfers.publish(vec![(content(0..101), 11)]);
    assert_eq!(
        fetch(&transfers, IXFR, Some(10)).1,
        ["11", "101 records", "11"]
    );
    transfers.publish(vec![(content(1..102), 12)]);
    transfers.publish(vec![(content(1..103), 15)]);
    let told = fetch(&transfers, IXFR, Some(11)).1;
    let expected = [
        "15",
        "11",
        "1 records",
        "12",
        "1 records",
        "12",
        "15",
        "1 records",
        "15",
    ];
    assert_eq!(told, expected);
    // The journal doesn't reach so far, or never had it.
    assert_eq!(fetch(&transfers, IXFR, Some(3)).1.len(), 3);
    let report = &transfers.report(&secondary("ns2", 2))[0];
    assert_eq!(report.fetched.unwrap().serial, 15);
}

#[test]
fn who_is_up_to_date_or_asks_over_udp_gets_one_soa() {
    let transfers = transfers(100);
    transfers.publish(vec![(content(0..101), 11)]);
    let key = key("ns2", &SECRET);
    for (serial, protocol) in [
        (11, Protocol::Tcp),
        (12, Protocol::Tcp),
        (11, Protocol::Udp),
        (10, Protocol::Udp),
    ] {
        let (bytes, mac) = request(&key, IXFR, Some(serial), NOW_S);
        let reply = message(transfers.answer(&bytes, source(2), protocol));
        let read = Message::read(&reply).unwrap();
        let tsig = read.tsig.clone().unwrap();
        assert_eq!(key.verify(&read, &tsig, Some(&mac), NOW_S), Ok(()));
        let answers = WireMessage::from_vec(&reply).unwrap().answers;
        assert_eq!(answers.len(), 1);
        assert!(
            answers[0].data.to_string().contains(" 11 60 30 "),
            "{answers:?}"
        );
        assert!(reply.len() < bytes.len() + 64, "no amplification");
    }
    let (bytes, _) = request(&key, AXFR, None, NOW_S);
    let reply = message(transfers.answer(&bytes, source(2), Protocol::Udp));
    assert_eq!(reply[3] & 0xf, 1);
}

/// The response code and the TSIG error of what is said.
fn codes(reply: &[u8]) -> (u8, u16, bool) {
    let read = Message::read(reply).unwrap();
    let tsig = read.tsig.unwrap();
    (reply[3] & 0xf, tsig.error, !tsig.mac.is_empty())
}

#[test]
fn a_wrong_signature_is_refused_with_the_error_that_says_why() {
    let transfers = transfers(10);
    let good = key("ns2", &SECRET);
    let ask = |bytes: &[u8]| message(transfers.answer(bytes, source(2), Protocol::Tcp));
    let (bytes, _) = request(&key("ns3", &SECRET), AXFR, None, NOW_S);
    assert_eq!(codes(&ask(&bytes)), (9, BADKEY, false));
    let (bytes, _) = request(&key("ns2", &[8; 32]), AXFR, None, NOW_S);
    assert_eq!(codes(&ask(&bytes)), (9, BADSIG, false));
    let (mut bytes, _) = request(&good, AXFR, None, NOW_S);
    // Recursion desired: whatever is changed is noticed.
    bytes[2] ^= 1;
    assert_eq!(codes(&ask(&bytes)), (9, BADSIG, false));
    for wrong in [NOW_S - 301, NOW_S + 301, 0] {
        let (bytes, mac) = request(&good, AXFR, None, wrong);
        let reply = ask(&bytes);
        assert_eq!(codes(&reply), (9, BADTIME, true));
        let read = Message::read(&reply).unwrap();
        let tsig = read.tsig.clone().unwrap();
        assert_eq!(tsig.other, &NOW_S.to_be_bytes()[2..]);
        assert_eq!(good.verify(&read, &tsig, Some(&mac), wrong), Ok(()));
    }
    let (bytes, _) = request(&good, AXFR, None, NOW_S - 300);
    transfer(&transfers, &bytes);
    let (bytes, _) = request(&good, AXFR, None, NOW_S);
    let cut = |length: u8| {
        let start = Message::read(&bytes).unwrap().tsig.unwrap().start;
        let mut cut = bytes.clone();
        let mac = start + 18 + 10 + 13 + 8;
        cut[mac + 1] = length;
        cut.drain(mac + 2 + usize::from(length)..mac + 2 + 32);
        let data = u16::from(length) + 29;
        let at = start + 18 + 8;
        cut[at..at + 2].copy_from_slice(&data.to_be_bytes());
        cut
    };
    assert_eq!(codes(&ask(&cut(16))), (9, BADTRUNC, true));
    // Shorter than half, which could be found by trying.
    let reply = ask(&cut(15));
    assert_eq!(reply[3] & 0xf, 1);
}

#[test]
fn nobody_else_is_answered_and_nothing_unsigned_is() {
    let transfers = transfers(10);
    let (bytes, _) = request(&key("ns2", &SECRET), AXFR, None, NOW_S);
    for (bytes, from) in [
        (&bytes, source(3)),
        (&question(AXFR, [0, 0, 0], &[]), source(2)),
        (&question(SOA, [0, 0, 0], &[]), source(2)),
        (&vec![0; 12], source(2)),
        (&Vec::new(), source(2)),
    ] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert!(transfers.answer(bytes, from, protocol).is_none());
        }
    }
    // Another secondary's key doesn't count there.
    transfers.grant(vec![secondary("ns2", 2), secondary("ns3", 3)]);
    let reply = message(transfers.answer(&bytes, source(3), Protocol::Tcp));
    assert_eq!(codes(&reply), (9, BADKEY, false));
}

#[test]
fn only_what_was_granted_is_given_and_nothing_before_the_zone_is_whole() {
    let transfers = Transfers::new(Arc::new(Stopped));
    let mut limited = secondary("ns2", 2);
    limited.zones = vec!["77.10.in-addr.arpa".parse().unwrap()];
    transfers.grant(vec![limited, secondary("ns3", 3)]);
    let ask = |name: &str, last, qtype| {
        let (bytes, _) = request(&key(name, &SECRET), qtype, None, NOW_S);
        message(transfers.answer(&bytes, source(last), Protocol::Tcp))[3] & 0xf
    };
    assert_eq!(ask("ns3", 3, AXFR), 2);
    transfers.publish(vec![(content(0..3), 10)]);
    assert_eq!(ask("ns2", 2, AXFR), 5);
    assert_eq!(ask("ns2", 2, SOA), 5);
    assert_eq!(ask("ns3", 3, SOA), 0);
    assert_eq!(ask("ns3", 3, 1), 5, "no other question is answered");
    assert_eq!(ask("ns3", 3, IXFR), 1, "it has to say what it has");
}

#[test]
fn who_is_removed_gets_nothing_more_in_the_middle_of_a_transfer() {
    let transfers = transfers(5_000);
    let (bytes, _) = request(&key("ns2", &SECRET), AXFR, None, NOW_S);
    let mut running = transfer(&transfers, &bytes);
    let mut out = Vec::new();
    assert!(running.next(&mut out).unwrap());
    transfers.grant(Vec::new());
    assert!(matches!(running.next(&mut out), Err(Ended::Removed)));
    assert!(transfers.answer(&bytes, source(2), Protocol::Tcp).is_none());
}

#[test]
fn one_secondary_has_its_share_of_transfers_at_a_time() {
    let transfers = transfers(10);
    transfers.grant(vec![secondary("ns2", 2), secondary("ns3", 3)]);
    let (bytes, _) = request(&key("ns2", &SECRET), AXFR, None, NOW_S);
    let running: Vec<_> = (0..limits::TRANSFERS_PER_ADDRESS)
        .map(|_| transfer(&transfers, &bytes))
        .collect();
    let reply = message(transfers.answer(&bytes, source(2), Protocol::Tcp));
    assert_eq!(codes(&reply), (2, 0, true));
    let (others, _) = request(&key("ns3", &SECRET), AXFR, None, NOW_S);
    let other = transfers.answer(&others, source(3), Protocol::Tcp);
    assert!(matches!(other, Some(Answer::Transfer(_))));
    drop(running);
    transfer(&transfers, &bytes);
}

/// What `dig -y` of BIND 9.18 sent.
const OF_DIG: [(Algorithm, &str); 3] = [
    (
        Algorithm::Sha256,
        "846b00200001000000000002036c616208696e7465726e616c000006000100002904d00000000000\
         00036e7332036c616208696e7465726e616c0000fa00ff00000000003d0b686d61632d7368613235\
         360000006b0c8bf1012c0020dfffa0350e5fbaa1606409aefe2b07708ef8a8c8d81130c454b0f9d3\
         78b6f565846b00000000",
    ),
    (
        Algorithm::Sha384,
        "40b500200001000000000002036c616208696e7465726e616c000006000100002904d00000000000\
         00036e7332036c616208696e7465726e616c0000fa00ff00000000004d0b686d61632d7368613338\
         340000006b0c8bf2012c003046a92d92bd3861b705744b2b0024e60edd5695101283a34a548a50e5\
         7a7cc566f79af00192d3eae5629417819b2c710340b500000000",
    ),
    (
        Algorithm::Sha512,
        "3dc100200001000000000002036c616208696e7465726e616c000006000100002904d00000000000\
         00036e7332036c616208696e7465726e616c0000fa00ff00000000005d0b686d61632d7368613531\
         320000006b0c8bf3012c0040db08f001b2ab17645d3e391d6853f9836ddf065101e95b4965868c49\
         3543168e628d47703071ab2e8cd33ef3b661c79eade4e38c184997f3c0b2f76d4df39cb33dc10000\
         0000",
    ),
];

#[test]
fn what_another_program_signed_is_right_and_is_signed_alike() {
    let secret: Vec<u8> = (0..32).collect();
    for (algorithm, hex) in OF_DIG {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        let message = Message::read(&bytes).unwrap();
        let tsig = message.tsig.clone().unwrap();
        let key = Key::new("ns2.lab.internal".parse().unwrap(), algorithm, &secret);
        assert!(key.is_of(&tsig));
        assert_eq!(key.verify(&message, &tsig, None, tsig.time_s), Ok(()));
        let other = Key::new(key.name.clone(), algorithm, &[7]);
        let wrong = other.verify(&message, &tsig, None, tsig.time_s);
        assert_eq!(wrong, Err(Refusal::Unsigned(BADSIG)));
        let mut again = bytes[..tsig.start].to_vec();
        again[11] -= 1;
        Signer::request(&key).sign(&mut again, 0, tsig.time_s);
        assert_eq!(again, bytes);
    }
}

/// The answer of a secondary to a NOTIFY.
fn notify_answer(bytes: &[u8], key: &Key, rcode: u8) -> Vec<u8> {
    let message = Message::read(bytes).unwrap();
    let mut out = bytes[..message.question_end].to_vec();
    out[2] |= QR;
    out[3] = rcode;
    out[6..12].copy_from_slice(&[0; 6]);
    let mac = message.tsig.unwrap().mac.to_vec();
    Signer::answer(key, &mac).sign(&mut out, 0, NOW_S);
    out
}

#[test]
fn a_secondary_is_told_again_until_it_answers() {
    let grant = Arc::new(Grant::new(secondary("ns2", 2), Mono::ZERO));
    let zone = "lab.internal".parse().unwrap();
    let mut notifier = Notifier::default();
    let mut now = Duration::from_secs(5);
    let record = content(0..1).encode_soa(7);
    notifier.tell(&grant, &zone, &record, now);
    let first = notifier.take_due(now, NOW_S);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].to, ([192, 0, 2, 2], 53).into());
    let wire = WireMessage::from_vec(&first[0].bytes).unwrap();
    assert!(wire.answers[0].data.to_string().contains(" 7 60 "));
    assert_eq!(Message::read(&first[0].bytes).unwrap().opcode(), NOTIFY);
    assert!(notifier.take_due(now, NOW_S).is_empty());
    // Neither a stranger's answer counts nor one that isn't signed.
    let good = key("ns2", &SECRET);
    let answer = notify_answer(&first[0].bytes, &good, 0);
    let at = |last| SocketAddr::from(([192, 0, 2, last], 53));
    let mut take =
        |bytes: &[u8], from| notifier.take_answer(&Message::read(bytes).unwrap(), from, NOW_S);
    assert!(!take(&answer, at(3)));
    assert!(!take(&answer, source(2)));
    let forged = notify_answer(&first[0].bytes, &key("ns2", &[9; 32]), 0);
    assert!(!take(&forged, at(2)));
    let unsigned = answer[..Message::read(&answer).unwrap().question_end].to_vec();
    let unsigned = [&unsigned[..10], &[0, 0], &unsigned[12..]].concat();
    assert!(!take(&unsigned, at(2)));
    let mut pauses = Vec::new();
    while let Some(due) = notifier.next_due() {
        pauses.push((due - now).as_secs());
        now = due;
        assert_eq!(notifier.take_due(now, NOW_S).len(), 1);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32]);
    // An answer to the first counts still.
    let message = Message::read(&answer).unwrap();
    assert!(notifier.take_answer(&message, at(2), NOW_S));
    let name = "ns2".parse().unwrap();
    assert_eq!(notifier.state(&name, &zone), Some(NoticeState::Answered));
    notifier.tell(&grant, &zone, &record, now);
    let next = notifier.take_due(now, NOW_S);
    assert!(
        !notifier.take_answer(&message, at(2), NOW_S),
        "an old answer"
    );
    let refused = notify_answer(&next[0].bytes, &good, 5);
    assert!(notifier.take_answer(&Message::read(&refused).unwrap(), at(2), NOW_S));
    let state = notifier.state(&name, &zone);
    assert_eq!(state, Some(NoticeState::Refused("REFUSED".into())));
    assert_eq!(notifier.next_due(), None);
    notifier.keep(&[]);
    assert_eq!(notifier.state(&name, &zone), None);
}
