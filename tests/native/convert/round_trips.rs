//! Tars as others write them, converted and read back: by our own reader, and by GNU tar.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::thread;

use lazystar::pack::{PackOptions, Packed, pack_tar};
use lazystar_core::Digest;
use lazystar_core::footer::Compression;
use lazystar_core::layer::FetchPolicy;
use lazystar_core::open::{OpenError, OpenOptions};
use lazystar_core::tar::Kind;
use lazystar_core::write::{Format, Landmark, Options};
use lazystar_tests::corpus::trees::trees;
use lazystar_tests::layers::{
    FORMATS, Item, PREFIXES, dir, file, hardlink, noise, options, special, symlink,
};
use lazystar_tests::naive;
use lazystar_tests::script_host::{Answers, ScriptHost, open};
use tempfile::TempDir;

use super::{layout_ref, lies, to, verify, write_image};

/// In which of its formats a tar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Ustar,
    Gnu,
    Pax,
}

const DIALECTS: [Dialect; 3] = [Dialect::Ustar, Dialect::Gnu, Dialect::Pax];

/// How many bytes a header has for a name, or for the target of a link.
const NAME: usize = 100;
/// The first number that seven octal digits cannot express.
const LARGE: u32 = 1 << 21;

/// The tar of `items`, written without our encoder. What the dialect has no room for is in a pax header, as
/// attributes always are; pax has everything there.
fn foreign_tar(items: &[Item], dialect: Dialect) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for Item { entry, data } in items {
        let gnu = dialect == Dialect::Gnu;
        let mut header = if gnu { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
        header.set_entry_type(match entry.kind {
            Kind::Regular => tar::EntryType::Regular,
            Kind::HardLink => tar::EntryType::Link,
            Kind::Symlink => tar::EntryType::Symlink,
            Kind::CharDevice => tar::EntryType::Char,
            Kind::BlockDevice => tar::EntryType::Block,
            Kind::Directory => tar::EntryType::Directory,
            Kind::Fifo => tar::EntryType::Fifo,
        });
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let mut record = |key: &str, value: &[u8]| records.push((key.to_owned(), value.to_vec()));
        let always = dialect == Dialect::Pax;
        let (name, link) = (entry.name.as_bytes(), entry.link_name.as_bytes());
        // ustar has a second field for the directories of a name.
        let cut = (0..name.len()).rev().find(|&at| {
            name[at] == b'/' && at <= 155 && (1..=NAME).contains(&(name.len() - at - 1))
        });
        let old = header.as_old_mut();
        match cut.filter(|&at| name.len() > NAME && at > 0 && dialect == Dialect::Ustar) {
            Some(at) => {
                put(&mut old.name, &name[at + 1..]);
                put(&mut header.as_ustar_mut().expect("it is one").prefix, &name[..at]);
            }
            None => {
                put(&mut old.name, name);
                match (name.len() > NAME, gnu) {
                    (true, true) => gnu_long(&mut tar, b'L', name),
                    (long, _) if long || always => record("path", name),
                    _ => {}
                }
            }
        }
        put(&mut header.as_old_mut().linkname, link);
        match (link.len() > NAME, gnu) {
            (true, true) => gnu_long(&mut tar, b'K', link),
            (long, _) if long || always && !link.is_empty() => record("linkpath", link),
            _ => {}
        }
        let too_old = entry.mtime < 0;
        let too_new = entry.mtime >= 1 << 33 && !gnu;
        if always || too_old || too_new {
            record("mtime", entry.mtime.to_string().as_bytes());
        }
        header.set_mtime(if too_old || too_new { 0 } else { entry.mtime as u64 });
        for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
            let large = id >= LARGE && !gnu;
            if always || large {
                record(key, id.to_string().as_bytes());
            }
            let id = if large { 0 } else { u64::from(id) };
            if key == "uid" { header.set_uid(id) } else { header.set_gid(id) }
        }
        header.set_mode(entry.mode);
        header.set_size(data.len() as u64);
        if always {
            record("size", data.len().to_string().as_bytes());
        }
        header.set_device_major(entry.dev_major).expect("the header has devices");
        header.set_device_minor(entry.dev_minor).expect("the header has devices");
        for (name, value) in &entry.xattrs {
            record(&format!("SCHILY.xattr.{name}"), value);
        }
        if !records.is_empty() {
            let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            tar.append_pax_extensions(records).expect("it goes to memory");
        }
        header.set_cksum();
        tar.append(&header, &data[..]).expect("it goes to memory");
    }
    let mut tar = tar.into_inner().expect("it goes to memory");
    // Some writers leave more zeros than they should.
    tar.resize(tar.len() + 100, 0);
    tar
}

