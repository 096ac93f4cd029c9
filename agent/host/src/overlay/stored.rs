//! The newest plan as a file of the state folder: what is applied after boot,
//! before the agent runs and knows more.

use std::{io, path::Path};

use innermesh_proto::{
    filter::{FilterPlan, PublishFilter, access::AccessPlan},
    limits,
};

use crate::Disk;

/// The file's name.
pub const FILE: &str = "overlay.json";

/// The stored plan; `None` where there is none, or one that can't be used.
///
/// # Errors
/// The disk's.
pub async fn read(disk: &dyn Disk) -> io::Result<Option<FilterPlan>> {
    Ok(disk
        .read(Path::new(FILE))
        .await?
        .and_then(|bytes| parse(&bytes)))
}

/// Stores a plan, unless it is there already. Who may reach what isn't part of it, nor
/// is what is published: before the agent runs nothing comes by the tunnel.
///
/// # Errors
/// The disk's; the old one stands.
pub async fn write(disk: &dyn Disk, plan: &FilterPlan) -> io::Result<()> {
    let plan = FilterPlan {
        access: AccessPlan::default(),
        publish: PublishFilter::default(),
        ..plan.clone()
    };
    if read(disk).await?.as_ref() == Some(&plan) {
        return Ok(());
    }
    let bytes = serde_json::to_vec_pretty(&plan)?;
    disk.replace(Path::new(FILE), &bytes).await
}

/// Forgets it.
///
/// # Errors
/// The disk's.
pub async fn remove(disk: &dyn Disk) -> io::Result<()> {
    disk.remove(Path::new(FILE)).await
}

/// Reads a file's bytes. Fields of a newer build are ignored.
pub fn parse(bytes: &[u8]) -> Option<FilterPlan> {
    if bytes.len() > limits::FILTER_PLAN_BYTES {
        return None;
    }
    let plan: FilterPlan = serde_json::from_slice(bytes).ok()?;
    plan.is_bounded().then_some(plan)
}
