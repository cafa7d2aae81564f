//! Images: layers seen through each other, against a plain model of overlayfs.

use std::collections::BTreeMap;
use std::sync::Arc;

use lazystar_core::Toc;
use lazystar_core::image::{ChangeKind, Efficiency, Image, ImageNode, PathError, Waste};
use lazystar_core::toc::Kind;
use lazystar_core::write::Format;
use lazystar_tests::corpus::images::{images, random_layer};
use lazystar_tests::layers::{Item, build, dir, file, hardlink, options, symlink};
use lazystar_tests::naive;
use lazystar_tests::script_host::{Answers, Random};

use crate::tree::host;

fn image(layers: &[Vec<Item>]) -> Image {
    let toc = |items: &Vec<Item>| {
        Arc::clone(&host(&build(options(Format::Estargz, 0, 0), items), Answers::Whole).toc)
    };
    Image::new(layers.iter().map(toc).collect())
}

/// What is where: the layer that it comes from, and what it is.
type Merged = BTreeMap<String, (u32, Kind)>;

/// Lays one layer after the other over what is there: whiteouts and opaque directories delete,
/// the rest replaces, directories join.
fn merged(layers: &[Vec<Item>]) -> Merged {
    let mut merged = Merged::new();
    for (layer, items) in (0..).zip(layers) {
        let tree = naive::tree(items).unwrap();
        let below = |path: &str| if path.is_empty() { String::new() } else { format!("{path}/") };
        for (path, node) in &tree {
            let replaced = merged.get(path).is_some_and(|(_, kind)| *kind != Kind::Directory);
            if node.opaque || node.kind != Kind::Directory || replaced {
                merged.retain(|other, _| !other.starts_with(&below(path)) || other == path);
            }
            if node.kind == Kind::Whiteout {
                merged.remove(path);
            } else {
                merged.insert(path.clone(), (layer, node.kind));
            }
        }
        // A whiteout deletes what lower layers have below it too.
        for (path, _) in tree.iter().filter(|(_, node)| node.kind == Kind::Whiteout) {
            merged.retain(|other, _| !other.starts_with(&below(path)));
        }
    }
    merged
}

fn shown(image: &Image) -> Merged {
    let mut shown = Merged::new();
    let mut queue = vec![(String::new(), image.root())];
    while let Some((path, node)) = queue.pop() {
        let kind = image.attr(node).unwrap().kind;
        assert_eq!(image.resolve(path.as_bytes(), false), Ok(node), "{path}");
        for entry in image.entries(node) {
            assert_eq!(image.lookup(node, entry.name), Some(entry.node), "{path}");
            if image.attr(entry.node).unwrap().kind == Kind::Directory {
                assert_eq!(image.parent(entry.node), Some(node), "{path}");
            }
            let name = std::str::from_utf8(entry.name).unwrap();
            queue.push((
                if path.is_empty() { name.into() } else { format!("{path}/{name}") },
                entry.node,
            ));
        }
        shown.insert(path, (node.layer, kind));
    }
    let mut walked = shown.clone();
    walked.retain(|path, _| path.is_empty());
    let mut walk = image.walk(image.root());
    while let Some((path, node)) = walk.next_object() {
        let path = std::str::from_utf8(path).unwrap().strip_prefix('/').unwrap();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        assert!(walked.contains_key(parent), "a directory comes before {path}");
        walked.insert(path.to_owned(), (node.layer, image.attr(node).unwrap().kind));
    }
    assert_eq!(walked, shown);
    shown
}

/// Compares what each layer changes with what was there before it and after it.
fn check_changes(layers: &[Vec<Item>]) {
    let image = image(layers);
    for upper in 0..layers.len() {
        let (before, after) = (merged(&layers[..upper]), merged(&layers[..=upper]));
        let mut found = BTreeMap::new();
        let mut changes = image.changes(upper as u32);
        while let Some(change) = changes.next_change() {
            let path = std::str::from_utf8(change.path).unwrap().strip_prefix('/').unwrap();
            let again = found.insert(path.to_owned(), change.kind);
            assert_eq!(again, None, "{path} comes twice");
            let of = |node: Option<ImageNode>| {
                node.map(|node| (node.layer, image.layer(node).unwrap().kind(node.node)))
            };
            assert_eq!(of(change.before), before.get(path).copied(), "{path}");
            assert_eq!(of(change.after), after.get(path).copied(), "{path}");
        }
        let paths = before.keys().chain(after.keys()).filter(|path| !path.is_empty());
        for path in paths {
            let kind = found.get(path).copied();
            match (before.get(path), after.get(path)) {
                (None, _) => assert_eq!(kind, Some(ChangeKind::Added), "{path} {layers:#?}"),
                (_, None) => assert_eq!(kind, Some(ChangeKind::Removed), "{path} {layers:#?}"),
                (Some((_, was)), Some((_, is))) if was != is => {
                    assert_eq!(kind, Some(ChangeKind::Modified), "{path} {layers:#?}");
                }
                (_, Some((layer, Kind::Directory))) if *layer == upper as u32 => {}
                (_, Some((layer, _))) => {
                    assert_eq!(kind.is_some(), *layer == upper as u32, "{path} {layers:#?}");
                }
            }
        }
    }
}

