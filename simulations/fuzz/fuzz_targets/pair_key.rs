//! See [`simulations::parsers::pair_key`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::pair_key(bytes));
