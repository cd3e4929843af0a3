//! libFuzzer's entry to `ostrakon_tests::fuzz::text::import_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ostrakon_tests::fuzz::text::import_json(data));
