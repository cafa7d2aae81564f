//! The tree of a layer: every kind of entry, in every format and spelling of names.

use lazystar_core::layer::FetchPolicy;
use lazystar_core::open::OpenOptions;
use lazystar_core::tar::Kind;
use lazystar_core::toc::{Assurance, Landmark as Shown};
use lazystar_core::write::{Format, Landmark};
use lazystar_tests::layers::{
    Built, FORMATS, Item, PREFIXES, build, build_with, dir, file, hardlink, noise, options,
    special, symlink,
};
use lazystar_tests::naive;
use lazystar_tests::script_host::{Answers, ScriptHost, open};

/// Opens a layer as an image's manifest would have it opened.
pub(crate) fn host(built: &Built, answers: Answers) -> ScriptHost {
    let options = OpenOptions {
        toc_digest: built.summary.toc_digest,
        unverified: built.summary.toc_digest.is_none(),
        ..OpenOptions::default()
    };
    let toc = open(&built.blob, Some(&built.toc), options, answers).unwrap();
    ScriptHost::new(toc, &built.blob, FetchPolicy::default(), answers)
}

/// Builds the items in every format and spelling; each must show the tree that they mean.
fn check(name: &str, chunk_size: u32, min_chunk_size: u32, items: &[Item]) {
    let expected = naive::tree(items).unwrap();
    for prefix in PREFIXES {
        let items: Vec<_> = items.iter().map(|item| item.clone().prefixed(prefix)).collect();
        for format in FORMATS {
            let built = build(options(format, chunk_size, min_chunk_size), &items);
            let mut host = host(&built, Answers::Whole);
            let case = format!("{name}, {format:?}, prefix {prefix:?}");
            let assurance = match format {
                Format::LegacyStargz if !host.toc.chunks().is_empty() => Assurance::Unverified,
                Format::LegacyStargz => Assurance::Consistent,
                _ => Assurance::Verified,
            };
            assert_eq!(host.toc.assurance(), assurance, "{case}");
            assert_eq!(naive::shown(&mut host), expected, "{case}");
            let stated = built.summary.toc_digest.unwrap_or_else(|| host.toc.digest());
            assert_eq!(host.toc.digest(), stated, "{case}");
        }
    }
}

