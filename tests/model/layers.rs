//! Random trees in every format, read by random calls.

use lazystar_core::layer::FetchPolicy;
use lazystar_core::open::OpenOptions;
use lazystar_core::tar::{Kind, encode_header};
use lazystar_core::write::{Options, Writer};
use lazystar_tests::layers::{
    FORMATS, Item, compressor, dir, file, hardlink, noise, options, special, symlink,
};
use lazystar_tests::naive;
use lazystar_tests::operations::{self, Contents};
use lazystar_tests::script_host::{Answers, ScriptHost, open};
use proptest::collection::vec;
use proptest::prelude::*;

fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        8 => "[abc]",
        1 => Just(".".to_string()),
        1 => Just("..".to_string()),
        1 => Just(String::new()),
        1 => "[a-c<&\"\\\\é\u{fffd}😀]{1,3}",
    ];
    vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn item() -> impl Strategy<Value = Item> {
    let content = prop_oneof![
        2 => Just(Vec::new()),
        3 => vec(any::<u8>(), 1..40),
        2 => (0usize..3000, any::<u64>()).prop_map(|(len, seed)| noise(len, seed)),
        1 => (1usize..5000).prop_map(|len| vec![b'a'; len]),
    ];
    let bare = prop_oneof![
        6 => (path(), content).prop_map(|(name, content)| file(&name, content)),
        2 => path().prop_map(|name| dir(&format!("{name}/"))),
        1 => (path(), path()).prop_map(|(name, target)| symlink(&name, &format!("{target}x"))),
        2 => (path(), path()).prop_map(|(name, target)| hardlink(&name, &target)),
        1 => (path(), any::<bool>()).prop_map(|(name, block)| {
            special(&name, if block { Kind::BlockDevice } else { Kind::CharDevice }, (8, 70_000))
        }),
        1 => (path(), "[abc]").prop_map(|(path, name)| file(&format!("{path}/.wh.{name}"), "")),
        1 => path().prop_map(|path| file(&format!("{path}/.wh..wh..opq"), "")),
    ];
    let attributes = (0u32..0o10000, any::<u16>(), -3_000_000_000i64..9_000_000_000);
    let xattrs = vec(("[a-z]{1,3}", vec(any::<u8>(), 0..5)), 0..3);
    (bare, attributes, xattrs).prop_map(|(item, (mode, owner, mtime), xattrs)| {
        let item = item.mode(mode).owner(owner.into(), 70_000).mtime(mtime);
        xattrs
            .into_iter()
            .fold(item, |item, (name, value)| item.xattr(&format!("user.{name}"), value))
    })
}

/// Writes what the writer takes: it refuses empty names and hard links that lead nowhere.
fn write(options: Options, items: &[Item]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut writer = Writer::new(options, compressor(options.format)).expect("the codec fits");
    for item in items {
        writer.append(item.entry.clone(), &encode_header(&item.entry).ok()?).ok()?;
        writer.data(&item.data).ok()?;
    }
    writer.finish().ok()?;
    Some((writer.take_output(), writer.toc_json().to_vec()))
}

/// Without the entries that make a layer of those before them unsound.
fn sound(items: Vec<Item>) -> Vec<Item> {
    let mut sound = Vec::new();
    for item in items {
        sound.push(item);
        if naive::tree(&sound).is_none() {
            sound.pop();
        }
    }
    sound
}

fn policies() -> impl Strategy<Value = FetchPolicy> {
    (0u64..2000, 0u64..4000, 0u64..9000, 0u64..20_000).prop_map(
        |(gap, min_span, max_span, max_ahead)| FetchPolicy {
            gap,
            min_span,
            max_span: max_span.max(min_span),
            max_ahead: max_ahead.max(min_span),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_shows_the_tree_that_its_tar_means_or_is_refused_with_it(
        mut items in vec(item(), 0..30),
        format in 0..FORMATS.len(),
        sizes in (prop_oneof![Just(0u32), 1u32..2000], prop_oneof![Just(0u32), 1u32..5000]),
        seed in any::<u64>(),
    ) {
        if seed % 4 > 0 {
            // Mostly sound layers: random ones hardly are.
            items = sound(items);
        }
        let Some((blob, toc)) = write(options(FORMATS[format], sizes.0, sizes.1), &items) else {
            return Ok(());
        };
        let expected = naive::tree(&items);
        let options = OpenOptions { unverified: true, ..OpenOptions::default() };
        let opened = open(&blob, Some(&toc), options, Answers::Random(seed));
        prop_assert_eq!(opened.is_ok(), expected.is_some(), "{:?}", opened.err());
        if let (Ok(toc), Some(expected)) = (opened, expected) {
            let mut host = ScriptHost::new(toc, &blob, FetchPolicy::default(), Answers::Random(seed));
            prop_assert_eq!(naive::shown(&mut host), expected);
        }
    }

    #[test]
    fn calls_in_any_order_end_every_read_with_the_right_bytes(
        contents in vec((0usize..3000, any::<u64>()), 1..12),
        format in 0..FORMATS.len(),
        sizes in (1u32..2000, prop_oneof![Just(0u32), 1u32..5000]),
        policy in policies(),
        seed in any::<u64>(),
        script in vec(any::<u8>(), 0..400),
    ) {
        let items: Vec<_> = (0..).zip(&contents)
            .map(|(at, (len, seed))| file(&format!("f{at:02}"), noise(*len, *seed)))
            .collect();
        let (blob, toc) = write(options(FORMATS[format], sizes.0, sizes.1), &items).unwrap();
        let options = OpenOptions { unverified: true, ..OpenOptions::default() };
        let toc = open(&blob, Some(&toc), options, Answers::Random(seed)).unwrap();
        let named = toc.entries(lazystar_core::Toc::ROOT).map(|entry| entry.node);
        let contents: Contents = named.zip(items).map(|(node, item)| (node, item.data)).collect();
        let mut host = ScriptHost::new(toc, &blob, policy, Answers::Random(seed));
        operations::run(&mut host, &contents, &script);
    }
}
