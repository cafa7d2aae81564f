//! Hostile tables of contents and blobs: every one ends in the error that fits it.

use lazystar_core::codec::DecodeError;
use lazystar_core::footer::{Footer, FooterError, Format};
use lazystar_core::open::{OpenError, OpenOptions};
use lazystar_core::toc::{Assurance, EntryFault, JsonError, Kind, TocError, TocReader};
use lazystar_core::{Digest, Limits, Toc};
use lazystar_tests::layers::{estargz_by_hand, estargz_footer, gzip};
use lazystar_tests::script_host::{Answers, open};

const A: &str = "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";

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

/// A TOC of these entries; `@A` stands for the digest of the letter a.
fn toc(entries: &str) -> String {
    format!(r#"{{"version":1,"entries":[{}]}}"#, entries.replace("@A", A))
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
    let name = |len| format!(r#"{{"name":"{}","type":"dir"}}"#, "n".repeat(len));
    let target =
        |len| format!(r#"{{"name":"s","type":"symlink","linkName":"{}"}}"#, "n".repeat(len));
    let path = |len: usize| format!(r#"{{"name":"{}","type":"dir"}}"#, "n/".repeat(len / 2));
    let (name_256, target_4096, path_4098) = (name(256), target(4096), path(4098));
    let big =
        |size: u64| format!(r#"{{"name":"f","type":"reg","size":{size},"chunkDigest":"@A"}}"#);
    let (chunk_over, max) = (big((64 << 20) + 1), big(i64::MAX as u64));
    let reg = r#"{"name":"f","type":"reg","size":10,"chunkSize":4,"chunkDigest":"@A"}"#;
    let chunk =
        |rest: &str| format!(r##"{reg},{{"name":"f","type":"chunk","chunkDigest":"@A",{rest}}}"##);
    let cases: Vec<(String, EntryFault)> = [
        (r#"{"name":"f","type":"reg","size":-1}"#, EntryFault::Number("size")),
        (r#"{"name":"f","type":"reg","size":9223372036854775808}"#, EntryFault::Number("size")),
        (r#"{"name":"f","type":"reg","size":1e3}"#, EntryFault::Number("size")),
        (r#"{"name":"f","type":"reg","size":1.0}"#, EntryFault::Number("size")),
        (r#"{"name":"f","type":"reg","offset":-5}"#, EntryFault::Number("offset")),
        (r#"{"name":"f","type":"reg","innerOffset":-5}"#, EntryFault::Number("innerOffset")),
        (r#"{"name":"f","type":"reg","chunkOffset":-5}"#, EntryFault::Number("chunkOffset")),
        (r#"{"name":"f","type":"reg","chunkSize":-5}"#, EntryFault::Number("chunkSize")),
        (r#"{"name":"f","type":"dir","mode":-1}"#, EntryFault::Number("mode")),
        (r#"{"name":"f","type":"dir","uid":4294967296}"#, EntryFault::Number("uid")),
        (r#"{"name":"f","type":"dir","gid":-1}"#, EntryFault::Number("gid")),
        (r#"{"name":"f","type":"char","devMajor":4294967296}"#, EntryFault::Number("devMajor")),
        (r#"{"name":"f","type":"char","devMinor":-1}"#, EntryFault::Number("devMinor")),
        (r#"{"name":5,"type":"dir"}"#, EntryFault::Field("name")),
        (r#"{"name":"f","type":true}"#, EntryFault::Field("type")),
        (r#"{"name":["f"],"type":"dir"}"#, EntryFault::Field("name")),
        (r#"{"name":{"f":1},"type":"dir"}"#, EntryFault::Field("name")),
        (r#"{"name":"f","type":"dir","size":"5"}"#, EntryFault::Field("size")),
        (r#"{"name":"f","type":"dir","modtime":"yesterday"}"#, EntryFault::Field("modtime")),
        (r#"{"name":"f","type":"dir","modtime":5}"#, EntryFault::Field("modtime")),
        (r#"{"name":"f","type":"dir","xattrs":[]}"#, EntryFault::Field("xattrs")),
        (r#"{"name":"f","type":"socket"}"#, EntryFault::Kind),
        (r#"{"name":"f"}"#, EntryFault::Kind),
        (r#"{"name":"f","type":"REG"}"#, EntryFault::Kind),
        (&name_256, EntryFault::Name),
        (&path_4098, EntryFault::Name),
        (&target_4096, EntryFault::Name),
        (r#"{"name":"","type":"reg"}"#, EntryFault::Name),
        (r#"{"name":"a/..","type":"symlink","linkName":"x"}"#, EntryFault::Name),
        (r#"{"type":"hardlink","linkName":"x"}"#, EntryFault::Name),
        (r#"{"name":"a\u0000b","type":"dir"}"#, EntryFault::Name),
        (r#"{"name":"s","type":"symlink","linkName":"a\u0000b"}"#, EntryFault::Name),
        (r#"{"name":".wh..","type":"reg"}"#, EntryFault::Name),
        (r#"{"name":"d/.wh...","type":"reg"}"#, EntryFault::Name),
        (r#"{"name":"f","type":"reg"},{"name":"f/g","type":"dir"}"#, EntryFault::ParentNotDirectory),
        (r#"{"name":"s","type":"symlink","linkName":"d"},{"name":"s/g","type":"dir"}"#, EntryFault::ParentNotDirectory),
        (r#"{"name":"h","type":"hardlink","linkName":"d"},{"name":"h/g","type":"dir"}"#, EntryFault::ParentNotDirectory),
        (r#"{"name":"h","type":"hardlink","linkName":"none"}"#, EntryFault::LinkTargetMissing),
        (r#"{"name":"h","type":"hardlink"}"#, EntryFault::LinkTargetMissing),
        (r#"{"name":"f","type":"reg"},{"name":"h","type":"hardlink","linkName":"f/x"}"#, EntryFault::LinkTargetMissing),
        (r#"{"name":".wh.w","type":"reg"},{"name":"h","type":"hardlink","linkName":"w"}"#, EntryFault::LinkTargetMissing),
        (r#"{"name":"d","type":"dir"},{"name":"h","type":"hardlink","linkName":"d"}"#, EntryFault::LinkToDirectory),
        (r#"{"name":"h","type":"hardlink","linkName":"g"},{"name":"g","type":"hardlink","linkName":"d"},{"name":"d","type":"dir"}"#, EntryFault::LinkToDirectory),
        (r#"{"name":"h","type":"hardlink","linkName":"h"}"#, EntryFault::LinkCycle),
        (r#"{"name":"h","type":"hardlink","linkName":"g"},{"name":"g","type":"hardlink","linkName":"./i"},{"name":"i","type":"hardlink","linkName":"/h"}"#, EntryFault::LinkCycle),
        (r#"{"name":"s","type":"symlink"}"#, EntryFault::EmptySymlink),
        (reg, EntryFault::Chunks),
        (r#"{"name":"f","type":"reg","size":10,"chunkOffset":1,"chunkDigest":"@A"}"#, EntryFault::Chunks),
        (r#"{"name":"f","type":"reg","size":10,"chunkSize":11,"chunkDigest":"@A"}"#, EntryFault::Chunks),
        (r#"{"name":"f","type":"reg","size":10,"chunkDigest":"@A"},{"type":"chunk","chunkOffset":10}"#, EntryFault::Chunks),
        (&chunk(r#""chunkOffset":5"#), EntryFault::Chunks),
        (&chunk(r#""chunkOffset":3"#), EntryFault::Chunks),
        (&chunk(r#""chunkOffset":4,"chunkSize":7"#), EntryFault::Chunks),
        (&chunk(r#""chunkOffset":4,"chunkSize":5"#), EntryFault::Chunks),
        (&chunk(r#""chunkOffset":4,"chunkSize":9223372036854775807"#), EntryFault::Chunks),
        (r#"{"type":"chunk"}"#, EntryFault::StrayChunk),
        (r#"{"name":"d","type":"dir"},{"name":"d","type":"chunk"}"#, EntryFault::StrayChunk),
        (r#"{"name":"f","type":"reg"},{"name":"f","type":"chunk"}"#, EntryFault::StrayChunk),
        (r#"{"name":"f","type":"reg","size":1,"offset":1000,"chunkDigest":"@A"}"#, EntryFault::Offset),
        (r#"{"name":"f","type":"reg","size":1,"offset":9223372036854775807,"chunkDigest":"@A"}"#, EntryFault::Offset),
        (&chunk_over, EntryFault::TooLarge),
        (&max, EntryFault::TooLarge),
        (r#"{"name":"f","type":"reg","size":1,"innerOffset":134217728,"chunkDigest":"@A"}"#, EntryFault::TooLarge),
        (r#"{"name":"f","type":"reg","size":1,"innerOffset":9223372036854775807,"chunkDigest":"@A"}"#, EntryFault::TooLarge),
        (r#"{"name":"f","type":"reg","size":1}"#, EntryFault::NoDigest),
        (r#"{"name":"f","type":"reg","size":1,"chunkDigest":""}"#, EntryFault::NoDigest),
        (r#"{"name":"f","type":"reg","size":2,"chunkSize":1,"digest":"@A"},{"type":"chunk","chunkOffset":1,"chunkDigest":"@A"}"#, EntryFault::NoDigest),
        (r#"{"name":"f","type":"reg","size":1,"chunkDigest":"sha512:00"}"#, EntryFault::Digest),
        (r#"{"name":"f","type":"reg","digest":"sha256:xyz"}"#, EntryFault::Digest),
        (r#"{"name":"f","type":"reg","chunkDigest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}"#, EntryFault::Digest),
        (r#"{"name":"f","type":"dir","xattrs":{"a":"!"}}"#, EntryFault::Xattr),
        (r#"{"name":"f","type":"dir","xattrs":{"a":5}}"#, EntryFault::Xattr),
        (r#"{"name":"f","type":"dir","xattrs":{"a":{}}}"#, EntryFault::Xattr),
        (r#"{"name":"f","type":"dir","xattrs":{"":""}}"#, EntryFault::Xattr),
        (r#"{"name":"f","type":"dir","xattrs":{"a\u0000":""}}"#, EntryFault::Xattr),
    ]
    .map(|(entries, fault)| (entries.to_string(), fault))
    .into();
    for (entries, expected) in &cases {
        assert_eq!(fault(entries), Some(*expected), "{}", &entries[..entries.len().min(200)]);
    }
    assert_eq!(fault(&name(255)), None);
    assert_eq!(fault(&path(4096)), None);
    assert_eq!(fault(&target(4095)), None);
    assert_eq!(fault(&big(64 << 20)), None);
}

#[test]
fn every_other_error_of_a_toc_is_told() {
    let small = Limits {
        entries: 3,
        toc_bytes: 200,
        text_bytes: 20,
        flat_bytes: 10_000,
        ..Limits::DEFAULT
    };
    let deep = format!("{{\"x\":{}", "[".repeat(40));
    let long = format!("{{\"{}\":1}}", "k".repeat(200_000));
    let zeros = |size: u64| {
        toc(&format!(r#"{{"name":"z","type":"reg","size":{size},"chunkType":"zeros"}}"#))
    };
    let dirs = |count| toc(&vec![r#"{"name":"a","type":"dir"}"#; count].join(","));
    let json = |offset| TocError::Json(JsonError::Unexpected { offset });
    let shape = |what| TocError::Shape(what);
    let over = |what, limit| TocError::OverLimit { what, limit };
    let cases: Vec<(Vec<u8>, Limits, TocError)> = vec![
        (b"".into(), small, TocError::Json(JsonError::UnexpectedEnd)),
        (b"{".into(), small, TocError::Json(JsonError::UnexpectedEnd)),
        (b"null".into(), small, shape("it is not an object")),
        (b"[]".into(), small, shape("it is not an object")),
        (b"{}".into(), small, shape("it has no list of entries")),
        (b"{\"entries\":{}}".into(), small, shape("\"entries\" is not one list")),
        (b"{\"entries\":[],\"entries\":[]}".into(), small, shape("\"entries\" is not one list")),
        (b"{\"entries\":[5]}".into(), small, shape("an entry is not an object")),
        (b"{\"entries\":[null]}".into(), small, shape("an entry is not an object")),
        (b"{\"entries\":[]}x".into(), small, json(14)),
        (b"{\"entries\":[]}\n{}".into(), small, json(15)),
        (b"{\"entries\":[],\"x\":01}".into(), small, json(20)),
        (deep.into(), small, TocError::Json(JsonError::TooDeep)),
        (long.into(), Limits::DEFAULT, TocError::Json(JsonError::StringTooLong)),
        ([b"{\"entries\":[]}", &[b' '; 187][..]].concat(), small, over("bytes", 200)),
        (dirs(4).into(), small, over("entries", 3)),
        (toc(r#"{"name":"a/b/c/d","type":"dir"}"#).into(), small, over("entries", 3)),
        (
            toc(r#"{"name":"abcdefghijklmnopqrstuv","type":"dir"},{"name":"b","type":"dir"}"#).into(),
            small,
            over("bytes of names and attributes", 20),
        ),
        (zeros(10_001).into(), small, over("bytes of file content", 10_000)),
        (zeros(i64::MAX as u64).into(), Limits::DEFAULT, over("bytes of file content", 8 << 40)),
        (
            toc(r##"{"name":"a","type":"reg","size":8,"offset":9,"innerOffset":5,"chunkDigest":"@A"},{"name":"b","type":"reg","size":8,"offset":9,"innerOffset":6,"chunkDigest":"@A"}"##)
                .into(),
            Limits::DEFAULT,
            shape("the data of its files is not in blob order"),
        ),
    ];
    for (json, limits, expected) in cases {
        let shown = String::from_utf8_lossy(&json[..json.len().min(200)]).into_owned();
        assert_eq!(read_with(&json, limits, None, false).err(), Some(expected), "{shown}");
    }
    assert!(read_with(dirs(3).as_bytes(), small, None, false).is_ok());
    assert!(read_with(zeros(10_000).as_bytes(), small, None, false).is_ok());
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
    let toc = read(toc(
        r#"{"name":"a","type":"dir","xattrs":{"z":"Wg==","k":"YQ==","k":"Yg=="},"xattrs":{"k":null}},
           {"name":"b","type":"dir","xattrs":{"k":"","z":"Wg=="}}"#,
    ))
    .unwrap();
    for name in [b"a", b"b"] {
        let node = toc.lookup(Toc::ROOT, name).unwrap();
        let xattrs: Vec<_> = toc.xattrs(node).collect();
        assert_eq!(xattrs, [(&b"k"[..], &b""[..]), (b"z", b"Z")]);
    }
}

#[test]
fn holes_need_no_data_and_may_be_anywhere_in_a_file() {
    let toc = read(toc(
        r##"{"name":"a","type":"reg","size":9,"offset":5,"innerOffset":512,"chunkDigest":"@A"},
            {"name":"b","type":"reg","size":30,"chunkSize":10,"chunkType":"zeros"},
            {"type":"chunk","chunkOffset":10,"chunkSize":10,"offset":50,"chunkDigest":"@A"},
            {"type":"chunk","chunkOffset":20,"chunkType":"zeros"},
            {"name":"c","type":"reg","size":5000,"chunkType":"zeros"},
            {"name":"d","type":"reg","size":12,"chunkSize":6,"offset":60,"chunkDigest":"@A"},
            {"type":"chunk","chunkOffset":6,"offset":60,"innerOffset":6,"chunkDigest":"@A"},
            {"name":"e","type":"reg","size":12,"chunkSize":6,"chunkType":"zeros","offset":60},
            {"type":"chunk","chunkOffset":6,"offset":60,"innerOffset":600,"chunkDigest":"@A"}"##,
    ))
    .unwrap();
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
    let good = toc(r#"{"name":"a","type":"dir"}"#);
    let open =
        |blob: &[u8]| open(blob, None, OpenOptions::default(), Answers::Duplicated).map(|_| ());
    let raw = |member: Vec<u8>| [member, estargz_footer(0)].concat();
    let toc_error = |error| Err(OpenError::Toc(error));
    let index = |name: &[u8], size: &[u8]| {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name);
        header[124..124 + size.len()].copy_from_slice(size);
        header.to_vec()
    };
    assert_eq!(open(&estargz_by_hand(b"", good.as_bytes())), Ok(()));
    assert_eq!(open(&[]), Err(OpenError::Footer(FooterError::Absent)));
    assert_eq!(open(&[0; 30]), Err(OpenError::Footer(FooterError::Absent)));
    assert_eq!(open(&raw(vec![0; 100])), toc_error(TocError::Decode(DecodeError::NotCompressed)));
    assert_eq!(open(&raw(gzip(b"short"))), toc_error(TocError::NotTheIndex));
    assert_eq!(open(&raw(gzip(&index(b"other", b"5")))), toc_error(TocError::NotTheIndex));
    assert_eq!(
        open(&raw(gzip(&index(b"stargz.index.jsonx", b"5")))),
        toc_error(TocError::NotTheIndex)
    );
    assert_eq!(
        open(&raw(gzip(&index(b"stargz.index.json", b"9")))),
        toc_error(TocError::NotTheIndex)
    );
    let truncated = gzip(&index(b"stargz.index.json", b"77"));
    assert_eq!(open(&raw(truncated)), toc_error(TocError::Decode(DecodeError::Short)));
    let mut cut = gzip(&[index(b"stargz.index.json", b"77"), vec![b' '; 63]].concat());
    cut.truncate(cut.len() - 12);
    assert_eq!(open(&raw(cut)), toc_error(TocError::Decode(DecodeError::Short)));
    let mut damaged = gzip(&index(b"stargz.index.json", b"77"));
    damaged[10] = 7;
    assert_eq!(open(&raw(damaged)), toc_error(TocError::Decode(DecodeError::Corrupt)));
    let beyond = estargz_footer(1000);
    assert!(matches!(open(&beyond), Err(OpenError::Footer(FooterError::OutOfBlob { .. }))));
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
