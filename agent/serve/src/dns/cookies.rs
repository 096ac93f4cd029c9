//! Cookies in answers to members (RFC 7873): they get one where they send one, and
//! nothing depends on it, as they are limited in other ways. Strangers get none: their
//! refusal isn't longer than what they sent.

use hickory_server::{
    proto::rr::rdata::opt::{EdnsCode, EdnsOption},
    server::Request,
    zone_handler::MessageRequest,
};
use std::net::IpAddr;

use super::{
    public::{CookieSeen, Cookies, WHOLE},
    responder::Dns,
};
use innermesh_host::keys::Keys;

/// A client's cookie and a server's.
pub(super) type WholeCookie = [u8; WHOLE];

impl Dns {
    /// Answers cookies from now on; only the first call counts.
    pub fn answers_cookies(&self, keys: &dyn Keys) {
        let _ = self.cookies.set(Cookies::new(keys));
    }

    /// What goes back for the option that came; none where cookies aren't answered.
    pub(super) fn cookie_for(&self, cookie: &[u8], source: IpAddr) -> Option<WholeCookie> {
        let cookies = self.cookies.get()?;
        match cookies.look(cookie, source.to_canonical(), self.clock().wall_ms()) {
            CookieSeen::None => None,
            CookieSeen::Client(whole) | CookieSeen::Valid(whole) => Some(whole),
        }
    }

    /// As [`Dns::cookie_for`], of a whole request.
    pub(super) fn cookie_of(&self, request: &Request) -> Option<WholeCookie> {
        let cookie = option(request).filter(|cookie| is_whole(cookie))?;
        self.cookie_for(cookie, request.src().ip())
    }
}

/// Whether a request has a cookie that can be none (RFC 7873 §5.2.2).
pub(super) fn is_malformed(request: &MessageRequest) -> bool {
    option(request).is_some_and(|cookie| !is_whole(cookie))
}

fn is_whole(cookie: &[u8]) -> bool {
    cookie.len() == 8 || (16..=40).contains(&cookie.len())
}

fn option(request: &MessageRequest) -> Option<&[u8]> {
    match request.edns.as_ref()?.options().get(EdnsCode::Cookie)? {
        EdnsOption::Unknown(_, cookie) => Some(cookie),
        _ => None,
    }
}
