#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::knock_bytes::run(data);
});
