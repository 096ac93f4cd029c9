//! `agent overlay`: closes the overlay before the agent runs, and opens it for
//! good. For the unit that runs before the network is up, and for uninstalling.

use std::collections::BTreeSet;

use clap::Subcommand;
use innermesh_proto::filter::Interface;

use super::{context::Context, failure::Failure, files::config_file, output::note};
use crate::{
    host::disk::SystemDisk,
    overlay::{Overlay, SystemOverlay, forwarding, stored},
    tunnel,
};

/// Close the overlay to other networks, or take that back.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Apply the filter and the routes that the agent had last.
    Load,
    /// Take filter, routes, rules and links of public nodes away.
    Remove,
}

pub async fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    let overlay = SystemOverlay::default();
    match command {
        Command::Load => load(&overlay, context).await,
        Command::Remove => remove(&overlay, context).await,
    }
}

/// As much as can be: where one thing can't be taken away, the others are.
async fn remove(overlay: &SystemOverlay, context: &Context) -> Result<(), Failure> {
    let disk = SystemDisk::new(context.paths.state.clone());
    let forwards = forwarding::close(overlay, &disk).await;
    // By these strangers come, and without the filter they would reach everything.
    let links = remove_links(&disk, context).await;
    overlay.remove().await.map_err(Failure::failed)?;
    forwards.map_err(Failure::failed)?;
    links
}

/// Those that the kernel kept when the agent ended.
async fn remove_links(disk: &SystemDisk, context: &Context) -> Result<(), Failure> {
    let stored = stored::read(disk).await.ok().flatten();
    let interface = match stored {
        Some(plan) => plan.interface,
        None => {
            let config = config_file(&context.paths.config)
                .map_err(Failure::failed)?
                .unwrap_or_default();
            let name = config.tunnel.interface.as_str().to_owned();
            Interface::try_from(name).map_err(Failure::failed)?
        }
    };
    let removed = tunnel::remove_links(&interface, &BTreeSet::new()).await;
    removed.map_err(Failure::failed)
}

async fn load(overlay: &SystemOverlay, context: &Context) -> Result<(), Failure> {
    let disk = SystemDisk::new(context.paths.state.clone());
    let Some(plan) = stored::read(&disk).await.map_err(Failure::failed)? else {
        note("nothing is stored; the agent closes the overlay when it starts");
        return Ok(());
    };
    // Each for itself: where one can't be had, the other helps.
    let routes = overlay.route(&plan).await;
    let _ = overlay.filter(&plan).await.map_err(Failure::failed)?;
    routes.map_err(Failure::failed)
}
