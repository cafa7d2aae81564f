//! Requests for bytes of a blob, and the answers put back together.

use alloc::vec::Vec;
use core::fmt;

use crate::range::ByteRange;

/// The number of a request; the engine makes them up and hosts give them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// Bytes that the engine wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct FetchRequest {
    /// The number to answer with.
    pub id: FetchId,
    /// What is wanted.
    pub range: ByteRange,
    /// How soon.
    pub priority: Priority,
}

/// Who waits for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nobody yet.
    Prefetch,
    /// A reader, now.
    Demand,
}

/// Why bytes could not be had. The host retries as it sees fit before it reports one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// It may work later: no connection, a timeout, a server error.
    Transient,
    /// The blob is not there.
    Gone,
    /// Whoever has the blob does not give it to us.
    Denied,
    /// What came is not what was asked for.
    Protocol,
    /// There is no room to keep what came.
    Storage,
}

impl fmt::Display for FetchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transient => "the blob could not be fetched; it may work later",
            Self::Gone => "the registry no longer has the blob",
            Self::Denied => "the registry denies access to the blob",
            Self::Protocol => "the registry did not answer with the range that was asked for",
            Self::Storage => "the fetched data could not be stored",
        })
    }
}

impl core::error::Error for FetchFailure {}

/// Bytes of a range that come in any order and split, repeats included.
pub(crate) struct Assembly {
    range: ByteRange,
    bytes: Vec<u8>,
    /// What has come, as sorted ranges relative to the start that do not touch.
    have: Vec<(usize, usize)>,
}

impl Assembly {
    pub(crate) fn new(range: ByteRange) -> Self {
        Self { range, bytes: Vec::new(), have: Vec::new() }
    }

    /// Takes what lies in the range of `bytes`, which are those of the blob from `at` on.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len() as u64).min(self.range.end);
        let start = at.max(self.range.start);
        if start >= end {
            return;
        }
        let Ok(len) = usize::try_from(self.range.len()) else { return };
        let position =
            |offset: u64, base: u64| usize::try_from(offset - base).unwrap_or(usize::MAX);
        let Some(piece) = bytes.get(position(start, at)..position(end, at)) else { return };
        let (from, to) = (position(start, self.range.start), position(end, self.range.start));
        if from == self.bytes.len() {
            // The common case: in order, so nothing is zeroed first.
            if self.bytes.is_empty() {
                self.bytes.reserve_exact(len);
            }
            self.bytes.extend_from_slice(piece);
        } else {
            if self.bytes.len() < to {
                self.bytes.resize(to, 0);
            }
            self.bytes[from..to].copy_from_slice(piece);
        }
        self.mark(from, to);
    }

    fn mark(&mut self, mut from: usize, mut to: usize) {
        if let Some(last) = self.have.last_mut()
            && last.1 == from
        {
            last.1 = to;
            return;
        }
        self.have.retain(|(start, end)| {
            let apart = *end < from || to < *start;
            if !apart {
                from = from.min(*start);
                to = to.max(*end);
            }
            apart
        });
        let place = self.have.partition_point(|(start, _)| *start < from);
        self.have.insert(place, (from, to));
    }

    pub(crate) fn is_complete(&self) -> bool {
        match *self.have.as_slice() {
            [] => self.range.is_empty(),
            [(0, end)] => end as u64 == self.range.len(),
            _ => false,
        }
    }

    /// What has not come, in the order of the blob.
    pub(crate) fn missing(&self) -> impl Iterator<Item = ByteRange> {
        let at = |position: usize| self.range.start + position as u64;
        let ends = self.have.iter().map(move |(start, _)| at(*start)).chain([self.range.end]);
        let starts =
            [self.range.start].into_iter().chain(self.have.iter().map(move |(_, end)| at(*end)));
        starts
            .zip(ends)
            .filter(|(start, end)| start < end)
            .map(|(start, end)| ByteRange { start, end })
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assemble(pieces: &[(u64, &[u8])]) -> Option<Vec<u8>> {
        let mut assembly = Assembly::new(ByteRange { start: 10, end: 16 });
        pieces.iter().for_each(|(at, bytes)| assembly.put(*at, bytes));
        assembly.is_complete().then(|| assembly.into_bytes())
    }

    #[test]
    fn any_order_split_and_repeat_gives_the_same_bytes() {
        let whole = Some(b"abcdef".to_vec());
        assert_eq!(assemble(&[(10, b"abcdef")]), whole);
        assert_eq!(assemble(&[(8, b"..abcdef....")]), whole);
        assert_eq!(assemble(&[(13, b"def"), (10, b"abc")]), whole);
        assert_eq!(assemble(&[(12, b"cd"), (15, b"f"), (10, b"ab"), (14, b"e")]), whole);
        assert_eq!(
            assemble(&[(10, b"abc"), (10, b"abcd"), (11, b"bcdef"), (10, b"abcdef")]),
            whole
        );
        assert_eq!(assemble(&[(10, b"abc"), (14, b"ef")]), None);
        assert_eq!(assemble(&[(0, b"nothing"), (16, b"of it"), (u64::MAX, b"all")]), None);
    }

    #[test]
    fn what_is_missing_shrinks_with_what_comes() {
        let range = |start, end| ByteRange { start, end };
        let mut assembly = Assembly::new(range(10, 30));
        let missing = |assembly: &Assembly| assembly.missing().collect::<Vec<_>>();
        assert_eq!(missing(&assembly), [range(10, 30)]);
        for (at, len, left) in [
            (0, 10, &[range(10, 30)][..]),
            (15, 5, &[range(10, 15), range(20, 30)]),
            (17, 1, &[range(10, 15), range(20, 30)]),
            (12, 13, &[range(10, 12), range(25, 30)]),
            (25, 50, &[range(10, 12)]),
            (10, 2, &[]),
        ] {
            assembly.put(at, &[0; 50][..len]);
            assert_eq!(missing(&assembly), left, "{len} bytes at {at}");
        }
        assert_eq!(missing(&Assembly::new(range(7, 7))), []);
    }
}
