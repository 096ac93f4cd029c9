//! What each item of the state counts for, in bytes: upper bounds of its encoding
//! with all that may be added for it later.

use super::{
    device::{AddDevice, Device},
    record::UserRecord,
    salts::SALTS_SINCE,
    state::{Issued, Member},
};
use crate::{certificate::LeafPlan, codec, name::Label, zone::DomainName};

/// A token in use, here and in [`super::State::tokens`].
pub(super) const TOKEN: u64 = 160;
/// One more node that a name is shared with.
pub(super) const SHARE: u64 = 17;
/// A certificate without its names and bytes, and its revocation.
pub(super) const CERTIFICATE: u64 = 320;
/// The certificate itself, without its names and key.
pub(super) const DER: u64 = 900;
/// One more address in a certificate.
pub(super) const ADDRESS: u64 = 18;

/// By what a member has its place among its neighbours.
pub(super) const SALT: u64 = 48;

/// With room for two WireGuard keys, each kept both ways round.
pub(super) fn member_bytes(member: &Member, rules: u32) -> u64 {
    let grants = codec::encode(&(&member.names, &member.routes)).len();
    let salt = if rules < SALTS_SINCE { 0 } else { SALT };
    salt + (480 + 2 * member.name.as_str().len() + grants) as u64
}

/// With its keys and addresses the other way round.
pub(super) fn device_bytes(device: &Device) -> u64 {
    256 + codec::encode(device).len() as u64
}

/// As [`device_bytes`], of one that is asked for.
pub(super) fn added_bytes(add: &AddDevice) -> u64 {
    320 + codec::encode(add).len() as u64
}

/// A gateway of a network, with the network.
pub(super) fn route_bytes() -> u64 {
    64
}

pub(super) fn name_bytes(label: &Label, shared: usize) -> u64 {
    64 + label.as_str().len() as u64 + SHARE * shared as u64
}

pub(super) fn record_bytes(name: &DomainName, record: &UserRecord) -> u64 {
    32 + codec::encode(&(name, record)).len() as u64
}

pub(super) fn certificate_bytes(names: &[String], der: usize) -> u64 {
    let text: usize = names.iter().map(|name| name.len() + 2).sum();
    CERTIFICATE + (text + der) as u64
}

/// What the certificate of a plan has at most, in bytes of DER.
pub(super) fn der_bytes(plan: &LeafPlan) -> u64 {
    let names = plan.dns.iter().map(|name| 2 + name.len() as u64);
    DER + names.sum::<u64>() + ADDRESS * plan.ips.len() as u64 + plan.spki.len() as u64
}

pub(super) fn issued_bytes(issued: &Issued) -> u64 {
    certificate_bytes(&issued.names, issued.der.len())
}
