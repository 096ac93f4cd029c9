//! The words of a policy: whom and what a text names.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    error::WordError,
    model::{Subject, Target},
};
use crate::{filter::access::Ports, limits};

/// The word for what exits lead to, where nothing in the mesh is called so.
pub const INTERNET: &str = "internet";

/// Reads whom a text names: `members`, `devices`, `group:NAME`, a name, an
/// address or a network.
///
/// # Errors
/// Why it names nobody.
pub fn parse_subject(text: &str) -> Result<Subject, WordError> {
    match text {
        "members" => return Ok(Subject::Members),
        "devices" => return Ok(Subject::Devices),
        "" => return Err(WordError::Nobody),
        _ => {}
    }
    if let Some(group) = text.strip_prefix("group:") {
        return Ok(Subject::Group(group.parse()?));
    }
    if text.contains('/') || text.parse::<IpAddr>().is_ok() {
        return net(text).map(Subject::Net);
    }
    if text.contains(':') {
        return Err(WordError::PortOfSource);
    }
    Ok(Subject::Name(text.parse()?))
}

/// Reads what a text names and which ports of it: `mail`, `mail:25,587`,
/// `bravo:tcp/22`, `bravo:*`, `10.0.5.0/24:udp/53`, `[fd00::/64]:443`.
///
/// # Errors
/// Why it names nothing.
pub fn parse_target(text: &str) -> Result<Target, WordError> {
    let (subject, ports) = split(text)?;
    let subject = parse_subject(subject)?;
    let ports = ports.map(parse_ports).transpose()?;
    Ok(Target { subject, ports })
}

/// What is named, and what stands behind its colon.
fn split(text: &str) -> Result<(&str, Option<&str>), WordError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, rest) = rest.split_once(']').ok_or(WordError::OpenBracket)?;
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((inner, Some(ports))),
            None if rest.is_empty() => Ok((inner, None)),
            None => Err(WordError::BehindBracket),
        };
    }
    let is_whole = |text: &str| text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok();
    if is_whole(text) {
        return Ok((text, None));
    }
    let after = match text.strip_prefix("group:") {
        Some(_) => "group:".len(),
        None => 0,
    };
    match text[after..].find(':') {
        Some(at) if text[after + at + 1..].contains(':') => Err(WordError::NoBracket),
        Some(at) => Ok((&text[..after + at], Some(&text[after + at + 1..]))),
        None => Ok((text, None)),
    }
}

fn parse_ports(text: &str) -> Result<BTreeSet<Ports>, WordError> {
    let mut ports = BTreeSet::new();
    for part in text.split(',') {
        ports.extend(parse_part(part.trim())?);
        if ports.len() > limits::POLICY_PORTS {
            return Err(WordError::TooManyPorts);
        }
    }
    Ok(ports)
}

/// A port is TCP's and UDP's, unless one of them is named.
fn parse_part(part: &str) -> Result<Vec<Ports>, WordError> {
    match part {
        "*" => return Ok(vec![Ports::All]),
        "icmp" => return Ok(vec![Ports::Icmp]),
        _ => {}
    }
    let (protocol, range) = match part.split_once('/') {
        Some((protocol, range)) => (Some(protocol), range),
        None => (None, part),
    };
    let (first, last) = match range {
        "*" => (0, u16::MAX),
        _ => {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (port(first)?, port(last)?)
        }
    };
    if first > last {
        return Err(WordError::Backwards(range.to_owned()));
    }
    let (tcp, udp) = (Ports::Tcp(first, last), Ports::Udp(first, last));
    match protocol {
        None => Ok(vec![tcp, udp]),
        Some("tcp") => Ok(vec![tcp]),
        Some("udp") => Ok(vec![udp]),
        Some(other) => Err(WordError::Protocol(other.to_owned())),
    }
}

fn port(text: &str) -> Result<u16, WordError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|port| digits && *port > 0)
        .ok_or_else(|| WordError::NoPort(text.chars().take(40).collect()))
}

fn net(text: &str) -> Result<IpNet, WordError> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let net: IpNet = text
        .parse()
        .ok()
        .or_else(address)
        .ok_or(WordError::NoNetwork)?;
    if net != net.trunc() {
        return Err(WordError::Within(net.trunc()));
    }
    Ok(net)
}
