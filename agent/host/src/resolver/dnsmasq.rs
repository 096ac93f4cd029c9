//! NetworkManager's own dnsmasq: a drop-in of ours sends the mesh's names to
//! the agent. NetworkManager's D-Bus interface for links isn't used, as it
//! loses settings of links that it doesn't manage.

use std::{fs, io, path::Path};

use super::{ResolverError, ResolverPlan};

const DROP_IN: &str = "etc/NetworkManager/dnsmasq.d/innermesh.conf";
const CONFIGURATION: &str = "etc/NetworkManager/NetworkManager.conf";
const CONFIGURATIONS: [&str; 3] = [
    "usr/lib/NetworkManager/conf.d",
    "run/NetworkManager/conf.d",
    "etc/NetworkManager/conf.d",
];
/// NetworkManager's D-Bus `Reload`: restart the DNS plugin.
const RESTART_DNS: u32 = 4;

/// Whether NetworkManager's configuration asks for dnsmasq.
pub(super) fn is_asked_for(root: &Path) -> bool {
    let folders = CONFIGURATIONS.iter().map(|folder| root.join(folder));
    let mut files: Vec<_> = folders
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .collect();
    files.sort();
    files.insert(0, root.join(CONFIGURATION));
    let texts = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    // The last one that says anything counts.
    let said = texts.filter_map(|text| dns(&text)).next_back();
    said.as_deref() == Some("dnsmasq")
}

/// `dns=` of the section `[main]` (NetworkManager.conf(5)).
fn dns(text: &str) -> Option<String> {
    let (mut main, mut said) = (false, None);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            main = line == "[main]";
        } else if main
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "dns"
        {
            said = Some(value.trim().to_string());
        }
    }
    said
}

/// The lines that send the mesh's names to the agent, for any dnsmasq.
pub(super) fn lines(plan: &ResolverPlan) -> String {
    let Some(server) = plan.servers.first() else {
        return String::new();
    };
    let zones = std::iter::once(&plan.domain).chain(&plan.reverse);
    zones
        .map(|zone| format!("server=/{zone}/{server}\n"))
        .collect()
}

/// Whether the drop-in stands.
pub(super) fn stands(root: &Path, plan: &ResolverPlan) -> bool {
    fs::read_to_string(root.join(DROP_IN)).is_ok_and(|text| text == drop_in(plan))
}

/// Whether any drop-in of ours is there.
pub(super) fn is_set(root: &Path) -> bool {
    root.join(DROP_IN).exists()
}

fn drop_in(plan: &ResolverPlan) -> String {
    format!(
        "# Written by innermesh; `agent dns restore` takes it away.\n{}",
        lines(plan)
    )
}

/// Whether it was set just now.
pub(super) async fn apply(root: &Path, plan: &ResolverPlan) -> Result<bool, ResolverError> {
    let file = root.join(DROP_IN);
    if stands(root, plan) {
        return Ok(false);
    }
    let made = file.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(&file, drop_in(plan)))
        .map_err(|error| ResolverError::Io(file, error))?;
    reload().await?;
    Ok(true)
}

pub(super) async fn restore(root: &Path) -> Result<(), ResolverError> {
    let file = root.join(DROP_IN);
    match fs::remove_file(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ResolverError::Io(file, error)),
        Ok(()) => reload().await,
    }
}

async fn reload() -> Result<(), ResolverError> {
    let bus = super::resolved::bus().await?;
    let manager = ManagerProxy::new(&bus).await?;
    Ok(manager.reload(RESTART_DNS).await?)
}

#[zbus::proxy(
    interface = "org.freedesktop.NetworkManager",
    default_service = "org.freedesktop.NetworkManager",
    default_path = "/org/freedesktop/NetworkManager"
)]
trait Manager {
    fn reload(&self, flags: u32) -> zbus::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dnsmasq_is_asked_for_in_the_section_main_and_the_last_file_counts() {
        let root = tempfile::tempdir().unwrap();
        let conf = root.path().join("etc/NetworkManager/conf.d");
        fs::create_dir_all(&conf).unwrap();
        assert!(!is_asked_for(root.path()));
        fs::write(
            root.path().join(CONFIGURATION),
            "[main]\nplugins=ifupdown\ndns = dnsmasq\n",
        )
        .unwrap();
        assert!(is_asked_for(root.path()));
        fs::write(conf.join("90-other.conf"), "[ifupdown]\ndns=default\n").unwrap();
        assert!(is_asked_for(root.path()));
        fs::write(conf.join("91-other.conf"), "[main]\ndns=default\n").unwrap();
        assert!(!is_asked_for(root.path()));
    }

    #[test]
    fn the_domain_and_its_addresses_go_to_the_agent() {
        let plan = ResolverPlan {
            interface: "innermesh0".into(),
            servers: vec!["100.77.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
            domain: "in.example.org".into(),
            reverse: vec!["77.100.in-addr.arpa".into()],
        };
        assert_eq!(
            lines(&plan),
            "server=/in.example.org/100.77.0.53\nserver=/77.100.in-addr.arpa/100.77.0.53\n"
        );
    }
}
