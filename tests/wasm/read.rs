//! What can be read is read, byte by byte the same, however the host answers.

use std::collections::BTreeMap;

use lazystar_core::Digest;
use lazystar_core::write::Format;
use serde_json::{Value, json};

use crate::layers::{self, expected, pack, pack_upper};
use crate::node::engine_for;

fn files_of(outcome: &Value) -> BTreeMap<String, Value> {
    serde_json::from_value(outcome["files"].clone()).unwrap()
}

#[test]
fn the_component_imports_nothing() {
    let Some(engine) = engine_for("the_component_imports_nothing") else { return };
    assert_eq!(engine.imports, json!([]));
}

#[test]
fn every_format_reads_the_same_however_it_is_answered() {
    let Some(engine) = engine_for("every_format_reads_the_same_however_it_is_answered") else {
        return;
    };
    let cases = [
        (Format::Estargz, 0, "estargz"),
        (Format::Estargz, 50_000, "estargz"),
        (Format::EstargzExternalToc, 0, "estargz-external-toc"),
        (Format::ZstdChunked, 0, "zstd-chunked"),
        (Format::ZstdChunkedStorage, 50_000, "zstd-chunked"),
    ];
    for (format, min_chunk_size, name) in cases {
        let layer = pack(format, min_chunk_size);
        let splits = ["whole", "pieces", "backwards", "interleaved", "half"];
        for max_bytes in [0, 1000] {
            let job = json!({ "layers": [layer.job()], "splits": splits, "maxBytes": max_bytes, "page": 100 });
            for (split, outcome) in splits.iter().zip(engine.run("read", &job).as_array().unwrap())
            {
                let found = files_of(outcome);
                assert!(found == expected(), "{name} {min_chunk_size} {split}: {found:?}");
                let summary = &outcome["summaries"][0];
                assert_eq!(summary["format"], name);
                assert_eq!(summary["assurance"], "verified");
                assert_eq!(summary["tocDigest"], Digest::of(&layer.toc()).to_string());
            }
        }
    }
}

#[test]
fn layers_are_merged() {
    let Some(engine) = engine_for("layers_are_merged") else { return };
    let (lower, upper) = (pack(Format::Estargz, 0), pack_upper(Format::ZstdChunked));
    let job = json!({ "layers": [lower.job(), upper.job()], "splits": ["whole"] });
    let mut expected = expected();
    expected.retain(|path, _| !path.starts_with("/many") && path != "/dir/file-2");
    expected.insert(
        "/dir/file-1".to_owned(),
        json!({ "kind": "regular", "size": 8, "layer": 1, "digest": Digest::of(b"replaced").to_string() }),
    );
    expected.get_mut("/dir").unwrap()["layer"] = json!(1);
    assert_eq!(files_of(&engine.run("read", &job)[0]), expected);
}

#[test]
fn a_cache_of_the_host_is_used_and_not_trusted() {
    let Some(engine) = engine_for("a_cache_of_the_host_is_used_and_not_trusted") else { return };
    for format in [Format::Estargz, Format::ZstdChunked] {
        let layer = pack(format, 0);
        let job = json!({ "layer": layer.job(), "path": "dir/file-700001" });
        let chunks = 700_001_u32.div_ceil(layers::CHUNK);
        assert_eq!(engine.run("cache", &job), json!({ "chunks": chunks, "lies": chunks }));
    }
}

#[test]
fn calls_that_make_no_sense_are_refused() {
    let Some(engine) = engine_for("calls_that_make_no_sense_are_refused") else { return };
    let layer = pack(Format::Estargz, 0);
    let job = json!({ "layer": layer.job(), "path": "dir/file-300000" });
    assert_eq!(engine.run("misuse", &job), "ok");
}
