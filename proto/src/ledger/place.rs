//! Where the name of a record stands in the mesh's domain.

#![allow(missing_docs, reason = "the names say it")]

use super::{refusal::Refusal, state::State};
use crate::{name::Label, zone::DomainName};

/// Where in the mesh's domain a name stands.
pub(super) enum Place {
    /// It is the domain.
    Apex,
    /// At a label directly below the domain that nodes and services can have.
    At(Label),
    Below(Label),
    /// At or below a label that nobody can hold, such as `_dmarc`.
    Special,
}

impl Place {
    pub fn of(state: &State, name: &DomainName) -> Result<Self, Refusal> {
        let no = || Refusal::RecordName(name.to_string());
        let (above, top) = below(state, name).ok_or_else(no)?;
        let Some(top) = top else {
            return Ok(Self::Apex);
        };
        let plain = |label: &[u8]| {
            label
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
        };
        // A wildcard stands in front, and never for whole nodes or services.
        let sub = above.split_first();
        let good = plain(top)
            && sub.is_none_or(|(first, rest)| {
                (plain(first) || *first == b"*") && rest.iter().all(|label| plain(label))
            });
        if !good {
            return Err(no());
        }
        let label = std::str::from_utf8(top)
            .ok()
            .and_then(|top| top.parse().ok());
        let label: Label = match label {
            Some(label) => label,
            None if top.starts_with(b"_") => return Ok(Self::Special),
            None => return Err(no()),
        };
        let label = label
            .clone()
            .grantable()
            .map_err(|_| Refusal::NameReserved(label))?;
        Ok(if above.is_empty() {
            Self::At(label)
        } else {
            Self::Below(label)
        })
    }
}

/// The labels of a name that stand before its topmost one below the mesh's
/// domain, and that; `None` for a name elsewhere.
#[allow(clippy::type_complexity)]
fn below<'n>(state: &State, name: &'n DomainName) -> Option<(Vec<&'n [u8]>, Option<&'n [u8]>)> {
    let mut labels: Vec<&[u8]> = name.labels().collect();
    let domain: Vec<&[u8]> = state
        .domain
        .as_str()
        .split('.')
        .map(str::as_bytes)
        .collect();
    let own = labels.len().checked_sub(domain.len())?;
    if labels.split_off(own) != domain {
        return None;
    }
    let top = labels.pop();
    Some((labels, top))
}

/// The label of the namespace that a record's name belongs to, if it does.
pub(super) fn label_of(state: &State, name: &DomainName) -> Option<Label> {
    match Place::of(state, name).ok()? {
        Place::At(label) | Place::Below(label) => Some(label),
        Place::Apex | Place::Special => None,
    }
}
