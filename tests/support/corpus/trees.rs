//! Trees with every kind of entry.

use lazystar_core::tar::Kind;

use crate::layers::{Item, dir, file, hardlink, noise, special, symlink};

/// Layers by name: chunk size, minimum chunk size, entries.
#[must_use]
pub fn trees() -> Vec<(&'static str, u32, u32, Vec<Item>)> {
    vec![
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
    ]
}

/// A layer of files small and large, a hole, and names that share content.
#[must_use]
pub fn files() -> Vec<Item> {
    vec![
        dir("foo/"),
        file("foo/one", noise(2500, 1)),
        file("two", "bb"),
        hardlink("foo/link", "two"),
        file("empty", ""),
        symlink("s", "two"),
        file("zeros", vec![0; 1234]),
        file("foo/three", noise(1000, 3)),
        file("four", noise(1001, 4)),
    ]
}