#[test]
fn layers_are_merged_as_overlayfs_merges_them() {
    for (name, layers) in images() {
        if layers.is_empty() {
            let image = Image::new(Vec::new());
            assert_eq!((image.entries(image.root()), image.attr(image.root())), (vec![], None));
            assert!(image.resolve(b"x", true).is_err());
            continue;
        }
        assert_eq!(shown(&image(&layers)), merged(&layers), "{name}");
        check_changes(&layers);
    }
}

#[test]
fn random_layers_are_merged_as_overlayfs_merges_them() {
    let mut random = Random::new(11);
    for _ in 0..300 {
        let layers: Vec<_> = (0..1 + random.below(5)).map(|_| random_layer(&mut random)).collect();
        assert_eq!(shown(&image(&layers)), merged(&layers), "{layers:#?}");
        check_changes(&layers);
    }
}

#[test]
fn a_change_says_what_changed() {
    let base = vec![
        file("same", "1").mtime(5),
        file("content", "2"),
        file("shorter", "22"),
        file("mode", "3"),
        file("xattr", "4"),
        symlink("link", "same"),
        dir("plain/"),
        dir("dir/"),
    ];
    let upper = vec![
        file("same", "1").mtime(5),
        file("content", "x"),
        file("shorter", "2"),
        file("mode", "3").mode(0o600),
        file("xattr", "4").xattr("user.a", "b"),
        symlink("link", "mode"),
        dir("plain/"),
        dir("dir/").owner(1, 1),
    ];
    let image = image(&[base, upper]);
    let mut changes = image.changes(1);
    let mut found = Vec::new();
    while let Some(change) = changes.next_change() {
        found.push((String::from_utf8(change.path.to_vec()).unwrap(), change.kind));
    }
    let expected = [
        ("/content", ChangeKind::Modified),
        ("/dir", ChangeKind::Metadata),
        ("/link", ChangeKind::Modified),
        ("/mode", ChangeKind::Metadata),
        ("/same", ChangeKind::Duplicated),
        ("/shorter", ChangeKind::Modified),
        ("/xattr", ChangeKind::Metadata),
    ];
    assert_eq!(found, expected.map(|(path, kind)| (path.to_owned(), kind)));
    assert!(image.changes(2).next_change().is_none());
}

#[test]
fn bytes_that_nobody_can_see_are_counted_once() {
    let layers = [
        vec![file("a", "aaaa"), hardlink("b", "a"), file("d/x", "xxx"), file("d/y", "yy")],
        vec![file("a", "AAAAA"), file("d/.wh.x", "")],
        vec![file("a", "A"), file(".wh.d", ""), file("c", "cc")],
    ];
    let image = image(&layers);
    let waste = |path: &str, bytes, layers| Waste { path: path.into(), bytes, layers };
    let found = image.efficiency(10);
    // The first content of `a` is still seen as `b`.
    assert_eq!((found.stored, found.visible), (4 + 3 + 2 + 5 + 1 + 2, 4 + 1 + 2));
    assert_eq!(found.worst, [waste("/a", 5, 1), waste("/d/x", 3, 1), waste("/d/y", 2, 1)]);
    assert_eq!(image.efficiency(1).worst, [waste("/a", 5, 1)]);
    assert_eq!(image.efficiency(0).worst, []);
    assert_eq!(Image::new(Vec::new()).efficiency(9), Efficiency::default());
}

