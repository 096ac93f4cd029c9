//! See [`simulations::parsers::relayed`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::relayed(bytes));
