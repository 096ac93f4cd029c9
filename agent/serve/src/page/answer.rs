//! HTTP's rules on top of a [`Site`]: methods, conditional requests (RFC 9110
//! §13), and what a browser may do with what it gets.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, IF_MODIFIED_SINCE,
        IF_NONE_MATCH, LAST_MODIFIED, REFERRER_POLICY, RETRY_AFTER, USER_AGENT, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use bytes::Bytes;
use http_body_util::Full;

use super::{
    device::Device,
    html::{self, Visitor},
    site::{Document, PAGE, Site, TEXT},
};

/// The answer to one request; to HEAD it is that to GET, whose body the server
/// leaves out.
pub fn answer(
    site: &Site,
    lan: Option<SocketAddr>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Response<Full<Bytes>> {
    let user_agent = headers.get(USER_AGENT).and_then(|it| it.to_str().ok());
    let device = Device::of(user_agent.unwrap_or_default());
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or("?.?"));
    if !host.is_none_or(|host| site.is_called(host)) {
        let text = "This name isn't this page's. Ask for ca. below the mesh's domain, for this \
                    node's name there, or for an address.\n";
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let text = "Only GET and HEAD are answered here: nothing can be changed by this page.\n";
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
        set(&mut response, ALLOW, "GET, HEAD");
        return response;
    }
    let Some(document) = site.document(path, Visitor { device, lan }) else {
        let text = match lan {
            None => {
                "There is nothing at this address. The install page is at /, the root \
                 certificate at /root.pem and /root.crt, its fingerprint at /fingerprint, the \
                 revocation lists at /crl/.\n"
            }
            Some(_) => {
                "There is nothing at this address. The install page is at /, the root \
                 certificate at /root.pem and /root.crt, its fingerprint at /fingerprint.\n"
            }
        };
        return plain(StatusCode::NOT_FOUND, text);
    };
    let fresh = document.status == StatusCode::OK && is_unchanged(document, headers);
    let mut response = if fresh {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = whole(document.status, document.body.clone());
        set(&mut response, CONTENT_TYPE, document.content_type);
        response
    };
    set(&mut response, ETAG, &document.etag);
    if let Some(ms) = document.modified_ms {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(ms / 1000);
        set(&mut response, LAST_MODIFIED, &httpdate::fmt_http_date(time));
    }
    if path == PAGE {
        set(&mut response, VARY, "User-Agent");
    }
    // Kept copies are asked for again each time, which costs little.
    set(&mut response, CACHE_CONTROL, "no-cache");
    if document.status == StatusCode::SERVICE_UNAVAILABLE {
        set(&mut response, RETRY_AFTER, "60");
    }
    guarded(response)
}

/// Whether the client holds just this (RFC 9110 §13.2.2): by its tag, else by
/// its time.
fn is_unchanged(document: &Document, headers: &HeaderMap) -> bool {
    if headers.contains_key(IF_NONE_MATCH) {
        let fields = headers.get_all(IF_NONE_MATCH).iter();
        let mut tags = fields
            .filter_map(|field| field.to_str().ok())
            .flat_map(|field| field.split(','));
        return tags.any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == document.etag
        });
    }
    let since = headers.get(IF_MODIFIED_SINCE);
    let since = since.and_then(|field| httpdate::parse_http_date(field.to_str().ok()?).ok());
    let modified = document
        .modified_ms
        .map(|ms| SystemTime::UNIX_EPOCH + Duration::from_secs(ms / 1000));
    match (since, modified) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = whole(status, Bytes::from_static(text.as_bytes()));
    set(&mut response, CONTENT_TYPE, TEXT);
    guarded(response)
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    whole(status, Bytes::new())
}

fn whole(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}

