//! Tables of contents and blobs that ask for trouble, each with the error that fits it.

use lazystar_core::Limits;
use lazystar_core::codec::DecodeError;
use lazystar_core::footer::FooterError;
use lazystar_core::open::OpenError;
use lazystar_core::toc::{EntryFault, JsonError, TocError};

use crate::layers::{estargz_by_hand, estargz_footer, gzip};

/// The digest of the letter a.
pub const A: &str = "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";

/// Limits that small layers reach.
pub const SMALL: Limits =
    Limits { entries: 3, toc_bytes: 200, text_bytes: 20, flat_bytes: 10_000, ..Limits::DEFAULT };

/// Entries with holes before, between and after chunks.
pub const HOLES: &str = r##"{"name":"a","type":"reg","size":9,"offset":5,"innerOffset":512,"chunkDigest":"@A"},
            {"name":"b","type":"reg","size":30,"chunkSize":10,"chunkType":"zeros"},
            {"type":"chunk","chunkOffset":10,"chunkSize":10,"offset":50,"chunkDigest":"@A"},
            {"type":"chunk","chunkOffset":20,"chunkType":"zeros"},
            {"name":"c","type":"reg","size":5000,"chunkType":"zeros"},
            {"name":"d","type":"reg","size":12,"chunkSize":6,"offset":60,"chunkDigest":"@A"},
            {"type":"chunk","chunkOffset":6,"offset":60,"innerOffset":6,"chunkDigest":"@A"},
            {"name":"e","type":"reg","size":12,"chunkSize":6,"chunkType":"zeros","offset":60},
            {"type":"chunk","chunkOffset":6,"offset":60,"innerOffset":600,"chunkDigest":"@A"}"##;

/// Entries whose attributes come twice.
pub const REPEATED_XATTRS: &str = r#"{"name":"a","type":"dir","xattrs":{"z":"Wg==","k":"YQ==","k":"Yg=="},"xattrs":{"k":null}},
           {"name":"b","type":"dir","xattrs":{"k":"","z":"Wg=="}}"#;

