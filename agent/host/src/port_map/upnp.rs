//! UPnP's Internet Gateway Device: what is sent by SSDP and SOAP, and what is read of the
//! answers (UPnP Device Architecture 1.1, WANIPConnection:1). Of XML no more is read than
//! the text of elements by their names; what has another form is no answer.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{MapError, Protocol, Refusal};

/// Where devices are searched for (UDA 1.1 §1.3.2).
pub const SSDP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);
/// Largest description or answer that is read, in bytes; those of routers have a few
/// thousand.
pub const MOST: usize = 64 * 1024;
/// Longest path of a URL.
const PATH: usize = 512;
/// Services of one device that are tried: one for each of its lines.
const SERVICES: usize = 4;
/// Longest text of a router's error that is shown.
const TEXT: usize = 80;

/// What is searched for: most routers answer for the first, some only for the second.
const TARGETS: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "upnp:rootdevice",
];

/// Services that map ports, the usual ones first.
const KINDS: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// A page of the router's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its address is always the router's.
    pub at: SocketAddrV4,
    /// From its slash on.
    pub path: String,
}

/// A service that maps ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where it is asked.
    pub control: Page,
    /// One of those that are known here.
    pub kind: &'static str,
}

/// Searches for a gateway.
pub fn searches() -> impl Iterator<Item = String> {
    TARGETS.into_iter().map(|target| {
        format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: {SSDP}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n"
        )
    })
}

/// Where the device that answered a search is described. `None` for one that is elsewhere:
/// a router describes itself.
pub fn description(answer: &[u8], router: Ipv4Addr) -> Option<Page> {
    let text = std::str::from_utf8(answer).ok()?;
    let mut lines = text.lines();
    if !lines.next()?.starts_with("HTTP/1.1 200") {
        return None;
    }
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.trim().eq_ignore_ascii_case("location");
        is_it.then(|| value.trim().to_owned())
    };
    let location = lines.find_map(header)?;
    page(&location, router)
}

/// An absolute URL of the router's own.
fn page(url: &str, router: Ipv4Addr) -> Option<Page> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let (ip, port) = match host.split_once(':') {
        Some((ip, port)) => (ip, port.parse().ok()?),
        None => (host, 80),
    };
    let ip: Ipv4Addr = ip.parse().ok()?;
    (ip == router && port != 0 && is_path(path)).then(|| Page {
        at: SocketAddrV4::new(ip, port),
        path: path.to_owned(),
    })
}

/// Whether it can stand in a request as it is.
fn is_path(path: &str) -> bool {
    path.len() <= PATH && path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The services of a description that map ports, those first that are asked first.
pub fn services(description: &str, from: &Page) -> Vec<Service> {
    let router = *from.at.ip();
    let base = text_of(description, "URLBase").and_then(|base| page(&base, router));
    let base = base.unwrap_or_else(|| from.clone());
    let mut found: Vec<Service> = elements(description, "service")
        .filter_map(|service| {
            let kind = text_of(service, "serviceType")?;
            let kind = KINDS.into_iter().find(|known| *known == kind)?;
            let url = text_of(service, "controlURL")?;
            let control = resolve(&base, &url)?;
            Some(Service { control, kind })
        })
        .take(SERVICES)
        .collect();
    found.sort_by_key(|service| KINDS.iter().position(|kind| *kind == service.kind));
    found
}

/// A URL as it stands in a description (RFC 3986 §5, without dots).
fn resolve(base: &Page, url: &str) -> Option<Page> {
    if url.starts_with("http://") {
        return page(url, *base.at.ip());
    }
    let path = if url.starts_with('/') {
        url.to_owned()
    } else {
        let end = base.path.rfind('/').map_or(0, |slash| slash + 1);
        format!("{}{url}", &base.path[..end])
    };
    is_path(&path).then_some(Page { at: base.at, path })
}

/// What a service is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Its outer address.
    Address,
    /// A mapping.
    Map {
        /// The outer port.
        outer: u16,
        /// This host.
        to: SocketAddrV4,
        /// For how long, in seconds; 0 until it is deleted.
        seconds: u32,
    },
    /// Whom an outer port leads to.
    Look(u16),
    /// The end of a mapping, by its outer port.
    Delete(u16),
}

