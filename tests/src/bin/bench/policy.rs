//! A policy of five hundred rules, compiled for a member and for a gateway of fifty
//! devices, and handed to nftables.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use innermesh_proto::{
    filter::{
        FilterPlan, HostNetworks,
        access::{AccessPlan, Ports},
        nft::{self, render},
    },
    id::NodeId,
    name::Label,
    policy::{
        DeviceEntry, Directory, InstanceEntry, NodeEntry, Place, Policy, ServiceEntry,
        ServicePorts, check, compile,
    },
};
use innermesh_tests::{Host, Lab, inside};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
        setsockopt, socket, sockopt::ReceiveTimeout,
    },
    time::{TimeVal, TimeValLike},
};
use serde_json::json;

use crate::figures::Report;

const NODES: u8 = 200;
const DEVICES: u8 = 50;
const RULES: usize = 500;
const ROUNDS: usize = 20;
/// The bit of NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h.
const NFTABLES_GROUPS: u32 = 1 << 6;

pub fn measure(report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(1)?;
    let host = &lab.hosts[0];
    let directory = directory()?;
    let text = text(0);
    let begun = Instant::now();
    let policy = Policy::parse(&text).map_err(|error| error.to_string())?;
    let parsed = begun.elapsed();
    let begun = Instant::now();
    check(&policy, &directory).map_err(|error| error.to_string())?;
    let checked = begun.elapsed();
    let figures = format!(
        "read in {:.1} ms, checked in {:.1} ms",
        ms(parsed),
        ms(checked)
    );
    let data = json!({ "read_ms": ms(parsed), "checked_ms": ms(checked), "bytes": text.len() });
    report.add("policy of 500 rules", "set", NODES.into(), figures, data);
    let policies: Vec<Policy> = (0..=ROUNDS)
        .map(|round| Policy::parse(&self::text(round)).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    for (system, number, is_gateway) in [("member", 1, false), ("gateway", 0, true)] {
        let place = Place {
            me: id(number),
            own: addresses(1, number).into(),
            is_gateway,
            is_exit: false,
            served: [Ports::Udp(53, 53), Ports::Tcp(7480, 7480)].into(),
        };
        place_of(host, system, &policies, &directory, &place, report)?;
    }
    Ok(())
}

/// What it takes to enforce a policy where nothing was in force, and then one after
/// the other, each with one rule that differs.
fn place_of(
    host: &Host,
    system: &str,
    policies: &[Policy],
    directory: &Directory,
    place: &Place,
    report: &mut Report,
) -> Result<(), String> {
    let (mut compiled, mut whole) = (Vec::new(), Vec::new());
    let (mut in_force, mut changed) = (Vec::new(), Vec::new());
    let mut before = String::new();
    let (mut rules, mut lines, mut changes) = (0, 0, 0);
    for policy in policies {
        let begun = Instant::now();
        let access = compile(policy, directory, place);
        rules = access.rules.len();
        let text = render(&plan(directory, place, access)?, false);
        let change = nft::changes(&before, &text);
        compiled.push(ms(begun.elapsed()));
        lines = text.lines().count();
        if !before.is_empty() {
            let change = change.ok_or("a change that isn't one")?;
            // Most rules are about others than a member.
            if !change.is_empty() {
                changes = change.lines().count();
                let applied = change_rules(host, &change)?;
                in_force.push(applied.in_force_ms);
                changed.push(applied.ended_ms);
            }
        }
        apply(host, nft::REMOVE)?;
        whole.push(apply(host, &text)?);
        before = text;
    }
    let compiled = median(&mut compiled);
    let (whole, changed) = (median(&mut whole), median(&mut changed));
    let in_force = median(&mut in_force);
    let figures = format!(
        "compiled in {compiled:.1} ms, one changed rule in force after {in_force:.1} ms, nft done \
         after {changed:.1} ms ({changes} lines), all applied in {whole:.1} ms ({rules} rules, \
         {lines} lines)"
    );
    let data = json!({
        "compiled_ms": compiled, "in_force_ms": in_force, "changed_ms": changed, "whole_ms": whole,
        "rules": rules, "lines": lines, "changed_lines": changes,
    });
    report.add("policy of 500 rules", system, NODES.into(), figures, data);
    Ok(())
}

/// Milliseconds since `nft` was started.
struct Applied {
    /// The kernel has told of it: packets are judged by the new rules.
    in_force_ms: f64,
    /// `nft` has ended; it waits until what was replaced is released.
    ended_ms: f64,
}

fn change_rules(host: &Host, transaction: &str) -> Result<Applied, String> {
    let network = host.network().map_err(|error| error.to_string())?;
    let news = inside(network, news).map_err(|error| error.to_string())?;
    let told = std::thread::spawn(move || {
        recv(news.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_TRUNC).map(|_| Instant::now())
    });
    let begun = Instant::now();
    let ended_ms = apply(host, transaction)?;
    let told = told.join().map_err(|_| "the thread that listens")?;
    let told = told.map_err(|error| error.to_string())?;
    Ok(Applied {
        in_force_ms: ms(told.duration_since(begun)),
        ended_ms,
    })
}

/// Milliseconds that `nft` takes for a transaction.
fn apply(host: &Host, transaction: &str) -> Result<f64, String> {
    let file = host.directory.join("rules.nft");
    fs::write(&file, transaction).map_err(|error| error.to_string())?;
    let path = file.to_string_lossy();
    let begun = Instant::now();
    host.run(&["nft", "-f", &path]).result()?;
    Ok(ms(begun.elapsed()))
}

/// A socket on which the kernel tells of each transaction once it is in force.
fn news() -> io::Result<OwnedFd> {
    let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkNetFilter);
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, NFTABLES_GROUPS))?;
    let patience = TimeVal::seconds(10);
    setsockopt(&socket, ReceiveTimeout, &patience)?;
    Ok(socket)
}

