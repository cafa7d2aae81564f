//! Which part of a request has not come yet.

use alloc::vec::Vec;

use lazystar_core::ByteRange;

/// The parts of a range that are missing: sorted, disjoint, none empty.
#[derive(Debug)]
pub(crate) struct Missing(Vec<ByteRange>);

impl Missing {
    /// All of `range`.
    pub(crate) fn all_of(range: ByteRange) -> Self {
        Self(Vec::from_iter((!range.is_empty()).then_some(range)))
    }

    /// Takes out what lies in `came`.
    pub(crate) fn remove(&mut self, came: ByteRange) {
        let touched = self.0.iter().any(|part| part.start < came.end && came.start < part.end);
        if came.is_empty() || !touched {
            return;
        }
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for part in &self.0 {
            let before = ByteRange::new(part.start, part.end.min(came.start));
            let after = ByteRange::new(part.start.max(came.end), part.end);
            left.extend([before, after].into_iter().flatten().filter(|range| !range.is_empty()));
        }
        self.0 = left;
    }

    /// Where the first part starts; the end of everything when nothing is missing.
    pub(crate) fn start(&self) -> u64 {
        self.0.first().map_or(u64::MAX, |part| part.start)
    }

    /// What is missing.
    pub(crate) fn parts(&self) -> &[ByteRange] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_taken_out_whatever_its_order() {
        let range = |start, end| ByteRange { start, end };
        let mut missing = Missing::all_of(range(10, 30));
        missing.remove(range(0, 10));
        missing.remove(range(30, 40));
        missing.remove(range(20, 20));
        assert_eq!(missing.parts(), [range(10, 30)]);
        missing.remove(range(15, 20));
        missing.remove(range(17, 18));
        assert_eq!(missing.parts(), [range(10, 15), range(20, 30)]);
        missing.remove(range(12, 25));
        assert_eq!(missing.parts(), [range(10, 12), range(25, 30)]);
        missing.remove(range(0, 100));
        assert_eq!(missing.parts(), []);
        assert_eq!(Missing::all_of(range(7, 7)).parts(), []);
    }
}
