//! `agent overlay`: closes the overlay before the agent runs, and opens it for
//! good. For the unit that runs before the network is up, and for uninstalling.

use clap::Subcommand;

use super::{context::Context, failure::Failure, output::note};
use crate::{
    host::disk::SystemDisk,
    overlay::{Overlay, SystemOverlay, forwarding, stored},
};

/// Close the overlay to other networks, or take that back.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Apply the filter and the routes that the agent had last.
    Load,
    /// Take filter, routes and rules away.
    Remove,
}

pub async fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    let overlay = SystemOverlay::default();
    match command {
        Command::Load => load(&overlay, context).await,
        Command::Remove => {
            let disk = SystemDisk::new(context.paths.state.clone());
            let forwards = forwarding::close(&overlay, &disk).await;
            overlay.remove().await.map_err(Failure::failed)?;
            forwards.map_err(Failure::failed)
        }
    }
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
