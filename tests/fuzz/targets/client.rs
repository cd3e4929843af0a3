//! libFuzzer's entry to `ostrakon_tests::fuzz::client::connection`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ostrakon_tests::fuzz::client::connection(data));
