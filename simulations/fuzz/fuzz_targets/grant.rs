//! See [`simulations::parsers::grant`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::grant(bytes));
