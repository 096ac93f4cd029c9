//! See [`simulations::parsers::config`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::config(bytes));
