//! DNS over TLS and HTTPS: what this service answers, and how it asks others. A program
//! of its own, as its questions wait and take many ports.

#[allow(dead_code, reason = "the tests of dns use the rest")]
#[path = "../dns/bench.rs"]
mod bench;
mod certified;
mod serving;
mod upstream;
