//! What is served, by path: made anew whenever what it says changes.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
};

use axum::http::StatusCode;
use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use innermesh_proto::{certificate::Serial, crypto::Hash};

use super::{
    device::Device,
    html::{self, Visitor},
    profile,
};
use innermesh_ca as ca;
use innermesh_ca::pem;

/// What a site says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub domain: String,
    /// What this node is called in it.
    pub node: String,
    /// The port that links name.
    pub port: u16,
    /// The root certificate in DER.
    pub root: Vec<u8>,
    /// When the root's life began, in milliseconds since 1970.
    pub root_begins_ms: u64,
    /// When it ends, in milliseconds since 1970.
    pub root_ends_ms: u64,
    /// Where it is served to this host's LAN, the likeliest first.
    pub lan: Vec<SocketAddr>,
    /// The issuers and their revocation lists.
    pub lists: Vec<List>,
}

/// One issuer's revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The issuer's serial number.
    pub issuer: Serial,
    /// The CA node whose issuer it is, as people call it.
    pub node: String,
    pub state: ListState,
}

/// How it is with one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListState {
    Good {
        der: Bytes,
        number: u64,
        revoked: usize,
        /// When it was made, in milliseconds since 1970.
        this_update_ms: u64,
        /// When it ends, in milliseconds since 1970.
        next_update_ms: u64,
    },
    /// The issuer itself was revoked.
    IssuerRevoked,
    /// There is none here that still holds.
    Missing,
}

/// All documents by path.
#[derive(Debug, Default)]
pub struct Site {
    /// The names by which it may be asked, besides those without a dot.
    names: BTreeSet<String>,
    documents: BTreeMap<String, Document>,
    /// The page itself, for each device: for the mesh, and for each address on a
    /// LAN.
    pages: BTreeMap<(Option<SocketAddr>, Device), Document>,
}

/// What a LAN gets beside the page: what is in the certificate, and nothing of the
/// mesh's nodes.
const LAN: [&str; 4] = [
    "/root.crt",
    "/root.pem",
    "/root.mobileconfig",
    "/fingerprint",
];

#[derive(Debug, Clone)]
pub struct Document {
    pub status: StatusCode,
    pub content_type: &'static str,
    /// Quoted, as the header field has it.
    pub etag: String,
    /// In milliseconds since 1970, where the content has a time of its own.
    pub modified_ms: Option<u64>,
    pub body: Bytes,
}

pub const HTML: &str = "text/html; charset=utf-8";
pub const TEXT: &str = "text/plain; charset=utf-8";

/// Where the page itself is, which is another for each device.
pub const PAGE: &str = "/";

impl Document {
    fn new(content_type: &'static str, modified_ms: Option<u64>, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let hash = Hash::of(&body).0;
        Self {
            status: StatusCode::OK,
            content_type,
            etag: format!("\"{}\"", BASE64.encode(&hash[..18])),
            modified_ms,
            body,
        }
    }
}

impl Input {
    /// The page's own URL.
    pub fn url(&self) -> String {
        format!("http://ca.{}:{}/", self.domain, self.port)
    }

    /// SHA-256 of the root certificate, in lower case.
    pub fn fingerprint(&self) -> String {
        HEXLOWER.encode(&Hash::of(&self.root).0)
    }
}

impl Site {
    /// The site that says this.
    pub fn build(input: &Input) -> Self {
        let mut site = Self {
            names: [
                format!("ca.{}", input.domain),
                format!("{}.{}", input.node, input.domain),
            ]
            .into(),
            ..Self::default()
        };
        let begins = Some(input.root_begins_ms);
        let fingerprint = ca::fingerprint(&input.fingerprint());
        for lan in std::iter::once(None).chain(input.lan.iter().copied().map(Some)) {
            for device in Device::ALL {
                let page = html::install(input, Visitor { device, lan });
                let document = Document::new(HTML, None, page);
                site.pages.insert((lan, device), document);
            }
        }
        site.add("/crl/", HTML, None, html::lists(input));
        site.add(
            "/root.crt",
            "application/x-x509-ca-cert",
            begins,
            input.root.clone(),
        );
        site.add(
            "/root.pem",
            "application/x-pem-file",
            begins,
            pem::encode(pem::CERTIFICATE, &input.root),
        );
        site.add(
            "/root.mobileconfig",
            "application/x-apple-aspen-config",
            begins,
            profile::profile(input),
        );
        site.add("/fingerprint", TEXT, begins, format!("{fingerprint}\n"));
        for list in &input.lists {
            site.add_list(list);
        }
        site
    }

    /// Whether a request may be for this site by its `Host` field. A page of
    /// another site whose name is made to lead here (DNS rebinding) is asked
    /// for by that name; addresses and names without a dot are nobody's on the
    /// internet.
    pub fn is_called(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            _ if host.starts_with('[') => return true,
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name.parse::<Ipv4Addr>().is_ok() || !name.contains('.') || self.names.contains(&name)
    }

    /// The document at a path, as it is for this visitor.
    pub fn document(&self, path: &str, visitor: Visitor) -> Option<&Document> {
        let Visitor { device, lan } = visitor;
        if path == PAGE {
            return self.pages.get(&(lan, device));
        }
        let is_open = lan.is_none() || LAN.contains(&path);
        is_open.then(|| self.documents.get(path)).flatten()
    }

    fn add_list(&mut self, list: &List) {
        let path = path(&list.issuer);
        match &list.state {
            ListState::Good {
                der,
                this_update_ms,
                ..
            } => self.add(
                &path,
                "application/pkix-crl",
                Some(*this_update_ms),
                der.clone(),
            ),
            ListState::IssuerRevoked => {
                let text = "This issuer was revoked, and with it every certificate that it \
                            signed: trust none of them. There is no list of single ones any \
                            more.\n";
                self.add(&path, TEXT, None, text);
                self.set_status(&path, StatusCode::GONE);
            }
            ListState::Missing => {
                let text = format!(
                    "There is no list here that still holds. {} signs it: it is off or can't be \
                     reached, or this machine has only just started. Ask again in a minute.\n",
                    list.node
                );
                self.add(&path, TEXT, None, text);
                self.set_status(&path, StatusCode::SERVICE_UNAVAILABLE);
            }
        }
    }

    fn add(
        &mut self,
        path: &str,
        content_type: &'static str,
        modified_ms: Option<u64>,
        body: impl Into<Bytes>,
    ) {
        let document = Document::new(content_type, modified_ms, body);
        self.documents.insert(path.to_owned(), document);
    }

    fn set_status(&mut self, path: &str, status: StatusCode) {
        if let Some(document) = self.documents.get_mut(path) {
            document.status = status;
        }
    }
}

/// Where an issuer's list is.
pub fn path(issuer: &Serial) -> String {
    format!("/crl/{issuer}.crl")
}
