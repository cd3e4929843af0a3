//! libFuzzer's entry to `ostrakon_tests::fuzz::text::import_binary`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ostrakon_tests::fuzz::text::import_binary(data));
