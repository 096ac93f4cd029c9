//! The mesh's domain delegated to its own sinkholes: what the registrar must be given,
//! and whether the public world follows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use futures_util::future::join_all;
use innermesh_proto::{
    view::MeshView,
    zone::{DomainName, PUBLIC_TTL_S, Rdata, Record, RecordType, StrangerZone},
};

use crate::{
    control::{
        ControlError,
        dns::{Delegation, DnsVerifyDelegationRequest, NameServerRow, PublicCheck, PublicChecks},
    },
    dns::{AskError, Dns, Heard, NameServer, Outside, OutsideError, PORT},
    host::Host,
    node::{
        commands::dns_public::who_to_ask,
        shared::refusals::{invalid, refused},
    },
};

/// Bytes of a name that nobody has.
const RANDOM_BYTES: usize = 6;
/// Servers of the zone above that are asked, and addresses of each.
const PARENTS: usize = 4;

/// Why something isn't known of the public world.
#[derive(Debug, thiserror::Error)]
enum NotHeard {
    #[error("the name servers of {0} aren't known: {1}")]
    Above(DomainName, OutsideError),
    #[error("the name servers of the zone above have no addresses")]
    NoAddress,
    #[error("{0}: {1}")]
    Server(SocketAddr, AskError),
    #[error("it is no authority for the domain: another server answers there")]
    NoAuthority,
}

/// Name servers and glue.
///
/// # Errors
/// When no sinkhole answers strangers' DNS.
pub fn delegation(view: &MeshView) -> Result<Delegation, ControlError> {
    let zone = zone(view)?;
    let mut lines = String::new();
    let mut line = |name: &DomainName, data: &Rdata| {
        let record = Record {
            name: name.clone(),
            ttl_s: PUBLIC_TTL_S,
            data: data.clone(),
        };
        lines.push_str(&format!("{record}\n"));
    };
    for (server, _) in zone.name_servers() {
        line(zone.apex(), &Rdata::Ns(server.clone()));
    }
    for (server, addresses) in zone.name_servers() {
        for address in addresses {
            line(server, address);
        }
    }
    let names = zone.name_servers().iter();
    let rows = names
        .zip(view.name_servers())
        .map(|((name, _), (node, at))| NameServerRow {
            name: name.to_string(),
            node: view.ledger.name_of(node),
            addresses: at.iter().copied().collect(),
            live: view.nodes.get(&node).is_some_and(|seen| seen.live),
        });
    Ok(Delegation {
        zone: lines,
        name_servers: rows.collect(),
        serial: match &zone.soa().data {
            Rdata::Soa(soa) => soa.serial,
            _ => 0,
        },
    })
}

fn zone(view: &MeshView) -> Result<StrangerZone, ControlError> {
    let input = view.stranger_input();
    let input = input.ok_or_else(|| invalid("the mesh's domain is no domain name"))?;
    if input.name_servers.is_empty() {
        return Err(refused(
            "no sinkhole answers strangers' DNS at a public address: set `dns` of [sinkhole] in the \
             configuration of a node with the role sinkhole, such as dns = [\"203.0.113.7\"], and \
             restart its agent",
        ));
    }
    Ok(StrangerZone::build(input))
}

/// Asks the zone above for the delegation, and each name server for what it says.
///
/// # Errors
/// As [`delegation`], or when there is nobody to ask.
pub async fn verify(
    host: &Host,
    dns: &Dns,
    view: &MeshView,
    request: DnsVerifyDelegationRequest,
) -> Result<PublicChecks, ControlError> {
    let zone = zone(view)?;
    let servers = who_to_ask(dns, request.at)?;
    let mut random = [0; RANDOM_BYTES];
    host.keys.random(&mut random);
    let nobody = zone
        .apex()
        .child(data_encoding::HEXLOWER.encode(&random).as_bytes());
    let nobody = nobody.unwrap_or_else(|| zone.apex().clone());
    let mut checks = parent_checks(dns, &servers, &zone).await;
    let sinkhole: Vec<Rdata> = view
        .sinkhole_addresses()
        .into_iter()
        .map(Rdata::address)
        .collect();
    let each = zone
        .name_servers()
        .iter()
        .flat_map(|(_, addresses)| addresses);
    let each = each.map(|address| server_checks(dns, &zone, address, (&nobody, &sinkhole)));
    checks.extend(join_all(each).await.into_iter().flatten());
    Ok(PublicChecks {
        servers: servers.iter().map(ToString::to_string).collect(),
        checks,
    })
}

