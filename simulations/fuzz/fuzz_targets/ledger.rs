//! See [`simulations::parsers::ledger`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::ledger(bytes));
