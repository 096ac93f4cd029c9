//! `agent seed add`: where this node asks when it finds nobody.

use std::net::SocketAddr;

use innermesh_proto::limits;

use crate::{
    control::{ControlError, ErrorCode, node::SeedAdded},
    enroll::parse_seed,
    host::state_folder,
    node::shared::{handles::Handles, refusals::invalid},
};

/// Connects with the member that answers there first, then keeps its address
/// before those that are kept.
///
/// # Errors
/// When it is no address, when no member answers there, or the disk's.
pub async fn add(node: &Handles, text: &str) -> Result<SeedAdded, ControlError> {
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

async fn keep(node: &Handles, address: SocketAddr) -> Result<(), ControlError> {
    let disk = &*node.host.disk;
    let mut seeds = state_folder::load_seeds(disk).await;
    seeds.retain(|seed| *seed != address);
    seeds.insert(0, address);
    seeds.truncate(limits::ENDPOINTS);
    let kept = state_folder::store_seeds(disk, &seeds).await;
    kept.map_err(|error| {
        ControlError::new(
            ErrorCode::Internal,
            format!("connected, but the address can't be kept: {error}"),
        )
    })
}

fn unavailable(text: String) -> ControlError {
    ControlError::new(ErrorCode::Unavailable, text)
}
