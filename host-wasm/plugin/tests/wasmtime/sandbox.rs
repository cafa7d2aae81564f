//! What core reads is read here too, and a sandbox is stopped when it has to be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lazystar_core::tar::{self, Parser};
use lazystar_core::write::Format;
use lazystar_plugin::layers::{Descriptor, Span};
use lazystar_plugin::types::{EntryKind, ErrorCode, Subject};
use lazystar_plugin::{Engine, Error, Give, Image, Limits, Source, Trust, write_tar};

use crate::{compiled, with};
use lazystar_tests::layers::{
    Built, FORMATS, Item, build, dir, file, hardlink, noise, options, symlink,
};
use lazystar_tests::script_host::Random;

/// A blob, and its table of contents for when that is elsewhere. Answers in small pieces, the last
/// range first.
#[derive(Debug)]
struct Blob {
    bytes: Vec<u8>,
    toc: Vec<u8>,
}

impl Source for Blob {
    fn fetch(
        &self,
        ranges: &[lazystar_plugin::types::ByteRange],
        give: &mut Give<'_>,
    ) -> Result<(), Error> {
        for range in ranges.iter().rev() {
            let (start, end) = (range.offset as usize, (range.offset + range.length) as usize);
            for at in (start..end).step_by(70_001) {
                give(at as u64, &self.bytes[at..end.min(at + 70_001)])?;
            }
        }
        Ok(())
    }

    fn external_toc(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(&self.toc))
    }
}

fn descriptor(built: &Built) -> Descriptor {
    let annotations = built.summary.annotations().into_iter();
    Descriptor {
        media_type: String::new(),
        digest: String::new(),
        size: built.blob.len() as u64,
        annotations: annotations.map(|(key, value)| (key.to_string(), value.to_string())).collect(),
    }
}

fn open(engine: &Engine, layers: &[Built]) -> Result<Image<Blob>, Error> {
    let blob = |it: &Built| Blob { bytes: it.blob.clone(), toc: it.toc.clone() };
    let layers = layers.iter().map(|it| (descriptor(it), blob(it))).collect();
    // Legacy layers have no digests at all.
    Image::of_layers(engine.sandbox()?, layers, Trust::Unverified)
}

fn items() -> Vec<Item> {
    let mut items = vec![
        dir("d/").owner(5, 6),
        file("d/big", noise(9 << 20, 1)),
        file("d/one", "x").mode(0o640).mtime(1_700_000_000).xattr("user.a", [0xff, 0]),
        file("empty", ""),
        file("zeros", vec![0; 100_000]),
        hardlink("d/link", "d/one"),
        symlink("s", "d/one"),
    ];
    items.extend((0..2500).map(|at| file(&format!("many/{at:04}"), noise(at % 97, at as u64))));
    items
}

#[test]
fn every_format_reads_as_core_reads_it() {
    let items = items();
    for format in FORMATS {
        for (chunk, min) in [(0, 0), (50_000, 200_000)] {
            let built = build(options(format, chunk, min), &items);
            let image = open(compiled(), &[built]).unwrap();
            let regular = |item: &&Item| item.entry.kind == tar::Kind::Regular;
            let files: Vec<_> = items.iter().filter(regular).collect();
            let found: Vec<_> =
                files.iter().map(|it| image.lookup(&it.entry.name, false).unwrap()).collect();
            let mut read = vec![Vec::new(); files.len()];
            let mut each = |at: usize, bytes: &[u8]| {
                assert!(bytes.len() <= 1 << 20);
                read[at].extend_from_slice(bytes);
                Ok(())
            };
            image.read(&found, &mut each).unwrap();
            for (item, read) in files.iter().zip(&read) {
                assert!(item.data == *read, "{format:?} {chunk}/{min}: {}", item.entry.name);
            }
            let sum = image.verify().unwrap();
            let bytes: usize = read.iter().map(Vec::len).sum();
            assert_eq!((sum.files, sum.bytes), (files.len() as u64, bytes as u64));
        }
    }
}

#[test]
fn a_tar_of_the_tree_says_what_the_layers_say() {
    let upper =
        vec![dir("d/").owner(5, 6), file("d/one", "new"), file(".wh.many", ""), dir("added/")];
    let layers = [items(), upper].map(|items| build(options(Format::Estargz, 0, 0), &items));
    let image = open(compiled(), &layers).unwrap();
    let root = image.lookup("/", true).unwrap();
    let mut out = Vec::new();
    write_tar(&image, &root, "/", &mut out).unwrap();

    let mut found = BTreeMap::new();
    let mut name = String::new();
    let mut parser = Parser::new();
    let mut left = &out[..];
    while let Some(event) = parser.next(&mut left).unwrap() {
        match event {
            tar::Event::Entry { entry, .. } => {
                name.clone_from(&entry.name);
                found.insert(name.clone(), (entry, Vec::new()));
            }
            tar::Event::Data(bytes) => found.get_mut(&name).unwrap().1.extend_from_slice(bytes),
            _ => {}
        }
    }
    parser.finish().unwrap();
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["added/", "d/", "d/big", "d/link", "d/one", "empty", "s", "zeros"]);
    assert!(found["d/big"].1 == noise(9 << 20, 1));
    assert_eq!(found["d/one"].1, b"new");
    let (link, content) = &found["d/link"];
    assert_eq!((link.mode, link.mtime, &content[..]), (0o640, 1_700_000_000, &b"x"[..]));
    assert_eq!(link.xattrs["user.a"], [0xff, 0]);
    assert_eq!(found["s"].0.link_name, "d/one");
    assert_eq!((found["d/"].0.uid, found["d/"].0.gid), (5, 6));
}

