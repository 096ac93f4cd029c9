//! See [`simulations::parsers::name_server`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::name_server(bytes));
