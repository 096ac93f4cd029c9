//! See [`simulations::parsers::router`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::router(bytes));
