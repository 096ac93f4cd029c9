//! See [`simulations::parsers::datagram`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::datagram(bytes));
