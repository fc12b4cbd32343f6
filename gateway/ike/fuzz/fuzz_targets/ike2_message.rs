#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| adit_ike::fuzzing::ike2_message(input));
