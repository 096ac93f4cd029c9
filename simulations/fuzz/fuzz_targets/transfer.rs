//! See [`simulations::parsers::transfer`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::transfer(bytes));
