//! What the agent does to its host beyond the state folder: sets of files that
//! other programs read, and the commands that tell those programs of news.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use async_trait::async_trait;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, Uid, User, geteuid},
};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{disk::blocking, file_set};

/// Largest file of a set, in bytes.
pub const SET_FILE_BYTES: u64 = 256 * 1024;
/// How much of a command's output is read at a time, and kept, in bytes.
const OUTPUT_BYTES: usize = 4096;

/// Where a set of files is: `FOLDER/STEM` and a suffix for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetPlace {
    /// The folder, absolute.
    pub folder: PathBuf,
    /// What the names of its files begin with.
    pub stem: String,
}

impl SetPlace {
    /// The file with this suffix.
    pub fn file(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}{suffix}", self.stem))
    }
}

/// One file of a set, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFile {
    /// The end of its name, such as `.key`.
    pub suffix: &'static str,
    /// What it holds.
    pub content: Vec<u8>,
    /// Who may read it.
    pub access: Access,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Its owner; who writes it where none is given.
    pub uid: Option<u32>,
    /// As `uid`, its group.
    pub gid: Option<u32>,
}

/// Why a set can't be read or written. What was there stands.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// A file of that name is there and isn't one of a set.
    #[error("{} is there already and was made by somebody else", .0.display())]
    Foreign(PathBuf),
    /// The folder is a link: whoever can change it could have files written,
    /// and another's replaced, in any place.
    #[error("{} is a link, which is not followed; give the folder that it leads to", .0.display())]
    Link(PathBuf),
    /// The operating system refuses.
    #[error("{}: {error}", .0.display(), error = .1)]
    Io(PathBuf, io::Error),
}

/// A command of a user's, by `sh -c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCommand {
    /// What the shell is given.
    pub line: String,
    /// Id of the user that it runs as.
    pub uid: u32,
    /// Variables besides those that every command is given.
    pub environment: Vec<(&'static str, String)>,
    /// How long it may take.
    pub limit: Duration,
}

/// Files outside the state folder, and commands.
#[async_trait]
pub trait Outside: Send + Sync {
    /// The files of a set, by suffix; none where there is no set.
    ///
    /// # Errors
    /// [`SetError::Foreign`] when somebody put a file of their own in the place
    /// of one.
    async fn read(&self, place: &SetPlace) -> Result<BTreeMap<String, Vec<u8>>, SetError>;
    /// Whether the set can be replaced; changes nothing.
    ///
    /// # Errors
    /// Why not; also that the folder isn't there.
    async fn check(&self, place: &SetPlace) -> Result<(), SetError>;
    /// Replaces all files of a set in one step: whoever opens them sees the old
    /// set or the new one, also after a crash. Makes the folder where there is
    /// none.
    ///
    /// # Errors
    /// The old set stands.
    async fn replace(&self, place: &SetPlace, files: Vec<SetFile>) -> Result<(), SetError>;
    /// Writes a file that several sets have in common, unless it is there.
    ///
    /// # Errors
    /// [`SetError::Foreign`] when it is there with other content.
    async fn share(&self, file: &Path, content: &[u8]) -> Result<(), SetError>;
    /// Runs a command to its end.
    ///
    /// # Errors
    /// How it failed, for a person.
    async fn run(&self, command: &UserCommand) -> Result<(), String>;
}

/// The real ones.
pub struct SystemOutside;

#[async_trait]
impl Outside for SystemOutside {
    async fn read(&self, place: &SetPlace) -> Result<BTreeMap<String, Vec<u8>>, SetError> {
        let place = place.clone();
        off_thread(move || file_set::read(&place)).await
    }

    async fn check(&self, place: &SetPlace) -> Result<(), SetError> {
        let place = place.clone();
        off_thread(move || file_set::check(&place)).await
    }

    async fn replace(&self, place: &SetPlace, files: Vec<SetFile>) -> Result<(), SetError> {
        let place = place.clone();
        off_thread(move || file_set::replace(&place, &files)).await
    }

    async fn share(&self, file: &Path, content: &[u8]) -> Result<(), SetError> {
        let (file, content) = (file.to_owned(), content.to_vec());
        off_thread(move || share(&file, &content)).await
    }

    async fn run(&self, command: &UserCommand) -> Result<(), String> {
        let mut shell = shell(command)?;
        let mut child = shell
            .spawn()
            .map_err(|error| format!("sh can't be started: {error}"))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let ended = async {
            // What it leaves running in the background may hold these open.
            let said = async { tokio::join!(last_of(out), last_of(err)) };
            tokio::pin!(said);
            let mut heard = None;
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    both = &mut said, if heard.is_none() => heard = Some(both),
                }
            };
            if heard.is_none() {
                let rest = tokio::time::timeout(Duration::from_millis(200), said).await;
                heard = rest.ok();
            }
            (status, heard.unwrap_or_default())
        };
        let done = tokio::time::timeout(command.limit, ended).await;
        let Ok((status, (out, err))) = done else {
            if let Some(group) = group {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            return Err(format!(
                "it didn't end within {} s and was killed",
                command.limit.as_secs()
            ));
        };
        let status = status.map_err(|error| error.to_string())?;
        let said = if err.is_empty() { out } else { err };
        match (status.success(), said.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => Err(words(status)),
            (false, false) => Err(format!("{}: {said}", words(status))),
        }
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with {code}"),
        (None, Some(signal)) => format!("signal {signal} ended it"),
        (None, None) => "it failed".into(),
    }
}

