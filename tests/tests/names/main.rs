//! What names mean: the mesh's own and all others, for members, LANs and strangers.

mod beside_dns;
mod delegation;
mod dns;
mod dns_abuse;
mod dns_clients;
mod dns_encrypted;
mod dns_lan;
mod names_lead;
mod records;
mod sinkhole;
mod sinkhole_dns;
mod upstreams;
mod zones;
