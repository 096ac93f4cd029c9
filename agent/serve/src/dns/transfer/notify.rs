//! Telling secondaries that a zone has changed (RFC 1996): who is told what and when
//! again, as a value. An answer counts where it is signed with the MAC of what was
//! sent.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use innermesh_host::Mono;
use innermesh_proto::{name::Label, zone::DomainName};

use super::{
    message::{HEADER, IN, Message, NOTIFY, QR, SOA},
    secondary::Grant,
    tsig::{BADKEY, BADSIG, BADTIME, Signer},
};

/// After how long it is told again, each time twice that.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is told of one change. After that it finds out when the zone's
/// refresh time is over, or when it starts.
const ATTEMPTS: u32 = 7;

/// Who is told what.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    notices: BTreeMap<(Label, SocketAddr, DomainName), Notice>,
    next_id: u16,
}

/// One that is told of one zone.
#[derive(Debug)]
struct Notice {
    grant: Arc<Grant>,
    soa: Vec<u8>,
    id: u16,
    attempts: u32,
    /// When it is told next; none once it has answered, or was told often enough.
    due: Option<Mono>,
    /// Of what was sent.
    macs: Vec<Vec<u8>>,
    state: NoticeState,
}

/// What came of telling a secondary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeState {
    /// It hasn't answered.
    Silent,
    /// It knows.
    Answered,
    /// It answered otherwise: this way.
    Refused(String),
}

/// A message to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub to: SocketAddr,
    /// The address that it asks at is the one that it knows.
    pub from: SocketAddr,
    pub bytes: Vec<u8>,
}

impl Notifier {
    /// Tells this secondary of a zone, at all of its addresses.
    pub fn tell(&mut self, grant: &Arc<Grant>, zone: &DomainName, soa: &[u8], now: Mono) {
        for address in &grant.secondary.addresses {
            self.next_id = self.next_id.wrapping_add(1);
            let key = (grant.secondary.name.clone(), *address, zone.clone());
            let notice = Notice {
                grant: grant.clone(),
                soa: soa.to_vec(),
                id: self.next_id,
                attempts: 0,
                due: Some(now),
                macs: Vec::new(),
                state: NoticeState::Silent,
            };
            self.notices.insert(key, notice);
        }
    }

    /// Tells only these any more, and only as they are now.
    pub fn keep(&mut self, grants: &[Arc<Grant>]) {
        self.notices
            .retain(|_, notice| grants.iter().any(|grant| Arc::ptr_eq(grant, &notice.grant)));
    }

    /// What is to be sent now.
    pub fn take_due(&mut self, now: Mono, wall_s: u64) -> Vec<Outgoing> {
        let mut out = Vec::new();
        for ((_, to, zone), notice) in &mut self.notices {
            if notice.due.is_none_or(|due| due > now) {
                continue;
            }
            notice.attempts += 1;
            let pause = AGAIN * 2u32.saturating_pow(notice.attempts - 1);
            notice.due = (notice.attempts < ATTEMPTS).then(|| now + pause);
            let (bytes, mac) = notice.message(zone, wall_s);
            notice.macs.push(mac);
            out.push(Outgoing {
                to: *to,
                from: notice.grant.secondary.listen,
                bytes,
            });
        }
        out
    }

    /// When the next is to be sent.
    pub fn next_due(&self) -> Option<Mono> {
        self.notices.values().filter_map(|notice| notice.due).min()
    }

    /// Takes an answer; whether it was one.
    pub fn take_answer(&mut self, message: &Message<'_>, from: SocketAddr, wall_s: u64) -> bool {
        let [high, low] = message.flags;
        if message.opcode() != NOTIFY || high & QR == 0 {
            return false;
        }
        let rcode = low & 0xf;
        let notice = self.notices.iter_mut().find(|((_, to, zone), notice)| {
            let ip = to.ip().to_canonical();
            let is_from = ip == from.ip().to_canonical() && to.port() == from.port();
            is_from && *zone == message.name && notice.id == message.id
        });
        let Some((_, notice)) = notice else {
            return false;
        };
        let Some(tsig) = &message.tsig else {
            notice.state = NoticeState::Refused(format!("not signed, {}", told(rcode)));
            return false;
        };
        let key = &notice.grant.key;
        let is_signed = key.is_of(tsig)
            && notice
                .macs
                .iter()
                .any(|mac| key.verify(message, tsig, Some(mac), wall_s).is_ok());
        if !is_signed {
            // Anybody can say so: it is shown, and changes nothing.
            let why = match tsig.error {
                BADKEY => "it doesn't know the key".to_owned(),
                BADSIG => "it has another secret for the key".to_owned(),
                BADTIME => "its clock is another".to_owned(),
                _ => "signed wrongly".to_owned(),
            };
            notice.state = NoticeState::Refused(why);
            return false;
        }
        notice.due = None;
        notice.state = match (rcode, tsig.error) {
            (0, _) => NoticeState::Answered,
            (_, BADTIME) => NoticeState::Refused("its clock is another".to_owned()),
            _ => NoticeState::Refused(told(rcode)),
        };
        true
    }

    /// What came of telling it of a zone: the best of its addresses.
    pub fn state(&self, secondary: &Label, zone: &DomainName) -> Option<NoticeState> {
        let of = |(name, _, of): &(Label, SocketAddr, DomainName)| name == secondary && of == zone;
        let mut states = self
            .notices
            .iter()
            .filter(|(key, _)| of(key))
            .map(|(_, notice)| &notice.state);
        let first = states.next()?;
        let best = states.fold(first, |best, state| match (best, state) {
            (NoticeState::Answered, _) | (_, NoticeState::Silent) => best,
            _ => state,
        });
        Some(best.clone())
    }
}

/// The response code as people know it.
fn told(rcode: u8) -> String {
    match rcode {
        0 => "NOERROR".to_owned(),
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        9 => "NOTAUTH".to_owned(),
        other => format!("response code {other}"),
    }
}

impl Notice {
    /// The message with the zone's SOA (RFC 1996 §3.7), and its MAC.
    fn message(&self, zone: &DomainName, wall_s: u64) -> (Vec<u8>, Vec<u8>) {
        let [high, low] = self.id.to_be_bytes();
        // Authoritative.
        let mut out = vec![high, low, NOTIFY << 3 | 4, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        debug_assert_eq!(out.len(), HEADER);
        out.extend(Vec::from(zone.clone()));
        out.push(0);
        out.extend(SOA.to_be_bytes());
        out.extend(IN.to_be_bytes());
        out.extend(&self.soa);
        let mac = Signer::request(&self.grant.key).sign(&mut out, 0, wall_s);
        (out, mac)
    }
}
