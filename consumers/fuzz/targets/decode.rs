#![doc = "libFuzzer's program for [`millrace_fuzz::decode`]."]
#![no_main]
#![allow(unsafe_code, missing_docs, reason = "libFuzzer's macro makes the C function that it calls")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millrace_fuzz::decode(data));
