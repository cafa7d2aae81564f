//! A part of something, as one asks for it over HTTP.

use std::fmt;
use std::ops::Range;

/// What one `Range` header asks for (RFC 9110, section 14.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AskedRange {
    /// These bytes, at least one.
    Span(Range<u64>),
    /// Everything from this byte on.
    From(u64),
    /// This many bytes at the end.
    Last(u64),
}

impl AskedRange {
    /// Reads the value of a `Range` header; `None` if it is no single range of bytes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
        match (first.trim(), last.trim()) {
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, end) = (number(first)?, number(last)?.checked_add(1)?);
                (first < end).then_some(Self::Span(first..end))
            }
        }
    }

    /// Which bytes that are of something with `size` bytes; `None` if there are none.
    pub(crate) fn within(&self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Span(range) => range.start..range.end.min(size),
            Self::From(first) => *first..size,
            Self::Last(count) => size.saturating_sub(*count)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl From<Range<u64>> for AskedRange {
    fn from(range: Range<u64>) -> Self {
        Self::Span(range)
    }
}

impl fmt::Display for AskedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Span(range) => write!(f, "bytes={}-{}", range.start, range.end - 1),
            Self::From(first) => write!(f, "bytes={first}-"),
            Self::Last(count) => write!(f, "bytes=-{count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_single_ranges() {
        let of = |text: &str| AskedRange::parse(text).map(|range| range.within(100));
        assert_eq!(of("bytes=0-9"), Some(Some(0..10)));
        assert_eq!(of("bytes=90-"), Some(Some(90..100)));
        assert_eq!(of("bytes=90-200"), Some(Some(90..100)));
        assert_eq!(of("bytes=-10"), Some(Some(90..100)));
        assert_eq!(of("bytes=-200"), Some(Some(0..100)));
        assert_eq!(of("bytes=100-"), Some(None));
        assert_eq!(of("bytes=-0"), Some(None));
        for bad in ["bytes=9-0", "bytes=0-1,4-5", "items=0-1", "bytes=-", "bytes=+1-2", "0-1"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        for text in ["bytes=0-9", "bytes=90-", "bytes=-10"] {
            assert_eq!(AskedRange::parse(text).expect("a range").to_string(), text);
        }
    }
}
