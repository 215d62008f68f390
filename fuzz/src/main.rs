//! libFuzzer's target: what an input means and which rules it must not break stands in `tests/src/oracle/random/fuzz.rs`.
#![no_main]

use svc_tests::oracle::random::fuzz;

libfuzzer_sys::fuzz_target!(init: fuzz::plant(), |data: &[u8]| fuzz::run(data));
