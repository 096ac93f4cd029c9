//! The pages' text.

#![allow(missing_docs, reason = "the names say it")]

use std::sync::LazyLock;

use data_encoding::BASE64;
use innermesh_proto::crypto::Hash;

use super::{
    qr,
    site::{Input, ListState, path},
};
use innermesh_ca as ca;
use innermesh_host::UnixTime;

const STYLE: &str = include_str!("style.css");
const STEPS: &str = include_str!("steps.html");

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

pub fn install(input: &Input) -> String {
    let domain = escape(&input.domain);
    let hex = input.fingerprint();
    let fingerprint = ca::fingerprint(&hex);
    let link = format!("{}#sha256-{hex}", input.url());
    let code = qr::svg(&link).unwrap_or_default();
    let steps = STEPS
        .replace("{url}", &escape(&input.url()))
        .replace("{domain}", &domain)
        // A file's name, and a store's entry, that tell meshes apart.
        .replace("{name}", &format!("innermesh-{}", &hex[..8]));
    let body = format!(
        r#"<h1>Trust the certificates of {domain}</h1>
<p>Machines of the mesh <strong>{domain}</strong> show certificates that its own certificate authority
signed. A device accepts them once it has the root certificate below.</p>
<h2>1. Download the root certificate</h2>
<ul class="files">
<li><a href="/root.pem">root.pem</a></li>
<li><a href="/root.crt">root.crt (DER)</a></li>
<li><a href="/root.mobileconfig">root.mobileconfig (Apple)</a></li>
<li><a href="/fingerprint">fingerprint</a></li>
</ul>
<p>This root can only certify names below {domain} and the mesh's own addresses: that is written into it (name
constraints), and OpenSSL, GnuTLS, Go, Chromium and Firefox hold it to that.</p>
<h2>2. Compare the fingerprint</h2>
<div class="care">This page comes by plain HTTP: whoever is on the way between you and this machine can alter
it, its links and the certificate. So compare the fingerprint of the file that you downloaded with what a
machine of the mesh says, not with this page alone:
<pre>agent ca root</pre>
prints it there (SHA-256). If the two differ, install nothing.</div>
<p id="sha256-{hex}">SHA-256 of the root certificate:</p>
<pre class="print">{fingerprint}</pre>
<p>The code holds this page's address with the fingerprint behind it, for a phone that can reach it:</p>
{code}
<h2>3. Install it</h2>
{steps}
<h2>Revocation lists</h2>
<p>Servers and programs that check whether a certificate was revoked find the <a href="/crl/">lists of all
issuers</a> here.</p>
"#
    );
    frame(&format!("{}: root certificate", input.domain), &body)
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
