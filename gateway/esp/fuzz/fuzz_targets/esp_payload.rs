#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| adit_esp::fuzzing::esp_payload(input));