impl Action {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Address => "GetExternalIPAddress",
            Self::Map { .. } => "AddPortMapping",
            Self::Look(_) => "GetSpecificPortMappingEntry",
            Self::Delete(_) => "DeletePortMapping",
        }
    }

    /// As SOAP has it (UDA 1.1 §3.2.1).
    pub fn envelope(&self, kind: &str) -> String {
        let name = self.name();
        let arguments = match self {
            Self::Address => String::new(),
            Self::Map { outer, to, seconds } => format!(
                "<NewRemoteHost></NewRemoteHost><NewExternalPort>{outer}</NewExternalPort>\
                 <NewProtocol>UDP</NewProtocol><NewInternalPort>{}</NewInternalPort>\
                 <NewInternalClient>{}</NewInternalClient><NewEnabled>1</NewEnabled>\
                 <NewPortMappingDescription>innermesh</NewPortMappingDescription>\
                 <NewLeaseDuration>{seconds}</NewLeaseDuration>",
                to.port(),
                to.ip()
            ),
            Self::Look(outer) | Self::Delete(outer) => format!(
                "<NewRemoteHost></NewRemoteHost><NewExternalPort>{outer}</NewExternalPort>\
                 <NewProtocol>UDP</NewProtocol>"
            ),
        };
        format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope \
             xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{name} xmlns:u=\"{kind}\">{arguments}</u:{name}></s:Body></s:Envelope>\r\n"
        )
    }
}

/// The outer address, from the answer to [`Action::Address`].
pub fn address(body: &str) -> Option<Ipv4Addr> {
    text_of(body, "NewExternalIPAddress")?.parse().ok()
}

/// Whom a port leads to, from the answer to [`Action::Look`].
pub fn leads_to(body: &str) -> Option<SocketAddrV4> {
    let ip = text_of(body, "NewInternalClient")?.parse().ok()?;
    let port = text_of(body, "NewInternalPort")?.parse().ok()?;
    Some(SocketAddrV4::new(ip, port))
}

/// The number of an error, and what it means (UDA 1.1 §3.2.2).
pub fn fault(body: &str) -> Option<(u16, MapError)> {
    let code = text_of(body, "errorCode")?.parse().ok()?;
    let refusal = match code {
        606 | 729 => Refusal::NotAuthorized,
        401 | 602 => Refusal::Unsupported,
        728 => Refusal::Full,
        718 => Refusal::Taken,
        code => Refusal::Other {
            code,
            text: text_of(body, "errorDescription")
                .unwrap_or_default()
                .chars()
                .filter(|c| c.is_ascii_graphic() || *c == ' ')
                .take(TEXT)
                .collect(),
        },
    };
    Some((code, MapError::Refused(Protocol::Upnp, refusal)))
}

/// What stands in the elements of a name, whatever their prefix, in the order in which they
/// begin; none within another of the same name.
fn elements<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let tag = Tag::next(&mut rest)?;
            if tag.closes || tag.name != name {
                continue;
            }
            if tag.is_empty {
                return Some("");
            }
            let content = rest;
            loop {
                let from = content.len() - rest.len();
                let tag = Tag::next(&mut rest)?;
                if tag.closes && tag.name == name {
                    return Some(&content[..from + tag.starts]);
                }
            }
        }
    })
}

/// The text of the first element of a name, without references to characters.
fn text_of(text: &str, name: &str) -> Option<String> {
    let inner = elements(text, name).next()?.trim();
    let plain = inner
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&");
    Some(plain)
}

struct Tag<'a> {
    /// Without its prefix.
    name: &'a str,
    closes: bool,
    is_empty: bool,
    /// Where it starts in what was read.
    starts: usize,
}