#[test]
fn a_directory_of_several_layers_has_the_attributes_of_the_topmost() {
    let image = image(&[
        vec![dir("d/").mode(0o700).owner(1, 1), dir("d/sub/"), dir("once/"), dir("once/x/")],
        vec![dir("d/").mode(0o711).owner(2, 2)],
    ]);
    let attr = |path: &[u8]| image.attr(image.resolve(path, false).unwrap()).unwrap();
    let d = attr(b"d");
    assert_eq!((d.mode, d.uid, d.nlink), (0o711, 2, 1));
    assert_eq!(attr(b"once").nlink, 3);
}

#[test]
fn names_of_a_hard_link_stay_one_file_until_one_is_replaced() {
    let one = vec![file("f", "x"), hardlink("g", "f"), hardlink("d/h", "g")];
    let resolve = |image: &Image, path: &str| image.resolve(path.as_bytes(), true).unwrap();
    let below = image(&[one.clone(), vec![file("other", "")]]);
    assert_eq!(resolve(&below, "f"), resolve(&below, "d/h"));
    let replaced = image(&[one, vec![file("g", "new")]]);
    assert_eq!(resolve(&replaced, "f"), resolve(&replaced, "d/h"));
    assert_ne!(resolve(&replaced, "f"), resolve(&replaced, "g"));
    assert_eq!(resolve(&replaced, "g").layer, 1);
}

#[test]
fn paths_are_resolved_inside_the_image() {
    let chain =
        |count: u32| (0..count).map(|at| symlink(&format!("c{at}"), &format!("c{}", at + 1)));
    let mut items = vec![
        file("etc/passwd", "x"),
        dir("usr/bin/"),
        file("usr/bin/sh", "#"),
        symlink("bin", "usr/bin"),
        symlink("abs", "/etc/../etc/passwd"),
        symlink("up", "../../../../etc/passwd"),
        symlink("usr/rel", "../etc"),
        symlink("loop", "loop"),
        symlink("ping", "pong"),
        symlink("pong", "./ping"),
        symlink("dangling", "nowhere"),
        symlink("slash", "etc/"),
        symlink("file-slash", "etc/passwd/"),
        symlink("root", "/"),
        file("c50", "end"),
    ];
    items.extend(chain(50));
    let image = image(&[items, vec![file("usr/bin/new", "above")]]);
    let path_of = |node: ImageNode| {
        let all = shown(&image);
        let found = all.into_keys().find(|path| image.resolve(path.as_bytes(), false) == Ok(node));
        found.unwrap()
    };
    let cases: &[(&str, bool, Result<&str, PathError>)] = &[
        ("", true, Ok("")),
        ("/", true, Ok("")),
        ("..", true, Ok("")),
        ("../../etc/./passwd", true, Ok("etc/passwd")),
        ("//etc//passwd", true, Ok("etc/passwd")),
        ("bin/sh", true, Ok("usr/bin/sh")),
        ("bin/new", true, Ok("usr/bin/new")),
        ("bin", false, Ok("bin")),
        ("bin", true, Ok("usr/bin")),
        ("bin/", false, Ok("usr/bin")),
        ("bin/..", true, Ok("usr")),
        ("abs", true, Ok("etc/passwd")),
        ("up", true, Ok("etc/passwd")),
        ("usr/rel/passwd", true, Ok("etc/passwd")),
        ("root/root/etc", true, Ok("etc")),
        ("slash", true, Ok("etc")),
        ("loop", false, Ok("loop")),
        ("loop", true, Err(PathError::TooManyLinks)),
        ("ping/x", true, Err(PathError::TooManyLinks)),
        ("c11", true, Ok("c50")),
        ("c10", true, Ok("c50")),
        ("c9", true, Err(PathError::TooManyLinks)),
        ("dangling", true, Err(PathError::NotFound)),
        ("dangling", false, Ok("dangling")),
        ("none/..", true, Err(PathError::NotFound)),
        ("etc/passwd/x", true, Err(PathError::NotDirectory)),
        ("etc/passwd/..", true, Err(PathError::NotDirectory)),
        ("etc/passwd/.", true, Err(PathError::NotDirectory)),
        ("etc/passwd/", true, Err(PathError::NotDirectory)),
        ("file-slash", true, Err(PathError::NotDirectory)),
    ];
    for (path, follow, expected) in cases {
        let found = image.resolve(path.as_bytes(), *follow).map(path_of);
        assert_eq!(found.as_deref(), expected.as_ref().copied(), "{path}, follow {follow}");
    }
    assert_eq!(image.layers().len(), 2);
    assert_eq!(image.layer(image.root()).map(|toc| toc.kind(Toc::ROOT)), Some(Kind::Directory));
}
