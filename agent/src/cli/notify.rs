//! Tells systemd how the agent is (sd_notify(3)): one datagram to the socket
//! that `NOTIFY_SOCKET` names, and nothing where there is none.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// It serves.
pub const READY: &str = "READY=1";
/// It ends.
pub const STOPPING: &str = "STOPPING=1";
/// It is alive.
pub const WATCHDOG: &str = "WATCHDOG=1";

/// Where to tell.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// As the environment says.
    pub fn from_environment() -> Self {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) if !name.is_empty() => Self::to(&name).unwrap_or_else(|error| {
                tracing::warn!(%error, ?name, "systemd can't be told anything");
                Self::default()
            }),
            _ => Self::default(),
        }
    }

    fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that doesn't read must not stop the agent.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Some((socket, address)),
        })
    }

    /// Tells.
    pub fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(state.as_bytes(), address)
        {
            tracing::warn!(%error, state, "systemd was not told");
        }
    }
}

/// How often systemd wants to hear [`WATCHDOG`]: half of what it waits
/// (sd_watchdog_enabled(3)). `None` where it doesn't, or means another process.
pub fn watchdog_interval() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    interval(
        variable("WATCHDOG_USEC").as_deref(),
        variable("WATCHDOG_PID").as_deref(),
        std::process::id(),
    )
}

fn interval(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let usec: u64 = usec?.parse().ok().filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_reaches_a_socket_in_a_folder_and_one_without() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        Notifier::to(path.as_os_str()).unwrap().tell(READY);
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");

        let name = format!("innermesh-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::to(OsStr::new(&format!("@{name}")))
            .unwrap()
            .tell(STOPPING);
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STOPPING=1");
    }

    #[test]
    fn the_watchdog_is_fed_at_half_its_time_and_only_by_its_own_process() {
        let half = Some(Duration::from_secs(5));
        assert_eq!(interval(Some("10000000"), None, 7), half);
        assert_eq!(interval(Some("10000000"), Some("7"), 7), half);
        assert_eq!(interval(Some("10000000"), Some("8"), 7), None);
        assert_eq!(interval(Some("0"), None, 7), None);
        assert_eq!(interval(Some("x"), None, 7), None);
        assert_eq!(interval(None, None, 7), None);
    }
}
