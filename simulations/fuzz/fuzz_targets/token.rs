//! See [`simulations::parsers::token`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::token(bytes));
