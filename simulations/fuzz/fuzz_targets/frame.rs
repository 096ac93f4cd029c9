//! See [`simulations::parsers::frame`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::frame(bytes));
