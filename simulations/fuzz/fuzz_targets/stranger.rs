//! See [`simulations::parsers::stranger`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::stranger(bytes));