#[test]
fn errors_are_those_of_core() {
    let content = noise(300, 1);
    let built = build(options(Format::Estargz, 100, 0), &[file("a", &content)]);
    for flip in 0..built.blob.len() {
        let mut bytes = built.blob.clone();
        bytes[flip] ^= 0x10;
        let layers = vec![(descriptor(&built), bytes)];
        let opened = Image::of_layers(compiled().sandbox().unwrap(), layers, Trust::Verified);
        let mut read = Vec::new();
        let result = opened.and_then(|image| {
            let file = image.lookup("a", false)?;
            image.read(&[file], |_, bytes| {
                read.extend_from_slice(bytes);
                Ok(())
            })
        });
        assert!(content.starts_with(&read), "byte {flip} was shown");
        match result {
            Ok(()) => assert!(read == content),
            Err(Error::Engine(ErrorCode::DigestMismatch(it))) => {
                assert_ne!(it.expected, it.actual);
                let range = it.blob_range.unwrap();
                let inside = (range.offset..range.offset + range.length).contains(&(flip as u64));
                assert!(inside || matches!(it.subject, Subject::TableOfContents), "{flip} {it:?}");
            }
            Err(Error::Engine(ErrorCode::Malformed(_) | ErrorCode::NotLazy)) => {}
            Err(other) => panic!("byte {flip}: {other}"),
        }
    }
    let mut image = open(compiled(), &[built]).unwrap();
    let lookup = |image: &mut Image<Blob>, path: &str| image.lookup(path, true).unwrap_err();
    assert!(matches!(lookup(&mut image, "no"), Error::Engine(ErrorCode::NotFound)));
    assert!(matches!(lookup(&mut image, "a/b"), Error::Engine(ErrorCode::WrongKind)));
    let ordinary = Image::of_layers(
        compiled().sandbox().unwrap(),
        vec![(Descriptor { size: 5000, ..descriptor_of_nothing() }, vec![7; 5000])],
        Trust::Unverified,
    );
    assert!(matches!(ordinary, Err(Error::Engine(ErrorCode::NotLazy))));
}

fn descriptor_of_nothing() -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest: String::new(),
        size: 0,
        annotations: Vec::new(),
    }
}

#[test]
fn a_sandbox_is_stopped_by_its_limits_and_others_go_on() {
    let items: Vec<_> = (0..60_000).map(|at| file(&format!("{at}/name"), "")).collect();
    let built = [build(options(Format::Estargz, 0, 0), &items)];
    let tight = with(Limits { memory: 4 << 20, ..Limits::default() });
    let stopped = open(&tight, &built).unwrap_err();
    assert!(matches!(stopped, Error::Stopped(_)), "{stopped}");
    let hasty = with(Limits { call: Duration::ZERO, ..Limits::default() });
    let started = Instant::now();
    // One tick of 10 ms is not enough for 60,000 files, unless the machine is very fast.
    if let Err(stopped) = open(&hasty, &built) {
        assert!(matches!(stopped, Error::Stopped(_)), "{stopped}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    let image = open(compiled(), &built).unwrap();
    assert!(matches!(image.lookup("59999/name", false).unwrap().entry.kind, EntryKind::Regular));
    let refused = Engine::new(b"no component", &Limits::default(), None);
    assert!(matches!(refused, Err(Error::Component(_))));
}

/// Small numbers mostly, and the largest ones.
fn number(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => u64::MAX - random.below(3),
        1 => u64::from(u32::MAX) - random.below(3),
        2 => random.below(100_000),
        _ => random.below(20),
    }
}

#[test]
fn no_sequence_of_calls_traps() {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|it| it.parse().ok()).unwrap_or(5);
    let end = Instant::now() + Duration::from_secs(seconds);
    let items: Vec<_> = items().into_iter().filter(|it| it.data.len() < 1 << 20).collect();
    let layers =
        [Format::Estargz, Format::ZstdChunked].map(|it| build(options(it, 64, 100), &items));
    let mut random = Random::new(1);
    let mut calls = 0;
    while Instant::now() < end {
        calls += sequence(&layers, &mut random).unwrap();
    }
    println!("{calls} calls");
    assert!(calls > 100);
}

