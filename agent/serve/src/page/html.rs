//! The pages' text.

#![allow(missing_docs, reason = "the names say it")]

use std::{net::SocketAddr, sync::LazyLock};

use data_encoding::BASE64;
use innermesh_proto::crypto::Hash;

use super::{
    device::{Device, WAYS, Way},
    qr,
    site::{Input, ListState, path},
};
use innermesh_ca as ca;
use innermesh_host::UnixTime;

const STYLE: &str = include_str!("style.css");

/// The pages' Content-Security-Policy: the one style sheet, and nothing else.
pub fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let hash = BASE64.encode(&Hash::of(STYLE.as_bytes()).0);
        format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        )
    });
    &POLICY
}

/// Who a page is for.
#[derive(Debug, Clone, Copy)]
pub struct Visitor {
    pub device: Device,
    /// Where a visitor on the LAN came; none for one in the mesh or on this host.
    /// What is inside isn't told to a LAN.
    pub lan: Option<SocketAddr>,
}

pub fn install(input: &Input, visitor: Visitor) -> String {
    let domain = escape(&input.domain);
    let url = match visitor.lan {
        Some(at) => format!("http://{at}/"),
        None => input.url(),
    };
    let about = about(input, visitor);
    let phone = if visitor.device.has_big_screen() {
        for_a_phone(input, visitor, &url)
    } else {
        String::new()
    };
    let own = visitor.device.way();
    let first = match own {
        Some(way) => format!(
            "<h2>On this device: {}</h2>\n{}{}",
            visitor.device.title(way),
            visitor.device.hint(),
            steps(input, way, true)
        ),
        None => format!("<h2>Compare the fingerprint</h2>\n{}", fingerprint(input)),
    };
    let other = WAYS
        .iter()
        .filter(|way| own.is_none_or(|own| own.id != way.id));
    let other: String = other
        .map(|way| {
            let (id, title, steps) = (way.id, way.title, steps(input, way, false));
            // A link to what is inside unfolds it.
            let inside = format!("<div id=\"{id}\">\n{steps}</div>");
            format!("<details>\n<summary>{title}</summary>\n{inside}\n</details>\n")
        })
        .collect();
    let heading = if own.is_some() {
        "Other devices and programs"
    } else {
        "Choose the device"
    };
    let body = format!(
        r#"<h1>Trust the certificates of {domain}</h1>
<p>Machines of the mesh <strong>{domain}</strong> show certificates that its own certificate authority signed. A
device accepts them once it has the root certificate.</p>
{first}
{phone}<h2>{heading}</h2>
<details>
<summary>A machine that has an agent</summary>
<p>The agent knows the root already, and needs no download:</p>
<pre>sudo agent ca trust install</pre>
<p>What it says then can be seen again by:</p>
<pre>agent ca trust status</pre>
</details>
{other}<p>To take it back, remove the same entry, or the file and run the same command again. It is named after the root
({{name}}).</p>
{about}"#
    );
    let body = body
        .replace("{url}", &escape(&url))
        .replace("{domain}", &domain)
        // A file's name, and a store's entry, that tell meshes apart.
        .replace(
            "{name}",
            &format!("innermesh-{}", &input.fingerprint()[..8]),
        );
    frame(&format!("{}: root certificate", input.domain), &body)
}

/// One way, step by step; the visitor's own has the button and the fingerprint.
fn steps(input: &Input, way: &Way, is_own: bool) -> String {
    let (path, label) = way.file;
    let link = if is_own {
        format!("<a class=\"button\" href=\"{path}\">{label}</a>\n")
    } else {
        format!("<ul class=\"files\"><li><a href=\"{path}\">{label}</a></li></ul>\n")
    };
    let command = way.command.map_or_else(String::new, |command| {
        format!("<p>Or in a terminal:</p>\n<pre>{command}</pre>\n")
    });
    let print = if is_own {
        fingerprint(input)
    } else {
        String::new()
    };
    let Way {
        compare,
        install,
        test,
        ..
    } = way;
    format!(
        "<h3>1. Download the root certificate</h3>\n{link}{command}<h3>2. Compare the fingerprint</h3>\n\
         {print}{compare}\n<h3>3. Install it</h3>\n{install}\n<h3>4. Test it</h3>\n{test}\n"
    )
}

