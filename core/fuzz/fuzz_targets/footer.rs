//! Footers: no panic, and what parses lies inside the blob. The first eight bytes are its size.
#![no_main]

use lazystar_core::footer::{Footer, MAX_FOOTER_LEN};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((size, tail)) = data.split_first_chunk() else { return };
    let stated = u64::from_le_bytes(*size);
    for blob_size in [stated, stated % (1 << 20), tail.len() as u64] {
        let Ok(footer) = Footer::parse(tail, blob_size) else { continue };
        assert!(footer.payload_end <= blob_size);
        if let Some(toc) = footer.toc {
            assert!(footer.payload_end <= toc.start && toc.start < toc.end && toc.end <= blob_size);
        }
        let longest = tail.len().saturating_sub(MAX_FOOTER_LEN);
        assert_eq!(Footer::parse(&tail[longest..], blob_size), Ok(footer));
    }
});
