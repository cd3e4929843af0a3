//! libFuzzer's entry to `ostrakon_tests::fuzz::log::command`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ostrakon_tests::fuzz::log::command(data));
