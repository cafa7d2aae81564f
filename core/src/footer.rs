//! Footers: the last bytes of a blob, which say where its table of contents is.
//!
//! | format | bytes | what it is |
//! |---|---|---|
//! | eStargz | 51 | empty gzip member, extra field `SG`, 16 hex digits, `STARGZ` |
//! | stargz | 47 | the same without the `SG` sub-field header |
//! | eStargz, external TOC | 46 | extra field `SG`, `STARGZEXTERNALTOC` |
//! | zstd:chunked | 48 or 72 | skippable frame of 40 (stargz-snapshotter) or 64 (containers/storage) bytes |

use core::fmt;

use crate::range::ByteRange;

/// The longest footer: how much of a blob's end decides its format.
pub const MAX_FOOTER_LEN: usize = ZSTD_LONG_LEN;

const ESTARGZ_LEN: usize = 51;
const STARGZ_LEN: usize = 47;
const EXTERNAL_LEN: usize = 46;
const SKIPPABLE_HEADER_LEN: usize = 8;
const ZSTD_SHORT_LEN: usize = SKIPPABLE_HEADER_LEN + 40;
const ZSTD_LONG_LEN: usize = SKIPPABLE_HEADER_LEN + 64;

const GZIP_WITH_EXTRA: &[u8] = &[0x1f, 0x8b, 8, 4];
const EXTRA_OFFSET: usize = 10;
const SKIPPABLE_MAGIC: &[u8] = &[0x50, 0x2a, 0x4d, 0x18];

/// How a lazily readable layer is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// eStargz: gzip members, TOC in the blob.
    EStargz,
    /// eStargz whose TOC is in an image of its own (`<tag>-esgztoc`).
    EStargzExternalToc,
    /// Legacy stargz: as eStargz, without digests.
    Stargz,
    /// zstd:chunked: zstd frames, TOC in a skippable frame.
    ZstdChunked,
}

impl Format {
    /// The name used in output: `estargz`, `estargz-external-toc`, `stargz` or `zstd-chunked`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EStargz => "estargz",
            Self::EStargzExternalToc => "estargz-external-toc",
            Self::Stargz => "stargz",
            Self::ZstdChunked => "zstd-chunked",
        }
    }

    /// The compression of the members.
    #[must_use]
    pub const fn compression(self) -> Compression {
        match self {
            Self::EStargz | Self::EStargzExternalToc | Self::Stargz => Compression::Gzip,
            Self::ZstdChunked => Compression::Zstd,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How members are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip members (RFC 1952).
    Gzip,
    /// zstd frames (RFC 8878).
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// What a footer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The format of the blob.
    pub format: Format,
    /// Where the compressed TOC is; `None` when it is not in the blob.
    pub toc: Option<ByteRange>,
    /// Where the members end.
    pub payload_end: u64,
}

/// Why a blob has no usable footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FooterError {
    /// No footer of any format: an ordinary layer.
    Absent,
    /// A footer that points outside its blob.
    OutOfBlob {
        /// The format that the footer claims.
        format: Format,
        /// The size of the blob.
        blob_size: u64,
    },
}

impl fmt::Display for FooterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str(
                "the blob ends without a stargz, eStargz or zstd:chunked footer: an ordinary layer",
            ),
            Self::OutOfBlob { format, blob_size } => write!(
                f,
                "the {format} footer places the TOC outside the blob of {blob_size} bytes: the blob is corrupt"
            ),
        }
    }
}

impl core::error::Error for FooterError {}

impl Footer {
    /// Reads the footer of a blob of `blob_size` bytes from `tail`, the last bytes of it
    /// ([`MAX_FOOTER_LEN`] of them, or the whole blob when it is shorter).
    ///
    /// # Errors
    /// [`FooterError::Absent`] when the blob is no lazily readable layer, and
    /// [`FooterError::OutOfBlob`] when the footer contradicts the blob's size.
    pub fn parse(tail: &[u8], blob_size: u64) -> Result<Self, FooterError> {
        let claims = [estargz(tail), stargz(tail), external(tail), zstd_chunked(tail)];
        let claim = claims.into_iter().flatten().next().ok_or(FooterError::Absent)?;
        claim.check(blob_size).ok_or(FooterError::OutOfBlob { format: claim.format, blob_size })
    }
}

