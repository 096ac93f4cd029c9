//! See [`simulations::parsers::docker`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::docker(bytes));
