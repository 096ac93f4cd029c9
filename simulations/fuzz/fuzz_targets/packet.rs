//! See [`simulations::parsers::packet`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::packet(bytes));