struct Claim {
    format: Format,
    footer_len: usize,
    /// Start of the TOC; unset when it is external.
    start: Option<u64>,
    /// Length of the TOC where the footer states it.
    len: Option<u64>,
}

impl Claim {
    fn check(&self, blob_size: u64) -> Option<Footer> {
        let footer_start = blob_size.checked_sub(self.footer_len as u64)?;
        let Some(start) = self.start else {
            return Some(Footer { format: self.format, toc: None, payload_end: footer_start });
        };
        let end = self.len.map_or(Some(footer_start), |len| start.checked_add(len))?;
        let payload_end = match self.format {
            Format::ZstdChunked => start.checked_sub(SKIPPABLE_HEADER_LEN as u64)?,
            _ => start,
        };
        let toc =
            ByteRange::new(start, end).filter(|toc| end <= footer_start && !toc.is_empty())?;
        Some(Footer { format: self.format, toc: Some(toc), payload_end })
    }
}

fn estargz(tail: &[u8]) -> Option<Claim> {
    let extra = gzip_extra::<ESTARGZ_LEN>(tail, 26)?.strip_prefix(b"SG\x16\x00")?;
    let start = Some(stargz_offset(extra)?);
    Some(Claim { format: Format::EStargz, footer_len: ESTARGZ_LEN, start, len: None })
}

fn stargz(tail: &[u8]) -> Option<Claim> {
    let start = Some(stargz_offset(gzip_extra::<STARGZ_LEN>(tail, 22)?)?);
    Some(Claim { format: Format::Stargz, footer_len: STARGZ_LEN, start, len: None })
}

fn external(tail: &[u8]) -> Option<Claim> {
    let extra = gzip_extra::<EXTERNAL_LEN>(tail, 21)?;
    (extra == b"SG\x11\x00STARGZEXTERNALTOC").then_some(Claim {
        format: Format::EStargzExternalToc,
        footer_len: EXTERNAL_LEN,
        start: None,
        len: None,
    })
}

/// The extra field of the gzip member that ends `tail`, when that member is `LEN` bytes long and
/// its extra field `extra_len`. Time, flags and operating system in the header are free.
fn gzip_extra<const LEN: usize>(tail: &[u8], extra_len: u16) -> Option<&[u8]> {
    let footer = tail.last_chunk::<LEN>()?;
    let (header, rest) = footer.split_at_checked(EXTRA_OFFSET)?;
    let extra = rest.strip_prefix(&extra_len.to_le_bytes())?.get(..usize::from(extra_len))?;
    header.starts_with(GZIP_WITH_EXTRA).then_some(extra)
}

fn stargz_offset(extra: &[u8]) -> Option<u64> {
    let digits = extra.strip_suffix(b"STARGZ")?;
    digits.iter().try_fold(0_u64, |offset, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(offset.checked_mul(16)? | u64::from(value))
    })
}

fn zstd_chunked(tail: &[u8]) -> Option<Claim> {
    let (footer_len, words) = zstd_footer::<ZSTD_SHORT_LEN>(tail, b"GnUlInUx")
        .or_else(|| zstd_footer::<ZSTD_LONG_LEN>(tail, b"GNUlInUx"))?;
    Some(Claim {
        format: Format::ZstdChunked,
        footer_len,
        start: Some(words[0]),
        len: Some(words[1]),
    })
}

