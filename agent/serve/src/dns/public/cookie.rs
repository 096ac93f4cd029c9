//! DNS cookies (RFC 7873) as all name servers make them (RFC 9018), so that a client
//! that changes between servers of one secret keeps its own. Here each node has a secret
//! of its own, another each day.

use std::{hash::Hasher, net::IpAddr};

use innermesh_host::keys::Keys;

/// Octets of a client's cookie, of a server's, and of both.
pub(in crate::dns) const CLIENT: usize = 8;
const SERVER: usize = 16;
pub(in crate::dns) const WHOLE: usize = CLIENT + SERVER;
/// RFC 9018 §4.2: version 1, and three octets that are reserved.
const VERSION: [u8; 4] = [1, 0, 0, 0];
/// Seconds for which one is taken, for which it isn't made anew, and by which another
/// clock may be ahead (RFC 9018 §4.3).
const LIFE_S: u32 = 3600;
const FRESH_S: u32 = 1800;
const AHEAD_S: u32 = 300;
/// Seconds with one secret.
const PERIOD_S: u32 = 24 * 3600;

type Secret = [u64; 2];

/// Makes cookies and knows its own.
#[derive(Clone, Debug)]
pub(in crate::dns) struct Cookies(Secret);

/// What came with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dns) enum CookieSeen {
    None,
    /// A client's alone, or with a server's that isn't this one's, or not any more; with
    /// both as they are now.
    Client([u8; WHOLE]),
    /// One that was given to this very client: its address isn't forged.
    Valid([u8; WHOLE]),
}

impl Cookies {
    pub fn new(keys: &dyn Keys) -> Self {
        Self(random(keys))
    }

    /// Looks at a cookie option of 8, or of 16 to 40 octets.
    pub fn look(&self, cookie: &[u8], source: IpAddr, wall_ms: u64) -> CookieSeen {
        // RFC 9018 §4.3: the time wraps.
        let now_s = ((wall_ms / 1000) & u64::from(u32::MAX)) as u32;
        let Some((client, server)) = cookie.split_first_chunk::<CLIENT>() else {
            return CookieSeen::None;
        };
        let mut whole = [0; WHOLE];
        let (first, last) = whole.split_at_mut(CLIENT);
        first.copy_from_slice(client);
        let age_s = <&[u8; SERVER]>::try_from(server)
            .ok()
            .and_then(|server| self.age(client, server, source, now_s));
        match age_s {
            Some(age_s) if age_s < FRESH_S => last.copy_from_slice(server),
            _ => last.copy_from_slice(&self.server(client, source, now_s)),
        }
        match age_s {
            Some(_) => CookieSeen::Valid(whole),
            None => CookieSeen::Client(whole),
        }
    }

    /// How old one of this server's is, where it still counts.
    fn age(
        &self,
        client: &[u8; CLIENT],
        server: &[u8; SERVER],
        source: IpAddr,
        now_s: u32,
    ) -> Option<u32> {
        let [version @ .., t0, t1, t2, t3, _, _, _, _, _, _, _, _] = server;
        let made_s = u32::from_be_bytes([*t0, *t1, *t2, *t3]);
        let age_s = now_s.wrapping_sub(made_s);
        let is_ahead = made_s.wrapping_sub(now_s) <= AHEAD_S;
        let counts = *version == VERSION && (age_s <= LIFE_S || is_ahead);
        let own = self.server(client, source, made_s);
        // All of it, so that the time doesn't tell how much was right.
        let differs = own.iter().zip(server).fold(0, |all, (a, b)| all | (a ^ b));
        (counts && differs == 0).then_some(if is_ahead { 0 } else { age_s })
    }

    fn server(&self, client: &[u8; CLIENT], source: IpAddr, made_s: u32) -> [u8; SERVER] {
        server_cookie(self.secret(made_s / PERIOD_S), client, source, made_s)
    }

    fn secret(&self, period: u32) -> Secret {
        [0, 1].map(|half: u8| {
            let [a, b, c, d] = period.to_be_bytes();
            siphash(self.0, &[&[a, b, c, d, half]])
        })
    }
}

