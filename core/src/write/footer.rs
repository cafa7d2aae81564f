//! The footers, byte by byte.

use alloc::vec::Vec;

use super::ZstdPosition;

/// Bytes of a skippable frame before its payload (RFC 8878, 3.1.2).
pub(super) const SKIPPABLE_HEADER: usize = 8;

const SKIPPABLE_MAGIC: [u8; 4] = 0x184d_2a50u32.to_le_bytes();

/// Manifest type of the one TOC form that exists.
pub(super) const MANIFEST_TYPE: u64 = 1;

/// Member header with FEXTRA, without time, unknown system; the length of the extra field follows.
const GZIP_EXTRA: [u8; 10] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];

/// An empty stored block that is the last, CRC-32 and size of nothing.
const GZIP_EMPTY: [u8; 13] = [1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];

/// eStargz: subfield `SG` of 22 bytes.
pub(super) fn estargz(toc_offset: u64) -> [u8; 51] {
    let mut footer = [0; 51];
    fill(
        &mut footer,
        [&GZIP_EXTRA, &[26, 0], b"SG", &[22, 0], &hex(toc_offset), b"STARGZ", &GZIP_EMPTY],
    );
    footer
}

/// stargz: the extra field is 22 bytes without subfields.
pub(super) fn legacy(toc_offset: u64) -> [u8; 47] {
    let mut footer = [0; 47];
    fill(&mut footer, [&GZIP_EXTRA, &[22, 0], &hex(toc_offset), b"STARGZ", &GZIP_EMPTY]);
    footer
}

/// eStargz whose TOC is elsewhere.
pub(super) const EXTERNAL_TOC: [u8; 46] = *b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\
\x15\x00SG\x11\x00STARGZEXTERNALTOC\
\x01\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00";

/// The last frame of zstd:chunked, in the dialect that `position` says.
pub(super) fn zstd(position: &ZstdPosition) -> Vec<u8> {
    let mut numbers =
        Vec::from([position.offset, position.compressed, position.raw, MANIFEST_TYPE]);
    let magic = if position.storage {
        // Offset, compressed and raw length of a tar-split, which there is none of.
        numbers.extend([0; 3]);
        b"GNUlInUx"
    } else {
        b"GnUlInUx"
    };
    let payload = numbers.len() * 8 + magic.len();
    let mut footer = Vec::with_capacity(SKIPPABLE_HEADER + payload);
    footer.extend(skippable_header(payload).unwrap_or_default());
    footer.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
    footer.extend_from_slice(magic);
    footer
}

/// Header of a skippable frame, if its payload is not too large for one.
pub(super) fn skippable_header(payload: usize) -> Option<[u8; SKIPPABLE_HEADER]> {
    let mut header = [0; SKIPPABLE_HEADER];
    let length = u32::try_from(payload).ok()?.to_le_bytes();
    fill(&mut header, [&SKIPPABLE_MAGIC, &length]);
    Some(header)
}

fn fill<const N: usize>(out: &mut [u8], parts: [&[u8]; N]) {
    for (to, from) in out.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
}

/// Sixteen lower-case hex digits.
fn hex(value: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (index, digit) in digits.iter_mut().rev().enumerate() {
        let nibble = (value >> (4 * index)) as u8 & 15;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn gzip_footers_are_exact() {
        assert_eq!(
            &estargz(0x1_2345_abcd),
            b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\x00000000012345abcdSTARGZ\
              \x01\0\0\xff\xff\0\0\0\0\0\0\0\0"
        );
        assert_eq!(
            &legacy(u64::MAX),
            b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x16\0ffffffffffffffffSTARGZ\
              \x01\0\0\xff\xff\0\0\0\0\0\0\0\0"
        );
        assert_eq!(EXTERNAL_TOC.len(), 10 + 2 + 4 + 17 + 5 + 8);
    }

    #[test]
    fn zstd_footers_are_exact() {
        let mut position = ZstdPosition {
            offset: 0x0102,
            compressed: 0x0304,
            raw: 0x0506,
            checksum: Digest::of(b""),
            storage: false,
        };
        assert_eq!(
            zstd(&position),
            b"\x50\x2a\x4d\x18\x28\0\0\0\x02\x01\0\0\0\0\0\0\x04\x03\0\0\0\0\0\0\
              \x06\x05\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x47\x6e\x55\x6c\x49\x6e\x55\x78"
        );
        position.storage = true;
        let footer = zstd(&position);
        assert_eq!(footer.len(), 72);
        assert_eq!(footer[4..8], [64, 0, 0, 0]);
        assert_eq!(footer[40..64], [0; 24]);
        assert_eq!(&footer[64..], b"\x47\x4e\x55\x6c\x49\x6e\x55\x78");
    }
}
