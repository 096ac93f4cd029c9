//! The kernel forwards on a gateway: its settings are made so, what they were is
//! kept in the state folder, and put back.
//!
//! Forwarding IPv6 has the kernel ignore routers' announcements, by which hosts
//! mostly have their addresses and their default route. Where it took them, it
//! is told to go on.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use innermesh_proto::filter::Interface;
use serde::{Deserialize, Serialize};

use super::{Overlay, setting::Setting};
use crate::Disk;

/// The file's name.
const FILE: &str = "forwarding.json";
/// Most settings that are believed of a file; a host has a few interfaces.
const SETTINGS: usize = 1024;
/// Most bytes of it.
const BYTES: usize = 256 * 1024;

/// Why this host doesn't forward.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// The kernel refuses, or there is no such setting.
    #[error("{setting} can't be set to {value}: {source}")]
    Set {
        setting: Setting,
        value: String,
        source: io::Error,
    },
    /// What a setting was can't be kept, so that it isn't changed.
    #[error("what the host's settings were can't be stored: {0}")]
    Store(io::Error),
}

/// What a setting was, and what it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Changed {
    was: String,
    made: String,
}

type Remembered = BTreeMap<Setting, Changed>;

/// Has the kernel forward what comes by these interfaces, where there are any, and else
/// what it did before.
///
/// # Errors
/// The first setting that couldn't be made; the others are tried all the same.
pub async fn keep(
    overlay: &dyn Overlay,
    disk: &dyn Disk,
    forwards: Option<BTreeSet<&Interface>>,
) -> Result<(), ForwardingError> {
    match forwards {
        Some(interfaces) => open(overlay, disk, interfaces).await,
        None => restore_all(overlay, disk, |setting| *setting != Setting::valid_mark()).await,
    }
}

/// Has marks count where the kernel checks sources of packets, or puts that back.
///
/// # Errors
/// The setting couldn't be made.
pub async fn count_marks(
    overlay: &dyn Overlay,
    disk: &dyn Disk,
    wanted: bool,
) -> Result<(), ForwardingError> {
    let mut known = read(disk).await;
    let setting = Setting::valid_mark();
    if wanted {
        change(overlay, disk, &mut known, &setting, "1").await
    } else {
        restore(overlay, disk, &mut known, &setting).await
    }
}

/// Has the kernel forward what comes by these interfaces, and IPv6; on all others
/// of them IPv4 is as it was.
///
/// # Errors
/// The first that couldn't be set; the others are tried all the same.
pub async fn open(
    overlay: &dyn Overlay,
    disk: &dyn Disk,
    interfaces: impl IntoIterator<Item = &Interface>,
) -> Result<(), ForwardingError> {
    let mut known = read(disk).await;
    let wanted: Vec<Setting> = interfaces.into_iter().map(Setting::forward_v4).collect();
    let mut first = Ok(());
    let gone = known.keys().filter(|known| forwards_v4(known));
    let gone: Vec<Setting> = gone.filter(|it| !wanted.contains(it)).cloned().collect();
    for setting in gone {
        first = first.and(restore(overlay, disk, &mut known, &setting).await);
    }
    for setting in &wanted {
        first = first.and(change(overlay, disk, &mut known, setting, "1").await);
    }
    let v6 = Setting::forward_v6();
    let forwards = overlay.setting(&v6).await;
    if forwards.as_deref() == Some("0") || known.contains_key(&v6) {
        for setting in overlay.accepting_ra().await {
            first = first.and(change(overlay, disk, &mut known, &setting, "2").await);
        }
    }
    // Without IPv6 there is nothing to forward.
    if forwards.is_some() {
        first = first.and(change(overlay, disk, &mut known, &v6, "1").await);
    }
    first
}

