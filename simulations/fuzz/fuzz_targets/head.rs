//! See [`simulations::parsers::head`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::head(bytes));
