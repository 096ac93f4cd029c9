//! Both paths say the same of every name and type of a zone, however it is asked.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    MEMBER, STRANGER, StillClock, TELEVISION,
    corpus::{Form, TYPES, input, names, odd, usual},
    dns, served,
};
use crate::dns::{AnswerScope, BothWays, responder::is_refused_type, service::Dns};
use innermesh_proto::zone::RecordType;

/// Asks both ways; what is answered at once is what care says.
async fn same(dns: &Dns, form: &Form, name: &str, rtype: u16) -> BothWays {
    let message = form.message(&name.parse().unwrap(), rtype, 0xbeef);
    both(dns, &message).await
}

async fn both(dns: &Dns, message: &[u8]) -> BothWays {
    let mut last = None;
    for (source, is_udp) in [
        (MEMBER, true),
        (MEMBER, false),
        (TELEVISION, true),
        (STRANGER, true),
    ] {
        let both = dns.both_ways(message, source, is_udp).await;
        if both.prompt.is_some() {
            assert_eq!(both.prompt, both.careful, "{message:?} from {source}");
        }
        last.get_or_insert(both);
    }
    last.unwrap()
}

/// A service that forwards nothing, so that nothing waits.
fn quiet(input: &innermesh_proto::zone::ZoneInput) -> Dns {
    let dns = dns(input, Arc::new(StillClock::default()));
    dns.answers(AnswerScope::Mesh);
    dns
}

#[tokio::test]
async fn every_name_and_type_is_answered_alike_in_every_usual_form() {
    let input = input();
    let dns = quiet(&input);
    let zone = dns.zone();
    for name in names(&zone) {
        let may_have = dns.view().internal.may_have(&Vec::from(name.clone()));
        assert!(may_have || !zone.is_ours(&name), "{name}");
        for rtype in TYPES {
            // Twice: what is made at first is found after that.
            for _ in 0..2 {
                for form in usual() {
                    let message = form.message(&name, rtype, 0xbeef);
                    let both = both(&dns, &message).await;
                    let is_prompt = both.prompt.is_some();
                    if zone.is_ours(&name) && !is_refused_type(RecordType(rtype)) {
                        assert!(is_prompt || has_a_reason(both), "{name} {rtype} {form:?}");
                    }
                }
            }
        }
    }
}

/// Whether it is a failure, cut or nearly too long.
fn has_a_reason(both: BothWays) -> bool {
    let careful = both.careful.unwrap();
    let (is_cut, rcode) = (careful[2] & 2 != 0, careful[3] & 0xf);
    is_cut || rcode == 2 || careful.len() > 480
}

#[tokio::test]
async fn odd_questions_are_answered_alike_or_left_to_care() {
    let dns = quiet(&input());
    for name in ["a.lab.internal", "no-such.lab.internal", "example.org", "."] {
        for rtype in [1, 28, 255, 252] {
            for form in odd() {
                let both = same(&dns, &form, name, rtype).await;
                assert_eq!(both.prompt, None, "{form:?}");
            }
        }
    }
    // Names that aren't whole, too long, or point into the header.
    let good = usual()[0].message(&"a.lab.internal".parse().unwrap(), 1, 7);
    for end in 0..good.len() {
        both(&dns, &good[..end]).await;
        for with in [0, 1, 63, 64, 192, 255] {
            let mut bytes = good.clone();
            bytes[end] = with;
            both(&dns, &bytes).await;
        }
    }
}

#[tokio::test]
async fn every_record_has_its_turn_to_be_first() {
    let dns = quiet(&input());
    for (name, rtype, count) in [
        ("two.lab.internal", 1, 2),
        ("forty.lab.internal", 1, 40),
        ("six.lab.internal", 28, 6),
        ("inside.lab.internal", 1, 2),
        ("z.alias.lab.internal", 1, 7),
        ("text.lab.internal", 16, 5),
        ("mail.lab.internal", 15, 3),
        ("_two._tcp.lab.internal", 33, 1),
    ] {
        let form = &usual()[1];
        let mut seen = std::collections::BTreeSet::new();
        for turn in 0..count {
            dns.turn.store(turn, Ordering::Relaxed);
            let both = same(&dns, form, name, rtype).await;
            let reply = both
                .prompt
                .unwrap_or_else(|| panic!("{name} was not there"));
            assert!(seen.insert(reply), "{name}: one was first again");
        }
    }
}

