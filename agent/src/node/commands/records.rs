//! Users' DNS records: written to the ledger, from which every node's zone is
//! made.

use innermesh_proto::{
    ledger::{
        Content,
        record::{RecordData, UserRecord},
        request::{AddRecord, RemoveRecords},
    },
    zone::{DomainName, RecordType},
};

use crate::control::{
    ControlError,
    records::{RecordAddRequest, RecordRow},
};
use crate::dns::Dns;
use crate::node::shared::{
    handles::Handles,
    refusals::{decide, invalid},
};

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
            public: record.public,
            owner: state.name_of(record.owner),
        })
    });
    rows.collect()
}

/// Adds one; answers once this node answers it, unless something else of that
/// name comes first.
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
        public: record.public,
    };
    let row = RecordRow {
        name: add.name.to_string(),
        rtype: rtype.to_string(),
        value: add.data.to_string(),
        public: add.public,
        owner: String::new(),
        answered: false,
    };
    let (name, data) = (add.name.clone(), add.data.clone());
    decide(&node.client, &Content::AddRecord(add)).await?;
    let state = node.ledger.state();
    let held: &[UserRecord] = state.records.get(&name).map_or(&[], |all| all);
    // Who had added the same before is its owner.
    let owner = held.iter().find(|held| held.data == data);
    let owner = owner.map_or(node.me, |held| held.owner);
    Ok(RecordRow {
        owner: state.name_of(owner),
        answered: dns.zone().holds(&name, &data.rdata()),
        ..row
    })
}

/// Takes all of one name and type away.
///
/// # Errors
/// As [`add`].
pub async fn rm(node: &Handles, name: &str, rtype: &str) -> Result<(), ControlError> {
    let rtype: RecordType = rtype.parse().map_err(invalid)?;
    let remove = RemoveRecords {
        name: name.parse().map_err(invalid)?,
        rtype: rtype.0,
    };
    decide(&node.client, &Content::RemoveRecords(remove)).await?;
    Ok(())
}
