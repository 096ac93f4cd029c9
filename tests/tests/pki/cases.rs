//! The names that a thief of an issuer's key could try, and what has to come
//! of each.

#![allow(missing_docs, reason = "the names say it")]

use std::net::IpAddr;

use crate::{
    authority::{Authority, Forgery},
    names::{Name, Target, tlv},
};

/// What has to come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// It is within the mesh: everybody accepts it.
    Accept,
    /// RFC 5280 or RFC 9525 refuse it.
    Refuse,
    /// The standards let it pass, or say nothing; the mesh refuses it.
    Ours,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub title: &'static str,
    /// Alternative names; without any there is no such extension, unless
    /// `empty` is set.
    pub names: &'static [Name],
    pub empty: bool,
    pub common_name: Option<&'static str>,
    pub mail: Option<&'static str>,
    pub through_ca: bool,
    pub target: Target,
    pub must: Must,
    /// Why the mesh is safe though others accept it.
    pub note: &'static str,
}

const NOBODY_ASKS: &str = "no TLS client looks for a host in such a name";
const ONE_SPELLING: &str = "the same host, and the mesh writes its names in one way only";

pub fn all() -> Vec<Case> {
    use Must::{Accept, Ours, Refuse};
    use Name::{Directory, Dns, Inside, Ip, Mail, Registered, Service, Uri, Utf8Mail};
    const NAS: Name = Dns(b"nas.lab.internal");
    const MAPPED: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 77, 3, 4];
    const LONG: &[u8] =
        b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.lab.internal";
    const BOOKS: &[u8] = "bücher.lab.internal".as_bytes();
    const BOOKS_OUTSIDE: &[u8] = "bücher.example".as_bytes();
    let own = "nas.lab.internal";
    let bank = "bank.example.com";
    let inside4 = IpAddr::from([10, 77, 3, 4]);
    let mapped = IpAddr::from(<[u8; 16]>::try_from(MAPPED).expect("16 octets"));
    vec![
        case("below the domain", &[NAS], own, Accept),
        case(
            "two labels below",
            &[Dns(b"a.nas.lab.internal")],
            "a.nas.lab.internal",
            Accept,
        ),
        case(
            "the domain itself",
            &[Dns(b"lab.internal")],
            "lab.internal",
            Accept,
        ),
        case("its parent", &[Dns(b"internal")], "internal", Refuse),
        case(
            "a sibling",
            &[Dns(b"other.internal")],
            "other.internal",
            Refuse,
        ),
        case(
            "the same end, no dot",
            &[Dns(b"evillab.internal")],
            "evillab.internal",
            Refuse,
        ),
        case(
            "the same beginning",
            &[Dns(b"lab.internal.example.com")],
            "lab.internal.example.com",
            Refuse,
        ),
        case("outside", &[Dns(b"bank.example.com")], bank, Refuse),
        case(
            "inside, and outside",
            &[NAS, Dns(b"bank.example.com")],
            bank,
            Refuse,
        ),
        case(
            "wildcard below a node",
            &[Dns(b"*.nas.lab.internal")],
            "a.nas.lab.internal",
            Accept,
        ),
        case(
            "wildcard at the domain",
            &[Dns(b"*.lab.internal")],
            own,
            Ours,
        )
        .note("within the constraints; a thief of the issuer's key can name each host as well"),
        case(
            "wildcard at the parent",
            &[Dns(b"*.internal")],
            "lab.internal",
            Refuse,
        ),
        case("wildcard outside", &[Dns(b"*.example.com")], bank, Refuse),
        case("wildcard alone", &[Dns(b"*")], "localhost", Refuse),
        case(
            "part of a label, middle",
            &[Dns(b"n*s.lab.internal")],
            own,
            Refuse,
        ),
        case(
            "part of a label, end",
            &[Dns(b"na*.lab.internal")],
            own,
            Refuse,
        )
.note("it reaches hosts of the mesh only, each of which a thief of the issuer's key can name"),
        case(
            "two wildcards",
            &[Dns(b"*.*.lab.internal")],
            "a.nas.lab.internal",
            Refuse,
        ),
        case(
            "wildcard not in front",
            &[Dns(b"a.*.lab.internal")],
            "a.nas.lab.internal",
            Refuse,
        ),
        case("IPv4 inside", &[Ip(&[10, 77, 3, 4])], own, Accept).ip(inside4),
        case("IPv4 outside", &[Ip(&[192, 168, 1, 1])], own, Refuse).ip([192, 168, 1, 1].into()),
        case("IPv6 inside", &[Inside], own, Accept).to(Target::Inside),
        case(
            "IPv6 outside",
            &[Ip(&[
                0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            ])],
            own,
            Refuse,
        )
        .ip([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
        case("IPv4 inside, as mapped IPv6", &[Ip(MAPPED)], own, Refuse).ip(mapped),
        case("IPv4 as a DNS name", &[Dns(b"10.77.3.4")], own, Refuse).ip(inside4),
        case(
            "IPv4 with its mask",
            &[Ip(&[10, 77, 0, 0, 255, 255, 0, 0])],
            own,
            Refuse,
        )
        .ip(inside4),
        case(
            "address of five octets",
            &[NAS, Ip(&[10, 77, 3, 4, 5])],
            own,
            Refuse,
        )
.note("it is no address; the host is the mesh's"),
        case(
            "URI inside",
            &[NAS, Uri("https://nas.lab.internal/")],
            own,
            Ours,
        )
        .note(NOBODY_ASKS),
        case(
            "URI outside",
            &[NAS, Uri("https://bank.example.com/")],
            own,
            Ours,
        )
        .note(NOBODY_ASKS),
        case(
            "URI outside, alone",
            &[Uri("https://bank.example.com/")],
            bank,
            Refuse,
        ),
        case("mail inside", &[NAS, Mail("a@lab.internal")], own, Ours).note(NOBODY_ASKS),
        case("mail outside", &[NAS, Mail("a@example.com")], own, Refuse),
        case(
            "mail at a host below",
            &[NAS, Mail("a@nas.lab.internal")],
            own,
            Refuse,
        ),
        case(
            "mail, only the host",
            &[NAS, Mail("lab.internal")],
            own,
            Refuse,
        )
        .note(NOBODY_ASKS),
        case("mail outside, in the subject", &[NAS], own, Refuse)
            .subject_mail("a@example.com")
            .note(NOBODY_ASKS),
        case(
            "mail outside, as UTF-8",
            &[NAS, Utf8Mail("a@example.com")],
            own,
            Ours,
        )
        .note(NOBODY_ASKS),
        case(
            "directory name",
            &[NAS, Directory("bank.example.com")],
            bank,
            Refuse,
        ),
        case(
            "directory name, own host",
            &[NAS, Directory("x")],
            own,
            Ours,
        )
        .note(NOBODY_ASKS),
        case(
            "SRV name inside",
            &[NAS, Service("_https.lab.internal")],
            own,
            Ours,
        )
        .note(NOBODY_ASKS),
        case(
            "SRV name outside",
            &[NAS, Service("_https.bank.example.com")],
            own,
            Ours,
        )
        .note(NOBODY_ASKS),
        case("registered identifier", &[NAS, Registered], own, Ours).note(NOBODY_ASKS),
        case("upper case inside", &[Dns(b"NAS.LAB.INTERNAL")], own, Ours).note(ONE_SPELLING),
        case("mixed case inside", &[Dns(b"Nas.Lab.Internal")], own, Ours).note(ONE_SPELLING),
        case(
            "mixed case outside",
            &[Dns(b"Bank.Example.COM")],
            bank,
            Refuse,
        ),
        case(
            "dot at the end, inside",
            &[Dns(b"nas.lab.internal.")],
            own,
            Refuse,
        ),
        case(
            "dot at the end, outside",
            &[Dns(b"bank.example.com.")],
            bank,
            Refuse,
        ),
        case("dot in front", &[Dns(b".lab.internal")], own, Refuse),
        case(
            "dot in front of a host",
            &[Dns(b".nas.lab.internal")],
            own,
            Refuse,
        ),
        case(
            "A-label inside",
            &[Dns(b"xn--bcher-kva.lab.internal")],
            "xn--bcher-kva.lab.internal",
            Ours,
        )
.note("a host of the mesh; it has no A-labels, which nobody would read"),
        case(
            "A-label outside",
            &[Dns(b"xn--bcher-kva.example")],
            "xn--bcher-kva.example",
            Refuse,
        ),
        case(
            "U-label inside",
            &[Dns(BOOKS)],
            "xn--bcher-kva.lab.internal",
            Refuse,
        ),
        case(
            "U-label outside",
            &[Dns(BOOKS_OUTSIDE)],
            "xn--bcher-kva.example",
            Refuse,
        ),
        case(
            "empty label",
            &[NAS, Dns(b"nas..lab.internal")],
            own,
            Refuse,
        )
        .note(NOBODY_ASKS),
        case("label of 64 octets", &[NAS, Dns(LONG)], own, Refuse).note(NOBODY_ASKS),
        case("underscore", &[Dns(b"_nas.lab.internal")], own, Refuse),
        case(
            "NUL, outside before it",
            &[Dns(b"bank.example.com\0.lab.internal")],
            bank,
            Refuse,
        ),
        case(
            "NUL, inside before it",
            &[Dns(b"nas.lab.internal\0.example.com")],
            own,
            Refuse,
        ),
        case("common name only, inside", &[], own, Refuse)
            .cn("nas.lab.internal")
            .note("it asks for no more than an alternative name would give"),
        case("common name only, outside", &[], bank, Refuse).cn("bank.example.com"),
        case("common name outside, names inside", &[NAS], bank, Refuse).cn("bank.example.com"),
        case(
            "common name outside, address inside",
            &[Ip(&[10, 77, 3, 4])],
            bank,
            Refuse,
        )
        .cn("bank.example.com")
.note("Firefox and Chromium bring verifiers of their own, which take no host from a common name; for what asks NSS itself it remains"),
        case(
            "common name outside, mail inside",
            &[Mail("a@lab.internal")],
            bank,
            Refuse,
        )
        .cn("bank.example.com"),
        case("common name is NUL in the middle", &[], bank, Refuse)
            .cn("bank.example.com\0.lab.internal"),
        case("no name in the extension", &[], own, Refuse).empty(),
        case("no name at all", &[], own, Refuse),
        case("by a CA below the issuer, inside", &[NAS], own, Refuse).through_ca(),
        case(
            "by a CA below the issuer, outside",
            &[Dns(b"bank.example.com")],
            bank,
            Refuse,
        )
        .through_ca(),
    ]
}

fn case(title: &'static str, names: &'static [Name], host: &'static str, must: Must) -> Case {
    Case {
        title,
        names,
        empty: false,
        common_name: None,
        mail: None,
        through_ca: false,
        target: Target::Host(host),
        must,
        note: "",
    }
}

impl Case {
    fn cn(mut self, name: &'static str) -> Self {
        self.common_name = Some(name);
        self
    }

    fn subject_mail(mut self, mail: &'static str) -> Self {
        self.mail = Some(mail);
        self
    }

    fn ip(self, address: IpAddr) -> Self {
        self.to(Target::Ip(address))
    }

    fn to(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }

    fn empty(mut self) -> Self {
        self.empty = true;
        self
    }

    fn through_ca(mut self) -> Self {
        self.through_ca = true;
        self
    }

    /// What the thief signs.
    pub fn forgery(&self, authority: &Authority) -> Forgery {
        let names = (self.empty || !self.names.is_empty()).then(|| {
            let names = self.names.iter().map(|name| name.der(authority));
            tlv(0x30, &names.collect::<Vec<_>>().concat())
        });
        Forgery {
            names,
            common_name: self.common_name,
            mail: self.mail,
            through_ca: self.through_ca,
        }
    }

    /// The names, for a reader.
    pub fn shown(&self) -> String {
        let common = self
            .common_name
            .map(|name| format!("CN={}", name.escape_debug()));
        let mail = self.mail.map(|mail| format!("emailAddress={mail}"));
        let names = self.names.iter().map(Name::shown);
        let all: Vec<String> = common.into_iter().chain(mail).chain(names).collect();
        if all.is_empty() {
            "none".into()
        } else {
            format!("`{}`", all.join(", "))
        }
    }
}