/// What to compare, and why, in groups that stay in one line; copied it is one word.
fn fingerprint(input: &Input) -> String {
    let hex = input.fingerprint();
    let shown = ca::fingerprint(&hex);
    let bytes: Vec<&str> = shown.split_inclusive(':').collect();
    let groups: Vec<String> = bytes
        .chunks(GROUP)
        .map(|group| format!("<span>{}</span>", group.concat()))
        .collect();
    let reason = "<div class=\"care\">This page comes by plain HTTP: whoever is on the way can alter it, its links and the \
         certificate. So compare the fingerprint of what you downloaded with what a machine of the mesh says, not \
         with this page alone:\n<pre>agent ca root</pre>\nIf the two differ, install nothing.</div>\n";
    format!(
        "{reason}<p id=\"sha256-{hex}\">SHA-256 of the root certificate:</p>\n<p class=\"print\">{}</p>\n",
        groups.join("<wbr>")
    )
}

/// Bytes of a fingerprint that stay in one line.
const GROUP: usize = 4;

/// A code of the page's address, for a phone in front of a big screen.
fn for_a_phone(input: &Input, visitor: Visitor, url: &str) -> String {
    let (url, reach) = match (visitor.lan, input.lan.first()) {
        (Some(_), _) => (url.to_owned(), "on this network"),
        (None, Some(at)) => (format!("http://{at}/"), "on this machine&rsquo;s network"),
        (None, None) => (url.to_owned(), "that finds the mesh&rsquo;s names"),
    };
    let link = format!("{url}#sha256-{}", input.fingerprint());
    let Some(code) = qr::svg(&link) else {
        return String::new();
    };
    format!(
        "<details>\n<summary>Open this page on a phone</summary>\n<p>The code holds the page&rsquo;s address with \
         the fingerprint behind it, for a phone {reach}:</p>\n{code}\n</details>\n"
    )
}

fn about(input: &Input, visitor: Visitor) -> String {
    let domain = escape(&input.domain);
    let day = |ms| {
        UnixTime::from_ms(ms)
            .to_string()
            .chars()
            .take(10)
            .collect::<String>()
    };
    let (begins, ends) = (day(input.root_begins_ms), day(input.root_ends_ms));
    let inside = match visitor.lan {
        Some(_) => String::new(),
        None => format!(
            "<dt>This page</dt><dd>answered by {}</dd>\n<dt>Revoked</dt><dd><a href=\"/crl/\">revocation lists</a> of \
             all issuers, for servers and programs that check them</dd>\n",
            escape(&input.node)
        ),
    };
    format!(
        r#"<h2>About this certificate</h2>
<dl>
<dt>Valid</dt><dd>from {begins} until <strong>{ends}</strong></dd>
<dt>Certifies</dt><dd>names below {domain} and the mesh&rsquo;s own addresses, and nothing else: that is written into
it (name constraints), and OpenSSL, GnuTLS, Go, Chromium and Firefox hold it to that</dd>
{inside}</dl>
<ul class="files">
<li><a href="/root.pem">root.pem</a></li>
<li><a href="/root.crt">root.crt (DER)</a></li>
<li><a href="/root.mobileconfig">root.mobileconfig (Apple)</a></li>
<li><a href="/fingerprint">fingerprint</a></li>
</ul>
"#
    )
}

