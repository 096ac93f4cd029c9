//! Cookies in answers to members (RFC 7873): they get one where they send one, and
//! nothing depends on it, as they are limited in other ways. Strangers get none: their
//! refusal isn't longer than what they sent.

use hickory_server::{
    proto::rr::rdata::opt::{EdnsCode, EdnsOption},
    zone_handler::MessageRequest,
};

use super::public::WHOLE;

/// A client's cookie and a server's.
pub(super) type WholeCookie = [u8; WHOLE];

/// The cookie of a request, where it can be one (RFC 7873 §5.2.2).
pub(super) fn of(request: &MessageRequest) -> Option<&[u8]> {
    option(request).filter(|cookie| is_whole(cookie))
}

/// Whether a request has a cookie that can be none.
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
