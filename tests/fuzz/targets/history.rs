//! libFuzzer's entry to `ostrakon_tests::fuzz::text::history`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ostrakon_tests::fuzz::text::history(data));
