//! See [`simulations::parsers::way`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::way(bytes));
