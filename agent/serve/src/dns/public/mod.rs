//! The mesh's domain towards strangers, on a sinkhole to which it is delegated:
//! authoritative, without recursion, and every name alike. The mesh's own names are not
//! known here: [`StrangerZone`] is made without them (S34).

mod answer;
mod cookie;
mod limit;
mod message;
mod question;
mod server;
mod tcp;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwapOption;
use hickory_server::net::xfer::Protocol;
use innermesh_host::{Clock, keys::Keys};
use innermesh_proto::zone::StrangerZone;

pub(super) use self::cookie::{CookieSeen, Cookies, WHOLE};
pub use self::server::{PublicServer, PublicSurroundings};
use self::{
    answer::{Kind, answer},
    limit::{ResponseLimit, Verdict},
    message::{Message, NOERROR},
    question::{Incoming, Question},
};

const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;
/// Of those over the limit one in so many is answered: with TC, so that who is no forger
/// asks again over TCP.
const SLIP: u32 = 2;

/// What strangers are answered.
pub struct PublicDns {
    zone: ArcSwapOption<StrangerZone>,
    cookies: Cookies,
    limit: ResponseLimit,
    clock: Arc<dyn Clock>,
}

impl PublicDns {
    /// A service that doesn't know its zone yet, and says so.
    pub fn new(clock: Arc<dyn Clock>, keys: &dyn Keys) -> Self {
        Self {
            zone: ArcSwapOption::empty(),
            cookies: Cookies::new(keys),
            limit: ResponseLimit::new(keys),
            clock,
        }
    }

    /// Says this from now on.
    pub fn publish(&self, zone: StrangerZone) {
        self.zone.store(Some(Arc::new(zone)));
    }

    /// What is said now.
    pub fn zone(&self) -> Option<Arc<StrangerZone>> {
        self.zone.load_full()
    }

    /// Appends the reply to a message to `out`; nothing for what isn't answered.
    pub fn respond(&self, message: &[u8], source: IpAddr, is_udp: bool, out: &mut Vec<u8>) {
        let protocol = if is_udp { Protocol::Udp } else { Protocol::Tcp };
        let question = match Question::read(message) {
            Incoming::Nothing => return,
            Incoming::Malformed(error) => {
                let verdict = self.limit(source, Kind::Error, protocol);
                if verdict == Verdict::Send {
                    out.extend_from_slice(&error);
                }
                return;
            }
            Incoming::Question(question) => question,
        };
        let source = source.to_canonical();
        let wall_ms = self.clock.wall_ms();
        let seen = self.cookie_of(&question, source, wall_ms);
        let cookie = match seen {
            CookieSeen::None => None,
            CookieSeen::Client(cookie) | CookieSeen::Valid(cookie) => Some(cookie),
        };
        let zone = self.zone.load();
        let reply = answer(zone.as_deref(), &question, wall_ms / MS_PER_DAY);
        let verdict = match seen {
            CookieSeen::Valid(_) => Verdict::Send,
            _ => self.limit(source, reply.kind, protocol),
        };
        match verdict {
            Verdict::Send => reply.message.finish(&question, cookie, protocol, out),
            Verdict::Drop => {}
            // A client that has a cookie now is never limited again (RFC 7873 §5.2.3).
            Verdict::Slip if cookie.is_some() => {
                let bad = Message::new(message::BADCOOKIE);
                bad.finish(&question, cookie, protocol, out);
            }
            Verdict::Slip if reply.kind.is_data() => {
                let mut cut = Message::new(NOERROR);
                cut.is_authoritative = true;
                cut.is_cut = true;
                cut.finish(&question, None, protocol, out);
            }
            Verdict::Slip => {}
        }
    }

    fn cookie_of(&self, question: &Question<'_>, source: IpAddr, wall_ms: u64) -> CookieSeen {
        let cookie = question.edns.and_then(|edns| edns.cookie);
        match cookie {
            None => CookieSeen::None,
            Some(cookie) => self.cookies.look(cookie, source, wall_ms),
        }
    }

    fn limit(&self, source: IpAddr, kind: Kind, protocol: Protocol) -> Verdict {
        if protocol == Protocol::Tcp {
            return Verdict::Send;
        }
        self.limit
            .look(source.to_canonical(), kind, self.clock.now())
    }
}
