//! Which DNS records users may add, and where.

use super::{asking::AskingMember, names::free_name};
use crate::{
    ledger::{
        effect::Effect,
        place::Place,
        record::{RecordData, UserRecord},
        refusal::Refusal,
        request::{AddRecord, RemoveRecord, RemoveRecords},
        state::{NameKind, State},
    },
    limits,
    name::NamePattern,
    zone::{DomainName, RecordType},
};

pub(super) fn rule_add(
    state: &State,
    author: AskingMember<'_>,
    record: AddRecord,
) -> Result<Effect, Refusal> {
    let place = Place::of(state, &record.name)?;
    may_write(state, author, &place, &record.name)?;
    record
        .data
        .check()
        .map_err(|error| Refusal::Record(error.to_string()))?;
    if record
        .ttl_s
        .is_some_and(|ttl_s| ttl_s > limits::RECORD_TTL_S)
    {
        return Err(Refusal::Record(format!(
            "a record may be kept for at most {} seconds",
            limits::RECORD_TTL_S
        )));
    }
    check_type(state, &place, &record.name, &record.data)?;
    state.check_lead(author.node, &record.data)?;
    let beside: &[UserRecord] = state.records.get(&record.name).map_or(&[], |all| all);
    if beside.iter().any(|held| {
        held.data == record.data && held.public == record.public && held.ttl_s == record.ttl_s
    }) {
        return Ok(Effect::Nothing);
    }
    if state.rules > 2 && beside.iter().any(|held| held.data == record.data) {
        return Ok(Effect::ChangeRecord(record));
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
    author: AskingMember<'_>,
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

pub(super) fn rule_remove_one(
    state: &State,
    author: AskingMember<'_>,
    remove: RemoveRecord,
) -> Result<Effect, Refusal> {
    let place = Place::of(state, &remove.name)?;
    may_write(state, author, &place, &remove.name)?;
    let held: &[UserRecord] = state.records.get(&remove.name).map_or(&[], |all| all);
    if held.iter().any(|record| record.data == remove.data) {
        Ok(Effect::RemoveRecord(remove))
    } else {
        Err(Refusal::NoSuchRecord)
    }
}

/// An admin everywhere; others at and below names that they hold.
fn may_write(
    state: &State,
    author: AskingMember<'_>,
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
                if matches!(held.kind, NameKind::Node | NameKind::Device) && says_where(data) =>
            {
                Err(Refusal::MachineRecord(name.to_string()))
            }
            Some(_) => Ok(()),
            None => free_name(state, &[NamePattern::any()].into(), label).map(|_| ()),
        },
        _ => Ok(()),
    }
}

/// Whether a record says which machine its own name is.
fn says_where(data: &RecordData) -> bool {
    match data {
        RecordData::A(_) | RecordData::Aaaa(_) | RecordData::Cname(_) => true,
        RecordData::Svcb(svcb) | RecordData::Https(svcb) => {
            svcb.priority == 0 || svcb.target.is_root() && svcb.hints().next().is_some()
        }
        RecordData::Txt(_)
        | RecordData::Srv(_)
        | RecordData::Mx(_)
        | RecordData::Caa(_)
        | RecordData::Sshfp(_)
        | RecordData::Tlsa(_) => false,
    }
}