/// The shell of a command, in a process group of its own.
fn shell(command: &UserCommand) -> Result<tokio::process::Command, String> {
    let uid = Uid::from_raw(command.uid);
    let user = User::from_uid(uid).ok().flatten();
    let mut shell = std::process::Command::new("/bin/sh");
    shell
        .args(["-c", &command.line])
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .envs(command.environment.iter().map(|(k, v)| (k, v)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(user) = &user {
        shell.env("HOME", &user.dir);
        shell.env("USER", &user.name).env("LOGNAME", &user.name);
    }
    let own = geteuid();
    if uid != own {
        if !own.is_root() {
            return Err(format!(
                "the agent runs as user id {own} and can't run it as user id {uid}"
            ));
        }
        let gid = user.map_or(command.uid, |user| user.gid.as_raw());
        shell.uid(command.uid).gid(gid);
    }
    let mut shell = tokio::process::Command::from(shell);
    shell.kill_on_drop(true);
    Ok(shell)
}

/// The last line that something said, read to its end.
async fn last_of(said: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut said) = said else {
        return String::new();
    };
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = vec![0; OUTPUT_BYTES];
    while let Ok(count) = said.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let over = kept.len().saturating_sub(OUTPUT_BYTES);
        kept.drain(..over);
    }
    let text = String::from_utf8_lossy(&kept);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or_default().trim().chars().take(300).collect()
}

fn share(path: &Path, content: &[u8]) -> Result<(), SetError> {
    let failed = |error| SetError::Io(path.to_owned(), error);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default();
    match file_set::get(folder, name)? {
        Some(there) if there == content => return Ok(()),
        Some(_) => return Err(SetError::Foreign(path.to_owned())),
        None => {}
    }
    fs::create_dir_all(folder).map_err(failed)?;
    file_set::put(folder, name, content)
}

async fn off_thread<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, SetError> + Send + 'static,
) -> Result<T, SetError> {
    blocking(move || Ok(f()))
        .await
        .unwrap_or_else(|error| Err(SetError::Io(PathBuf::new(), error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str, limit: Duration) -> UserCommand {
        UserCommand {
            line: line.into(),
            uid: geteuid().as_raw(),
            environment: vec![("INNERMESH_NAME", "photos.in.example.org".into())],
            limit,
        }
    }

    #[tokio::test]
    async fn a_command_has_its_variables_and_none_of_the_agent_s() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let line = format!(
            "echo \"$INNERMESH_NAME $PWD ${{CARGO:-none}}\" >{}",
            out.display()
        );
        let patient = Duration::from_secs(60);
        SystemOutside.run(&command(&line, patient)).await.unwrap();
        let written = fs::read_to_string(out).unwrap();
        assert_eq!(written, "photos.in.example.org / none\n");
    }

    #[tokio::test]
    async fn how_a_command_failed_is_told() {
        let patient = Duration::from_secs(60);
        let run = |line: &'static str| async move {
            let error = SystemOutside.run(&command(line, patient)).await;
            error.unwrap_err()
        };
        assert_eq!(
            run("echo one; echo no such unit >&2; exit 3").await,
            "it ended with 3: no such unit"
        );
        assert_eq!(run("kill -9 $$").await, "signal 9 ended it");
        assert!(run("no-such-program").await.contains("not found"));
        let nobody = UserCommand {
            uid: 12345,
            ..command("exit 7", patient)
        };
        let told = SystemOutside.run(&nobody).await.unwrap_err();
        let wanted = if geteuid().is_root() {
            "with 7"
        } else {
            "can't run it"
        };
        assert!(told.contains(wanted), "{told}");
    }

    #[tokio::test]
    async fn a_command_that_does_not_end_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let line = format!("sleep 1000 & echo $! >{}; wait", pid.display());
        let told = SystemOutside
            .run(&command(&line, Duration::from_secs(2)))
            .await
            .unwrap_err();
        assert!(told.contains("didn't end within 2 s"), "{told}");
        let pid = fs::read_to_string(pid).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        // Gone, or waiting for a parent to notice.
        while state().is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_shared_file_is_written_once_and_another_s_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("certs/ca.crt");
        SystemOutside.share(&file, b"root").await.unwrap();
        SystemOutside.share(&file, b"root").await.unwrap();
        let refused = SystemOutside.share(&file, b"other").await;
        assert!(matches!(refused, Err(SetError::Foreign(_))));
        assert_eq!(fs::read(&file).unwrap(), b"root");
        // Nor is one read by a link, nor by a folder that is one.
        let link = folder.path().join("certs/linked.crt");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let refused = SystemOutside.share(&link, b"root").await;
        assert!(matches!(refused, Err(SetError::Foreign(_))), "{refused:?}");
        let other = folder.path().join("other");
        std::os::unix::fs::symlink(folder.path().join("certs"), &other).unwrap();
        let refused = SystemOutside.share(&other.join("new.crt"), b"root").await;
        assert!(matches!(refused, Err(SetError::Link(_))), "{refused:?}");
        assert!(!folder.path().join("certs/new.crt").exists());
    }
}
