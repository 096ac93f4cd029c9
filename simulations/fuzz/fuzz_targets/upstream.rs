//! See [`simulations::parsers::upstream`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::upstream(bytes));
