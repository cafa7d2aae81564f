//! TOC JSON: no panic, the same result however it is split, and tables that can be walked.
#![no_main]

use lazystar_core::footer::{Footer, Format};
use lazystar_core::toc::{Kind, NodeId, TocError, TocReader};
use lazystar_core::{Digest, Limits, Toc};
use libfuzzer_sys::fuzz_target;

const FOOTER: Footer = Footer { format: Format::EStargz, toc: None, payload_end: 1 << 20 };

fn read(json: &[u8], piece: usize) -> Result<Toc, TocError> {
    let limits = Limits { entries: 3000, flat_bytes: 1 << 36, ..Limits::DEFAULT };
    let mut reader = TocReader::new(FOOTER, 2 << 20, Digest::of(b""), limits);
    for piece in json.chunks(piece) {
        reader.feed(piece)?;
    }
    reader.finish(None, true)
}

/// Everything that a host asks of a TOC, as one text.
fn walk(toc: &Toc) -> String {
    let mut seen = Vec::new();
    let mut text = format!("{:?} {} {:?}", toc.landmark(), toc.flat_size(), toc.assurance());
    let mut queue = vec![Toc::ROOT];
    while let Some(dir) = queue.pop() {
        assert!(!seen.contains(&dir), "a directory with two parents");
        seen.push(dir);
        let mut last: Option<&[u8]> = None;
        for entry in toc.entries(dir) {
            assert!(!entry.name.is_empty() && entry.name.len() <= 255);
            assert!(!entry.name.contains(&b'/') && !entry.name.contains(&0));
            assert!(![&b"."[..], b".."].contains(&entry.name));
            assert!(last < Some(entry.name), "names out of order");
            last = Some(entry.name);
            assert_eq!(toc.lookup(dir, entry.name), Some(entry.node));
            if toc.kind(entry.node) == Kind::Directory {
                assert_eq!(
                    toc.parent(entry.node).map(|up| (up.node, up.name)),
                    Some((dir, entry.name))
                );
                queue.push(entry.node);
            }
            file(toc, entry.node);
            let xattrs: Vec<_> = toc.xattrs(entry.node).collect();
            text += &format!("{entry:?} {:?} {xattrs:?}", toc.attr(entry.node));
        }
    }
    for pair in toc.chunks().windows(2) {
        assert!(pair[0].flat_range().end <= pair[1].flat && pair[0].member <= pair[1].member);
    }
    text
}

fn file(toc: &Toc, node: NodeId) {
    let mut at = toc.flat_range(node).start;
    for chunk in toc.file_chunks(node) {
        assert!(chunk.flat == at && chunk.len > 0);
        at += u64::from(chunk.len);
        let span = toc.member_span(chunk.member);
        assert!(chunk.is_hole() || (!span.is_empty() && span.end <= FOOTER.payload_end));
        assert!(!toc.chunks_in(chunk.flat_range()).is_empty());
    }
    assert_eq!(at, toc.flat_range(node).end);
}

fuzz_target!(|data: &[u8]| {
    let Some((piece, json)) = data.split_first() else { return };
    let whole = read(json, usize::MAX).map(|toc| walk(&toc));
    let split = read(json, usize::from(*piece).max(1)).map(|toc| walk(&toc));
    assert_eq!(whole, split);
});