fn put(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// GNU's entry before another one whose name (`L`) or target (`K`) is long.
fn gnu_long(tar: &mut tar::Builder<Vec<u8>>, kind: u8, text: &[u8]) {
    let mut header = tar::Header::new_gnu();
    put(&mut header.as_old_mut().name, b"././@LongLink");
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(text.len() as u64 + 1);
    header.set_cksum();
    tar.append(&header, &[text, &[0]].concat()[..]).expect("it goes to memory");
}

/// The tar as it is, or compressed by one of two programs at one of several levels.
fn compressed(tar: &[u8], how: usize) -> (Vec<u8>, &'static str) {
    match (how % 3, how / 3) {
        (0, _) => (tar.to_vec(), "tar"),
        (1, turn) => {
            let level = ["-1", "-6", "-9"][turn % 3];
            (filter(&["gzip", "-c", level], tar).expect("Debian's gzip is essential"), "tar+gzip")
        }
        (_, turn) => (zstd::bulk::compress(tar, [1, 3, 9, 19][turn % 4]).unwrap(), "tar+zstd"),
    }
}

fn pack(input: &[u8], layer: Options, first: &[&str]) -> (Packed, Vec<u8>) {
    let mut blob = Vec::new();
    let prioritised = first.iter().map(|&path| path.into()).collect();
    let options = PackOptions { layer, prioritised, ..PackOptions::default() };
    let packed = pack_tar(input, &options, &mut blob).unwrap();
    (packed, blob)
}

/// What a layer shows to our reader, who believes `toc_digest` and nothing else.
fn read(
    packed: &Packed,
    blob: &[u8],
    toc_digest: Option<Digest>,
) -> Result<naive::Tree, OpenError> {
    let unverified = toc_digest.is_none();
    let options = OpenOptions { toc_digest, unverified, ..OpenOptions::default() };
    let toc = open(blob, Some(&packed.toc_json), options, Answers::Whole)?;
    let mut host = ScriptHost::new(toc, blob, FetchPolicy::default(), Answers::Whole);
    Ok(naive::shown(&mut host))
}

fn plain(blob: &[u8], format: Format) -> Vec<u8> {
    let mut plain = Vec::new();
    match format.compression() {
        Compression::Gzip => {
            let program = ["gzip", "-dc"];
            plain = filter(&program, blob).expect("Debian's gzip is essential");
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(blob).unwrap();
            decoder.read_to_end(&mut plain).unwrap();
        }
    }
    plain
}

/// What a program makes of `input`; `None` if the machine does not have it.
fn filter(program: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).env("LC_ALL", "C").env("TZ", "UTC").env_remove("TAR_OPTIONS");
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match pipes.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped a check: cannot run {}: {error}", program[0]);
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that has seen enough does not read the rest.
    let feed = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?}: {errors}");
    Some(output.stdout)
}

/// What GNU tar says of a tar, and the content of its files, without what makes it a lazy layer.
fn as_gnu_tar_sees_it(tar: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    const OURS: [&str; 3] =
        ["--anchored", "--exclude=.no.prefetch.landmark", "--exclude=stargz.index.json"];
    let with = |options: &[&str]| filter(&[&["tar"], options, &OURS].concat(), tar);
    let listed = with(&["-tvvf-", "--xattrs", "--numeric-owner", "--full-time"])?;
    Some((listed, with(&["-xOPf-"])?))
}

