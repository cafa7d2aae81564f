//! Members: no panic, never more bytes than were wanted, and the same from a decoder used before.
#![no_main]

use lazystar_core::codec::{Codec, PortableCodec};
use lazystar_core::footer::Compression;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(([low, high], compressed)) = data.split_first_chunk() else { return };
    let want = usize::from(u16::from_le_bytes([*low, *high])) * 3;
    let mut codec = PortableCodec::default();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut first = b"before".to_vec();
        let result = codec.decode(compression, compressed, want, &mut first);
        assert!(first.starts_with(b"before") && first.len() <= 6 + want);
        assert!(result.is_err() || first.len() == 6 + want);
        let mut again = b"before".to_vec();
        assert_eq!(codec.decode(compression, compressed, want, &mut again), result);
        assert!(result.is_err() || first == again);
        if result.is_ok() && want > 0 {
            // How far a decoder looks beyond what is wanted, and thus finds damage there, is its own.
            let mut less = Vec::new();
            let result = codec.decode(compression, compressed, want - 1, &mut less);
            assert!(result.is_err() || less == first[6..6 + want - 1]);
        }
    }
});
