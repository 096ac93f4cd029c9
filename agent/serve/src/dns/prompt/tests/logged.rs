//! What is asked is noted on both paths, and on neither while nobody follows.

use futures_util::FutureExt;
use innermesh_control::dns::{DnsView, LogTransport, Origin};

use super::{
    corpus::{input, usual},
    *,
};

#[tokio::test]
async fn each_answer_is_noted_as_it_was_given_while_somebody_follows() {
    let dns = dns(&input(), Arc::default());
    dns.answers(AnswerScope::Mesh);
    let form = &usual()[1];
    let ask = async |name: &str, rtype: u16, source| {
        let message = form.message(&name.parse().unwrap(), rtype, 1);
        dns.both_ways(&message, source, true).await
    };
    ask("two.lab.internal", 1, MEMBER).await;
    assert_eq!(dns.log().read().total, 0);
    assert!(!dns.log().is_on());
    assert!(dns.log().follow(None).now_or_never().is_none());
    for (name, rtype, source, prompt, rcode, view, origin) in [
        (
            "two.lab.internal",
            1,
            MEMBER,
            true,
            "NOERROR",
            DnsView::Internal,
            Some(Origin::Zone),
        ),
        (
            "no-such.lab.internal",
            28,
            MEMBER,
            true,
            "NXDOMAIN",
            DnsView::Internal,
            Some(Origin::Zone),
        ),
        (
            "two.lab.internal",
            65,
            TELEVISION,
            true,
            "NOERROR",
            DnsView::Lan,
            Some(Origin::Zone),
        ),
        (
            "two.lab.internal",
            1,
            STRANGER,
            true,
            "REFUSED",
            DnsView::Stranger,
            None,
        ),
        (
            "pending.lab.internal",
            16,
            MEMBER,
            false,
            "SERVFAIL",
            DnsView::Internal,
            Some(Origin::Zone),
        ),
        (
            "example.org",
            1,
            MEMBER,
            false,
            "REFUSED",
            DnsView::Internal,
            None,
        ),
    ] {
        let next = dns.log().read().next;
        let both = ask(name, rtype, source).await;
        assert_eq!(both.prompt.is_some(), prompt, "{name}");
        let noted = dns.log().read().entries;
        let noted: Vec<_> = noted.into_iter().filter(|it| it.number >= next).collect();
        assert_eq!(noted.len(), 1 + usize::from(prompt), "{name}: {noted:?}");
        for entry in noted {
            assert_eq!(entry.name, format!("{name}."));
            assert_eq!(
                entry.rtype,
                innermesh_proto::zone::RecordType(rtype).to_string()
            );
            assert_eq!((entry.rcode.as_str(), entry.view), (rcode, view), "{name}");
            assert_eq!(entry.origin, origin, "{name}");
            assert_eq!((entry.client, entry.transport), (source, LogTransport::Udp));
        }
    }
}
