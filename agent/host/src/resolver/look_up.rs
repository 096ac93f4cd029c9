//! What a program of this host finds for a name: libc's own answer
//! (getaddrinfo(3)), with all that nsswitch.conf and resolv.conf say.

use std::{
    net::{IpAddr, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

/// How long an answer is waited for. glibc gives up after 5 s for each try of
/// each server (resolv.conf(5)).
const PATIENCE: Duration = Duration::from_secs(10);

/// What libc finds for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// At least one.
    Found(Vec<IpAddr>),
    Nothing,
    /// No answer came in time, or one to an earlier question is still open.
    TookTooLong,
    /// This host's libc isn't asked.
    NotAsked,
}

/// Asks libc, one question at a time.
#[derive(Default)]
pub(super) struct Libc {
    /// Whether a thread still waits in libc.
    busy: Arc<AtomicBool>,
}

impl Libc {
    /// In a thread of its own: getaddrinfo can't be broken off, and one of the
    /// runtime's would keep the agent from ending.
    pub(super) async fn ask(&self, name: &str) -> LookUp {
        if self.busy.swap(true, Ordering::AcqRel) {
            return LookUp::TookTooLong;
        }
        let (tell, told) = oneshot::channel();
        let (name, busy) = (name.to_owned(), self.busy.clone());
        let asking = thread::Builder::new().name("libc".to_owned());
        let started = asking.spawn(move || {
            let found = (name.as_str(), 0).to_socket_addrs();
            let ips = found.map(|found| found.map(|at| at.ip()).collect());
            busy.store(false, Ordering::Release);
            let _ = tell.send(ips.unwrap_or_default());
        });
        if started.is_err() {
            self.busy.store(false, Ordering::Release);
            return LookUp::NotAsked;
        }
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(ips)) => found(ips),
            _ => LookUp::TookTooLong,
        }
    }
}

fn found(mut ips: Vec<IpAddr>) -> LookUp {
    ips.sort_unstable();
    ips.dedup();
    if ips.is_empty() {
        LookUp::Nothing
    } else {
        LookUp::Found(ips)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_found_as_itself_without_asking_anybody() {
        let libc = Libc::default();
        let ip: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(libc.ask("192.0.2.7").await, LookUp::Found(vec![ip]));
        assert!(!libc.busy.load(Ordering::Acquire));
    }

    #[tokio::test]
    async fn a_second_question_does_not_wait_for_the_first() {
        let libc = Libc::default();
        libc.busy.store(true, Ordering::Release);
        assert_eq!(libc.ask("192.0.2.7").await, LookUp::TookTooLong);
    }
}