/// The first two little-endian words of the skippable frame of `LEN` bytes that ends `tail`: where
/// the compressed TOC starts and how long it is.
fn zstd_footer<const LEN: usize>(tail: &[u8], magic: &[u8]) -> Option<(usize, [u64; 2])> {
    let frame = tail.last_chunk::<LEN>()?;
    let payload_len = u32::try_from(LEN - SKIPPABLE_HEADER_LEN).ok()?;
    let payload = frame.strip_prefix(SKIPPABLE_MAGIC)?.strip_prefix(&payload_len.to_le_bytes())?;
    let (words, _) = payload.strip_suffix(magic)?.as_chunks::<8>();
    Some((LEN, [u64::from_le_bytes(*words.first()?), u64::from_le_bytes(*words.get(1)?)]))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn gzip_footer(extra: &[u8]) -> Vec<u8> {
        let mut footer = Vec::from([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff]);
        footer.extend(u16::try_from(extra.len()).unwrap().to_le_bytes());
        footer.extend(extra);
        footer.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
        footer
    }

    fn zstd_footer(words: &[u64], magic: &[u8]) -> Vec<u8> {
        let mut footer = Vec::from(SKIPPABLE_MAGIC);
        footer.extend((words.len() as u32 * 8 + 8).to_le_bytes());
        words.iter().for_each(|word| footer.extend(word.to_le_bytes()));
        footer.extend(magic);
        footer
    }

    type Parsed = (Format, Option<(u64, u64)>, u64);

    fn parse(tail: &[u8], size: u64) -> Result<Parsed, FooterError> {
        let footer = Footer::parse(tail, size)?;
        Ok((footer.format, footer.toc.map(|toc| (toc.start, toc.end)), footer.payload_end))
    }

    #[test]
    fn every_format_is_recognised() {
        let estargz = gzip_footer(b"SG\x16\x0000000000000003e8STARGZ");
        assert_eq!(estargz.len(), ESTARGZ_LEN);
        assert_eq!(parse(&estargz, 2000), Ok((Format::EStargz, Some((1000, 1949)), 1000)));

        let stargz = gzip_footer(b"00000000000003e8STARGZ");
        assert_eq!(stargz.len(), STARGZ_LEN);
        assert_eq!(parse(&stargz, 2000), Ok((Format::Stargz, Some((1000, 1953)), 1000)));

        let external = gzip_footer(b"SG\x11\x00STARGZEXTERNALTOC");
        assert_eq!(external.len(), EXTERNAL_LEN);
        assert_eq!(parse(&external, 2000), Ok((Format::EStargzExternalToc, None, 1954)));

        let short = zstd_footer(&[1000, 100, 300, 1], b"GnUlInUx");
        assert_eq!(parse(&short, 2000), Ok((Format::ZstdChunked, Some((1000, 1100)), 992)));

        let long = zstd_footer(&[1000, 100, 300, 1, 1108, 50, 70], b"GNUlInUx");
        assert_eq!(parse(&long, 2000), Ok((Format::ZstdChunked, Some((1000, 1100)), 992)));
    }

    #[test]
    fn the_tail_may_be_longer_than_the_footer() {
        let mut tail = Vec::from([7; 300]);
        tail.extend(gzip_footer(b"SG\x16\x0000000000000003e8STARGZ"));
        assert_eq!(parse(&tail, 2000), Ok((Format::EStargz, Some((1000, 1949)), 1000)));
    }

    #[test]
    fn everything_else_is_absent() {
        let signed = gzip_footer(b"SG\x16\x00-0000000000003e8STARGZ");
        let short_extra = gzip_footer(b"SG\x16\x00");
        for tail in [&[][..], &[0; 10], &[0; 51], &[0; 100], &signed, &short_extra] {
            assert_eq!(Footer::parse(tail, 2000), Err(FooterError::Absent), "{tail:?}");
        }
    }

    #[test]
    fn footers_that_leave_the_blob_are_corrupt() {
        let gzip = |offset: u64| gzip_footer(alloc::format!("{offset:016x}STARGZ").as_bytes());
        for (tail, size) in [
            (gzip(1953), 2000),
            (gzip(1954), 2000),
            (gzip(u64::MAX), 2000),
            (gzip(0), 46),
            (zstd_footer(&[7, 100, 0, 1], b"GnUlInUx"), 2000),
            (zstd_footer(&[1900, 100, 0, 1], b"GnUlInUx"), 2000),
            (zstd_footer(&[u64::MAX, u64::MAX, 0, 1], b"GnUlInUx"), 2000),
            (zstd_footer(&[8, 0, 0, 1], b"GnUlInUx"), 2000),
        ] {
            let result = Footer::parse(&tail, size);
            assert!(matches!(result, Err(FooterError::OutOfBlob { .. })), "{result:?}");
        }
    }
}
