//! See [`simulations::parsers::https`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::https(bytes));
