//! The way of a pair whose device shows counters alone, as the kernel's does: it follows
//! whoever it heard last by itself, and is led to the relay where it hears nothing.

use std::time::Duration;

/// What the device shows of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes that came from it.
    pub rx_bytes: u64,
    /// Bytes that were sent to it.
    pub tx_bytes: u64,
    /// Whether there is a session.
    pub has_session: bool,
    /// Whether it is sent to by the relay.
    pub is_relayed: bool,
}

/// Where the device is to send from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// By the relay.
    Relay,
    /// To the address that was planned, as there is no relay any more.
    Straight,
}

/// How long a first handshake may be without an answer: the next is begun after 5 s
/// (whitepaper §6.4).
const NO_SESSION: Duration = Duration::from_secs(3);
/// How long data may be: a peer that has nothing to say says so after 10 s (§6.5).
const SESSION: Duration = Duration::from_secs(11);
/// Keepalives between two looks, in bytes, which ask for no answer.
const KEEPALIVES: u64 = 64;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Fallback {
    last: Seen,
    unanswered: Option<Duration>,
}

impl Fallback {
    /// Takes in what the device shows now.
    pub fn look(&mut self, seen: Seen, has_relay: bool, now: Duration) -> Option<Lead> {
        let last = std::mem::replace(&mut self.last, seen);
        if seen.rx_bytes != last.rx_bytes {
            self.unanswered = None;
        } else if seen.tx_bytes > last.tx_bytes.saturating_add(KEEPALIVES) {
            self.unanswered.get_or_insert(now);
        }
        if seen.is_relayed {
            return (!has_relay).then_some(Lead::Straight);
        }
        let patience = if seen.has_session {
            SESSION
        } else {
            NO_SESSION
        };
        let is_silent = self.unanswered.is_some_and(|at| now >= at + patience);
        if !has_relay || !is_silent {
            return None;
        }
        self.unanswered = None;
        Some(Lead::Relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(rx_bytes: u64, tx_bytes: u64, has_session: bool, is_relayed: bool) -> Seen {
        Seen {
            rx_bytes,
            tx_bytes,
            has_session,
            is_relayed,
        }
    }

    #[test]
    fn a_handshake_without_an_answer_is_led_to_the_relay_before_the_next() {
        let mut fallback = Fallback::default();
        let mut led = Vec::new();
        for second in 0..5 {
            let now = Duration::from_secs(second);
            led.extend(fallback.look(seen(0, 148, false, false), true, now));
        }
        assert_eq!(led, [Lead::Relay]);
        let gone = fallback.look(seen(0, 148, false, true), false, Duration::from_secs(9));
        assert_eq!(gone, Some(Lead::Straight));
    }

    #[test]
    fn who_answers_keeps_its_way_and_so_does_who_only_listens_for_a_while() {
        let mut fallback = Fallback::default();
        for second in 0..100 {
            let now = Duration::from_secs(second);
            // A keepalive every ten seconds.
            let rx = 32 * (second / 10);
            let led = fallback.look(seen(rx, second * 1000, true, false), true, now);
            assert_eq!(led, None, "at {second} s");
        }
        let led: Vec<Duration> = (100..130)
            .map(Duration::from_secs)
            .filter(|now| {
                let sent = seen(288, now.as_secs() * 1000, true, false);
                fallback.look(sent, true, *now).is_some()
            })
            .collect();
        assert!(led[0] <= Duration::from_secs(113), "{led:?}");
    }

    #[test]
    fn keepalives_and_silence_ask_for_no_answer() {
        let mut fallback = Fallback::default();
        for second in 0..1000 {
            let tx = 148 + 32 * (second / 25);
            let now = Duration::from_secs(second);
            let led = fallback.look(seen(1, tx, true, false), true, now);
            // But for the handshake at its beginning, which was answered.
            assert_eq!(led, None, "at {second} s");
            if second == 0 {
                fallback.look(seen(2, tx, true, false), true, now);
                fallback.look(seen(1, tx, true, false), true, now);
            }
        }
    }
}
