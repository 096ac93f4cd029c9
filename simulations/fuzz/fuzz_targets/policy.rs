//! See [`simulations::parsers::policy`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::policy(bytes));
