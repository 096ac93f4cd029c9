//! `services.d`, whose files are taken over as they change while the agent runs.

use std::path::{Path, PathBuf};

use super::files::{self, FilesError};
use crate::{
    host::folder_watch::FolderWatch,
    node::Agent,
    services::{FileProblem, ServiceFiles, Spec},
};

/// The folder, and what its files came to when they were last read.
pub struct ServicesFolder {
    path: PathBuf,
    watch: FolderWatch,
    files: ServiceFiles,
}

impl ServicesFolder {
    /// Watches the folder, and reads it for the first time.
    ///
    /// # Errors
    /// [`FilesError::Read`] of the folder; that of a file is one of the problems.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        let mut folder = Self {
            path: path.to_owned(),
            watch: FolderWatch::new(path),
            files: ServiceFiles::default(),
        };
        folder.read()?;
        Ok(folder)
    }

    fn read(&mut self) -> Result<(), FilesError> {
        self.files.take(files::services(&self.path)?);
        Ok(())
    }

    /// The services that its files describe.
    pub fn services(&self) -> Vec<Spec> {
        self.files.services()
    }

    /// Tells what of it isn't in force.
    pub fn report(&self, agent: &Agent) {
        let problems = self.files.problems();
        for problem in problems {
            tracing::warn!(reason = problem.reason, "a file of services.d is wrong");
        }
        agent.set_file_problems(problems.to_vec());
    }

    /// Until its files may have changed. Nothing is lost where this is given up.
    pub async fn changed(&mut self) {
        self.watch.changed().await;
    }

    /// Has the agent run what its files describe now.
    pub async fn take_over(&mut self, agent: &Agent) {
        let before = (self.services(), self.files.problems().to_vec());
        if let Err(error) = self.read() {
            return refuse(agent, &error);
        }
        let services = self.services();
        let count = services.len();
        if before.0 != services {
            if let Err(error) = agent.configure_services(services).await {
                return refuse(agent, &error);
            }
            tracing::info!(count, "services.d was taken over");
        }
        if before.1 != self.files.problems() {
            self.report(agent);
        }
    }
}

fn refuse(agent: &Agent, error: &dyn std::fmt::Display) {
    tracing::error!(%error, "services.d was not taken over");
    agent.set_file_problems(vec![FileProblem {
        reason: format!("services.d was not taken over: {error}"),
        kept: None,
    }]);
}
