//! Hostile tables of contents and blobs: every one ends in the error that fits it.

use lazystar_core::footer::{Footer, FooterError, Format};
use lazystar_core::open::{OpenError, OpenOptions};
use lazystar_core::toc::{Assurance, EntryFault, Kind, TocError, TocReader};
use lazystar_core::{Digest, Limits, Toc};
use lazystar_tests::corpus::hostile::{
    A, HOLES, REPEATED_XATTRS, SMALL, at_the_limits, damaged, dirs, faults, toc, tocs, zeros,
};
use lazystar_tests::layers::estargz_footer;
use lazystar_tests::script_host::{Answers, open};

/// Members end at 1000.
const FOOTER: Footer = Footer { format: Format::EStargz, toc: None, payload_end: 1000 };

fn read_with(
    json: &[u8],
    limits: Limits,
    expected: Option<Digest>,
    unverified: bool,
) -> Result<Toc, TocError> {
    let parse = |piece| {
        let mut reader = TocReader::new(FOOTER, 1200, Digest::of(json), limits);
        json.chunks(piece).try_for_each(|piece| reader.feed(piece))?;
        reader.finish(expected, unverified)
    };
    let whole = parse(json.len().max(1));
    for piece in [1, 2, 7] {
        assert_eq!(parse(piece).err(), whole.as_ref().err().cloned(), "in pieces of {piece}");
    }
    whole
}

fn read(json: impl AsRef<[u8]>) -> Result<Toc, TocError> {
    read_with(json.as_ref(), Limits::DEFAULT, None, false)
}

fn fault(entries: &str) -> Option<EntryFault> {
    match read(toc(entries)) {
        Err(TocError::Entry { fault, .. }) => Some(fault),
        Err(other) => panic!("{entries}: {other}"),
        Ok(_) => None,
    }
}

#[test]
fn every_fault_of_an_entry_is_told() {
    for (entries, expected) in &faults() {
        assert_eq!(fault(entries), Some(*expected), "{}", &entries[..entries.len().min(200)]);
    }
    for entries in &at_the_limits() {
        assert_eq!(fault(entries), None, "{}", &entries[..entries.len().min(200)]);
    }
}

#[test]
fn every_other_error_of_a_toc_is_told() {
    for (json, limits, expected) in tocs() {
        let shown = String::from_utf8_lossy(&json[..json.len().min(200)]).into_owned();
        assert_eq!(read_with(&json, limits, None, false).err(), Some(expected), "{shown}");
    }
    for json in [dirs(3), zeros(10_000)] {
        assert!(read_with(json.as_bytes(), SMALL, None, false).is_ok());
    }
}