/// A TOC of these entries; `@A` stands for the digest of the letter a.
#[must_use]
pub fn toc(entries: &str) -> String {
    format!(r#"{{"version":1,"entries":[{}]}}"#, entries.replace("@A", A))
}

/// A TOC of that many directories, all of one name.
#[must_use]
pub fn dirs(count: usize) -> String {
    toc(&vec![r#"{"name":"a","type":"dir"}"#; count].join(","))
}

/// A TOC of a file that is a hole.
#[must_use]
pub fn zeros(size: u64) -> String {
    toc(&format!(r#"{{"name":"z","type":"reg","size":{size},"chunkType":"zeros"}}"#))
}

/// Entries for [`toc`], and what is wrong with one of them, if members end at 1000.
#[must_use]
pub fn faults() -> Vec<(String, EntryFault)> {
    let (name_256, target_4096, path_4098) =
        (directory("n", 256), symlink(4096), directory("n/", 2049));
    let (chunk_over, max) = (big((64 << 20) + 1), big(i64::MAX as u64));
    let reg = r#"{"name":"f","type":"reg","size":10,"chunkSize":4,"chunkDigest":"@A"}"#;
    let chunk =
        |rest: &str| format!(r##"{reg},{{"name":"f","type":"chunk","chunkDigest":"@A",{rest}}}"##);
    [
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
    .into()
}

/// Entries for [`toc`] that reach a limit and do not go over it.
#[must_use]
pub fn at_the_limits() -> Vec<String> {
    vec![directory("n", 255), directory("n/", 2048), symlink(4095), big(64 << 20)]
}

fn directory(part: &str, times: usize) -> String {
    format!(r#"{{"name":"{}","type":"dir"}}"#, part.repeat(times))
}

fn symlink(target: usize) -> String {
    format!(r#"{{"name":"s","type":"symlink","linkName":"{}"}}"#, "n".repeat(target))
}

fn big(size: u64) -> String {
    format!(r#"{{"name":"f","type":"reg","size":{size},"chunkDigest":"@A"}}"#)
}

/// Tables of contents that fail as a whole, with limits.
#[must_use]
pub fn tocs() -> Vec<(Vec<u8>, Limits, TocError)> {
    let deep = format!("{{\"x\":{}", "[".repeat(40));
    let long = format!("{{\"{}\":1}}", "k".repeat(200_000));
    let json = |offset| TocError::Json(JsonError::Unexpected { offset });
    let shape = |what| TocError::Shape(what);
    let over = |what, limit| TocError::OverLimit { what, limit };
    vec![
        (b"".into(), SMALL, TocError::Json(JsonError::UnexpectedEnd)),
        (b"{".into(), SMALL, TocError::Json(JsonError::UnexpectedEnd)),
        (b"null".into(), SMALL, shape("it is not an object")),
        (b"[]".into(), SMALL, shape("it is not an object")),
        (b"{}".into(), SMALL, shape("it has no list of entries")),
        (b"{\"entries\":{}}".into(), SMALL, shape("\"entries\" is not one list")),
        (b"{\"entries\":[],\"entries\":[]}".into(), SMALL, shape("\"entries\" is not one list")),
        (b"{\"entries\":[5]}".into(), SMALL, shape("an entry is not an object")),
        (b"{\"entries\":[null]}".into(), SMALL, shape("an entry is not an object")),
        (b"{\"entries\":[]}x".into(), SMALL, json(14)),
        (b"{\"entries\":[]}\n{}".into(), SMALL, json(15)),
        (b"{\"entries\":[],\"x\":01}".into(), SMALL, json(20)),
        (deep.into(), SMALL, TocError::Json(JsonError::TooDeep)),
        (long.into(), Limits::DEFAULT, TocError::Json(JsonError::StringTooLong)),
        ([b"{\"entries\":[]}", &[b' '; 187][..]].concat(), SMALL, over("bytes", 200)),
        (dirs(4).into(), SMALL, over("entries", 3)),
        (toc(r#"{"name":"a/b/c/d","type":"dir"}"#).into(), SMALL, over("entries", 3)),
        (
            toc(r#"{"name":"abcdefghijklmnopqrstuv","type":"dir"},{"name":"b","type":"dir"}"#).into(),
            SMALL,
            over("bytes of names and attributes", 20),
        ),
        (zeros(10_001).into(), SMALL, over("bytes of file content", 10_000)),
        (zeros(i64::MAX as u64).into(), Limits::DEFAULT, over("bytes of file content", 8 << 40)),
        (
            toc(r##"{"name":"a","type":"reg","size":8,"offset":9,"innerOffset":5,"chunkDigest":"@A"},{"name":"b","type":"reg","size":8,"offset":9,"innerOffset":6,"chunkDigest":"@A"}"##)
                .into(),
            Limits::DEFAULT,
            shape("the data of its files is not in blob order"),
        ),
    ]
}

/// Blobs that cannot be opened, and one that can.
#[must_use]
pub fn damaged() -> Vec<(Vec<u8>, Option<OpenError>)> {
    let good = toc(r#"{"name":"a","type":"dir"}"#);
    let raw = |member: Vec<u8>| [member, estargz_footer(0)].concat();
    let toc_error = |error| Some(OpenError::Toc(error));
    let absent = || Some(OpenError::Footer(FooterError::Absent));
    let index = |name: &[u8], size: &[u8]| {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name);
        header[124..124 + size.len()].copy_from_slice(size);
        header.to_vec()
    };
    let mut cut = gzip(&[index(b"stargz.index.json", b"77"), vec![b' '; 63]].concat());
    cut.truncate(cut.len() - 12);
    let mut damaged = gzip(&index(b"stargz.index.json", b"77"));
    damaged[10] = 7;
    let truncated = gzip(&index(b"stargz.index.json", b"77"));
    let no_index = |member: &[u8]| (raw(gzip(member)), toc_error(TocError::NotTheIndex));
    let broken = |member, error| (raw(member), toc_error(TocError::Decode(error)));
    vec![
        (estargz_by_hand(b"", good.as_bytes()), None),
        (Vec::new(), absent()),
        (vec![0; 30], absent()),
        broken(vec![0; 100], DecodeError::NotCompressed),
        no_index(b"short"),
        no_index(&index(b"other", b"5")),
        no_index(&index(b"stargz.index.jsonx", b"5")),
        no_index(&index(b"stargz.index.json", b"9")),
        broken(truncated, DecodeError::Short),
        broken(cut, DecodeError::Short),
        broken(damaged, DecodeError::Corrupt),
    ]
}