/// Calls of every kind with any arguments; gives their number, or the trap.
fn sequence(built: &[Built], random: &mut Random) -> Result<u32, Error> {
    let sandbox = compiled().sandbox()?;
    let (mut layers, mut readers, mut openers) = (Vec::new(), Vec::new(), Vec::new());
    let mut calls = 0;
    for built in built {
        let mut bytes = built.blob.clone();
        if random.below(3) == 0 {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        let mut of = descriptor(built);
        if random.below(9) == 0 {
            of.size = number(random);
        }
        let source = Blob { bytes: built.blob.clone(), toc: Vec::new() };
        if of.size == built.blob.len() as u64 && random.below(4) > 0 {
            match sandbox.open(&of, Trust::Verified, &source) {
                Ok(layer) => layers.push((layer, bytes)),
                Err(stopped @ Error::Stopped(_)) => return Err(stopped),
                Err(_) => {}
            }
        } else {
            openers.push(sandbox.call(|api, store| {
                api.lazystar_engine_layers().opener().call_constructor(store, &of)
            })?);
        }
    }
    for _ in 0..60 {
        calls += 1;
        let (id, start, maximum) =
            (number(random) as u32, number(random) as u32, number(random) as u32);
        let junk = noise(random.below(300) as usize, random.below(99));
        let Some((layer, bytes)) = layers.get(random.below(layers.len() as u64) as usize) else {
            for opener in &openers {
                let result = sandbox.call(|api, store| {
                    let openers = api.lazystar_engine_layers().opener();
                    let _ = openers.call_poll(&mut *store, *opener)?;
                    let _ = openers.call_supply_toc(&mut *store, *opener, &junk)?;
                    let _ = openers.call_set_limit(
                        &mut *store,
                        *opener,
                        lazystar_plugin::layers::Limit::Entries,
                        u64::from(maximum),
                    )?;
                    openers.call_supply(store, *opener, number(random), &junk)
                })?;
                drop(result);
            }
            continue;
        };
        let layer = *layer;
        sandbox.call(|api, store| {
            let api_layers = api.lazystar_engine_layers();
            let of = api_layers.layer();
            match random.below(10) {
                0 => drop(of.call_children(store, layer, id, start, maximum)?),
                1 => drop(of.call_chunks(store, layer, id, start, maximum)?),
                2 => drop(of.call_stat(store, layer, &[id, start])?),
                3 => drop(of.call_read_links(store, layer, &[id])?),
                4 => drop(of.call_xattrs(store, layer, id)?),
                5 => drop(of.call_lookup(store, layer, &String::from_utf8_lossy(&junk))?),
                6 => {
                    let spans: Vec<_> = (0..random.below(30))
                        .map(|_| Span {
                            file: number(random) as u32,
                            offset: number(random),
                            length: number(random),
                        })
                        .collect();
                    if let Ok(reader) = of.call_read(store, layer, &spans)? {
                        readers.push((reader, bytes.clone()));
                    }
                }
                7 => {
                    let oci = api.lazystar_engine_oci();
                    drop(oci.call_parse(&mut *store, &junk, None)?);
                    drop(oci.call_parse_configuration(store, &junk, None)?);
                }
                8 => {
                    let overlay = api.lazystar_engine_overlay();
                    let tree = overlay.rootfs().call_constructor(&mut *store, &[layer, layer])?;
                    let root = overlay.rootfs().call_root(&mut *store, tree)?;
                    let at = lazystar_plugin::overlay::Location { layer: id % 3, entry: start };
                    drop(overlay.rootfs().call_children(&mut *store, tree, at, start, maximum)?);
                    drop(overlay.rootfs().call_stat(&mut *store, tree, &[at])?);
                    if let Ok(it) = overlay.rootfs().call_differences(&mut *store, tree, id % 3)? {
                        drop(overlay.differences().call_next(&mut *store, it, maximum)?);
                        it.resource_drop(&mut *store)?;
                    }
                    if let Ok(it) = overlay.rootfs().call_walk(&mut *store, tree, at, "a")? {
                        drop(overlay.walk().call_next(&mut *store, it, maximum)?);
                    }
                    drop(overlay.rootfs().call_efficiency(&mut *store, tree, maximum)?);
                    assert!(root.is_ok());
                    tree.resource_drop(store)?;
                }
                _ => {}
            }
            Ok(())
        })?;
        let at = random.below(readers.len() as u64) as usize;
        let Some((reader, bytes)) = readers.get(at) else { continue };
        sandbox.call(|api, store| {
            let api_layers = api.lazystar_engine_layers();
            let of = api_layers.reader();
            let step = of.call_poll(&mut *store, *reader, maximum)?;
            drop(of.call_supply(&mut *store, *reader, number(random), &junk)?);
            let Ok(lazystar_plugin::layers::ReadStep::Need(needs)) = step else { return Ok(()) };
            for need in needs {
                if let Some(digest) = need.chunks.first() {
                    drop(of.call_supply_chunk(&mut *store, *reader, digest, &junk)?);
                }
                let range = need.blob_range.offset as usize..;
                let piece = &bytes[range][..random.below(need.blob_range.length + 1) as usize];
                drop(of.call_supply(&mut *store, *reader, need.blob_range.offset, piece)?);
            }
            Ok(())
        })?;
    }
    Ok(calls)
}
