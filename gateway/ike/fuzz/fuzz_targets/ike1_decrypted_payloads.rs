#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| adit_ike::fuzzing::ike1_decrypted_payloads(input));