/// The inputs of the reference's own tests that the trees of the corpus do not have.
fn more_trees() -> Vec<(&'static str, u32, u32, Vec<Item>)> {
    let sixes = |empty: bool| {
        let names = ["foo", "foo2", "foo3", "foo4", "foo5", "foo6"];
        let both = names.map(|name| {
            [file(name, if empty { "" } else { "tttttt" }), file(&format!("{name}_empty"), "")]
        });
        both.concat()
    };
    let various = |content: fn(&'static str) -> &'static str| {
        vec![
            file("baz.txt", content("bazbazbazbazbazbazbaz")),
            file("foo1.txt", content("a")),
            file("bar/foo2.txt", content("b")),
            file("foo3.txt", content("c")),
            symlink("barlink", "test/bar.txt"),
            dir("test/"),
            dir("dev/"),
            special("dev/testblock", Kind::BlockDevice, (3, 4)),
            special("dev/testfifo", Kind::Fifo, (0, 0)),
            special("dev/testchar1", Kind::CharDevice, (5, 6)),
            file("test/bar.txt", content("testbartestbar")).xattr("test", "sample"),
            dir("test2/"),
            hardlink("test2/bazlink", "baz.txt"),
            special("dev/testchar2", Kind::CharDevice, (1, 2)),
        ]
    };
    let half = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    vec![
        (
            "regular files and directories",
            4,
            0,
            vec![file("foo", "test1"), dir("foo2/"), file("foo2/bar", "test2").xattr("test", "s")],
        ),
        ("every other file empty", 4, 0, sixes(false)),
        ("no content", 4, 0, sixes(true)),
        ("all kinds", 4, 0, various(|it| it)),
        ("all kinds, members shared", 4, 64_000, various(|it| it)),
        ("all kinds, no content", 4, 64_000, various(|_| "")),
        ("no regular file", 3, 0, vec![dir("test/")]),
        (
            "small files",
            3,
            64_000,
            vec![file("baz.txt", ""), file("foo.txt", "a"), dir("test/"), file("test/b", "bbb")],
        ),
        ("a name in two fields", 0, 0, vec![file(&half, "x"), hardlink("l", &half)]),
        ("many chunks", 512, 0, (0..32).map(|at| file(&at.to_string(), noise(1500, at))).collect()),
    ]
}

fn all_trees() -> Vec<(&'static str, u32, u32, Vec<Item>)> {
    [trees(), more_trees()].concat()
}

#[test]
fn every_tar_is_read_back_as_it_was() {
    let mut turn = 0;
    let mut seen_by_gnu_tar = 0;
    for (name, chunk_size, min_chunk_size, items) in all_trees() {
        let expected = naive::tree(&items).unwrap();
        for (dialect, prefix) in
            DIALECTS.into_iter().flat_map(|it| PREFIXES.map(|prefix| (it, prefix)))
        {
            let items: Vec<_> = items.iter().map(|item| item.clone().prefixed(prefix)).collect();
            let tar = foreign_tar(&items, dialect);
            turn += 1;
            for (at, format) in FORMATS.into_iter().enumerate() {
                let case = format!("{name}, {dialect:?}, prefix {prefix:?}, {format:?}");
                let layer = options(format, chunk_size, min_chunk_size);
                let (input, _) = compressed(&tar, turn + at);
                let (packed, blob) = pack(&input, layer, &[]);
                let shown = read(&packed, &blob, packed.summary.toc_digest);
                assert_eq!(shown.unwrap(), expected, "{case}");
                // Programs take their time: four of twelve tars, each in one format.
                if turn % 3 != 0 || turn % FORMATS.len() != at {
                    continue;
                }
                let unpacked = plain(&blob, format);
                assert_eq!(Digest::of(&unpacked), packed.summary.diff_id, "{case}");
                if let Some(found) = as_gnu_tar_sees_it(&unpacked) {
                    assert!(Some(found) == as_gnu_tar_sees_it(&tar), "{case}");
                    seen_by_gnu_tar += 1;
                }
                let (packed, blob) = pack(&input, Options { lossless: true, ..layer }, &[]);
                assert!(plain(&blob, format).starts_with(&tar), "{case}");
                let kept = packed.summary.diff_id == Digest::of(&tar);
                let toc_in_tar = matches!(format, Format::Estargz | Format::LegacyStargz);
                assert_eq!(kept, !toc_in_tar, "{case}");
            }
        }
    }
    assert!(seen_by_gnu_tar == 0 || seen_by_gnu_tar > 100, "{seen_by_gnu_tar}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_all_these_layers_is_converted_and_verified() {
    let work = TempDir::new().unwrap();
    let layer = |(at, (_, _, _, items)): (usize, (_, _, _, Vec<Item>))| {
        let tar = foreign_tar(&items, DIALECTS[at / 3 % 3]);
        let (blob, kind) = compressed(&tar, at);
        (blob, kind, tar)
    };
    let layers: Vec<_> = all_trees().into_iter().enumerate().map(layer).collect();
    let source = write_image(&work.path().join("source"), &layers);
    for (format, chunk_size, min_chunk_size) in [
        (Format::Estargz, 4, 0),
        (Format::EstargzExternalToc, 0, 8000),
        (Format::ZstdChunked, 3000, 9000),
    ] {
        let mut how = super::options(format);
        how.layer = options(format, chunk_size, min_chunk_size);
        let target = layout_ref(&work.path().join(format!("{format:?}")), "it");
        let report = to(&source, &target, &how).await.unwrap();
        assert_eq!(report.images[0].layers.len(), layers.len());
        assert_eq!(lies(&verify(&target).await), [""; 0], "{format:?}");
    }
}

/// The digest of a TOC stands for all that a layer shows.
#[test]
fn another_tar_has_another_digest() {
    let items = || {
        vec![
            dir("test/"),
            file("test/a", "aaaa").xattr("user.x", "1"),
            file("b", "bbb"),
            hardlink("link", "test/a"),
            symlink("sym", "b"),
            special("dev", Kind::CharDevice, (1, 2)),
        ]
    };
    type Change = fn(&mut Vec<Item>);
    let changes: [(&str, Change); 10] = [
        ("a directory's name", |it| it[0].entry.name = "tes/".into()),
        ("content", |it| it[1].data[0] = b'M'),
        ("content of a later chunk", |it| it[1].data[3] = b'M'),
        ("a hard link's target", |it| it[3].entry.link_name = "b".into()),
        ("a symbolic link's target", |it| it[4].entry.link_name = "test/a".into()),
        ("a mode", |it| it[1].entry.mode = 0o4644),
        ("an owner", |it| it[2].entry.uid = 1),
        ("a time", |it| it[2].entry.mtime = 1),
        ("an attribute", |it| drop(it[1].entry.xattrs.insert("user.x".into(), vec![2]))),
        ("a device", |it| it[5].entry.dev_minor = 3),
    ];
    for format in FORMATS.into_iter().filter(|&format| format != Format::LegacyStargz) {
        let tar = foreign_tar(&items(), Dialect::Gnu);
        let (honest, blob) = pack(&tar, options(format, 3, 0), &[]);
        assert!(read(&honest, &blob, honest.summary.toc_digest).is_ok());
        for (what, change) in changes {
            let mut items = items();
            change(&mut items);
            let tar = foreign_tar(&items, Dialect::Gnu);
            let (other, blob) = pack(&tar, options(format, 3, 0), &[]);
            let refused = read(&other, &blob, honest.summary.toc_digest);
            assert!(refused.is_err(), "{format:?}: {what}");
        }
    }
}

#[test]
fn what_is_wanted_first_comes_first_whatever_the_tar() {
    let long = ["l".repeat(150), format!("{}/{}", "d".repeat(60), "e".repeat(59))];
    let long_dir = format!("{}/", "d".repeat(60));
    const PL: &str = Landmark::Prefetch.name();
    let kinds = || {
        vec![
            file("foo.txt", "f"),
            symlink("sym", "foo.txt"),
            special("pipe", Kind::Fifo, (0, 0)),
            special("char", Kind::CharDevice, (5, 6)),
            special("block", Kind::BlockDevice, (3, 4)),
        ]
    };
    let landmark = |landmark: Landmark| file(landmark.name(), Landmark::CONTENT);
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    type Names = Vec<String>;
    let cases: Vec<(&str, Vec<Item>, Names, Names)> = vec![
        (
            "all kinds",
            kinds(),
            names(&["pipe", "sym", "foo.txt", "block"]),
            names(&["pipe", "sym", "foo.txt", "block", PL, "char"]),
        ),
        (
            "long names",
            vec![file("foo", "1"), file(&long[0], "2"), dir(&long_dir), file(&long[1], "3")],
            vec![long[1].clone(), long[0].clone()],
            [&long_dir, &long[1], &long[0], PL, "foo"].map(str::to_owned).to_vec(),
        ),
        (
            "a landmark that is there",
            vec![landmark(Landmark::Prefetch), file("foo", "1"), file("bar", "2")],
            names(&["bar"]),
            names(&["bar", PL, "foo"]),
        ),
        (
            "the other landmark",
            vec![landmark(Landmark::NoPrefetch), file("foo", "1"), file("bar", "2")],
            names(&["bar"]),
            names(&["bar", PL, "foo"]),
        ),
        (
            "a name twice",
            vec![dir("bar/"), file("bar/baz", "old"), file("foo", "1"), file("bar/baz", "new")],
            names(&["bar/baz"]),
            names(&["bar/", "bar/baz", PL, "foo"]),
        ),
        (
            "a hard link",
            vec![file("baa", "1"), file("baz", "2"), file("foo", "3"), hardlink("link", "baz")],
            names(&["link"]),
            names(&["baz", "link", PL, "baa", "foo"]),
        ),
        (
            "directories",
            vec![dir("./"), file("foo", "1"), dir("a/"), dir("a/b/"), file("a/b/c", "2")],
            names(&["a/b/c"]),
            names(&["./", "a/", "a/b/", "a/b/c", PL, "foo"]),
        ),
    ];
    for (at, (name, items, wanted, expected)) in cases.into_iter().enumerate() {
        let tree = naive::tree(&items).unwrap();
        for (dialect, prefix) in
            DIALECTS.into_iter().flat_map(|it| PREFIXES.map(|prefix| (it, prefix)))
        {
            let items: Vec<_> = items.iter().map(|item| item.clone().prefixed(prefix)).collect();
            for (turn, wanted_prefix) in PREFIXES.into_iter().enumerate() {
                let wanted: Vec<_> =
                    wanted.iter().map(|it| format!("{wanted_prefix}{it}")).collect();
                let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
                let format = FORMATS[(at + turn) % FORMATS.len()];
                let (input, _) = compressed(&foreign_tar(&items, dialect), at + turn);
                let (packed, blob) = pack(&input, options(format, 0, 0), &wanted);
                let case =
                    format!("{name}, {dialect:?}, {prefix:?}, {wanted_prefix:?}, {format:?}");
                let unpacked = plain(&blob, format);
                let mut found = tar::Archive::new(&unpacked[..]);
                let found = found.entries().unwrap().map(|entry| {
                    let name = entry.unwrap().path_bytes().into_owned();
                    let name = String::from_utf8(name).unwrap();
                    name.strip_prefix(prefix).unwrap_or(&name).to_owned()
                });
                let found: Vec<_> = found.filter(|name| name != "stargz.index.json").collect();
                assert_eq!(found, expected, "{case}");
                let shown = read(&packed, &blob, packed.summary.toc_digest);
                assert_eq!(shown.unwrap(), tree, "{case}");
            }
        }
    }
}
