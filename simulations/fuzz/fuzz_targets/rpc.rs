//! See [`simulations::parsers::rpc`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::rpc(bytes));
