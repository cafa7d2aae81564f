//! What is damaged gives an error that says what and where, never a trap.

use lazystar_core::Digest;
use lazystar_core::write::Format;
use serde_json::{Value, json};

use crate::layers::{files, pack};
use crate::node::engine_for;

const PATH: &str = "dir/file-300000";

fn content() -> Vec<u8> {
    files().into_iter().find(|(name, _)| name == PATH).unwrap().1
}

/// Where the compressed form of the file is: found by its size, for its bytes hardly shrink.
fn flips(blob: &[u8]) -> Vec<u64> {
    let needle = &content()[1000..1032];
    let at = blob.windows(32).position(|window| window == needle).expect("stored as it is");
    [0, 5_000, 110_000, 250_000].iter().map(|further| (at + further) as u64).collect()
}

#[test]
fn an_altered_byte_is_found_and_a_good_one_heals() {
    let Some(engine) = engine_for("an_altered_byte_is_found_and_a_good_one_heals") else { return };
    for format in [Format::Estargz, Format::ZstdChunked] {
        let layer = pack(format, 0);
        let flips = flips(&layer.blob);
        let job = json!({ "layer": layer.job(), "path": PATH, "flips": flips });
        let outcomes = engine.run("flips", &job);
        for (flip, outcome) in flips.iter().zip(outcomes.as_array().unwrap()) {
            let error = &outcome["error"];
            assert_eq!(error["tag"], "digest-mismatch", "{format:?} {flip}: {outcome}");
            let detail = &error["val"];
            assert_eq!(detail["subject"]["tag"], "file");
            for digest in ["expected", "actual"] {
                detail[digest].as_str().unwrap().parse::<Digest>().unwrap();
            }
            assert_ne!(detail["expected"], detail["actual"]);
            let start = detail["blobRange"]["offset"].as_u64().unwrap();
            let end = start + detail["blobRange"]["length"].as_u64().unwrap();
            assert!((start..end).contains(flip), "{format:?} {flip}: {detail}");
            assert_eq!(outcome["digest"], Digest::of(&content()).to_string());
        }
    }
}

#[test]
fn what_cannot_be_opened_says_why() {
    let Some(engine) = engine_for("what_cannot_be_opened_says_why") else { return };
    let layer = pack(Format::Estargz, 0);
    let toc_digest = "containerd.io/snapshot/stargz/toc.digest";
    let other = Digest::of(b"another table of contents").to_string();
    let garbage: Vec<u8> =
        (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cut = &layer.blob[..layer.blob.len() - 1];
    let annotated = |digest: &str| json!({ "blob": layer.job()["blob"], "annotations": { toc_digest: digest } });
    let limited = |limit: &str, maximum: u64| {
        let mut job = layer.job();
        job["limits"] = json!({ limit: maximum });
        job
    };
    let mut pointing_outside = layer.blob.clone();
    let footer = pointing_outside.len() - 51;
    pointing_outside[footer + 16..footer + 32].copy_from_slice(b"ffffffffffffffff");
    let cases = [
        ("not-lazy", json!({ "blob": layer.file("empty", b"") })),
        ("not-lazy", json!({ "blob": layer.file("garbage", &garbage) })),
        ("not-lazy", json!({ "blob": layer.file("cut", cut) })),
        ("not-lazy", json!({ "blob": layer.file("short", &layer.blob[..20]) })),
        ("malformed", json!({ "blob": layer.file("outside", &pointing_outside) })),
        ("unverifiable", json!({ "blob": layer.job()["blob"] })),
        ("unverifiable", annotated("no digest")),
        ("digest-mismatch", annotated(&other)),
        ("limit-exceeded", limited("entries", 10)),
        ("limit-exceeded", limited("toc-bytes", 1000)),
        ("limit-exceeded", limited("toc-compressed-bytes", 100)),
        ("limit-exceeded", limited("chunk-bytes", 1000)),
    ];
    let jobs: Vec<&Value> = cases.iter().map(|(_, job)| job).collect();
    let errors = engine.run("refused", &json!({ "layers": jobs }));
    for ((tag, job), error) in cases.iter().zip(errors.as_array().unwrap()) {
        assert_eq!(error["tag"], *tag, "{job}: {error}");
        if *tag == "digest-mismatch" {
            assert_eq!(error["val"]["subject"]["tag"], "table-of-contents");
            assert_eq!(error["val"]["expected"], other);
            assert_eq!(error["val"]["actual"], Digest::of(&layer.toc()).to_string());
            let range = &error["val"]["blobRange"];
            let end = range["offset"].as_u64().unwrap() + range["length"].as_u64().unwrap();
            assert_eq!(end, layer.blob.len() as u64);
        }
    }
}

#[test]
fn random_damage_never_traps() {
    let Some(engine) = engine_for("random_damage_never_traps") else { return };
    for (seed, format) in
        [Format::Estargz, Format::EstargzExternalToc, Format::ZstdChunked].into_iter().enumerate()
    {
        let layer = pack(format, 0);
        let mut job = layer.job();
        job["annotations"] = json!({});
        let outcomes = engine.run("fuzz", &json!({ "layer": job, "seed": seed, "rounds": 150 }));
        let rounds: u64 = outcomes.as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(rounds, 150, "{outcomes}");
        assert!(outcomes.as_object().unwrap().len() > 1, "{format:?}: {outcomes}");
    }
}
