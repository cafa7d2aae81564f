//! How missing members become requests, and how far to fetch ahead of a reader.

use alloc::vec::Vec;
use core::ops::Range;

use crate::range::ByteRange;
use crate::toc::Toc;

/// How requests are cut. All are compressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPolicy {
    /// Members this close are fetched in one request, what lies between them included: the
    /// bandwidth that this wastes must cost less than a request.
    pub gap: u64,
    /// What a read that misses fetches at least, because the files beside the one that is read
    /// are often read next.
    pub min_span: u64,
    /// What one request asks for at most, unless a single member is larger: long enough to be
    /// efficient, short enough that several run side by side and are decoded side by side.
    pub max_span: u64,
    /// How far to fetch ahead of somebody who reads everything in order, or in reverse.
    pub max_ahead: u64,
}

impl Default for FetchPolicy {
    fn default() -> Self {
        Self { gap: 32 << 10, min_span: 64 << 10, max_span: 1 << 20, max_ahead: 8 << 20 }
    }
}

/// Members that one request brings: positions in the list given, and the bytes that hold them.
pub(super) struct Span {
    pub(super) members: Range<usize>,
    pub(super) range: ByteRange,
}

/// Cuts a sorted list of members into requests.
pub(super) fn spans(toc: &Toc, members: &[u64], policy: &FetchPolicy) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (at, member) in members.iter().enumerate() {
        let next = toc.member_span(*member);
        if let Some(Span { members, range }) = spans.last_mut()
            && next.start.saturating_sub(range.end) <= policy.gap
            && next.end - range.start <= policy.max_span
        {
            members.end = at + 1;
            range.end = next.end;
        } else {
            spans.push(Span { members: at..at + 1, range: next });
        }
    }
    spans
}

/// Follows somebody who reads in blob order, forwards or backwards, and fetches further ahead the
/// longer they do.
#[derive(Debug, Default)]
pub(super) struct Readahead {
    /// What was requested for the reader last: from `start` to `end`.
    start: u64,
    end: u64,
    /// How much was requested around the last miss.
    window: u64,
    mark: Option<u64>,
}

impl Readahead {
    pub(super) fn mark(&self) -> Option<u64> {
        self.mark
    }

    /// Adds to `members`, which a reader waits for, those beside them that it may want next.
    pub(super) fn extend(
        &mut self,
        toc: &Toc,
        policy: &FetchPolicy,
        members: &mut Vec<u64>,
        is_missing: impl Fn(&Toc, u64) -> bool,
    ) {
        let (Some(first), Some(last)) = (members.first(), members.last()) else { return };
        let (start, end) = (*first, toc.member_span(*last).end);
        let follows = |from: u64, to: u64| {
            self.window > 0 && to.checked_sub(from).is_some_and(|gap| gap <= policy.gap)
        };
        let (forwards, backwards) = (follows(self.end, start), follows(end, self.start));
        self.window = if forwards || backwards {
            (self.window * 2).min(policy.max_ahead)
        } else {
            policy.min_span
        };
        self.mark = None;
        (self.start, self.end) = (start, end);
        if !forwards {
            // Somewhere new: the files before it are as likely to be wanted as those after it.
            let window = if backwards { self.window } else { self.window / 2 };
            self.prepend(toc, end.saturating_sub(window), members, &is_missing);
        }
        if !backwards {
            let until = (start + self.window).max(end);
            self.append(toc, until, members, is_missing);
        }
    }

    /// The members of the next window.
    pub(super) fn advance(
        &mut self,
        toc: &Toc,
        policy: &FetchPolicy,
        is_missing: impl Fn(&Toc, u64) -> bool,
    ) -> Vec<u64> {
        let mut members = Vec::new();
        self.mark = None;
        self.window = (self.window * 2).clamp(policy.min_span, policy.max_ahead);
        self.append(toc, self.end + self.window, &mut members, is_missing);
        members
    }

    fn append(
        &mut self,
        toc: &Toc,
        until: u64,
        members: &mut Vec<u64>,
        is_missing: impl Fn(&Toc, u64) -> bool,
    ) {
        loop {
            let chunks = toc.member_chunks(self.end);
            let Some(next) = toc.chunks().get(chunks.start as usize) else { return };
            let span = toc.member_span(next.member);
            // Holes of a blob without members have nowhere to lead.
            if span.end > until || span.end <= self.end {
                return;
            }
            if is_missing(toc, next.member) {
                members.push(next.member);
                self.mark.get_or_insert(next.flat);
            }
            self.end = span.end;
        }
    }

    fn prepend(
        &mut self,
        toc: &Toc,
        from: u64,
        members: &mut Vec<u64>,
        is_missing: impl Fn(&Toc, u64) -> bool,
    ) {
        let mut before = Vec::new();
        while let Some(last) = toc.member_chunks(self.start).start.checked_sub(1)
            && let Some(last) = toc.chunks().get(last as usize)
            && last.member >= from
        {
            if is_missing(toc, last.member) {
                before.push(last.member);
            }
            self.start = last.member;
        }
        members.splice(0..0, before.into_iter().rev());
    }
}