/// What the zone above says of the name servers, as its own servers say it without
/// recursion. Where those are is asked of `resolvers`.
async fn parent_checks(
    dns: &Dns,
    resolvers: &[NameServer],
    zone: &StrangerZone,
) -> Vec<PublicCheck> {
    let servers: Vec<Rdata> = zone
        .name_servers()
        .iter()
        .map(|(name, _)| Rdata::Ns(name.clone()))
        .collect();
    let failed = |why: NotHeard| {
        let asked: Vec<String> = resolvers.iter().map(ToString::to_string).collect();
        let about = (zone.apex(), RecordType::NS);
        vec![check(about, &servers, Err(why), asked.join(", "))]
    };
    let parents = match parents(&dns.outside(resolvers), zone.apex()).await {
        Ok(parents) => parents,
        Err(why) => return failed(why),
    };
    let mut last = NotHeard::NoAddress;
    for parent in parents {
        let heard = dns.ask_one(parent, (zone.apex(), RecordType::NS)).await;
        let heard = match heard {
            Ok(heard) => heard,
            Err(error) => {
                last = NotHeard::Server(parent, error);
                continue;
            }
        };
        // A referral; or its own data, where it is a sinkhole itself.
        let all = [&heard.authorities[..], &heard.answers, &heard.additionals].concat();
        let mut checks = vec![check(
            (zone.apex(), RecordType::NS),
            &servers,
            Ok(Heard::data(&all, zone.apex(), RecordType::NS)),
            parent,
        )];
        for (server, addresses) in zone.name_servers() {
            for (rtype, expected) in by_type(addresses) {
                let got = Heard::data(&all, server, rtype);
                checks.push(check((server, rtype), &expected, Ok(got), parent));
            }
        }
        return checks;
    }
    failed(last)
}

/// Addresses of the servers of the zone above.
async fn parents(outside: &Outside<'_>, apex: &DomainName) -> Result<Vec<SocketAddr>, NotHeard> {
    let mut above = apex.parent();
    let mut names = BTreeSet::new();
    while let Some(name) = above {
        let heard = outside.ask(&name, RecordType::NS).await;
        let heard = heard.map_err(|error| NotHeard::Above(name.clone(), error))?;
        let servers = heard.answers.iter().filter(|record| record.name == name);
        names.extend(servers.filter_map(|record| record.target.clone()));
        if !names.is_empty() {
            break;
        }
        above = name.parent();
    }
    let mut found = Vec::new();
    for name in names.iter().take(PARENTS) {
        for rtype in [RecordType::A, RecordType::AAAA] {
            if let Ok(heard) = outside.ask(name, rtype).await {
                let addresses = heard.answers.iter().filter(|record| record.rtype == rtype);
                let addresses = addresses.filter_map(|record| record.data.parse::<IpAddr>().ok());
                found.extend(addresses.take(PARENTS).map(|ip| SocketAddr::new(ip, PORT)));
            }
        }
    }
    Ok(found)
}

/// Whether one name server says what all must say.
async fn server_checks(
    dns: &Dns,
    zone: &StrangerZone,
    address: &Rdata,
    (nobody, sinkhole): (&DomainName, &[Rdata]),
) -> Vec<PublicCheck> {
    let ip: IpAddr = match address {
        Rdata::A(ip) => (*ip).into(),
        Rdata::Aaaa(ip) => (*ip).into(),
        _ => return Vec::new(),
    };
    let at = SocketAddr::new(ip, PORT);
    let mut questions = vec![(zone.apex(), RecordType::SOA, vec![zone.soa().data.clone()])];
    for (rtype, expected) in by_type(sinkhole) {
        questions.push((nobody, rtype, expected));
    }
    let mut checks = Vec::new();
    for (name, rtype, expected) in questions {
        let heard = dns.ask_one(at, (name, rtype)).await;
        let got = match heard {
            Ok(heard) if !heard.authoritative => Err(NotHeard::NoAuthority),
            Ok(heard) => Ok(Heard::data(&heard.answers, name, rtype)),
            Err(error) => Err(NotHeard::Server(at, error)),
        };
        let is_silent = got.is_err();
        checks.push(check((name, rtype), &expected, got, at));
        if is_silent {
            break;
        }
    }
    checks
}

fn by_type(addresses: &[Rdata]) -> BTreeMap<RecordType, Vec<Rdata>> {
    let mut sets: BTreeMap<RecordType, Vec<Rdata>> = BTreeMap::new();
    for address in addresses {
        let set = sets.entry(address.record_type()).or_default();
        set.push(address.clone());
    }
    sets
}

fn check(
    (name, rtype): (&DomainName, RecordType),
    expected: &[Rdata],
    got: Result<Vec<String>, NotHeard>,
    at: impl ToString,
) -> PublicCheck {
    let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    expected.sort();
    let (got, error) = match got {
        Ok(got) => (got, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let lower = |all: &[String]| -> Vec<String> {
        let mut all: Vec<String> = all.iter().map(|data| data.to_ascii_lowercase()).collect();
        all.sort();
        all
    };
    PublicCheck {
        name: name.to_string(),
        rtype: rtype.to_string(),
        is_expected: error.is_none() && lower(&got) == lower(&expected),
        expected,
        got,
        error,
        hint: None,
        at: Some(at.to_string()),
    }
}