/// No scripts, nothing from elsewhere, no frames, no guessing of types.
fn guarded(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    set(&mut response, CONTENT_SECURITY_POLICY, html::policy());
    set(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(&mut response, REFERRER_POLICY, "no-referrer");
    response
}

fn set(response: &mut Response<Full<Bytes>>, name: HeaderName, value: &str) {
    // All values are our own and visible ASCII.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{Input, List, ListState};
    use innermesh_proto::certificate::Serial;

    fn site() -> Site {
        let list = |n, state| List {
            issuer: Serial([n; 16]),
            node: "alpha <&>".into(),
            state,
        };
        let good = ListState::Good {
            der: Bytes::from_static(b"list"),
            number: 7,
            revoked: 1,
            this_update_ms: 1_790_000_000_000,
            next_update_ms: 1_790_086_400_000,
        };
        Site::build(&Input {
            domain: "lab.internal".into(),
            node: "alpha".into(),
            port: 7480,
            root: b"root".to_vec(),
            root_begins_ms: 1_780_000_000_000,
            root_ends_ms: 2_095_000_000_000,
            lan: vec![lan()],
            lists: vec![
                list(1, good),
                list(2, ListState::IssuerRevoked),
                list(3, ListState::Missing),
            ],
        })
    }

    fn ask(path: &str, fields: &[(HeaderName, &str)]) -> Response<Full<Bytes>> {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        answer(&site(), None, &Method::GET, path, &fields.collect())
    }

    fn lan() -> SocketAddr {
        "192.168.1.2:7480".parse().unwrap()
    }

    #[test]
    fn only_its_own_names_and_addresses_are_answered() {
        let status = |host: &str| ask("/fingerprint", &[(HOST, host)]).status();
        for own in [
            "ca.lab.internal:7480",
            "CA.lab.internal",
            "alpha.lab.internal.:7480",
            "ca",
            "localhost:7480",
            "127.0.0.1:7480",
            "10.77.0.53",
            "[fd00::53]:7480",
        ] {
            assert_eq!(status(own), StatusCode::OK, "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:7480",
            "lab.internal.evil.example",
            "x.y",
        ] {
            assert_eq!(status(other), StatusCode::MISDIRECTED_REQUEST, "{other}");
        }
        assert_eq!(ask("/fingerprint", &[]).status(), StatusCode::OK);
    }

    fn list(n: u8) -> String {
        crate::page::site::path(&Serial([n; 16]))
    }

    #[test]
    fn a_list_that_is_not_there_is_told_apart_from_an_issuer_that_was_revoked() {
        let good = ask(&list(1), &[]);
        assert_eq!(good.status(), StatusCode::OK);
        assert_eq!(good.headers()[CONTENT_TYPE], "application/pkix-crl");
        assert_eq!(
            good.headers()[LAST_MODIFIED],
            "Mon, 21 Sep 2026 14:13:20 GMT"
        );
        assert_eq!(ask(&list(2), &[]).status(), StatusCode::GONE);
        let missing = ask(&list(3), &[]);
        assert_eq!(missing.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(missing.headers()[RETRY_AFTER], "60");
        assert_eq!(ask(&list(4), &[]).status(), StatusCode::NOT_FOUND);
        // What is no content of its own is never held to be unchanged.
        assert_eq!(
            ask(&list(2), &[(IF_NONE_MATCH, "*")]).status(),
            StatusCode::GONE
        );
    }

    #[test]
    fn what_a_client_holds_is_not_sent_again() {
        let good = ask(&list(1), &[]);
        let tag = good.headers()[ETAG].to_str().unwrap();
        for held in [tag.to_owned(), format!("W/{tag}"), format!("\"a\", {tag}")] {
            let again = ask(&list(1), &[(IF_NONE_MATCH, &held)]);
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{held}");
            assert_eq!(again.headers()[ETAG], tag);
        }
        let later = "Mon, 21 Sep 2026 14:13:20 GMT";
        let earlier = "Mon, 21 Sep 2026 14:13:19 GMT";
        for (since, status) in [
            (later, StatusCode::NOT_MODIFIED),
            (earlier, StatusCode::OK),
            ("yesterday", StatusCode::OK),
        ] {
            let again = ask(&list(1), &[(IF_MODIFIED_SINCE, since)]);
            assert_eq!(again.status(), status, "{since}");
        }
        // The tag is the better judge where there are both.
        let both = [(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, later)];
        assert_eq!(ask(&list(1), &both).status(), StatusCode::OK);
    }

    async fn body(response: Response<Full<Bytes>>) -> String {
        use http_body_util::BodyExt;
        let body = response.into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }

    const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Safari/604.1";
    const WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/137.0";

    #[tokio::test]
    async fn the_visitor_s_own_device_comes_first_with_one_button() {
        let page = async |user_agent: &str| body(ask("/", &[(USER_AGENT, user_agent)])).await;
        let phone = page(IPHONE).await;
        assert!(phone.contains("On this device: iPhone"), "{phone}");
        assert!(phone.contains("class=\"button\" href=\"/root.mobileconfig\""));
        assert_eq!(phone.matches("class=\"button\"").count(), 1);
        assert!(!phone.contains("<svg"), "a phone can't photograph itself");
        assert!(!phone.contains("<details open"), "others are folded");
        let desktop = page(WINDOWS).await;
        assert!(desktop.contains("On this device: Windows"), "{desktop}");
        assert!(desktop.contains("<svg"), "{desktop}");
        let linux = page("Mozilla/5.0 (X11; Linux x86_64) Chrome/137.0").await;
        assert!(linux.contains("On this device: Linux"), "{linux}");
        for link in linux.split("href=\"#").skip(1) {
            let id = link.split('"').next().unwrap();
            assert!(linux.contains(&format!("<div id=\"{id}\">")), "{id}");
        }
        let unknown = page("curl/8.5.0").await;
        assert!(unknown.contains("Choose the device") && !unknown.contains("On this device"));
        let told = ask("/", &[(USER_AGENT, IPHONE)]);
        assert_eq!(told.headers()[VARY], "User-Agent");
        let other = ask("/", &[(USER_AGENT, WINDOWS)]);
        assert_ne!(told.headers()[ETAG], other.headers()[ETAG]);
        for page in [&phone, &desktop, &unknown] {
            assert!(
                !page.contains("{url}") && !page.contains("{name}") && !page.contains("{domain}")
            );
            assert!(page.contains("until <strong>2036-05-21</strong>"), "{page}");
            assert!(page.contains("answered by alpha"), "{page}");
            assert!(page.contains("4. Test it"), "{page}");
        }
    }

    #[tokio::test]
    async fn a_fingerprint_stays_in_groups_and_is_copied_as_one_word() {
        let page = body(ask("/", &[])).await;
        let print = page.split("class=\"print\">").nth(1).unwrap();
        let print = print.split("</p>").next().unwrap();
        assert_eq!(print.matches("<span>").count(), 8);
        let copied = ["<span>", "</span>", "<wbr>"]
            .iter()
            .fold(print.to_owned(), |text, tag| text.replace(tag, ""));
        let told = body(ask("/fingerprint", &[])).await;
        assert_eq!(copied, told.trim());
    }

    #[tokio::test]
    async fn a_lan_gets_the_root_and_learns_nothing_of_the_nodes() {
        let on_lan = |path: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("192.168.1.2:7480"));
            answer(&site(), Some(lan()), &Method::GET, path, &headers)
        };
        for path in [
            "/",
            "/root.pem",
            "/root.crt",
            "/root.mobileconfig",
            "/fingerprint",
        ] {
            assert_eq!(on_lan(path).status(), StatusCode::OK, "{path}");
        }
        for path in ["/crl/", &list(1), &list(2), &list(3), "/nothing"] {
            let told = on_lan(path);
            assert_eq!(told.status(), StatusCode::NOT_FOUND, "{path}");
            assert!(!body(told).await.contains("/crl/"), "{path}");
        }
        let page = body(on_lan("/")).await;
        for inside in ["answered by", "/crl/", "http://ca.", "alpha"] {
            assert!(!page.contains(inside), "{inside}: {page}");
        }
        assert!(
            page.contains("curl -O http://192.168.1.2:7480/root.pem"),
            "{page}"
        );
        // From the inside too, a phone in front of the screen comes by the LAN.
        let inside = body(ask("/", &[])).await;
        assert!(inside.contains("this machine&rsquo;s network"), "{inside}");
        // An address that isn't served any more has no page.
        let gone = Some("192.168.1.3:7480".parse().unwrap());
        let told = answer(&site(), gone, &Method::GET, "/", &HeaderMap::new());
        assert_eq!(told.status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn names_can_not_break_out_of_the_page() {
        let page = body(ask("/crl/", &[])).await;
        assert!(
            page.contains("alpha &lt;&amp;&gt;") && !page.contains("<&>"),
            "{page}"
        );
    }
}
