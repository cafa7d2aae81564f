//! Calls to the component in any order with any arguments: no panic, and what is read is what layers hold.
#![no_main]

#[path = "../../../tests/support/layers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod layers;
#[path = "../../../tests/support/script_host.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod script_host;

use std::sync::LazyLock;

use lazystar_component::operations::{Blob, run};
use lazystar_core::open::OpenOptions;
use lazystar_core::write::Format;
use libfuzzer_sys::fuzz_target;
use script_host::{Answers, open};

/// Layers of every kind: one chunk a member, many, an external table of contents.
static BLOBS: LazyLock<Vec<Blob>> = LazyLock::new(|| {
    let layer = |(format, min)| {
        let sizes = [1, 3000, 64, 65, 700, 10, 0, 12];
        let files: Vec<_> = (0..)
            .zip(sizes)
            .map(|(at, size)| layers::file(&format!("d/f{at}"), layers::noise(size, at)))
            .collect();
        let rest = [
            layers::hardlink("link", "d/f1"),
            layers::symlink("s", "d").xattr("user.a", "b"),
            layers::file(".wh.gone", ""),
        ];
        let items = [&files[..], &rest].concat();
        let built = layers::build(layers::options(format, 64, min), &items);
        let toc = open(&built.blob, Some(&built.toc), OpenOptions::default(), Answers::Whole)
            .expect("a good layer");
        let named = files.into_iter().map(|item| {
            let path = item.entry.name.split('/');
            let node = path.fold(lazystar_core::Toc::ROOT, |dir, name| {
                toc.lookup(dir, name.as_bytes()).expect("it is there")
            });
            (node.0, item.data)
        });
        let annotations = built.summary.annotations().into_iter();
        Blob {
            contents: named.collect(),
            annotations: annotations.map(|(key, value)| (key.into(), value)).collect(),
            bytes: built.blob,
            toc: built.toc,
        }
    };
    [(Format::Estargz, 0), (Format::EstargzExternalToc, 200), (Format::ZstdChunked, 100)]
        .map(layer)
        .into()
});

// Long scripts find nothing that short ones do not, and take seconds.
fuzz_target!(|script: &[u8]| run(&BLOBS, &script[..script.len().min(400)]));
