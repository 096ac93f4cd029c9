//! `agent seed add`: where this node asks when it finds nobody.

use std::{io, net::SocketAddr};

use innermesh_proto::{limits, path::LaneUrl};

use crate::{
    control::{ControlError, ErrorCode, node::SeedAdded},
    enroll::parse_seed,
    host::state_folder::{self, KnownLane},
    node::shared::{handles::Handles, refusals::invalid},
};

/// Connects with the member that answers there first, then keeps its address
/// before those that are kept.
///
/// # Errors
/// When it is no address, when no member answers there, or the disk's.
pub async fn add(node: &Handles, text: &str) -> Result<SeedAdded, ControlError> {
    if let Ok(url) = text.parse::<LaneUrl>() {
        return add_lane(node, &url).await;
    }
    let (host, port) = parse_seed(text).map_err(invalid)?;
    let found = node.host.net.resolve(&host, port).await;
    let addresses =
        found.map_err(|error| unavailable(format!("{host} can't be resolved: {error}")))?;
    let mut why = "it has no address".to_owned();
    for address in addresses.into_iter().take(limits::ENDPOINTS) {
        match node.transport.dial(address, None).await {
            Ok(found) => {
                keep(node, address).await?;
                return Ok(SeedAdded {
                    node: node.ledger.state().name_of(found),
                    address,
                });
            }
            Err(error) => why = error.to_string(),
        }
    }
    Err(unavailable(format!(
        "no member of this mesh answers at {text}: {why}; is the agent running there, and UDP port \
         {port} open?"
    )))
}

/// Connects over a lane. Its relay is heard then, also where it takes in lanes, and that is
/// kept; this one serves until the node has opened its own.
async fn add_lane(node: &Handles, url: &LaneUrl) -> Result<SeedAdded, ControlError> {
    let failed = |why: String| {
        unavailable(format!(
            "no member of this mesh answers over TCP at {url}: {why}; is the agent running there, \
             with [lane] in its configuration?"
        ))
    };
    let lanes = node.transport.lanes();
    let lanes = lanes.ok_or_else(|| failed("there are none here".into()))?;
    let (host, port) = url.host();
    let found = node.host.net.resolve(host, port).await;
    let addresses =
        found.map_err(|error| unavailable(format!("{host} can't be resolved: {error}")))?;
    let mut why = "it has no address".to_owned();
    for address in addresses.into_iter().take(limits::DIALED_ADDRESSES) {
        let open = match lanes.dial(&*node.host.net, url, address).await {
            Ok(open) => open,
            Err(error) => {
                why = error.to_string();
                continue;
            }
        };
        let at = open.address();
        node.host.tasks.spawn(open.carry());
        match node.transport.dial(at, None).await {
            Ok(found) => {
                let lane = KnownLane {
                    node: found,
                    url: url.clone(),
                    last: Some(address.ip()),
                };
                keep_lane(node, lane).await?;
                return Ok(SeedAdded {
                    node: node.ledger.state().name_of(found),
                    address,
                });
            }
            Err(error) => why = error.to_string(),
        }
    }
    Err(failed(why))
}

async fn keep_lane(node: &Handles, lane: KnownLane) -> Result<(), ControlError> {
    let disk = &*node.host.disk;
    let mut lanes = state_folder::load_lanes(disk).await;
    lanes.retain(|known| known.node != lane.node);
    lanes.insert(0, lane);
    lanes.truncate(limits::LANES_KNOWN);
    let kept = state_folder::store_lanes(disk, &lanes).await;
    kept.map_err(not_kept)
}

fn not_kept(error: io::Error) -> ControlError {
    ControlError::new(
        ErrorCode::Internal,
        format!("connected, but the address can't be kept: {error}"),
    )
}

async fn keep(node: &Handles, address: SocketAddr) -> Result<(), ControlError> {
    let disk = &*node.host.disk;
    let mut seeds = state_folder::load_seeds(disk).await;
    seeds.retain(|seed| *seed != address);
    seeds.insert(0, address);
    seeds.truncate(limits::ENDPOINTS);
    let kept = state_folder::store_seeds(disk, &seeds).await;
    kept.map_err(not_kept)
}

fn unavailable(text: String) -> ControlError {
    ControlError::new(ErrorCode::Unavailable, text)
}
