//! Who sends a cookie gets one, whichever path answers.

use innermesh_host::keys::SystemKeys;

use super::{corpus, *};

/// A question for an address, with a cookie.
fn question(name: &[u8], cookie: &[u8]) -> Vec<u8> {
    let length = cookie.len() as u8;
    let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    let opt = [
        0,
        0,
        41,
        4,
        208,
        0,
        0,
        0,
        0,
        0,
        4 + length,
        0,
        10,
        0,
        length,
    ];
    [&header[..], name, &[0, 1, 0, 1], &opt, cookie].concat()
}

#[tokio::test]
async fn a_cookie_is_answered_by_both_paths_alike() {
    let dns = dns(&corpus::input(), Arc::default());
    dns.answers_cookies(&SystemKeys);
    let names: [&[u8]; 2] = [
        b"\x01a\x03lab\x08internal\0",
        b"\x04none\x03lab\x08internal\0",
    ];
    for name in names {
        let mut cookie = b"12345678".to_vec();
        for is_udp in [true, false] {
            let both = dns
                .both_ways(&question(name, &cookie), MEMBER, is_udp)
                .await;
            assert!(both.prompt.is_some(), "it is answered at once");
            assert_eq!(both.prompt, both.careful);
            let reply = both.prompt.unwrap();
            let (rest, whole) = reply.split_last_chunk::<24>().unwrap();
            assert!(rest.ends_with(&[0, 28, 0, 10, 0, 24]), "{rest:?}");
            assert_eq!(whole[..8], *b"12345678");
            // The same one comes back while it is fresh.
            assert!(cookie.len() == 8 || cookie == whole);
            cookie = whole.to_vec();
        }
    }
    for length in [0, 7, 9, 15, 41] {
        let asked = question(names[0], &vec![1; length]);
        let careful = dns.both_ways(&asked, MEMBER, true).await.careful.unwrap();
        assert_eq!(careful[3] & 15, 1, "FORMERR for {length}");
        assert!(careful.ends_with(&[0, 0]), "and no cookie");
    }
}

#[tokio::test]
async fn a_stranger_gets_no_cookie_and_no_more_bytes_than_it_sent() {
    let dns = dns(&corpus::input(), Arc::default());
    dns.answers_cookies(&SystemKeys);
    for length in [0, 7, 8, 9, 24] {
        let asked = question(b"\x01a\x03lab\x08internal\0", &vec![1; length]);
        for is_udp in [true, false] {
            let both = dns.both_ways(&asked, STRANGER, is_udp).await;
            let careful = both.careful.unwrap();
            assert!(both.prompt.is_none_or(|prompt| prompt == careful));
            assert_eq!(careful[3] & 15, 5, "REFUSED for {length}");
            assert!(careful.len() <= asked.len() && careful.ends_with(&[0, 0]));
        }
    }
}
