//! See [`simulations::parsers::lane`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::lane(bytes));
