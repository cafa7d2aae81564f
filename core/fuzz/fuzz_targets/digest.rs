//! Digest parsing: no panic, and what parses prints as it was written.
#![no_main]

use lazystar_core::Digest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(digest.hex(), text["sha256:".len()..]);
    }
});
