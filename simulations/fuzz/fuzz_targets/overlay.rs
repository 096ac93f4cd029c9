//! See [`simulations::parsers::overlay`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulations::parsers::overlay(bytes));