/// RFC 9018 §4.4.
fn server_cookie(
    secret: Secret,
    client: &[u8; CLIENT],
    source: IpAddr,
    made_s: u32,
) -> [u8; SERVER] {
    let time = made_s.to_be_bytes();
    let (v4, v6);
    let address: &[u8] = match source {
        IpAddr::V4(ip) => {
            v4 = ip.octets();
            &v4
        }
        IpAddr::V6(ip) => {
            v6 = ip.octets();
            &v6
        }
    };
    let hash = siphash(secret, &[client, &VERSION, &time, address]).to_le_bytes();
    let mut cookie = [0; SERVER];
    let parts = VERSION.iter().chain(&time).chain(&hash);
    for (place, octet) in cookie.iter_mut().zip(parts) {
        *place = *octet;
    }
    cookie
}

/// SipHash-2-4 (Aumasson and Bernstein), with 64 bits.
#[expect(
    deprecated,
    reason = "hash maps should use others; this one is a standard's"
)]
pub(super) fn siphash([k0, k1]: Secret, parts: &[&[u8]]) -> u64 {
    let mut hasher = std::hash::SipHasher::new_with_keys(k0, k1);
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

pub(super) fn random(keys: &dyn Keys) -> Secret {
    [(); 2].map(|()| {
        let mut bytes = [0; 8];
        keys.random(&mut bytes);
        u64::from_le_bytes(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets<const N: usize>(hex: &str) -> [u8; N] {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        bytes.try_into().unwrap()
    }

    fn secret(hex: &str) -> Secret {
        let bytes: [u8; 16] = octets(hex);
        let half = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        [half(0), half(8)]
    }

    #[test]
    fn cookies_are_those_of_the_standard() {
        // RFC 9018, Appendix A.1, A.3 and A.4.
        for (key, client, source, made_s, expected) in [
            (
                "e5e973e5a6b2a43f48e7dc849e37bfcf",
                "2464c4abcf10c957",
                "198.51.100.100",
                1_559_731_985,
                "010000005cf79f111f8130c3eee29480",
            ),
            (
                "e5e973e5a6b2a43f48e7dc849e37bfcf",
                "fc93fc62807ddb86",
                "203.0.113.203",
                1_559_734_700,
                "010000005cf7a9acf73a7810aca2381e",
            ),
            (
                "445536bcd2513298075a5d379663c962",
                "22681ab97d52c298",
                "2001:db8:220:1:59de:d0f4:8769:82b8",
                1_559_741_961,
                "010000005cf7c609a6bb79d16625507a",
            ),
        ] {
            let source = source.parse().unwrap();
            let cookie = server_cookie(secret(key), &octets(client), source, made_s);
            assert_eq!(cookie, octets::<16>(expected));
        }
    }

    #[test]
    fn a_cookie_counts_for_an_hour_and_for_the_address_that_it_was_given_to() {
        let cookies = Cookies([1, 2]);
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        // Not long before another secret is in use.
        let begin_ms = 1_000 * (20_000 * u64::from(PERIOD_S) - 10);
        let CookieSeen::Client(given) =
            cookies.look(b"\x01\x02\x03\x04\x05\x06\x07\x08", here, begin_ms)
        else {
            panic!("it is given one");
        };
        let look = |cookie: &[u8], source: &str, later_s: i64| {
            let at = begin_ms.checked_add_signed(later_s * 1000).unwrap();
            cookies.look(cookie, source.parse().unwrap(), at)
        };
        for later_s in [-300, 0, 60, 1799] {
            let seen = look(&given, "192.0.2.1", later_s);
            assert_eq!(seen, CookieSeen::Valid(given), "{later_s}");
        }
        for later_s in [1800, 3600] {
            let seen = look(&given, "192.0.2.1", later_s);
            let is_new = matches!(seen, CookieSeen::Valid(new) if new != given);
            assert!(is_new, "{later_s}: {seen:?}");
        }
        for later_s in [-301, 3601, 90_000] {
            let seen = look(&given, "192.0.2.1", later_s);
            assert!(matches!(seen, CookieSeen::Client(_)), "{later_s}: {seen:?}");
        }
        assert!(matches!(
            look(&given, "192.0.2.2", 1),
            CookieSeen::Client(_)
        ));
        for place in 0..WHOLE {
            let mut other = given;
            other[place] ^= 1;
            let seen = look(&other, "192.0.2.1", 1);
            assert!(matches!(seen, CookieSeen::Client(_)), "{place}: {seen:?}");
        }
        assert!(matches!(
            look(&given[..16], "192.0.2.1", 1),
            CookieSeen::Client(_)
        ));
    }
}