#[test]
fn what_the_manifest_states_decides_what_is_verified() {
    let undigested = toc(r#"{"name":"f","type":"reg","size":1}"#);
    let digested = toc(r##"{"name":"f","type":"reg","size":1,"digest":"@A"}"##);
    let open = |json: &String, stated, unverified| {
        let toc = read_with(json.as_bytes(), Limits::DEFAULT, stated, unverified);
        toc.map(|toc| toc.assurance())
    };
    let missing = Err(TocError::Entry { path: "f".into(), fault: EntryFault::NoDigest });
    let digest = |json: &String| Some(Digest::of(json.as_bytes()));
    assert_eq!(open(&digested, digest(&digested), false), Ok(Assurance::Verified));
    assert_eq!(open(&digested, digest(&digested), true), Ok(Assurance::Verified));
    assert_eq!(open(&digested, None, false), Ok(Assurance::Consistent));
    assert_eq!(open(&digested, None, true), Ok(Assurance::Consistent));
    assert_eq!(open(&undigested, None, true), Ok(Assurance::Unverified));
    assert_eq!(open(&undigested, None, false), missing);
    assert_eq!(open(&undigested, digest(&undigested), true), missing);
    let (expected, actual) = (Digest::of(b"another"), Digest::of(digested.as_bytes()));
    assert_eq!(open(&digested, Some(expected), true), Err(TocError::Digest { expected, actual }));
    let newline = format!("{digested}\n");
    assert_eq!(open(&newline, digest(&newline), false), Ok(Assurance::Verified));
}

#[test]
fn json_is_read_as_the_writers_library_reads_it() {
    let first = |json: &[u8]| {
        let toc = read(json).unwrap();
        let entry =
            toc.entries(Toc::ROOT).next().map(|entry| (entry.name.to_vec(), toc.attr(entry.node)));
        entry.unwrap()
    };
    let named = |json: &str| first(toc(json).as_bytes()).0;
    assert_eq!(first(br#"{"ENTRIES":[{"NaMe":"a","TYPE":"dir","MODE":448}]}"#).1.mode, 0o700);
    assert_eq!(
        first(br#"{"entries":[{"name":"a","type":"dir","mode":448,"mode":null}]}"#).1.mode,
        0o700
    );
    assert_eq!(named(r#"{"name":"a","name":"b","type":"dir"}"#), b"b");
    assert_eq!(named(r#"{"name":null,"type":"dir","name":"c"}"#), b"c");
    assert_eq!(
        named(r#"{"name":"x","type":"dir","new":{"name":"y","a":[1,{"type":"reg"}]},"z":[[]]}"#),
        b"x"
    );
    assert_eq!(named(r#"{"name":"\ud800","type":"dir"}"#), "\u{fffd}".as_bytes());
    assert_eq!(
        named(r#"{"name":"\udc00\ud83d\ude00","type":"dir"}"#),
        "\u{fffd}\u{1f600}".as_bytes()
    );
    assert_eq!(
        first(b"{\"entries\":[{\"name\":\"\xff\xc3\",\"type\":\"dir\"}]}").0,
        "\u{fffd}\u{fffd}".as_bytes()
    );
    assert_eq!(named(r#"{"name":"\/a\u002fb\/..\/c","type":"dir"}"#), b"a");
    assert_eq!(read(r#"{"entries":null}"#).unwrap().entries(Toc::ROOT).len(), 0);
    let root = read(toc(r#"{"name":"../..","type":"dir","mode":504}"#)).unwrap();
    assert_eq!((root.node_count(), root.attr(Toc::ROOT).mode), (1, 0o770));
    let types = toc(r#"{"name":"a","type":"dir","mode":49645}"#);
    assert_eq!(read(types).unwrap().attr(lazystar_core::toc::NodeId(1)).mode, 0o755, "type bits");
}

#[test]
fn attributes_that_repeat_count_once_and_alike_sets_are_shown_alike() {
    let toc = read(toc(REPEATED_XATTRS)).unwrap();
    for name in [b"a", b"b"] {
        let node = toc.lookup(Toc::ROOT, name).unwrap();
        let xattrs: Vec<_> = toc.xattrs(node).collect();
        assert_eq!(xattrs, [(&b"k"[..], &b""[..]), (b"z", b"Z")]);
    }
}

#[test]
fn holes_need_no_data_and_may_be_anywhere_in_a_file() {
    let toc = read(toc(HOLES)).unwrap();
    let holes = |name: &[u8]| {
        let node = toc.lookup(Toc::ROOT, name).unwrap();
        let chunks = toc.file_chunks(node).iter();
        chunks.map(|chunk| (chunk.is_hole(), chunk.len)).collect::<Vec<_>>()
    };
    assert_eq!(holes(b"a"), [(false, 9)]);
    assert_eq!(holes(b"b"), [(true, 10), (false, 10), (true, 10)]);
    assert_eq!(holes(b"c"), [(true, 5000)]);
    assert_eq!(holes(b"d"), [(false, 6), (false, 6)]);
    assert_eq!(holes(b"e"), [(true, 6), (false, 6)]);
    assert_eq!(toc.member_span(60), lazystar_core::ByteRange { start: 60, end: 1000 });
    assert_eq!(toc.member_chunks(60).len(), 4);
}

#[test]
fn a_file_of_holes_after_files_with_data_leaves_the_chunks_in_blob_order() {
    let toc = read(toc(r##"{"name":"a","type":"reg","size":9,"chunkSize":4,"chunkDigest":"@A"},
            {"type":"chunk","chunkOffset":4,"offset":5,"chunkDigest":"@A"},
            {"name":"z","type":"reg","size":9,"chunkType":"zeros"}"##))
    .unwrap();
    let members: Vec<_> =
        toc.chunks().iter().map(|chunk| (chunk.member, chunk.is_hole())).collect();
    assert_eq!(members, [(0, true), (0, false), (5, false)]);
    assert_eq!((toc.member_span(0).end, toc.member_span(5).end), (5, 1000));
}

#[test]
fn members_end_where_landmarks_and_replaced_files_start() {
    let toc = read(toc(r##"{"name":"a","type":"reg","size":9,"offset":10,"chunkDigest":"@A"},
            {"name":"r","type":"reg","size":9,"offset":20,"chunkDigest":"@A"},
            {"name":".prefetch.landmark","type":"reg","size":1,"offset":400,"chunkDigest":"@A"},
            {"name":"r","type":"reg","size":9,"offset":500,"chunkDigest":"@A"}"##))
    .unwrap();
    assert_eq!(toc.chunks().iter().map(|chunk| chunk.member).collect::<Vec<_>>(), [10, 500]);
    assert_eq!((toc.member_span(10).end, toc.member_span(500).end), (20, 1000));
    let unreplaced = read(
        r##"{"entries":[{"name":"a","type":"reg","size":9,"offset":10,"chunkDigest":"@A"},
            {"name":".no.prefetch.landmark","type":"reg","size":1,"offset":400}]}"##
            .replace("@A", A),
    )
    .unwrap();
    assert_eq!(unreplaced.member_span(10).end, 400);
}

#[test]
fn a_member_without_a_neighbour_does_not_reach_through_the_blob() {
    let footer = Footer { payload_end: 1 << 40, ..FOOTER };
    let json = toc(r##"{"name":"a","type":"reg","size":9,"offset":10,"chunkDigest":"@A"}"##);
    let mut reader = TocReader::new(footer, 1 << 41, Digest::of(b""), Limits::DEFAULT);
    reader.feed(json.as_bytes()).unwrap();
    let toc = reader.finish(None, false).unwrap();
    assert!(toc.member_span(10).len() < 20 << 20, "{}", toc.member_span(10));
}

#[test]
fn damaged_blobs_say_what_is_wrong() {
    for (at, (blob, error)) in damaged().into_iter().enumerate() {
        let opened = open(&blob, None, OpenOptions::default(), Answers::Duplicated);
        assert_eq!(opened.err(), error, "blob {at}");
    }
    let beyond = estargz_footer(1000);
    let opened = open(&beyond, None, OpenOptions::default(), Answers::Duplicated);
    assert!(matches!(opened, Err(OpenError::Footer(FooterError::OutOfBlob { .. }))));
}

#[test]
fn errors_have_the_path_and_read_as_sentences() {
    let error = read(toc(r#"{"name":"./some/file","type":"reg","size":-1}"#)).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"the TOC is corrupt at "./some/file": "size" is negative or too large"#
    );
    let error = read(toc(r#"{"name":"./a/b/h","type":"hardlink","linkName":"x"}"#)).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"the TOC is corrupt at "a/b/h": the target of the hard link does not exist"#
    );
    assert_eq!(read(toc("")).unwrap().kind(Toc::ROOT), Kind::Directory);
}
