//! Secondary name servers of this node, kept on disk, and the serials that they were
//! given. A person named them here, and no other node knows their keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use innermesh_proto::{limits, name::Label, zone::DomainName};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    control::finding::{Finding, code},
    dns::{NoticeState, Secondary, Transfers, ZoneContent, ZoneReport, is_later, next_serial},
    host::{Host, Mono},
};

/// Below the state folder, a file for each; with its key.
const FOLDER: &str = "secondaries";
/// The serial and the content's hash of each zone that was transferred.
const SERIALS: &str = "zone.transferred";
/// Bytes of a file at most.
const BYTES: usize = 64 * 1024;
/// How long a secondary may be silent: it asks each minute, as the zone says.
const SILENT: Mono = Mono::from_secs(300);

/// The secondaries, and what they were given.
pub(crate) struct Secondaries {
    host: Host,
    transfers: Arc<Transfers>,
    state: Mutex<State>,
    /// Held while a file is written.
    writing: tokio::sync::Mutex<()>,
    /// There are others than before.
    pub changed: Notify,
}

#[derive(Default)]
struct State {
    all: BTreeMap<Label, Secondary>,
    damaged: BTreeMap<PathBuf, String>,
    given: BTreeMap<DomainName, Given>,
}

/// What a zone's secondaries have, or will have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    serial: u32,
    /// Of what the zone says, in hexadecimal.
    hash: String,
}

/// Why the secondaries are as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecondaryError {
    #[error("there is a secondary {0} already; take it away by `agent dns secondary rm {0}` first")]
    Exists(Label),
    #[error("{0} has a key of that name already; choose another name")]
    KeyName(Label),
    #[error(
        "this node has {} secondaries, and no node may have more",
        limits::SECONDARIES
    )]
    TooMany,
    #[error("there is no secondary {0}; `agent dns secondary list` shows those there are")]
    Unknown(Label),
    #[error("{}: {error}", path.display())]
    Disk { path: PathBuf, error: io::Error },
}