#[tokio::test]
async fn a_name_that_is_missing_is_not_denied_while_this_node_is_behind() {
    let dns = quiet(&input());
    let behind = Arc::new(AtomicBool::new(false));
    let is_behind = behind.clone();
    dns.unsure_while(move || is_behind.load(Ordering::SeqCst));
    let form = &usual()[1];
    let rcode = |both: &BothWays| both.careful.as_ref().unwrap()[3] & 0xf;
    for name in ["no-such.lab.internal", "to-none.lab.internal"] {
        for _ in 0..2 {
            behind.store(false, Ordering::SeqCst);
            let both = same(&dns, form, name, 1).await;
            assert_eq!((both.prompt.is_some(), rcode(&both)), (true, 3));
            behind.store(true, Ordering::SeqCst);
            let both = same(&dns, form, name, 1).await;
            assert_eq!((both.prompt.is_some(), rcode(&both)), (false, 2));
            // What is there is answered all the same.
            assert!(same(&dns, form, "a.lab.internal", 1).await.prompt.is_some());
        }
    }
}

#[tokio::test]
async fn a_new_view_is_answered_from_at_once_and_the_old_no_more() {
    let mut input = input();
    let dns = quiet(&input);
    let form = &usual()[0];
    let before = same(&dns, form, "phone.lab.internal", 1).await;
    input.devices.values_mut().for_each(|addresses| {
        *addresses = vec!["10.77.0.10".parse().unwrap()];
    });
    let next = served(&input);
    dns.publish(|| next);
    let after = same(&dns, form, "phone.lab.internal", 1).await;
    assert_ne!(before.prompt, after.prompt);
    assert!(after.prompt.unwrap().ends_with(&[10, 77, 0, 10]));
    // While a view loads nothing is denied, though it was.
    input.loading = true;
    let loading = served(&input);
    assert!(
        same(&dns, form, "no-such.lab.internal", 1)
            .await
            .prompt
            .is_some()
    );
    dns.publish(|| loading);
    let both = same(&dns, form, "no-such.lab.internal", 1).await;
    assert_eq!(both.prompt, None);
    assert_eq!(both.careful.unwrap()[3] & 0xf, 2);
}

#[tokio::test]
async fn names_without_end_take_no_memory_without_end() {
    let dns = quiet(&input());
    let form = &usual()[0];
    for n in 0..20_000 {
        let name = format!("n{n}.a.lab.internal").parse().unwrap();
        let message = form.message(&name, 1, 7);
        let view = dns.view();
        let mut reply = Vec::new();
        let udp = hickory_server::net::xfer::Protocol::Udp;
        let prompt = dns.answer_promptly(&view, &message, MEMBER, udp, &mut reply);
        assert_eq!(prompt, super::Prompt::Answered);
    }
    let view = dns.view();
    let (known, others) = view.of(MEMBER).unwrap().answers.bytes();
    assert_eq!(known, 0, "no name was one of the zone's");
    assert!(others <= innermesh_proto::limits::DNS_OTHER_ANSWERS_BYTES);
    assert!(others > 0);
}

#[tokio::test]
async fn a_lan_is_answered_from_its_own_zone_and_not_from_what_members_were_told() {
    let input = input();
    let dns = quiet(&input);
    let message = usual()[0].message(&"a.lab.internal".parse().unwrap(), 1, 7);
    for _ in 0..2 {
        let mut replies = Vec::new();
        for source in [MEMBER, TELEVISION, STRANGER] {
            let both = dns.both_ways(&message, source, true).await;
            assert_eq!(both.prompt, both.careful);
            replies.push(both.prompt.unwrap());
        }
        assert!(replies[0].ends_with(&[10, 77, 0, 1]));
        assert!(replies[1].ends_with(&[192, 168, 1, 7]));
        assert_eq!(replies[2][3] & 0xf, 5);
    }
    // Where no LAN may ask, it is a stranger.
    let mut without = served(&input);
    without.lan = None;
    dns.publish(|| without);
    let both = dns.both_ways(&message, TELEVISION, true).await;
    assert_eq!(both.prompt, both.careful);
    assert_eq!(both.prompt.unwrap()[3] & 0xf, 5);
}
