//! What strangers are told by a sinkhole says nothing of the inside (S34): a name that is
//! in force inside is told of as one that nobody has.

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr};

use innermesh_proto::{
    ledger::record::UserRecord,
    view::MeshView,
    zone::{DomainName, Rdata, RecordType, StrangerAnswer, StrangerZone, is_challenge},
};

use super::CLOSELY;

/// A day.
const TODAY: u64 = 20_000;
/// Types that are asked for: those that the mesh has records of, and one that it hasn't.
const TYPES: [RecordType; 11] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::TXT,
    RecordType::PTR,
    RecordType::SRV,
    RecordType::MX,
    RecordType::CNAME,
    RecordType::NS,
    RecordType::CAA,
    RecordType::HTTPS,
    RecordType::ANY,
];

/// Where a stranger would learn something of the inside in this view.
pub fn learn(view: &MeshView) -> Option<String> {
    let input = view.stranger_input()?;
    let zone = StrangerZone::build(input);
    let nobody = zone.apex().child(b"nobody-has-this")?;
    let inside = inner_names(view, zone.apex());
    let first = view.version as usize % inside.len().max(1);
    for name in inside
        .iter()
        .cycle()
        .skip(first)
        .take(inside.len().min(CLOSELY))
    {
        if is_public(view, name) || is_name_server(&zone, name) {
            continue;
        }
        for rtype in TYPES {
            let (told, others) = (
                zone.lookup(name, rtype, TODAY),
                zone.lookup(&nobody, rtype, TODAY),
            );
            if told != others {
                return Some(format!(
                    "strangers are told {told:?} of {name}, and {others:?} of others"
                ));
            }
        }
        let challenge = |name: &DomainName| {
            let name = name.child(b"_acme-challenge")?;
            Some((name.clone(), zone.lookup(&name, RecordType::TXT, TODAY)))
        };
        let (at, told) = challenge(name)?;
        let (_, others) = challenge(&nobody)?;
        if size(&told) != size(&others) && !is_public(view, &at) {
            return Some(format!("a challenge at {at} has another size"));
        }
    }
    inner_address(view, &zone, &nobody)
}

/// Names of members, services and devices, by which services are found, and of what users
/// added for the mesh alone.
fn inner_names(view: &MeshView, apex: &DomainName) -> Vec<DomainName> {
    let ledger = &view.ledger;
    let members = ledger.members.values().map(|member| member.name.clone());
    let names = ledger.names.iter().map(|(name, _)| name.clone());
    let devices = ledger.devices().map(|(_, device)| device.name.clone());
    let labels = members.chain(names).chain(devices);
    let names = labels.filter_map(|label| apex.child(label.as_str().as_bytes()));
    let records = ledger.records.iter().map(|(name, _)| name.clone());
    names
        .chain(found_by(view, apex))
        .chain(records.filter(|name| !is_challenge(name)))
        .collect()
}

/// The names of DNS-SD.
fn found_by(view: &MeshView, apex: &DomainName) -> BTreeSet<DomainName> {
    let services = view
        .nodes
        .values()
        .flat_map(|node| &node.announcement.services);
    let mut names = BTreeSet::new();
    for (label, instance) in services {
        for spoken in ["http", "https"] {
            let mut name = apex.child(format!("_{}", instance.protocol).as_bytes());
            for part in [&format!("_{spoken}"), label.as_str()] {
                name = name.and_then(|name| name.child(part.as_bytes()));
                names.extend(name.clone());
            }
        }
    }
    let browse = apex.child(b"_udp").and_then(|name| name.child(b"_dns-sd"));
    names.extend(browse.and_then(|name| name.child(b"_services")));
    names
}

/// Whether a user published something at a name, or below it.
fn is_public(view: &MeshView, name: &DomainName) -> bool {
    let is_public = |all: &Vec<UserRecord>| all.iter().any(|record| record.public);
    let mut records = view.ledger.records.iter();
    records.any(|(at, all)| at.is_within(name) && is_public(all))
}

fn is_name_server(zone: &StrangerZone, name: &DomainName) -> bool {
    name == zone.apex() || zone.name_servers().iter().any(|(server, _)| server == name)
}

/// How many texts there are, and how long each is.
fn size(answer: &StrangerAnswer<'_>) -> Vec<usize> {
    let StrangerAnswer::Records { data, .. } = answer else {
        return Vec::new();
    };
    let length = |data: &Rdata| match data {
        Rdata::Txt(strings) => strings.iter().map(Vec::len).sum(),
        _ => 0,
    };
    data.iter().map(length).collect()
}

/// An address of the overlay that strangers are told.
fn inner_address(view: &MeshView, zone: &StrangerZone, nobody: &DomainName) -> Option<String> {
    let mut told: Vec<Cow<'_, [Rdata]>> = Vec::new();
    for name in [zone.apex(), nobody] {
        for rtype in [RecordType::A, RecordType::AAAA] {
            if let StrangerAnswer::Records { data, .. } = zone.lookup(name, rtype, TODAY) {
                told.push(data);
            }
        }
    }
    let glue = zone
        .name_servers()
        .iter()
        .flat_map(|(_, addresses)| addresses);
    let all = told.iter().flat_map(|data| data.iter()).chain(glue);
    let inside = all.filter_map(|data| match data {
        Rdata::A(ip) if view.ledger.ipv4.contains(ip) => Some(IpAddr::from(*ip)),
        Rdata::Aaaa(ip) if view.ula().contains(ip) => Some(IpAddr::from(*ip)),
        _ => None,
    });
    let ip = inside.into_iter().next()?;
    Some(format!("strangers are told the overlay's address {ip}"))
}
