//! What is made to match the newest view, each as a task of its own: DNS, the
//! tunnel and the overlay, connections to peers, names, this node's membership,
//! revocation lists, the page, ACME, certificates of this host's programs, and the
//! host's own resolver.

mod access;
pub mod acme;
pub mod beside;
mod blocked;
pub mod crl;
pub mod device_holds;
pub mod devices;
pub mod dialer;
pub mod dns;
pub mod dns_encrypted;
pub mod dns_lan;
pub mod holds;
pub mod host;
mod kept;
pub mod lane_dialer;
pub mod lane_server;
pub mod ledger_backend;
pub mod membership;
pub mod names;
pub mod narrow;
pub mod overlay;
pub mod own_certificate;
pub mod page;
mod page_lan;
pub mod pair_keys;
pub mod paths;
pub mod port_map;
pub mod program_certs;
mod proxy_header;
pub mod publish;
pub mod publish_proxy;
pub mod reach;
pub mod resolver;
pub mod secondaries;
pub mod sinkhole;
pub(super) mod sinkhole_dns;
pub mod tunnel;
pub mod tunnel_keys;
pub mod view;
