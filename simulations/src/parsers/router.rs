//! What a router answers that is asked to map ports.

use std::net::Ipv4Addr;

use innermesh_agent::host::port_map::{
    MapError, Wanted, http, nat_pmp_address, nat_pmp_mapped, pcp_announced, pcp_mapped,
    upnp::{self, Page},
};

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

/// A packet of PCP or NAT-PMP, a device that was found, and pages of its.
pub fn router(bytes: &[u8]) {
    let wanted = Wanted {
        port: 51820,
        before: None,
        nonce: *b"twelve bytes",
    };
    let _ = pcp_announced(bytes);
    if let Ok(granted) = pcp_mapped(bytes, &wanted) {
        assert!(
            bytes.len() >= 60 && bytes[24..36] == wanted.nonce,
            "{granted:?}"
        );
    }
    if let Ok((ip, _)) = nat_pmp_address(bytes) {
        assert_eq!(bytes[8..], ip.octets());
    }
    let _ = nat_pmp_mapped(bytes, &wanted, ROUTER);
    if let Some(page) = upnp::description(bytes, ROUTER) {
        is_of_router(&page);
    }
    let whole = http::body(bytes, true);
    if let Some(Some(body)) = &whole {
        assert!(body.len() <= bytes.len());
        // What ended by itself is the same with more behind it.
        if http::body(bytes, false).flatten().is_some() {
            let more = [bytes, b"more"].concat();
            assert_eq!(http::body(&more, true), whole);
        }
    }
    for body in [Some(bytes.to_vec()), whole.flatten()]
        .into_iter()
        .flatten()
    {
        let text = String::from_utf8_lossy(&body);
        let from = Page {
            at: std::net::SocketAddrV4::new(ROUTER, 80),
            path: "/root.xml".into(),
        };
        let found = upnp::services(&text, &from);
        assert!(found.len() <= 4);
        for service in &found {
            is_of_router(&service.control);
        }
        let _ = (upnp::address(&text), upnp::leads_to(&text));
        if let Some((_, error)) = upnp::fault(&text) {
            assert!(error.to_string().len() < 160 && matches!(error, MapError::Refused(..)));
        }
    }
}

fn is_of_router(page: &Page) {
    assert!(*page.at.ip() == ROUTER && page.at.port() != 0, "{page:?}");
    let is_plain = page.path.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(page.path.starts_with('/') && page.path.len() <= 512 && is_plain);
}