/// Puts back what was changed, unless somebody else has changed it since.
///
/// # Errors
/// The first that couldn't be put back; it is kept for another time.
pub async fn close(overlay: &dyn Overlay, disk: &dyn Disk) -> Result<(), ForwardingError> {
    restore_all(overlay, disk, |_| true).await
}

async fn restore_all(
    overlay: &dyn Overlay,
    disk: &dyn Disk,
    which: impl Fn(&Setting) -> bool,
) -> Result<(), ForwardingError> {
    let mut known = read(disk).await;
    let mut first = Ok(());
    // While a host forwards, it takes no announcements: that ends first.
    let (forwards, others): (Vec<Setting>, Vec<Setting>) = known
        .keys()
        .filter(|setting| which(setting))
        .cloned()
        .partition(|setting| *setting == Setting::forward_v6());
    for setting in forwards.iter().chain(&others) {
        first = first.and(restore(overlay, disk, &mut known, setting).await);
    }
    first
}

async fn change(
    overlay: &dyn Overlay,
    disk: &dyn Disk,
    known: &mut Remembered,
    setting: &Setting,
    value: &str,
) -> Result<(), ForwardingError> {
    // One of an interface that isn't there yet is set once it is.
    let Some(now) = overlay.setting(setting).await.filter(|now| now != value) else {
        return Ok(());
    };
    if !known.contains_key(setting) {
        let changed = Changed {
            was: now,
            made: value.to_owned(),
        };
        known.insert(setting.clone(), changed);
        if let Err(error) = write(disk, known).await {
            known.remove(setting);
            return Err(ForwardingError::Store(error));
        }
    }
    set(overlay, setting, value).await
}

async fn restore(
    overlay: &dyn Overlay,
    disk: &dyn Disk,
    known: &mut Remembered,
    setting: &Setting,
) -> Result<(), ForwardingError> {
    let Some(changed) = known.get(setting).cloned() else {
        return Ok(());
    };
    if overlay.setting(setting).await.as_deref() == Some(changed.made.as_str()) {
        set(overlay, setting, &changed.was).await?;
    }
    known.remove(setting);
    write(disk, known).await.map_err(ForwardingError::Store)
}

async fn set(overlay: &dyn Overlay, setting: &Setting, value: &str) -> Result<(), ForwardingError> {
    let done = overlay.set(setting, value).await;
    done.map_err(|source| ForwardingError::Set {
        setting: setting.clone(),
        value: value.to_owned(),
        source,
    })
}

fn forwards_v4(setting: &Setting) -> bool {
    let path = setting.path();
    path.starts_with("ipv4/") && path.ends_with("/forwarding")
}

/// What is known; a file that can't be read says nothing.
async fn read(disk: &dyn Disk) -> Remembered {
    let bytes = disk.read(Path::new(FILE)).await.ok().flatten();
    let bytes = bytes.filter(|bytes| bytes.len() <= BYTES);
    let read = bytes.and_then(|bytes| serde_json::from_slice::<Remembered>(&bytes).ok());
    read.filter(|known| known.len() <= SETTINGS)
        .unwrap_or_default()
}

