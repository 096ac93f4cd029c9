//! See [`simulations::parsers::state`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::state(bytes));
