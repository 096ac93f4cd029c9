//! The kernel's settings of the network, as this host has them.

#![allow(
    clippy::disallowed_methods,
    reason = "part of a backend that the simulation replaces as a whole"
)]

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::setting::Setting;

const ROOT: &str = "/proc/sys/net";

pub(super) fn read(setting: &Setting) -> Option<String> {
    let text = fs::read_to_string(path(setting)).ok()?;
    Some(text.trim().to_owned())
}

pub(super) fn write(setting: &Setting, value: &str) -> io::Result<()> {
    fs::write(path(setting), value)
}

/// Those that take announcements unless they forward. What an interface that comes
/// later gets is `default`.
pub(super) fn accepting_ra() -> Vec<Setting> {
    let folder = Path::new(ROOT).join("ipv6/conf");
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let settings = names.filter_map(|name| {
        let forwards: Setting = format!("ipv6/conf/{name}/forwarding").try_into().ok()?;
        let accepts = Setting::accept_ra(&name);
        let is = |setting: &Setting, value: &str| read(setting).as_deref() == Some(value);
        // `all` changes nothing by itself, and `lo` hears nobody.
        let counts = name != "all" && name != "lo";
        // One that forwards while the host doesn't took none before either.
        let takes = is(&forwards, "0") || is(&Setting::forward_v6(), "1");
        (counts && takes && is(&accepts, "1")).then_some(accepts)
    });
    settings.collect()
}

/// `IPReversePathFilter` of `/proc/net/netstat`.
pub(super) fn dropped_by_source() -> Option<u64> {
    counter(
        &fs::read_to_string("/proc/net/netstat").ok()?,
        "IPReversePathFilter",
    )
}

fn counter(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let mut both = names.split_whitespace().zip(values.split_whitespace());
        if let Some((_, value)) = both.find(|(word, _)| *word == name) {
            return value.parse().ok();
        }
    }
    None
}

fn path(setting: &Setting) -> PathBuf {
    Path::new(ROOT).join(setting.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_by_its_name() {
        let text = "TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 0 17\n\
                    IpExt: InNoRoutes InTruncatedPkts\nIpExt: 1 2\n";
        assert_eq!(counter(text, "IPReversePathFilter"), Some(17));
        assert_eq!(counter(text, "InTruncatedPkts"), Some(2));
        assert_eq!(counter(text, "Other"), None);
        assert_eq!(
            counter("TcpExt: IPReversePathFilter", "IPReversePathFilter"),
            None
        );
    }
}