async fn write(disk: &dyn Disk, known: &Remembered) -> io::Result<()> {
    if known.is_empty() {
        return disk.remove(Path::new(FILE)).await;
    }
    let bytes = serde_json::to_vec_pretty(known)?;
    disk.replace(Path::new(FILE), &bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::SystemDisk, overlay::RecordedOverlay};

    fn interface(name: &str) -> Interface {
        name.to_owned().try_into().unwrap()
    }

    fn setting(path: &str) -> Setting {
        path.to_owned().try_into().unwrap()
    }

    /// A host with a LAN from which it has its address by announcements.
    fn host() -> RecordedOverlay {
        let overlay = RecordedOverlay::default();
        for (path, value) in [
            ("ipv4/conf/im0/forwarding", "0"),
            ("ipv4/conf/eth0/forwarding", "0"),
            ("ipv6/conf/all/forwarding", "0"),
            ("ipv6/conf/eth0/accept_ra", "1"),
            ("ipv6/conf/eth1/accept_ra", "0"),
        ] {
            overlay.has_setting(&setting(path), value);
        }
        overlay
    }

    fn values(overlay: &RecordedOverlay) -> Vec<String> {
        overlay.all_settings().into_values().collect()
    }

    #[tokio::test]
    async fn a_gateway_forwards_and_still_takes_announcements_and_all_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        let overlay = host();
        let before = values(&overlay);
        let both = [interface("im0"), interface("eth0")];
        open(&overlay, &disk, &both).await.unwrap();
        let made = overlay.all_settings();
        for (path, value) in [
            ("ipv4/conf/im0/forwarding", "1"),
            ("ipv4/conf/eth0/forwarding", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/eth0/accept_ra", "2"),
            ("ipv6/conf/eth1/accept_ra", "0"),
        ] {
            assert_eq!(made[&setting(path)], value, "{path}");
        }
        // Somebody sets up the interface anew.
        overlay.has_setting(&setting("ipv6/conf/eth0/accept_ra"), "1");
        open(&overlay, &disk, &both).await.unwrap();
        assert_eq!(overlay.all_settings(), made);
        // The LAN is announced no more.
        open(&overlay, &disk, &both[..1]).await.unwrap();
        let eth0 = setting("ipv4/conf/eth0/forwarding");
        assert_eq!(overlay.all_settings()[&eth0], "0");

        close(&overlay, &disk).await.unwrap();
        assert_eq!(values(&overlay), before);
        assert!(!folder.path().join(FILE).exists());
        close(&overlay, &disk).await.unwrap();
        assert_eq!(values(&overlay), before);
    }

    #[tokio::test]
    async fn marks_count_while_they_are_wanted_whatever_is_forwarded() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        let overlay = host();
        let marks = Setting::valid_mark();
        overlay.has_setting(&marks, "0");
        let before = values(&overlay);
        let im0 = interface("im0");
        let count = || overlay.all_settings()[&marks].clone();
        for forwards in [None, Some([&im0].into()), None, Some([&im0].into())] {
            keep(&overlay, &disk, forwards).await.unwrap();
            count_marks(&overlay, &disk, true).await.unwrap();
            assert_eq!(count(), "1");
        }
        count_marks(&overlay, &disk, false).await.unwrap();
        assert_eq!(count(), "0");
        assert_eq!(overlay.all_settings()[&Setting::forward_v6()], "1");
        keep(&overlay, &disk, None).await.unwrap();
        assert_eq!(values(&overlay), before);
        assert!(!folder.path().join(FILE).exists());
    }

    #[tokio::test]
    async fn what_others_set_before_or_since_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        let overlay = host();
        let v6 = Setting::forward_v6();
        overlay.has_setting(&v6, "1");
        open(&overlay, &disk, &[interface("im0")]).await.unwrap();
        let ra = setting("ipv6/conf/eth0/accept_ra");
        assert_eq!(
            overlay.all_settings()[&ra],
            "1",
            "it took none before either"
        );
        let im0 = setting("ipv4/conf/im0/forwarding");
        overlay.has_setting(&im0, "0");
        close(&overlay, &disk).await.unwrap();
        let now = overlay.all_settings();
        assert_eq!((now[&v6].as_str(), now[&im0].as_str()), ("1", "0"));
    }

    #[tokio::test]
    async fn a_setting_that_cannot_be_made_is_named_and_the_others_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        let overlay = host();
        overlay.refuses(&setting("ipv4/conf/im0/forwarding"));
        let error = open(&overlay, &disk, &[interface("im0")]).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("net.ipv4.conf.im0.forwarding"), "{error}");
        assert_eq!(overlay.all_settings()[&Setting::forward_v6()], "1");
        // An interface that isn't there yet is no error.
        open(&overlay, &disk, &[interface("im9")]).await.unwrap();
    }
}
