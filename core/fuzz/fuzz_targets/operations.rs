//! Calls to a layer in any order: no panic, every read ends, and its result is right.
#![no_main]

#[path = "../../../tests/support/layers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod layers;
#[path = "../../../tests/support/operations.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod operations;
#[path = "../../../tests/support/script_host.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod script_host;

use std::sync::LazyLock;

use lazystar_core::layer::FetchPolicy;
use lazystar_core::open::OpenOptions;
use lazystar_core::write::Format;
use libfuzzer_sys::fuzz_target;
use script_host::{Answers, ScriptHost, open};

/// Layers with one chunk a member and with many, and what their files hold.
static LAYERS: LazyLock<Vec<(Vec<u8>, operations::Contents)>> = LazyLock::new(|| {
    let layer = |(format, min)| {
        let sizes = [1, 3000, 64, 65, 700, 10, 12, 2, 128, 1000, 5, 300];
        let items: Vec<_> = (0..)
            .zip(sizes)
            .map(|(at, size)| layers::file(&format!("f{at:02}"), layers::noise(size, at)))
            .collect();
        let blob = layers::build(layers::options(format, 64, min), &items).blob;
        let toc = open(&blob, None, OpenOptions::default(), Answers::Whole).expect("a good layer");
        let named = toc.entries(lazystar_core::Toc::ROOT).map(|entry| entry.node);
        let contents = named.zip(items).map(|(node, item)| (node, item.data)).collect();
        (blob, contents)
    };
    [(Format::Estargz, 0), (Format::Estargz, 200), (Format::ZstdChunked, 100)].map(layer).into()
});

fuzz_target!(|data: &[u8]| {
    let Some(([which, policy], script)) = data.split_first_chunk() else { return };
    let (blob, contents) = &LAYERS[usize::from(*which) % LAYERS.len()];
    let toc = open(blob, None, OpenOptions::default(), Answers::Whole).expect("a good layer");
    let size = u64::from(*policy);
    let policy =
        FetchPolicy { gap: size / 2, min_span: size, max_span: 10 * size, max_ahead: 20 * size };
    let mut host = ScriptHost::new(toc, blob, policy, Answers::Random(u64::from(*which)));
    operations::run(&mut host, contents, script);
});