impl Secondaries {
    /// Those that were added before. A file that can't be read as one is left as it is,
    /// and told.
    pub async fn load(host: &Host, transfers: Arc<Transfers>) -> Arc<Self> {
        let mut state = State::default();
        let files = host.disk.list(Path::new(FOLDER)).await;
        let files = files.unwrap_or_else(|error| {
            tracing::warn!(%error, "the secondaries can't be read");
            Vec::new()
        });
        for file in files {
            let Some(name) = name_of(&file) else { continue };
            let read = read(host, &file).await.and_then(|text| {
                Secondary::from_toml(name.clone(), &text).map_err(|error| error.to_string())
            });
            match read {
                Ok(secondary) if state.all.len() < limits::SECONDARIES => {
                    state.all.insert(name, secondary);
                }
                Ok(_) => drop(state.damaged.insert(file, "there are too many".into())),
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "a secondary is left out");
                    state.damaged.insert(file, error);
                }
            }
        }
        if let Ok(Some(bytes)) = host.disk.read(Path::new(SERIALS)).await {
            state.given = parse(&bytes);
        }
        transfers.grant(state.all.values().cloned().collect());
        Arc::new(Self {
            host: host.clone(),
            transfers,
            state: Mutex::new(state),
            writing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<Secondary> {
        self.lock().all.values().cloned().collect()
    }

    /// Adds one. It is on disk when this returns.
    ///
    /// # Errors
    /// [`SecondaryError`]; nothing was changed.
    pub async fn add(&self, secondary: Secondary) -> Result<(), SecondaryError> {
        let _writing = self.writing.lock().await;
        let all = self.lock().all.clone();
        if all.contains_key(&secondary.name) {
            return Err(SecondaryError::Exists(secondary.name));
        }
        if let Some(other) = all
            .values()
            .find(|other| other.key.name == secondary.key.name)
        {
            return Err(SecondaryError::KeyName(other.name.clone()));
        }
        if all.len() >= limits::SECONDARIES {
            return Err(SecondaryError::TooMany);
        }
        let file = file_of(&secondary.name);
        let written = self
            .host
            .disk
            .replace(&file, secondary.to_toml().as_bytes())
            .await;
        written.map_err(|error| disk(&file, error))?;
        let mut state = self.lock();
        state.damaged.remove(&file);
        state.all.insert(secondary.name.clone(), secondary);
        self.apply(&state);
        Ok(())
    }

    /// Takes one away: what it fetches now ends.
    ///
    /// # Errors
    /// [`SecondaryError`]; nothing was changed.
    pub async fn rm(&self, name: &Label) -> Result<(), SecondaryError> {
        let _writing = self.writing.lock().await;
        let file = file_of(name);
        let is_there = {
            let state = self.lock();
            state.all.contains_key(name) || state.damaged.contains_key(&file)
        };
        if !is_there {
            return Err(SecondaryError::Unknown(name.clone()));
        }
        let removed = self.host.disk.remove(&file).await;
        removed.map_err(|error| disk(&file, error))?;
        let mut state = self.lock();
        state.damaged.remove(&file);
        state.all.remove(name);
        self.apply(&state);
        Ok(())
    }

    /// The serials that each zone has while there are secondaries; else none.
    pub fn serials(&self) -> Vec<(DomainName, u32)> {
        let state = self.lock();
        if state.all.is_empty() {
            return Vec::new();
        }
        let given = state.given.iter();
        given
            .map(|(zone, given)| (zone.clone(), given.serial))
            .collect()
    }

    /// The latest of them.
    pub fn latest(&self) -> Option<u32> {
        let serials = self.serials().into_iter().map(|(_, serial)| serial);
        serials.reduce(|latest, serial| {
            if is_later(serial, latest) {
                serial
            } else {
                latest
            }
        })
    }

    /// Gives each of these a serial that none of its zone had: but the one that it has
    /// already where it says the same as before the last stop. They are on disk when this
    /// returns. `floor` is one that was seen here, `announced` are those of other nodes.
    ///
    /// # Errors
    /// The disk's; nothing was changed.
    pub async fn number(
        &self,
        changed: Vec<ZoneContent>,
        floor: Option<u32>,
        announced: &BTreeSet<u32>,
    ) -> Result<Vec<(ZoneContent, u32)>, SecondaryError> {
        let _writing = self.writing.lock().await;
        let now_s = self.host.clock.wall_ms() / 1000;
        let mut given = self.lock().given.clone();
        let is_first = self.transfers.is_empty();
        let mut numbered = Vec::new();
        for content in changed {
            let hash = content.hash().to_string();
            // It says the same as before the last stop, and so does its serial.
            let before = given.get(&content.origin);
            let same = before.filter(|before| is_first && before.hash == hash);
            let same = same.map(|before| before.serial);
            let same = same.filter(|same| floor.is_none_or(|floor| !is_later(floor, *same)));
            let serial = same.unwrap_or_else(|| {
                let others = announced.iter().copied().chain(floor);
                next_serial(before.map(|before| before.serial), others, now_s)
            });
            given.insert(content.origin.clone(), Given { serial, hash });
            numbered.push((content, serial));
        }
        let path = Path::new(SERIALS);
        let written = self.host.disk.replace(path, &encode(&given)).await;
        written.map_err(|error| disk(path, error))?;
        self.lock().given = given;
        Ok(numbered)
    }

    /// How it stands with each zone at a secondary.
    pub fn report(&self, secondary: &Secondary) -> Vec<ZoneReport> {
        self.transfers.report(secondary)
    }

    /// What a person should know.
    pub fn findings(&self, now: Mono) -> Vec<Finding> {
        let root = self.host.disk.root();
        let mut found: Vec<Finding> = self
            .lock()
            .damaged
            .iter()
            .map(|(file, error)| {
                let file = root.join(file);
                Finding::warning(
                    code::SECONDARY_FILE,
                    format!("the secondary in {} is left out: {error}", file.display()),
                    "Take it away by `agent dns secondary rm`, and add it again",
                )
            })
            .collect();
        for secondary in self.list() {
            let reports = self.report(&secondary).into_iter();
            let mut silent = reports.filter(|report| {
                let last = report.asked.unwrap_or(report.since).max(report.since);
                now > last + SILENT
            });
            if let Some(report) = silent.next() {
                found.push(silent_one(&secondary, &report, now));
            }
        }
        found
    }

    fn apply(&self, state: &State) {
        self.transfers.grant(state.all.values().cloned().collect());
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn silent_one(secondary: &Secondary, report: &ZoneReport, now: Mono) -> Finding {
    let name = &secondary.name;
    let zone = &report.zone;
    let since = match report.asked {
        Some(asked) => format!("for {} minutes", (now - asked).as_secs() / 60),
        None => "since it was added or this agent started".to_owned(),
    };
    let told = match &report.notice {
        Some(NoticeState::Answered) => ", though it answers NOTIFY".to_owned(),
        Some(NoticeState::Refused(why)) => format!(", and refuses NOTIFY: {why}"),
        _ => ", and doesn't answer NOTIFY".to_owned(),
    };
    Finding::warning(
        code::SECONDARY_SILENT,
        format!("the secondary {name} has not asked for {zone} {since}{told}"),
        format!(
            "See that it has {zone} with {} as its primary and the key {}, and that UDP and TCP \
             come through; or take it away by `agent dns secondary rm {name}`",
            secondary.listen, secondary.key.name
        ),
    )
}

async fn read(host: &Host, file: &Path) -> Result<String, String> {
    let bytes = host
        .disk
        .read(file)
        .await
        .map_err(|error| error.to_string())?;
    let bytes = bytes.filter(|bytes| bytes.len() <= BYTES);
    let bytes = bytes.ok_or_else(|| format!("it is larger than {BYTES} bytes, or gone"))?;
    String::from_utf8(bytes).map_err(|_| "it is no text".to_owned())
}

fn file_of(name: &Label) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.toml"))
}

fn name_of(file: &Path) -> Option<Label> {
    let name = file.file_name()?.to_str()?.strip_suffix(".toml")?;
    Label::try_from(name.to_owned()).ok()
}

fn disk(path: &Path, error: io::Error) -> SecondaryError {
    SecondaryError::Disk {
        path: path.to_owned(),
        error,
    }
}

fn encode(given: &BTreeMap<DomainName, Given>) -> Vec<u8> {
    let by_text: BTreeMap<String, &Given> = given
        .iter()
        .map(|(zone, given)| (zone.to_string(), given))
        .collect();
    // Texts and numbers always have a form in JSON.
    serde_json::to_vec_pretty(&by_text).unwrap_or_default()
}

fn parse(bytes: &[u8]) -> BTreeMap<DomainName, Given> {
    let by_text: BTreeMap<String, Given> = serde_json::from_slice(bytes).unwrap_or_default();
    let named = by_text.into_iter();
    named
        .filter_map(|(zone, given)| Some((zone.parse().ok()?, given)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_the_same_again_from_their_file() {
        let given = Given {
            serial: u32::MAX,
            hash: "00ff".into(),
        };
        let all = BTreeMap::from([("lab.internal".parse().unwrap(), given)]);
        assert_eq!(parse(&encode(&all)), all);
        for bytes in [&b""[..], b"{", b"{\"x\": 1}", b"[]"] {
            assert!(parse(bytes).is_empty());
        }
    }
}
