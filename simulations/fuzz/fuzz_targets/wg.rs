//! See [`simulations::parsers::wg`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::wg(bytes));
