//! Which DNS records users may add, and where.

use super::{Asking, Effect, Refusal, names::free_name};
use crate::{
    ledger::{
        record::{RecordData, UserRecord},
        request::{AddRecord, RemoveRecords},
        state::{NameKind, State},
    },
    limits,
    name::{Label, NamePattern},
    zone::{DomainName, RecordType},
};

pub(super) fn rule_add(
    state: &State,
    author: Asking<'_>,
    record: AddRecord,
) -> Result<Effect, Refusal> {
    let place = Place::of(state, &record.name)?;
    may_write(state, author, &place, &record.name)?;
    record
        .data
        .check()
        .map_err(|error| Refusal::Record(error.to_string()))?;
    check_type(state, &place, &record.name, &record.data)?;
    state.check_lead(author.node, &record.data)?;
    let beside: &[UserRecord] = state.records.get(&record.name).map_or(&[], |all| all);
    if beside
        .iter()
        .any(|held| held.data == record.data && held.public == record.public)
    {
        return Ok(Effect::Nothing);
    }
    let alias = |data: &RecordData| matches!(data, RecordData::Cname(_));
    if !beside.is_empty() && (alias(&record.data) || beside.iter().any(|held| alias(&held.data))) {
        return Err(Refusal::AliasAlone);
    }
    let most = if state.rules == 0 {
        limits::RECORDS
    } else {
        limits::RECORDS_IN_ALL
    };
    if beside.len() >= limits::RECORDS_PER_NAME || state.record_count >= most as u32 {
        return Err(Refusal::TooManyRecords);
    }
    Ok(Effect::AddRecord(record, author.node))
}

pub(super) fn rule_remove(
    state: &State,
    author: Asking<'_>,
    remove: RemoveRecords,
) -> Result<Effect, Refusal> {
    let place = Place::of(state, &remove.name)?;
    may_write(state, author, &place, &remove.name)?;
    let held: &[UserRecord] = state.records.get(&remove.name).map_or(&[], |all| all);
    let rtype = RecordType(remove.rtype);
    if held.iter().any(|record| record.data.record_type() == rtype) {
        Ok(Effect::RemoveRecords(remove))
    } else {
        Err(Refusal::NoSuchRecord)
    }
}

/// Where in the mesh's domain a name stands.
enum Place {
    /// It is the domain.
    Apex,
    /// At a label directly below the domain that nodes and services can have.
    At(Label),
    /// Below one.
    Below(Label),
    /// At or below a label that nobody can hold, such as `_dmarc`.
    Special,
}

impl Place {
    fn of(state: &State, name: &DomainName) -> Result<Self, Refusal> {
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

/// An admin everywhere; others at and below names that they hold.
fn may_write(
    state: &State,
    author: Asking<'_>,
    place: &Place,
    name: &DomainName,
) -> Result<(), Refusal> {
    let label = match place {
        Place::At(label) | Place::Below(label) => Some(label),
        Place::Apex | Place::Special => None,
    };
    let held = label.and_then(|label| state.names.get(label));
    if held.is_some_and(|held| held.owner == author.node) || author.is_admin() {
        return Ok(());
    }
    Err(Refusal::NotYourName(name.to_string()))
}

fn check_type(
    state: &State,
    place: &Place,
    name: &DomainName,
    data: &RecordData,
) -> Result<(), Refusal> {
    let alias = matches!(data, RecordData::Cname(_));
    match place {
        Place::Apex if alias => Err(Refusal::AliasAlone),
        Place::At(label) => match state.names.get(label) {
            // S12: where a machine is, its certificate says.
            Some(held)
                if held.kind == NameKind::Node
                    && matches!(
                        data,
                        RecordData::A(_) | RecordData::Aaaa(_) | RecordData::Cname(_)
                    ) =>
            {
                Err(Refusal::MachineRecord(name.to_string()))
            }
            Some(_) => Ok(()),
            None => free_name(state, &[NamePattern::any()].into(), label).map(|_| ()),
        },
        _ => Ok(()),
    }
}

/// The label of the namespace that a record's name belongs to, if it does.
pub(in crate::ledger) fn label_of(state: &State, name: &DomainName) -> Option<Label> {
    match Place::of(state, name).ok()? {
        Place::At(label) | Place::Below(label) => Some(label),
        Place::Apex | Place::Special => None,
    }
}
