//! What `http-01` asks, and where redirects of it lead: to ports 80 and 443 of
//! hosts in the mesh.

use axum::http::Uri;

use super::problem::{Kind, Problem};

/// The longest redirect that is followed, in characters.
const LOCATION: usize = 2000;

pub(super) struct Target {
    pub tls: bool,
    pub host: String,
    pub path: String,
}

impl Target {
    /// Where a redirect leads. It may be relative (RFC 9110 §10.2.2).
    pub(super) fn redirected(&self, location: &str) -> Result<Self, Problem> {
        let refused = |why: &str| {
            let shown: String = location.chars().take(200).collect();
            Problem::new(
                Kind::Connection,
                format!("{self} redirects to {shown}: {why}"),
            )
        };
        if location.len() > LOCATION {
            return Err(refused("too long"));
        }
        let reference = location.split('#').next().unwrap_or_default();
        if reference.is_empty() {
            return Err(refused("to itself"));
        }
        let whole = self.resolved(reference);
        let uri: Uri = whole.parse().map_err(|_| refused("not a URL"))?;
        let host = uri.host().ok_or_else(|| refused("not a whole URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refused("neither http nor https")),
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if port != if tls { 443 } else { 80 } {
            return Err(refused("only ports 80 and 443 are asked"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_ascii_lowercase(),
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                // "http://host?query".
                format!("/{path}")
            },
        })
    }

    /// A reference in full (RFC 3986 §5.2).
    fn resolved(&self, reference: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        if has_scheme(reference) {
            return reference.to_owned();
        }
        if reference.starts_with("//") {
            return format!("{scheme}:{reference}");
        }
        let own = self.path.split('?').next().unwrap_or_default();
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (reference, String::new()),
        };
        let path = if path.is_empty() {
            own.to_owned()
        } else if path.starts_with('/') {
            without_dots(path)
        } else {
            let folder = own.rfind('/').map_or("", |end| &own[..end]);
            without_dots(&format!("{folder}/{path}"))
        };
        format!("{scheme}://{}{path}{query}", bracketed(&self.host))
    }
}

/// Whether a reference begins with a scheme (RFC 3986 §3.1).
fn has_scheme(reference: &str) -> bool {
    let scheme = reference.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    })
}

/// A path that begins with a slash, without `.` and `..` (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_folder = false;
    for segment in path.split('/').skip(1) {
        ends_in_folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    if ends_in_folder {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", bracketed(&self.host), self.path)
    }
}

/// A host as it stands in a URL.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            tls: false,
            host: "a.x".into(),
            path: "/b/c/d;p?q".into(),
        }
    }

    #[test]
    fn redirects_stay_on_the_web_s_ports() {
        for (location, leads) in [
            ("https://b.x/q?r", "https://b.x/q?r"),
            ("/other", "http://a.x/other"),
            ("http://B.x", "http://b.x/"),
            ("http://b.x?q", "http://b.x/?q"),
            ("//b.x/", "http://b.x/"),
            ("https://[fd00::1]:443/", "https://[fd00::1]/"),
        ] {
            let next = target().redirected(location).map_err(|p| p.detail).unwrap();
            assert_eq!(next.to_string(), leads);
        }
        let long = format!("/{}", "x".repeat(LOCATION));
        for location in [
            "http://a.x:8080/",
            "https://a.x:80/",
            "ftp://a.x/",
            "gopher://127.0.0.1:6379/",
            "mailto:a@b",
            "//b.x:22/",
            "",
            "#s",
            "http://",
            "http:other",
            "https://a x/",
            "a b",
            &long,
        ] {
            assert!(target().redirected(location).is_err(), "{location}");
        }
    }

    #[test]
    fn a_relative_redirect_is_read_as_rfc_3986_has_it() {
        for (location, leads) in [
            ("g", "http://a.x/b/c/g"),
            ("./g", "http://a.x/b/c/g"),
            ("g/", "http://a.x/b/c/g/"),
            ("/g", "http://a.x/g"),
            ("?y", "http://a.x/b/c/d;p?y"),
            ("g?y", "http://a.x/b/c/g?y"),
            ("g?y/./x", "http://a.x/b/c/g?y/./x"),
            ("g#s", "http://a.x/b/c/g"),
            (";x", "http://a.x/b/c/;x"),
            (".", "http://a.x/b/c/"),
            ("..", "http://a.x/b/"),
            ("../g", "http://a.x/b/g"),
            ("../..", "http://a.x/"),
            ("../../../g", "http://a.x/g"),
            ("/./g", "http://a.x/g"),
            ("/../g", "http://a.x/g"),
            ("g.", "http://a.x/b/c/g."),
            ("..g", "http://a.x/b/c/..g"),
            ("./g/.", "http://a.x/b/c/g/"),
            ("g/../h", "http://a.x/b/c/h"),
        ] {
            let next = target().redirected(location).map_err(|p| p.detail).unwrap();
            assert_eq!(next.to_string(), leads, "{location}");
        }
        let secure = Target {
            tls: true,
            host: "fd00::1".into(),
            path: "/".into(),
        };
        let next = secure.redirected("g").map_err(|p| p.detail).unwrap();
        assert_eq!(next.to_string(), "https://[fd00::1]/g");
    }
}