#[test]
fn every_kind_of_entry_is_shown_as_the_tar_has_it() {
    let cases: &[(&str, u32, u32, Vec<Item>)] = &[
        ("empty", 0, 0, vec![]),
        ("an empty file", 0, 0, vec![dir("foo/"), file("foo/bar.txt", "")]),
        (
            "attributes",
            0,
            0,
            vec![
                dir("foo/").xattr("user.d", ""),
                file("foo/bar.txt", "Some contents")
                    .xattr("foo", "bar")
                    .xattr("bad", [0xff, 0xfe, 0xfd]),
                file("foo/same", "x").xattr("bad", [0xff, 0xfe, 0xfd]).xattr("foo", "bar"),
                symlink("foo/s", "t").xattr("trusted.x", [0]),
            ],
        ),
        (
            "owners and times",
            0,
            0,
            vec![
                dir("bar/").owner(50, 100).mtime(1_700_000_000),
                file("foo", "1").owner(u32::MAX, 1_000_000).mtime(-86_400),
                file("old", "2").mtime(-2_000_000_000),
                file("new", "3").mtime(9_000_000_000),
            ],
        ),
        ("directories", 0, 0, vec![dir("bar/"), dir("foo/"), dir("foo/bar/")]),
        (
            "symbolic links",
            0,
            0,
            vec![
                dir("foo/"),
                symlink("foo/bar", "../../x"),
                symlink("abs", "/a//b/./c/"),
                symlink("self", "self"),
            ],
        ),
        ("chunks", 4, 0, vec![dir("foo/"), file("foo/big.txt", "This is such a big file")]),
        ("exact chunks", 4, 0, vec![file("a", "12345678"), file("b", "1234"), file("c", "123")]),
        (
            "the root",
            0,
            0,
            vec![
                dir("/").mode(0o1777).owner(7, 8).mtime(5),
                dir("bar/"),
                dir("foo/"),
                file("foo/bar.txt", "x"),
            ],
        ),
        (
            "devices and pipes",
            0,
            0,
            vec![
                special("b", Kind::BlockDevice, (123, 456)),
                special("c", Kind::CharDevice, (111, 222)),
                special("f", Kind::Fifo, (0, 0)),
            ],
        ),
        (
            "modes",
            0,
            0,
            vec![
                dir("foo1/").mode(0o2755),
                file("foo1/bar1", "1").mode(0o4700),
                file("foo1/bar2", "2").mode(0o2755),
                dir("foo2/").mode(0o1755),
                file("foo2/bar3", "3").mode(0o1755),
                file("none", "4").mode(0),
            ],
        ),
        (
            "hard links",
            0,
            0,
            vec![
                file("foo", "f"),
                dir("bar/"),
                hardlink("bar/foolink", "foo"),
                hardlink("bar/foolink2", "bar/foolink"),
                dir("bar/1/"),
                file("bar/1/baz.txt", "baz"),
                hardlink("barlink", "bar/1/baz.txt"),
                symlink("foosym", "bar/foolink2"),
                hardlink("symlink2", "foosym"),
            ],
        ),
        (
            "parents that are only implied",
            0,
            0,
            vec![file("a/b/c", "x"), dir("a/").mode(0o700), symlink("p/q/r/s", "t"), dir("v/w/")],
        ),
        (
            "spellings",
            0,
            0,
            vec![file("bar/../bar///////foo", "x"), dir("a/./b//"), file("x/../../y", "z")],
        ),
        (
            "names that repeat",
            3,
            0,
            vec![
                file("a", "first"),
                file("b", "other"),
                file("a", "the second"),
                dir("d/").mode(0o700),
                file("d/x", "below"),
                dir("d/").mode(0o711),
                file("e", "file"),
                dir("e/"),
                file("e/now", "a directory"),
                dir("f/"),
                file("f/lost", "lost"),
                symlink("f", "a"),
            ],
        ),
        (
            "a hard link that is gone with its directory",
            0,
            0,
            vec![
                file("t", "x"),
                hardlink("d/h", "t"),
                file("d", "file"),
                file("t", "y"),
                dir("t/"),
                file("t/z", "z"),
            ],
        ),
        (
            "whiteouts",
            0,
            0,
            vec![
                dir("foo/"),
                file("foo/.wh.gone", ""),
                file("foo/.wh.back", ""),
                file("foo/back", "real"),
                file("foo/stays", "real"),
                file("foo/.wh.stays", ""),
                file(".wh.top", ""),
                file("only/.wh.implied", ""),
                file(".wh..wh.plnk", ""),
                file(".wh.dir", ""),
                dir("dir/sub/"),
            ],
        ),
        (
            "opaque directories",
            0,
            0,
            vec![
                dir("o/"),
                file("o/.wh..wh..opq", ""),
                file("o/x", "x"),
                file("p/.wh..wh..opq", ""),
                dir("p/").mode(0o700).xattr("user.own", "1"),
                dir("q/"),
            ],
        ),
        ("an opaque root", 0, 0, vec![file(".wh..wh..opq", ""), file("a", "a")]),
        (
            "landmarks below the root",
            0,
            0,
            vec![
                dir("foo/"),
                file("foo/.prefetch.landmark", "x"),
                file("foo/.no.prefetch.landmark", ""),
            ],
        ),
        (
            "files that share a member",
            0,
            8000,
            vec![
                dir("foo/"),
                file("foo/foo1", noise(64000, 1)),
                file("foo2", "bb"),
                file("empty", ""),
                file("foo22", "ccc"),
                dir("bar/"),
                file("bar/bar.txt", "aaa"),
                file("foo3", noise(64000, 2)),
            ],
        ),
        (
            "files that share a member, in chunks",
            32000,
            8000,
            vec![
                dir("foo/"),
                file("foo/foo1", noise(64000, 1)),
                file("foo2", "bb"),
                dir("bar/"),
                file("foo3", noise(64000, 2)),
            ],
        ),
        (
            "long names",
            0,
            0,
            vec![
                file(&"n".repeat(255), "x"),
                file(&format!("{}/{}", "d".repeat(150), "f".repeat(120)), "y"),
                symlink("l", &"t/".repeat(500)),
                file("\u{fffd}\u{1f600}<&>\u{2028}\"\\", "z"),
            ],
        ),
    ];
    for (name, chunk_size, min_chunk_size, items) in cases {
        check(name, *chunk_size, *min_chunk_size, items);
    }
}

#[test]
fn a_landmark_at_the_root_is_hidden_and_says_what_to_prefetch() {
    let items = [file("a", noise(100, 1)), file("b", noise(5000, 2)), file("c", noise(100, 3))];
    for format in FORMATS {
        for min in [0, 20_000] {
            let with = |landmark| {
                let built = build_with(options(format, 1000, min), &items, landmark);
                host(&built, Answers::Whole).toc
            };
            let toc = with(Some((2, Landmark::Prefetch)));
            let names: Vec<_> =
                toc.entries(lazystar_core::Toc::ROOT).map(|entry| entry.name).collect();
            assert_eq!(names, [b"a", b"b", b"c"]);
            let node = |name: &[u8]| toc.lookup(lazystar_core::Toc::ROOT, name).unwrap();
            assert_eq!(
                toc.landmark(),
                Shown::Prefetch(toc.flat_range(node(b"c")).start),
                "{format:?}"
            );
            assert!(toc.flat_range(node(b"b")).end <= toc.flat_range(node(b"c")).start);
            assert_eq!(with(Some((0, Landmark::NoPrefetch))).landmark(), Shown::NoPrefetch);
            assert_eq!(with(Some((0, Landmark::Prefetch))).landmark(), Shown::Prefetch(0));
            assert_eq!(with(None).landmark(), Shown::None);
        }
    }
}
