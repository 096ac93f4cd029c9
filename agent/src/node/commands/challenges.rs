//! Challenges of public CAs for names of the mesh: served by the sinkholes, and seen to
//! be.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use innermesh_proto::{
    ledger::{State, record::RecordData, request::AddRecord},
    view::MeshView,
    zone::{CHALLENGES, DomainName, RecordType, is_challenge, is_challenge_value},
};

use crate::{
    control::{ControlError, records::SinkholeRow},
    dns::{AskError, Dns, Heard, PORT},
    host::{Host, within},
    node::shared::refusals::{invalid, refused},
};

/// How long all sinkholes have, and how soon one is asked again.
const PATIENCE: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(300);

/// Why a sinkhole doesn't serve a challenge, as far as is seen from here.
#[derive(Debug, thiserror::Error)]
enum NotServed {
    #[error("it has no address")]
    Nowhere,
    #[error("{0} is no authority for the domain: another server answers there")]
    NoAuthority(SocketAddr),
    #[error("{0} doesn't answer with it yet")]
    NotYet(SocketAddr),
    #[error("{0}: {1}")]
    Unheard(SocketAddr, AskError),
}

/// Whether a record is a challenge that strangers are to see.
pub fn is_public_challenge(add: &AddRecord) -> bool {
    add.public && is_challenge(&add.name) && matches!(add.data, RecordData::Txt(_))
}

/// Whether it has the size that all challenges have: another would show to strangers
/// that its name exists.
///
/// # Errors
/// What is wrong with it.
pub fn check(state: &State, add: &AddRecord) -> Result<(), ControlError> {
    let RecordData::Txt(strings) = &add.data else {
        return Ok(());
    };
    if !is_challenge_value(strings) {
        return Err(invalid(
            "a challenge that strangers see has 43 characters of base64url, as ACME clients give \
             it to their hooks (RFC 8555, section 8.4)",
        ));
    }
    let held = state.records.get(&add.name);
    let others = held.iter().flat_map(|held| held.iter()).filter(|held| {
        let is_text = matches!(&held.data, RecordData::Txt(text) if is_challenge_value(text));
        held.public && is_text && held.data != add.data
    });
    if others.count() >= CHALLENGES {
        return Err(refused(format!(
            "{} has {CHALLENGES} challenges already: remove them with `agent record rm {} TXT`",
            add.name, add.name
        )));
    }
    Ok(())
}

/// What each sinkhole answers strangers, once all that are live answer with the value,
/// or after some time.
pub async fn await_sinkholes(
    host: &Host,
    dns: &Dns,
    view: &MeshView,
    (name, data): (&DomainName, &RecordData),
) -> Vec<SinkholeRow> {
    let RecordData::Txt(strings) = data else {
        return Vec::new();
    };
    let value = String::from_utf8_lossy(&strings.concat()).into_owned();
    let each = view.name_servers().into_iter().map(|(node, at)| {
        let mut row = SinkholeRow {
            node: view.ledger.name_of(node),
            addresses: at.iter().copied().collect(),
            live: view.nodes.get(&node).is_some_and(|seen| seen.live),
            serves: false,
            error: None,
        };
        let value = &value;
        async move {
            if !row.live {
                row.error = Some("it isn't there; it serves the record once it is back".to_owned());
                return row;
            }
            let at: Vec<SocketAddr> = at.iter().map(|ip| SocketAddr::new(*ip, PORT)).collect();
            let mut last: Option<NotServed> = None;
            let served = within(&*host.clock, PATIENCE, async {
                loop {
                    match serves(dns, &at, name, value).await {
                        Ok(()) => return,
                        Err(why) => last = Some(why),
                    }
                    host.clock.sleep(AGAIN).await;
                }
            });
            row.serves = served.await.is_some();
            row.error = last.filter(|_| !row.serves).map(|why| why.to_string());
            row
        }
    });
    join_all(each).await
}

/// By one of its addresses: this host may have no way to the others.
async fn serves(
    dns: &Dns,
    at: &[SocketAddr],
    name: &DomainName,
    value: &str,
) -> Result<(), NotServed> {
    let each = at
        .iter()
        .map(|at| dns.ask_one(*at, (name, RecordType::TXT)));
    let mut why = NotServed::Nowhere;
    for (at, heard) in at.iter().zip(join_all(each).await) {
        match heard {
            Ok(heard) if !heard.authoritative => {
                why = NotServed::NoAuthority(*at);
            }
            Ok(heard) => {
                let values = Heard::data(&heard.answers, name, RecordType::TXT);
                if values.iter().any(|other| other == value) {
                    return Ok(());
                }
                why = NotServed::NotYet(*at);
            }
            Err(error) if matches!(why, NotServed::Nowhere) => {
                why = NotServed::Unheard(*at, error);
            }
            Err(_) => {}
        }
    }
    Err(why)
}
