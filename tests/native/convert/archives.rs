//! Archives of `docker save`, new and old.

use std::fs;

use lazystar::convert::{ConvertOptions, Flavour};
use lazystar::reference::ImageRef;
use lazystar_core::Digest;
use lazystar_core::write::Format;
use lazystar_tests::layers::{file, symlink};
use serde_json::json;
use tempfile::TempDir;

use super::{layers, layout_ref, lies, options, tar, to, verify, write_image};

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_read_and_written() {
    let work = TempDir::new().unwrap();
    let source = write_image(&work.path().join("source"), &layers());
    let archive = |name: &str| ImageRef::DockerArchive {
        path: work.path().join("archive.tar"),
        name: Some(name.to_owned()),
    };
    let docker = ConvertOptions { flavour: Some(Flavour::Docker), ..options(Format::Estargz) };
    let report = to(&source, &archive("example.com/a:b"), &docker).await.unwrap();
    let target = layout_ref(&work.path().join("target"), "it");
    let back = to(&archive("example.com/a:b"), &target, &docker).await.unwrap();
    assert_eq!(back.digest, report.digest);
    assert_eq!(lies(&verify(&target).await), [""; 0]);
    let missing = to(&archive("example.com/other:b"), &target, &docker).await.unwrap_err();
    assert!(missing.to_string().contains("example.com/a:b"), "{missing}");
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 3);

    // As Docker wrote them before 25: no layout, and a layer that is a link.
    let old = work.path().join("old.tar");
    let (tar_layer, ..) = &layers()[0];
    let diff_id = Digest::of(tar_layer).to_string();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [diff_id, diff_id] },
    });
    let saved = json!([{
        "Config": "c.json", "RepoTags": ["a:b"], "Layers": ["one/layer.tar", "two/layer.tar"],
    }]);
    let items = [
        file("one/layer.tar", tar_layer),
        symlink("two/layer.tar", "../one/layer.tar"),
        file("c.json", config.to_string()),
        file("manifest.json", saved.to_string()),
    ];
    fs::write(&old, tar(&items)).unwrap();
    let old = ImageRef::DockerArchive { path: old, name: None };
    let report = to(&old, &layout_ref(&work.path().join("target"), "old"), &docker).await.unwrap();
    assert_eq!(report.images[0].layers.len(), 2);
    assert_eq!(lies(&verify(&layout_ref(&work.path().join("target"), "old")).await), [""; 0]);
}
