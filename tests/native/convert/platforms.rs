//! Indexes and what is in them beside images.

use std::fs;

use lazystar::convert::{ConvertOptions, Outcome, convert};
use lazystar::image::OpenOptions;
use lazystar::oci::Descriptor;
use lazystar::pack::layout::Layout;
use lazystar_core::Digest;
use lazystar_core::write::Format;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{OCI, layers, layout_ref, open, options, to, write_image};

#[tokio::test(flavor = "multi_thread")]
async fn platforms_attestations_and_foreign_layers_pass_through() {
    let work = TempDir::new().unwrap();
    let dir = work.path().join("source");
    let layers = layers();
    write_image(&dir, &layers[..1]);
    let layout = Layout::create(&dir).unwrap();
    let put = |value: &Value| {
        let text = value.to_string();
        (layout.put(text.as_bytes()).unwrap().to_string(), text.len())
    };
    let image = |arch: &str| {
        let foreign = Digest::of(b"somewhere else").to_string();
        let diff_ids = [foreign.clone(), Digest::of(&layers[0].2).to_string()];
        let (config, size) = put(&json!({
            "architecture": arch, "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }));
        put(&json!({
            "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
            "config": { "mediaType": format!("{OCI}.config.v1+json"), "digest": config, "size": size },
            "layers": [
                { "mediaType": format!("{OCI}.layer.nondistributable.v1.tar+gzip"),
                  "digest": foreign, "size": 12, "urls": ["https://example.com/layer"] },
                { "mediaType": format!("{OCI}.layer.v1.tar"),
                  "digest": Digest::of(&layers[0].0).to_string(), "size": layers[0].0.len() },
            ],
        }))
    };
    let (amd64, arm64) = (image("amd64"), image("arm64"));
    let (statement, statement_size) = put(&json!({ "_type": "statement" }));
    let (empty, empty_size) = put(&json!({}));
    let attestation = put(&json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
        "config": { "mediaType": format!("{OCI}.config.v1+json"), "digest": empty, "size": empty_size },
        "layers": [{ "mediaType": "application/vnd.in-toto+json", "digest": statement, "size": statement_size }],
    }));
    let entry = |(digest, size): &(String, usize), arch: &str, os: &str| {
        json!({
            "mediaType": format!("{OCI}.manifest.v1+json"), "digest": digest, "size": size,
            "platform": { "architecture": arch, "os": os }, "x-entry": arch,
        })
    };
    let mut about = entry(&attestation, "unknown", "unknown");
    about["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": amd64.0,
    });
    let index = json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.index.v1+json"), "x-index": true,
        "manifests": [entry(&amd64, "amd64", "linux"), entry(&arm64, "arm64", "linux"), about],
    });
    put(&index);
    let pointer = Descriptor::of(&format!("{OCI}.index.v1+json"), index.to_string().as_bytes());
    layout.tag(pointer, "index").unwrap();

    let source = layout_ref(&dir, "index");
    let target = work.path().join("target");
    let read = |digest: &str| -> Value {
        let path = target.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let all = ConvertOptions { all_platforms: true, ..options(Format::Estargz) };
    let report = to(&source, &layout_ref(&target, "all"), &all).await.unwrap();
    assert_eq!(report.images.len(), 2);
    let converted = read(&report.digest);
    assert_eq!(converted["x-index"], true);
    let entries = converted["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[1]["x-entry"], "arm64");
    // It says something about the image that there is now; itself it is what it was.
    assert_eq!(entries[2]["annotations"]["vnd.docker.reference.digest"], entries[0]["digest"]);
    assert_eq!(entries[2]["digest"], attestation.0);
    assert!(target.join("blobs/sha256").join(&statement[7..]).exists());
    let manifest = read(entries[0]["digest"].as_str().unwrap());
    assert_eq!(manifest["layers"][0]["urls"][0], "https://example.com/layer");
    let kinds: Vec<_> = report.images[0].layers.iter().map(|layer| layer.outcome).collect();
    assert_eq!(kinds, [Outcome::Foreign, Outcome::Converted]);

    // One platform keeps what is said about it, and comes alone where nothing is.
    let one = to(&source, &layout_ref(&target, "one"), &options(Format::Estargz)).await.unwrap();
    assert_eq!(read(&one.digest)["manifests"].as_array().unwrap().len(), 2);
    let arm = OpenOptions { platform: "linux/arm64".parse().unwrap(), ..open() };
    let arm = convert(&source, &layout_ref(&target, "arm"), &arm, &options(Format::Estargz)).await;
    assert!(read(&arm.unwrap().digest)["layers"].is_array());
}
