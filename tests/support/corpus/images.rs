//! Layers on top of each other.

use lazystar_core::tar;

use crate::layers::{Item, dir, file, hardlink, special, symlink};
use crate::naive;
use crate::script_host::Random;

/// Images by name: their layers, the bottom one first.
#[must_use]
pub fn images() -> Vec<(&'static str, Vec<Vec<Item>>)> {
    let base = || {
        vec![
            dir("d/"),
            file("d/a", "1"),
            file("d/b", "2"),
            dir("e/"),
            file("e/x", "3"),
            file("f", "4"),
        ]
    };
    vec![
        ("nothing", vec![]),
        ("one", vec![base()]),
        ("a file replaced", vec![base(), vec![file("f", "new")]]),
        ("a file deleted", vec![base(), vec![file("d/.wh.a", "")]]),
        (
            "deleted and made again",
            vec![base(), vec![file("d/.wh.a", "")], vec![file("d/a", "new")]],
        ),
        ("a directory deleted", vec![base(), vec![file(".wh.d", "")]]),
        (
            "a directory deleted, made again",
            vec![base(), vec![file(".wh.d", "")], vec![file("d/c", "new")]],
        ),
        ("a directory replaced by a file", vec![base(), vec![file("d", "now a file")]]),
        (
            "and by a directory again",
            vec![base(), vec![file("d", "now a file")], vec![file("d/c", "c")]],
        ),
        ("a file replaced by a directory", vec![base(), vec![file("f/g", "5")]]),
        ("opaque", vec![base(), vec![file("d/.wh..wh..opq", ""), file("d/c", "6")]]),
        (
            "opaque with a layer above",
            vec![
                base(),
                vec![file("d/.wh..wh..opq", ""), file("d/c", "6")],
                vec![file("d/z", "7")],
            ],
        ),
        ("an opaque root", vec![base(), vec![file(".wh..wh..opq", ""), file("only", "8")]]),
        (
            "a whiteout beside the directory that takes its place",
            vec![base(), vec![file(".wh.d", ""), file("d/c", "new")]],
        ),
        ("and after it", vec![base(), vec![dir("d/"), file("d/c", "new"), file(".wh.d", "")]]),
        (
            "a whiteout of nothing",
            vec![base(), vec![file("d/.wh.none", ""), file("none/.wh.none", "")]],
        ),
        ("links", vec![base(), vec![file("g", "9"), hardlink("d/h", "g"), symlink("d/a", "b")]]),
        (
            "joined",
            vec![
                base(),
                vec![file("d/q", "0")],
                vec![dir("d/").mode(0o700), special("d/p", tar::Kind::Fifo, (0, 0))],
            ],
        ),
    ]
}

/// A layer whose entries never lie below what is no directory in it.
#[must_use]
pub fn random_layer(random: &mut Random) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for _ in 0..random.below(8) {
        let mut path = String::new();
        for _ in 0..random.below(3) {
            path += ["a/", "b/", "c/"][random.below(3) as usize];
        }
        let name = ["a", "b", "c"][random.below(3) as usize];
        let item = match random.below(6) {
            0 | 1 => file(&format!("{path}{name}"), "x"),
            2 => file(&format!("{path}.wh.{name}"), ""),
            3 => file(&format!("{path}.wh..wh..opq"), ""),
            4 => symlink(&format!("{path}{name}"), "a"),
            _ => dir(&format!("{path}{name}/")),
        };
        items.push(item);
        if naive::tree(&items).is_none() {
            items.pop();
        }
    }
    items
}
