//! What reading other implementations has shown to go wrong: the numbers are those of the findings
//! in `formats-and-behaviour.md`, section 7.3.

use lazystar_core::footer::{Footer, FooterError};
use lazystar_core::layer::FetchPolicy;
use lazystar_core::open::{OpenError, OpenOptions};
use lazystar_core::toc::{EntryFault, TocError};
use lazystar_core::write::Format;
use lazystar_core::{Digest, Toc};
use lazystar_tests::layers::{
    FORMATS, build, dir, estargz_by_hand, estargz_footer, file, hardlink, noise, options,
};
use lazystar_tests::script_host::{Answers, ScriptHost, open};

use crate::tree::host;

fn open_blob(blob: &[u8]) -> Result<Toc, OpenError> {
    open(blob, None, OpenOptions { unverified: true, ..OpenOptions::default() }, Answers::Whole)
}

fn open_toc(entries: &str) -> Result<Toc, OpenError> {
    open_blob(&estargz_by_hand(&[0; 50], format!(r#"{{"entries":[{entries}]}}"#).as_bytes()))
}

#[test]
fn row_1_no_footer_is_too_short_or_has_too_short_a_field() {
    for format in FORMATS {
        let blob = build(options(format, 0, 0), &[file("a", "x")]).blob;
        for len in 0..=100.min(blob.len()) {
            let tail = &blob[blob.len() - len..];
            if let Err(error) = open(tail, Some(b"{}"), OpenOptions::default(), Answers::Whole) {
                assert!(matches!(error, OpenError::Footer(_) | OpenError::Toc(_)), "{error}");
            }
        }
    }
    let whole = estargz_footer(5);
    for extra_len in 0..=u8::MAX {
        let mut footer = whole.clone();
        footer[10] = extra_len;
        let parsed = Footer::parse(&footer, 1000);
        assert_eq!(parsed.is_ok(), extra_len == 26, "extra field of {extra_len} bytes");
    }
    for field_len in 0..=u8::MAX {
        let mut footer = whole.clone();
        footer[14] = field_len;
        assert_eq!(Footer::parse(&footer, 1000).is_ok(), field_len == 22);
    }
}

#[test]
fn row_2_positions_of_the_toc_are_checked_before_they_are_used() {
    let blob = |offset: &str| {
        [&[0; 20][..], &estargz_footer(0)[..16], offset.as_bytes(), &estargz_footer(0)[32..]]
            .concat()
    };
    for offset in ["-000000000000001", "+000000000000001", "0x00000000000001", "000000000000000g"] {
        assert_eq!(
            open_blob(&blob(offset)).unwrap_err(),
            OpenError::Footer(FooterError::Absent),
            "{offset}"
        );
    }
    for offset in ["0000000000000014", "7fffffffffffffff", "ffffffffffffffff", "8000000000000000"] {
        let error = open_blob(&blob(offset)).unwrap_err();
        assert!(
            matches!(error, OpenError::Footer(FooterError::OutOfBlob { .. })),
            "{offset}: {error}"
        );
    }
    let zstd = build(options(Format::ZstdChunked, 0, 0), &[file("a", "x")]).blob;
    let words = zstd.len() - 40;
    for (word, value) in [(0, u64::MAX), (0, 1 << 63), (0, 7), (1, u64::MAX), (1, 1 << 40), (1, 0)]
    {
        let mut blob = zstd.clone();
        blob[words + word * 8..][..8].copy_from_slice(&value.to_le_bytes());
        let error = open_blob(&blob).unwrap_err();
        assert!(
            matches!(error, OpenError::Footer(FooterError::OutOfBlob { .. })),
            "{value:x}: {error}"
        );
    }
    let limits =
        lazystar_core::Limits { toc_compressed_bytes: 10, ..lazystar_core::Limits::DEFAULT };
    let error = open(&zstd, None, OpenOptions { limits, ..OpenOptions::default() }, Answers::Whole);
    let limit = TocError::OverLimit { what: "compressed bytes", limit: 10 };
    assert_eq!(error.unwrap_err(), OpenError::Toc(limit));
}

#[test]
fn row_3_depth_cycles_and_odd_chunks_end_in_errors() {
    let chunked = |first: &str, second: &str| {
        open_toc(&format!(
            r#"{{"name":"f","type":"reg","size":10,{first}}},{{"name":"f","type":"chunk",{second}}}"#
        ))
    };
    let fault = |result: Result<Toc, OpenError>| match result {
        Err(OpenError::Toc(TocError::Entry { fault, .. })) => fault,
        other => panic!("{other:?}"),
    };
    let deep = |levels: usize| format!(r#"{{"name":"{}","type":"dir"}}"#, "a/".repeat(levels));
    assert_eq!(open_toc(&deep(2000)).unwrap().node_count(), 2001);
    assert_eq!(fault(open_toc(&deep(20_000))), EntryFault::Name);
    let links: Vec<_> = (0..5000)
        .map(|at| {
            format!(r#"{{"name":"l{at}","type":"hardlink","linkName":"l{}"}}"#, (at + 1) % 5000)
        })
        .collect();
    assert_eq!(fault(open_toc(&links.join(","))), EntryFault::LinkCycle);
    let chain = format!(r#"{},{{"name":"l0","type":"reg"}}"#, links[1..].join(","));
    let toc = open_toc(&chain).unwrap();
    assert_eq!(toc.attr(toc.lookup(Toc::ROOT, b"l4999").unwrap()).nlink, 5000);
    assert_eq!(
        fault(chunked(r#""chunkSize":-4"#, r#""chunkOffset":4"#)),
        EntryFault::Number("chunkSize")
    );
    assert_eq!(
        fault(chunked(r#""chunkSize":4"#, r#""chunkOffset":5"#)),
        EntryFault::Chunks,
        "a gap"
    );
    assert_eq!(
        fault(chunked(r#""chunkSize":4"#, r#""chunkOffset":2"#)),
        EntryFault::Chunks,
        "twice"
    );
    // No size means: up to the end. A chunk of no bytes cannot be said.
    assert_eq!(fault(chunked(r#""chunkSize":0"#, r#""chunkOffset":0"#)), EntryFault::Chunks);
    assert!(
        chunked(r#""chunkSize":4"#, r#""chunkOffset":4,"innerOffset":4,"chunkSize":0"#).is_ok()
    );
}

#[test]
fn row_4_the_root_is_not_in_itself_links_may_come_first_and_a_file_may_have_one_digest() {
    let digest = Digest::of(b"x");
    let toc = open_toc(&format!(
        r#"{{"name":"h","type":"hardlink","linkName":"d/f"}},{{"name":"./","type":"dir","mode":448}},
           {{"name":"/","type":"dir"}},{{"name":"d/f","type":"reg","size":1,"digest":"{digest}"}}"#
    ))
    .unwrap();
    let names: Vec<_> = toc.entries(Toc::ROOT).map(|entry| entry.name).collect();
    assert_eq!(names, [b"d", b"h"]);
    assert_eq!(toc.attr(Toc::ROOT).mode, 0, "the last entry of the root counts");
    assert_eq!(toc.attr(Toc::ROOT).nlink, 3);
    assert_eq!(toc.parent(Toc::ROOT).unwrap().node, Toc::ROOT);
    let d = toc.lookup(Toc::ROOT, b"d").unwrap();
    assert_eq!(toc.lookup(Toc::ROOT, b"h"), toc.lookup(d, b"f"));
    assert_eq!(toc.chunks()[0].digest(), Some(digest));
}

#[test]
fn row_26_the_numbers_of_nodes_do_not_change_between_openings() {
    let items: Vec<_> = (0..300).map(|at| file(&format!("d{}/f{at}", at % 7), "x")).collect();
    let built = build(options(Format::Estargz, 0, 0), &items);
    let numbers = |answers| {
        let toc = host(&built, answers).toc;
        let dirs = toc.entries(Toc::ROOT).map(|entry| entry.node);
        let files = dirs.flat_map(|dir| toc.entries(dir));
        files.map(|entry| (entry.name.to_vec(), entry.node)).collect::<Vec<_>>()
    };
    assert_eq!(numbers(Answers::Whole).len(), 300);
    assert_eq!(numbers(Answers::Whole), numbers(Answers::Random(9)));
}

#[test]
fn row_27_attributes_have_an_order_and_opacity_is_one_of_the_node() {
    let names = ["user.z", "user.a", "trusted.m", "user.é", "security.capability"];
    let marked = names.iter().fold(file("d/f", "x"), |item, name| item.xattr(name, name));
    let items = [dir("d/"), marked, file("d/.wh..wh..opq", "")];
    let toc = host(&build(options(Format::Estargz, 0, 0), &items), Answers::Whole).toc;
    let d = toc.lookup(Toc::ROOT, b"d").unwrap();
    let f = toc.lookup(d, b"f").unwrap();
    let listed: Vec<_> = toc.xattrs(f).map(|(name, _)| name.to_vec()).collect();
    assert!(listed.is_sorted() && listed.len() == names.len(), "{listed:?}");
    assert!(toc.is_opaque(d) && !toc.is_opaque(f));
    assert_eq!(toc.entries(d).len(), 1, "the mark is no entry");
    assert!(toc.has_xattrs());
}

#[test]
fn row_28_an_empty_file_does_not_part_those_that_share_a_member() {
    let items = [
        file("a", noise(50, 1)),
        file("empty", ""),
        file("b", noise(50, 2)),
        hardlink("link", "a"),
        file("also-empty", ""),
        file("c", noise(50, 3)),
    ];
    for format in FORMATS {
        let built = build(options(format, 0, 100_000), &items);
        let mut host: ScriptHost = host(&built, Answers::Whole);
        host.layer.set_policy(FetchPolicy { gap: 0, min_span: 0, max_span: 0, max_ahead: 0 });
        let member = host.toc.chunks()[0].member;
        assert_eq!(host.toc.member_chunks(member), 0..3, "{format:?}");
        host.read(host.toc.lookup(Toc::ROOT, b"b").unwrap()).unwrap();
        assert!((0..3).all(|chunk| host.has(chunk)), "{format:?}");
        assert_eq!(host.fetched.len(), 1);
    }
}
