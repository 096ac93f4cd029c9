//! Settings of the kernel's network, each by its file below `/proc/sys/net`.

use std::fmt;

use innermesh_proto::filter::Interface;
use serde::{Deserialize, Serialize};

/// One of them, such as `ipv4/conf/eth0/forwarding`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Setting(String);

impl Setting {
    /// Whether IPv4 packets that come by an interface are forwarded.
    pub fn forward_v4(interface: &Interface) -> Self {
        Self(format!("ipv4/conf/{interface}/forwarding"))
    }

    /// Whether IPv6 packets are forwarded; the kernel has it for all interfaces
    /// alone.
    pub fn forward_v6() -> Self {
        Self("ipv6/conf/all/forwarding".to_owned())
    }

    /// Whether an interface takes addresses and routes from routers' announcements:
    /// with 1 only where it doesn't forward, with 2 always.
    pub fn accept_ra(interface: &str) -> Self {
        Self(format!("ipv6/conf/{interface}/accept_ra"))
    }

    /// Whether marks count where sources of IPv4 packets are checked.
    pub fn valid_mark() -> Self {
        Self("ipv4/conf/all/src_valid_mark".to_owned())
    }

    /// How strictly sources of IPv4 packets that come by an interface are checked.
    pub fn rp_filter(interface: &str) -> Self {
        Self(format!("ipv4/conf/{interface}/rp_filter"))
    }

    /// Its file below `/proc/sys/net`.
    pub fn path(&self) -> &str {
        &self.0
    }
}

/// As the program `sysctl` takes it.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With an interface such as `eth0.7` a dot doesn't separate.
        if self.0.contains('.') {
            write!(f, "net/{}", self.0)
        } else {
            write!(f, "net.{}", self.0.replace('/', "."))
        }
    }
}

/// Not the path of a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no setting of the network")]
pub struct SettingError(String);

impl TryFrom<String> for Setting {
    type Error = SettingError;

    fn try_from(path: String) -> Result<Self, SettingError> {
        let plain = |part: &str| {
            let all = part.bytes();
            let mut all = all.map(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            all.all(|plain| plain) && !part.is_empty() && !part.starts_with('.')
        };
        let parts: Vec<&str> = path.split('/').collect();
        let known = matches!(parts.first(), Some(&"ipv4" | &"ipv6"));
        if known && parts.len() == 4 && parts.iter().all(|part| plain(part)) {
            Ok(Self(path))
        } else {
            Err(SettingError(path.chars().take(80).collect()))
        }
    }
}

impl From<Setting> for String {
    fn from(setting: Setting) -> Self {
        setting.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_reads_as_sysctl_takes_it_and_no_path_leads_elsewhere() {
        let interface = |name: &str| Interface::try_from(name.to_owned()).unwrap();
        let plain = Setting::forward_v4(&interface("eth0"));
        assert_eq!(plain.to_string(), "net.ipv4.conf.eth0.forwarding");
        let dotted = Setting::forward_v4(&interface("eth0.7"));
        assert_eq!(dotted.to_string(), "net/ipv4/conf/eth0.7/forwarding");
        for setting in [plain, dotted, Setting::forward_v6()] {
            assert_eq!(Setting::try_from(setting.path().to_owned()), Ok(setting));
        }
        for bad in [
            "",
            "core/somaxconn",
            "ipv4/conf/../forwarding",
            "ipv4/conf//forwarding",
            "ipv4/../../kernel/sysrq",
            "/ipv4/conf/eth0/forwarding",
        ] {
            assert!(Setting::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