impl<'a> Tag<'a> {
    /// The next one; what is read then begins behind it.
    fn next(rest: &mut &'a str) -> Option<Self> {
        let starts = rest.find('<')?;
        let inside = &rest[starts + 1..];
        let end = inside.find('>')?;
        let tag = &inside[..end];
        *rest = &inside[end + 1..];
        let (closes, tag) = match tag.strip_prefix('/') {
            Some(tag) => (true, tag),
            None => (false, tag),
        };
        let full = tag.split([' ', '\t', '\r', '\n', '/']).next()?;
        let name = full.rsplit(':').next()?;
        Some(Self {
            name,
            closes,
            is_empty: !closes && tag.ends_with('/'),
            starts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn at(port: u16, path: &str) -> Page {
        Page {
            at: SocketAddrV4::new(ROUTER, port),
            path: path.into(),
        }
    }

    #[test]
    fn a_router_describes_itself_and_nobody_else_does() {
        let answer = |location: &str| {
            format!("HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLocation: {location}\r\n\r\n")
        };
        let found = |location: &str| description(answer(location).as_bytes(), ROUTER);
        assert_eq!(
            found("http://192.168.1.1:5000/root.xml"),
            Some(at(5000, "/root.xml"))
        );
        assert_eq!(found("http://192.168.1.1"), Some(at(80, "/")));
        for other in [
            "http://192.168.1.2:5000/root.xml",
            "http://192.168.1.1:0/",
            "http://192.168.1.1:99999/",
            "http://router.lan/",
            "https://192.168.1.1/",
            "http://192.168.1.1/a b",
            "http://192.168.1.1@evil.example/",
            "",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
        assert_eq!(
            found(&format!("http://192.168.1.1/{}", "x".repeat(PATH))),
            None
        );
        assert_eq!(
            description(
                b"NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1/\r\n",
                ROUTER
            ),
            None
        );
        assert_eq!(description(&[0xff; 40], ROUTER), None);
    }

    #[test]
    fn services_that_map_are_found_wherever_they_are() {
        let text = r#"<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
            <serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
            <controlURL>/L3F</controlURL></service></serviceList><deviceList><device><serviceList>
            <service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType>
            <controlURL>ppp?a=1&amp;b=2</controlURL></service>
            <service ><serviceType> urn:schemas-upnp-org:service:WANIPConnection:1 </serviceType>
            <controlURL>http://192.168.1.1:49000/ip</controlURL></service>
            <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
            <controlURL>http://192.168.1.9:49000/ip</controlURL></service>
            </serviceList></device></deviceList></device></root>"#;
        let found = services(text, &at(5000, "/igd/root.xml"));
        let expected = [
            (KINDS[1], at(49000, "/ip")),
            (KINDS[2], at(5000, "/igd/ppp?a=1&b=2")),
        ];
        let expected = expected.map(|(kind, control)| Service { control, kind });
        assert_eq!(found, expected);
        for broken in [
            "",
            "<service>",
            "<service></service",
            "<<<>",
            "<service/>",
            "</service>",
        ] {
            assert!(services(broken, &at(80, "/")).is_empty(), "{broken}");
        }
        let many = text.repeat(50);
        assert!(services(&many, &at(80, "/")).len() <= SERVICES);
    }

    #[test]
    fn answers_and_faults_are_read() {
        let body = "<s:Envelope><s:Body><u:GetExternalIPAddressResponse xmlns:u='x'>\
                    <NewExternalIPAddress>203.0.113.7</NewExternalIPAddress></u:\
                    GetExternalIPAddressResponse></s:Body></s:Envelope>";
        assert_eq!(address(body), Some(Ipv4Addr::new(203, 0, 113, 7)));
        assert_eq!(
            address("<NewExternalIPAddress></NewExternalIPAddress>"),
            None
        );
        let entry = "<NewInternalPort>51820</NewInternalPort><NewInternalClient>192.168.1.7\
                     </NewInternalClient>";
        assert_eq!(leads_to(entry), "192.168.1.7:51820".parse().ok());
        let told = |code: u16, text: &str| {
            let body = format!(
                "<s:Fault><detail><UPnPError><errorCode>{code}</errorCode><errorDescription>{text}\
                 </errorDescription></UPnPError></detail></s:Fault>"
            );
            fault(&body)
        };
        let refused = |refusal| MapError::Refused(Protocol::Upnp, refusal);
        assert_eq!(told(718, "x"), Some((718, refused(Refusal::Taken))));
        let long = "\u{1b}[31mno".repeat(50);
        let (code, error) = told(501, &long).unwrap();
        let text = error.to_string();
        assert!(
            code == 501 && text.len() < 150 && !text.contains('\u{1b}'),
            "{text}"
        );
        assert_eq!(fault(body), None);
    }

    #[test]
    fn an_action_says_what_is_wanted() {
        let map = Action::Map {
            outer: 40001,
            to: "192.168.1.7:51820".parse().unwrap(),
            seconds: 3600,
        };
        let text = map.envelope(KINDS[1]);
        for part in [
            "<u:AddPortMapping xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\">",
            "<NewExternalPort>40001</NewExternalPort>",
            "<NewInternalPort>51820</NewInternalPort>",
            "<NewInternalClient>192.168.1.7</NewInternalClient>",
            "<NewLeaseDuration>3600</NewLeaseDuration>",
            "</u:AddPortMapping></s:Body>",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            Action::Delete(7)
                .envelope(KINDS[0])
                .contains("<NewExternalPort>7<")
        );
    }
}