pub fn lists(input: &Input) -> String {
    let mut rows = String::new();
    for list in &input.lists {
        let (serial, path) = (list.issuer, path(&list.issuer));
        let time = |ms: &u64| UnixTime::from_ms(*ms).to_string();
        let (file, said) = match &list.state {
            ListState::Good {
                number,
                revoked,
                this_update_ms,
                next_update_ms,
                ..
            } => (
                format!("<a href=\"{path}\"><code>{serial}.crl</code></a>"),
                format!(
                    "{revoked} revoked; number {number}, of {}, until {}",
                    time(this_update_ms),
                    time(next_update_ms)
                ),
            ),
            ListState::IssuerRevoked => (
                format!("<code>{serial}</code>"),
                "the issuer itself was revoked: trust nothing that it signed".into(),
            ),
            ListState::Missing => (
                format!("<code>{serial}</code>"),
                "no list that still holds; it comes once that machine can be reached".into(),
            ),
        };
        let node = escape(&list.node);
        rows.push_str(&format!(
            "<tr><td>{node}</td><td>{file}</td><td>{said}</td></tr>\n"
        ));
    }
    let body = format!(
        r#"<h1>Revocation lists of {domain}</h1>
<p>One for each issuer (RFC 5280, DER), named by the issuer's serial number and signed with its key by the CA
node that holds it; every machine of the mesh hands them out. Each holds for a day, and there is a new one as
soon as a certificate is revoked. <a href="/">Back to the root certificate</a>.</p>
<div class="table"><table>
<thead><tr><th>CA node</th><th>List of the issuer</th><th>What it says</th></tr></thead>
<tbody>
{rows}</tbody>
</table></div>
<p>The root has no list: its key is kept offline. Check leaf certificates only, as
<code>openssl verify -crl_check</code> does. Issuers that were revoked are marked above.</p>
"#,
        domain = escape(&input.domain),
    );
    frame(&format!("{}: revocation lists", input.domain), &body)
}

fn frame(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         </body>\n</html>\n",
        escape(title)
    )
}

/// Text as HTML and XML have it.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The colours of one scheme: the variables of a `:root`, as linear light.
    fn colours(root: &str) -> BTreeMap<&str, [f64; 3]> {
        let variables = root.split('{').nth(1).unwrap().split('}').next().unwrap();
        let variables = variables.split(';').filter_map(|it| it.split_once(":#"));
        let channel = |hex: &str, at: usize| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            // WCAG 2.2, relative luminance.
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        variables
            .map(|(name, hex)| (name, [0, 2, 4].map(|at| channel(hex, at))))
            .collect()
    }

    fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
        let light = |[r, g, b]: [f64; 3]| 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
        let (a, b) = (light(a), light(b));
        a.max(b) / a.min(b)
    }

    #[test]
    fn texts_stand_out_by_day_and_by_night() {
        let roots: Vec<&str> = STYLE.split(":root").skip(1).collect();
        assert_eq!(roots.len(), 2);
        for root in roots {
            let colours = colours(root);
            // WCAG 2.2 AA: texts 4.5 to 1 (1.4.3), edges of controls 3 to 1 (1.4.11).
            for (text, back, least) in [
                ("--text", "--back", 4.5),
                ("--text", "--soft", 4.5),
                ("--text", "--care", 4.5),
                ("--quiet", "--back", 4.5),
                ("--link", "--back", 4.5),
                ("--on-link", "--link", 4.5),
                ("--line", "--back", 3.0),
                ("--warn", "--back", 3.0),
                ("--warn", "--care", 3.0),
            ] {
                let found = contrast(colours[text], colours[back]);
                assert!(found >= least, "{text} on {back}: {found:.2}");
            }
        }
    }

    #[test]
    fn what_is_touched_is_44_pixels_high_and_commands_wrap() {
        let rule = |selector: &str| {
            let of = STYLE.lines().find(|line| line.starts_with(selector));
            of.unwrap_or_else(|| panic!("{selector} has no rule"))
        };
        for selector in [".button{", "summary{", ".files a{"] {
            let height = rule(selector).split("min-height:").nth(1).unwrap();
            let rem: f64 = height.split("rem").next().unwrap().parse().unwrap();
            assert!(rem * 16.0 >= 44.0, "{selector} {rem}");
        }
        let commands = rule("pre{");
        assert!(commands.contains("pre-wrap") && commands.contains("overflow-wrap:anywhere"));
    }
}
