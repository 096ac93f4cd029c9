//! The install page: the mesh's root certificate, how to trust it, and the
//! issuers' revocation lists, over plain HTTP. A client can't check HTTPS before
//! it has the root, and revocation lists are fetched without TLS so that checking
//! one certificate never waits for another (RFC 5280 §8). All that is served is
//! made beforehand, as a [`Site`]: a request looks one document up and changes
//! nothing. A LAN gets the root in its forms, and the page without the names of
//! nodes.

mod answer;
mod device;
mod html;
mod lan;
mod profile;
mod qr;
mod server;
mod site;

pub use self::{
    lan::is_of_a_lan,
    server::Server,
    site::{Input, List, ListState, Site},
};

/// The port unless the configuration says otherwise.
pub const PORT: u16 = 7480;
