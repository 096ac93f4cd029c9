//! Where things lie on this host.

use std::path::{Path, PathBuf};

use super::failure::Failure;

/// The places of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The configuration file.
    pub config: PathBuf,
    /// The folder of service files.
    pub services: PathBuf,
    /// Where certificates are put unless somebody says otherwise.
    pub certificates: PathBuf,
    /// The state folder.
    pub state: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// What `--dir` says.
    pub dir: Option<PathBuf>,
}

impl Paths {
    /// All below `dir`, or the places that the packages use.
    pub fn new(dir: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(dir) = dir else {
            return Ok(Self::at(
                Path::new("/etc/innermesh"),
                PathBuf::from("/var/lib/innermesh"),
                PathBuf::from("/run/innermesh/agent.sock"),
            ));
        };
        // Messages and later commands may be read in another folder.
        let dir = std::path::absolute(&dir)
            .map_err(|e| Failure::usage(format!("--dir {}: {e}", dir.display())))?;
        let mut paths = Self::at(&dir, dir.join("state"), dir.join("agent.sock"));
        paths.dir = Some(dir);
        Ok(paths)
    }

    fn at(config: &Path, state: PathBuf, socket: PathBuf) -> Self {
        Self {
            config: config.join("config.toml"),
            services: config.join("services.d"),
            certificates: config.join("certs"),
            state,
            socket,
            dir: None,
        }
    }

    /// The options that lead a command back here, with a space before them.
    pub fn option(&self) -> String {
        match &self.dir {
            Some(dir) => format!(" --dir {}", dir.display()),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_a_dir_everything_is_below_it() {
        let paths = Paths::new(Some("/x".into())).unwrap();
        assert_eq!(paths.config, Path::new("/x/config.toml"));
        assert_eq!(paths.services, Path::new("/x/services.d"));
        assert_eq!(paths.state, Path::new("/x/state"));
        assert_eq!(paths.socket, Path::new("/x/agent.sock"));
        assert_eq!(paths.option(), " --dir /x");
    }

    #[test]
    fn without_one_everything_is_where_packages_put_it() {
        let paths = Paths::new(None).unwrap();
        assert_eq!(paths.config, Path::new("/etc/innermesh/config.toml"));
        assert_eq!(paths.state, Path::new("/var/lib/innermesh"));
        assert_eq!(paths.socket, Path::new("/run/innermesh/agent.sock"));
        assert_eq!(paths.option(), "");
    }
}
