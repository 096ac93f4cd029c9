//! Users' DNS records: written to the ledger, from which every node's zone is
//! made.

use std::{sync::Arc, time::Duration};

use innermesh_proto::{
    ledger::{
        Content, Refusal, State,
        record::{RecordData, UserRecord},
        request::{AddRecord, RemoveRecord, RemoveRecords},
    },
    view::MeshView,
    zone::{DomainName, RecordType, TTL_S},
};

use super::challenges;
use crate::control::{
    ControlError,
    records::{RecordAddRequest, RecordRmRequest, RecordRow},
};
use crate::dns::Dns;
use crate::host::within;
use crate::node::shared::{
    handles::Handles,
    refusals::{decide, invalid, refused},
    zone::zone_of,
};

/// How long a view may take to follow the ledger.
const FOLLOWS: Duration = Duration::from_secs(3);

/// All of them, by name.
pub fn list(node: &Handles, dns: &Dns) -> Vec<RecordRow> {
    let zone = dns.zone();
    let state = node.ledger.state();
    let rows = state.records.iter().flat_map(|(name, all)| {
        let (state, zone) = (&state, &zone);
        all.iter().map(move |record| RecordRow {
            answered: zone.holds(name, &record.data.rdata()),
            name: name.to_string(),
            rtype: record.data.record_type().to_string(),
            value: record.data.to_string(),
            ttl_s: record.ttl_s.unwrap_or(TTL_S),
            public: record.public,
            owner: state.name_of(record.owner),
            sinkholes: Vec::new(),
        })
    });
    rows.collect()
}

/// Adds one; answers once this node answers it, unless something else of that
/// name comes first, and a challenge once the sinkholes that are live serve it.
///
/// # Errors
/// What is wrong with it, or why the mesh refuses it.
pub async fn add(
    node: &Handles,
    dns: &Dns,
    record: RecordAddRequest,
) -> Result<RecordRow, ControlError> {
    let rtype: RecordType = record.rtype.parse().map_err(invalid)?;
    let add = AddRecord {
        name: record.name.parse::<DomainName>().map_err(invalid)?,
        data: RecordData::parse(rtype, &record.value).map_err(invalid)?,
        ttl_s: record.ttl_s,
        public: record.public,
    };
    let content = Content::AddRecord(add.clone());
    if content.since_rules() > node.ledger.state().rules {
        return Err(too_new());
    }
    let is_challenge = challenges::is_public_challenge(&add);
    if is_challenge {
        challenges::check(&node.ledger.state(), &add)?;
    }
    let row = RecordRow {
        name: add.name.to_string(),
        rtype: rtype.to_string(),
        value: add.data.to_string(),
        ttl_s: add.ttl_s.unwrap_or(TTL_S),
        public: add.public,
        owner: String::new(),
        answered: false,
        sinkholes: Vec::new(),
    };
    let AddRecord { name, data, .. } = add;
    decide(&node.client, &content).await?;
    let state = node.ledger.state();
    let held: &[UserRecord] = state.records.get(&name).map_or(&[], |all| all);
    // Who had added the same before is its owner.
    let owner = held.iter().find(|held| held.data == data);
    let owner = owner.map_or(node.me, |held| held.owner);
    let owner = state.name_of(owner);
    // The zone follows the ledger a moment later.
    let mut views = node.view.subscribe();
    let is_seen = |view: &Arc<MeshView>| view.ledger.position.index >= state.position.index;
    let seen = views.wait_for(is_seen);
    let _ = within(&*node.host.clock, FOLLOWS, seen).await;
    let view = node.view.borrow().clone();
    let sinkholes = if is_challenge {
        challenges::await_sinkholes(&node.host, dns, &view, (&name, &data)).await
    } else {
        Vec::new()
    };
    Ok(RecordRow {
        sinkholes,
        owner,
        answered: zone_of(&view, 0).holds(&name, &data.rdata()),
        ..row
    })
}

/// Takes one, or all of one name and type, away.
///
/// # Errors
/// As [`add`].
pub async fn rm(node: &Handles, remove: RecordRmRequest) -> Result<(), ControlError> {
    let rtype: RecordType = remove.rtype.parse().map_err(invalid)?;
    let name: DomainName = remove.name.parse().map_err(invalid)?;
    let content = match remove.value {
        None => all(name, rtype),
        Some(value) => {
            let data = RecordData::parse(rtype, &value).map_err(invalid)?;
            one(&node.ledger.state(), RemoveRecord { name, data })?
        }
    };
    decide(&node.client, &content).await?;
    Ok(())
}

fn all(name: DomainName, rtype: RecordType) -> Content {
    Content::RemoveRecords(RemoveRecords {
        name,
        rtype: rtype.0,
    })
}

/// Takes one away; earlier rules know only how to take all of its type.
fn one(state: &State, remove: RemoveRecord) -> Result<Content, ControlError> {
    let rtype = remove.data.record_type();
    let held: &[UserRecord] = state.records.get(&remove.name).map_or(&[], |all| all);
    let mut of_type = held.iter().filter(|held| held.data.record_type() == rtype);
    let is_there = of_type.clone().any(|held| held.data == remove.data);
    let is_alone = of_type.all(|held| held.data == remove.data);
    let content = Content::RemoveRecord(remove.clone());
    if content.since_rules() <= state.rules {
        Ok(content)
    } else if !is_there {
        Err(refused(Refusal::NoSuchRecord))
    } else if is_alone {
        Ok(all(remove.name, rtype))
    } else {
        Err(too_new())
    }
}

/// What only newer rules of the ledger have.
fn too_new() -> ControlError {
    refused(
        "not all nodes know this yet: HTTPS, SVCB, SSHFP and TLSA records, --ttl, and removing one \
         of several values; update the agents, CA nodes first",
    )
}
