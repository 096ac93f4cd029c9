//! See [`simulations::parsers::revocations`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::revocations(bytes));
