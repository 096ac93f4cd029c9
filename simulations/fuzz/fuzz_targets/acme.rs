//! See [`simulations::parsers::acme`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::acme(bytes));
