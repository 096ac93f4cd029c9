//! See [`simulations::parsers::question`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::question(bytes));
