//! Asks many agents the same question over and over, from one thread, until
//! each gives the wanted answer; and tells when each did.

use std::{
    io,
    net::UdpSocket,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use innermesh_tests::dns;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How soon an unanswered question is asked again.
const RETRY: Duration = Duration::from_millis(300);

/// Something that can be asked without waiting for the answer.
pub trait Observer {
    fn fd(&self) -> BorrowedFd<'_>;
    /// Sends the question.
    fn ask(&mut self) -> io::Result<()>;
    /// Reads what came; `None` when it isn't an answer (yet), otherwise
    /// whether it is the wanted one.
    fn answer(&mut self) -> io::Result<Option<bool>>;
}

/// Asks all until each has given the wanted answer once; returns how long
/// after `since` the last did.
///
/// All are asked in turn at a rate that a machine with two processors answers
/// easily, so the figure is late by at most the interval that is returned too.
pub fn until_all(
    observers: &mut [Box<dyn Observer + '_>],
    since: Instant,
    within: Duration,
) -> Result<Duration, String> {
    let interval = interval(observers.len());
    let mut state: Vec<State> = observers.iter().map(|_| State::Ask(since)).collect();
    let mut last = since;
    let mut failure = String::new();
    loop {
        let now = Instant::now();
        if state.iter().all(|s| matches!(s, State::Done)) {
            return Ok(last - since);
        }
        if now > since + within {
            let waiting: Vec<usize> = (0..state.len())
                .filter(|i| !matches!(state[*i], State::Done))
                .collect();
            return Err(format!(
                "after {within:?} the wanted answer is still missing at {waiting:?} {failure}"
            ));
        }
        for (observer, state) in observers.iter_mut().zip(&mut state) {
            let due = match state {
                State::Ask(at) => now >= *at,
                State::Asked(at) => now >= *at + RETRY,
                State::Done => false,
            };
            if due {
                if let Err(why) = observer.ask() {
                    failure = format!("({why})");
                }
                *state = State::Asked(now);
            }
        }
        for index in ready(observers, &state)? {
            match observers[index].answer() {
                Ok(Some(true)) => {
                    last = Instant::now();
                    state[index] = State::Done;
                }
                Ok(Some(false)) | Err(_) => state[index] = State::Ask(Instant::now() + interval),
                Ok(None) => {}
            }
        }
    }
}

/// How often one of `observers` is asked.
pub fn interval(observers: usize) -> Duration {
    Duration::from_micros(400) * u32::try_from(observers).unwrap_or(u32::MAX)
}

enum State {
    Ask(Instant),
    Asked(Instant),
    Done,
}

fn ready(observers: &[Box<dyn Observer + '_>], state: &[State]) -> Result<Vec<usize>, String> {
    let mut of_fd = Vec::new();
    let mut fds = Vec::new();
    for (index, state) in state.iter().enumerate() {
        if matches!(state, State::Asked(_)) {
            of_fd.push(index);
            fds.push(PollFd::new(observers[index].fd(), PollFlags::POLLIN));
        }
    }
    poll(&mut fds, PollTimeout::from(1_u8)).map_err(|e| format!("poll: {e}"))?;
    Ok(of_fd
        .into_iter()
        .zip(&fds)
        .filter(|(_, fd)| fd.any() == Some(true))
        .map(|(i, _)| i)
        .collect())
}

/// Asks an agent's DNS for addresses.
pub struct Dns<'a> {
    pub socket: &'a UdpSocket,
    pub name: String,
    pub id: u16,
    pub wanted: &'a dyn Fn(&dns::Answer) -> bool,
}

impl Observer for Dns<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn ask(&mut self) -> io::Result<()> {
        self.socket.send(&dns::query(self.id, &self.name)).map(drop)
    }

    fn answer(&mut self) -> io::Result<Option<bool>> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer)?;
        let answer = dns::parse(&buffer[..length]).filter(|a| a.id == self.id);
        Ok(answer.map(|a| (self.wanted)(&a)))
    }
}