fn plan(directory: &Directory, place: &Place, access: AccessPlan) -> Result<FilterPlan, String> {
    let interface = "im0".to_owned().try_into();
    let mut plan = FilterPlan::new(
        interface.map_err(|error| format!("{error}"))?,
        directory.networks.clone(),
        place.own.clone(),
        directory.resolvers.clone(),
        &HostNetworks::default(),
        |_| true,
    );
    plan.access = access;
    Ok(plan)
}

/// Nodes, each with a service of its own, and devices behind the first.
fn directory() -> Result<Directory, String> {
    let label = |text: String| text.parse::<Label>().map_err(|error| error.to_string());
    let net = |text: &str| text.parse().map_err(|_| format!("{text} is no network"));
    let mut directory = Directory {
        networks: [net("10.77.0.0/16")?, net("fd77::/48")?].into(),
        resolvers: [IpAddr::from(Ipv4Addr::new(10, 77, 0, 53))].into(),
        routes: [(net("192.168.5.0/24")?, [id(0)].into())].into(),
        ..Directory::default()
    };
    for number in 0..NODES {
        let addresses: BTreeSet<IpAddr> = addresses(1, number).into();
        let node = NodeEntry {
            id: id(number),
            addresses: addresses.clone(),
        };
        directory
            .nodes
            .insert(label(format!("node{number}"))?, node);
        let port = 8000 + u16::from(number);
        let instance = InstanceEntry {
            addresses,
            ports: ServicePorts::Known(Ports::Tcp(port, port)),
        };
        let instances = [instance].into();
        let service = ServiceEntry { instances };
        directory
            .services
            .insert(label(format!("service{number}"))?, service);
    }
    for number in 0..DEVICES {
        let device = DeviceEntry {
            addresses: addresses(9, number).into(),
            gateways: [id(0)].into(),
            ..DeviceEntry::default()
        };
        directory
            .devices
            .insert(label(format!("phone{number}"))?, device);
    }
    Ok(directory)
}

fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn addresses(kind: u8, number: u8) -> [IpAddr; 2] {
    let v6 = [0xfd77, 0, 0, 0, 0, 0, kind.into(), number.into()];
    [
        Ipv4Addr::new(10, 77, kind, number).into(),
        Ipv6Addr::from(v6).into(),
    ]
}

/// Twenty groups, and rules from each to others, to services and ports; in each round
/// one rule more is about another port.
fn text(round: usize) -> String {
    let mut text =
        String::from("[default]\nmembers = \"closed\"\ndevices = \"closed\"\n[groups]\n");
    for group in 0..20 {
        let nodes = (0..NODES)
            .filter(|n| n % 20 == group)
            .map(|n| format!("\"node{n}\""));
        let devices = (0..DEVICES)
            .filter(|n| n % 20 == group)
            .map(|n| format!("\"phone{n}\""));
        let all: Vec<String> = nodes.chain(devices).collect();
        let _ = writeln!(text, "g{group} = [{}]", all.join(", "));
    }
    for rule in 0..RULES {
        let (from, to) = (rule % 20, rule * 7 % 20);
        let is_changed = (1..=round).any(|round| round * 23 == rule);
        let port = 1000 + rule + if is_changed { RULES } else { 0 };
        let service = rule % usize::from(NODES);
        let _ = writeln!(
            text,
            "[[allow]]\nfrom = [\"group:g{from}\"]\nto = [\"service{service}\", \"group:g{to}:tcp/{port}\"]"
        );
    }
    text
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(all: &mut [f64]) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}
