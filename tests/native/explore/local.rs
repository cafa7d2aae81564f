//! Images of this machine, as a registry has them.

use std::fs;

use lazystar::explore::Explorer;
use lazystar::oci::{Manifest, media};
use lazystar_core::Digest;
use lazystar_core::write::Format;
use lazystar_tests::layers::{build, file, options as layer_options};
use serde_json::json;

use super::{Running, explore, options};
use crate::sample::Sample;

/// What all of them do: manifests, blobs and their parts.
async fn check_blob(explorer: &Running, bytes: &[u8]) {
    let digest = Digest::of(bytes);
    let path = format!("/registry/local/v2/image/blobs/{digest}");
    let size = bytes.len();
    let whole = explorer.get(&path, &[]).await;
    assert_eq!((whole.status, whole.body == bytes), (200, true));
    assert_eq!(whole.header("docker-content-digest"), digest.to_string());
    assert_eq!(whole.header("cache-control"), "private, max-age=31536000, immutable");
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    let head = explorer.ask(&format!("HEAD {path}"), &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), size.to_string());
    for (asked, from, to) in [
        ("bytes=1-3".to_owned(), 1, 4),
        (format!("bytes={}-", size - 2), size - 2, size),
        ("bytes=-4".to_owned(), size - 4, size),
        (format!("bytes=5-{}", size + 100), 5, size),
    ] {
        let part = explorer.get(&path, &[&format!("range: {asked}")]).await;
        assert_eq!((part.status, part.body == bytes[from..to]), (206, true), "{asked}");
        let range = format!("bytes {from}-{}/{size}", to - 1);
        assert_eq!(part.header("content-range"), range);
    }
    let beyond = explorer.get(&path, &[&format!("range: bytes={size}-")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, &*format!("bytes */{size}")));
    assert_eq!(explorer.get(&path, &["range: bytes=0-1,3-4"]).await.status, 416);
}

async fn manifest(explorer: &Running, reference: &str) -> (String, Vec<u8>) {
    let path = format!("/registry/local/v2/image/manifests/{reference}");
    let answer = explorer.get(&path, &[]).await;
    assert_eq!(answer.status, 200, "{reference}: {}", answer.text());
    let digest = Digest::of(&answer.body).to_string();
    assert_eq!(answer.header("docker-content-digest"), digest);
    let caching =
        if reference.contains(':') { "private, max-age=31536000, immutable" } else { "no-cache" };
    assert_eq!(answer.header("cache-control"), caching);
    (answer.header("content-type").to_owned(), answer.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_is_served() {
    let (sample, dir) = (Sample::new(), tempfile::tempdir().unwrap());
    sample.write(dir.path(), "v1");
    for (end, reference) in [(":v1", "v1"), ("", "latest")] {
        let image = format!("oci:{}{end}", dir.path().display());
        let explorer = explore(&image, |_| {}).await;
        let url = format!("http://{}/#/r/local/image:{reference}", explorer.address);
        assert_eq!(explorer.url, url);
        let told: serde_json::Value =
            serde_json::from_slice(&explorer.get("/lazystar.json", &[]).await.body).unwrap();
        let first = json!({
            "name": image, "registry": "local", "repository": "image", "reference": reference,
        });
        assert_eq!(told["image"], first);
        let index = (media::OCI_INDEX.to_owned(), sample.index.to_vec());
        assert_eq!(manifest(&explorer, reference).await, index);
        assert_eq!(manifest(&explorer, &Digest::of(&sample.index).to_string()).await, index);
        let of_platform = manifest(&explorer, &Digest::of(&sample.manifest).to_string()).await;
        assert_eq!(of_platform, (media::OCI_MANIFEST.to_owned(), sample.manifest.to_vec()));
        check_blob(&explorer, &sample.layers[1]).await;
        check_blob(&explorer, &sample.config).await;
        let tags = explorer.get("/registry/local/v2/image/tags/list", &[]).await;
        let tags: serde_json::Value = serde_json::from_slice(&tags.body).unwrap();
        assert_eq!(tags, json!({ "name": "image", "tags": [reference] }));
        assert_eq!(explorer.get("/registry/local/v2/", &[]).await.status, 200);
        let catalog = explorer.get("/registry/local/v2/_catalog", &[]).await.text();
        assert_eq!(catalog, r#"{"repositories":["image"]}"#);
        let none = Digest::of(b"none");
        for absent in [
            "image/manifests/v9".to_owned(),
            format!("image/manifests/{none}"),
            // A layer is no manifest.
            format!("image/manifests/{}", Digest::of(&sample.layers[0])),
            format!("image/blobs/{none}"),
            format!("other/blobs/{}", Digest::of(&sample.config)),
            "image/referrers/x".to_owned(),
        ] {
            let (status, ..) =
                explorer.refusal(&format!("GET /registry/local/v2/{absent}"), &[]).await;
            assert_eq!(status, 404, "{absent}");
        }
        for bad in ["sha256:..%2f..%2findex.json", "sha256:..", "x"] {
            let line = format!("GET /registry/local/v2/image/blobs/{bad}");
            let (status, ..) = explorer.refusal(&line, &[]).await;
            assert!(matches!(status, 400 | 404), "{bad}: {status}");
        }
    }
    // A name that is no tag; and the image moves while it is served.
    let image = format!("oci:{}:example.com/a:b", dir.path().display());
    sample.write(dir.path(), "example.com/a:b");
    let explorer = explore(&image, |_| {}).await;
    let digest = Digest::of(&sample.index);
    assert_eq!(explorer.url, format!("http://{}/#/r/local/image@{digest}", explorer.address));
    let _ = manifest(&explorer, &digest.to_string()).await;

    sample.write(dir.path(), "v1");
    let explorer = explore(&format!("oci:{}:v1", dir.path().display()), |_| {}).await;
    crate::sample::write_index(dir.path(), &[("v1", media::OCI_MANIFEST, &sample.manifest)]);
    assert_eq!(manifest(&explorer, "v1").await.1, sample.manifest.to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_image_of_this_machine_there_is_none() {
    let explorer = explore("", |_| {}).await;
    let (status, ..) = explorer.refusal("GET /registry/local/v2/image/tags/list", &[]).await;
    assert_eq!(status, 400);
    let (mut options, _page) = options();
    options.image = Some("oci:/nowhere/at/all".parse().unwrap());
    let error = format!("{:#}", Explorer::start(options).await.unwrap_err());
    assert!(error.contains("oci:/nowhere/at/all"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let layer = lazystar_tests::layers::gzip(b"not read as a tar here");
    let tar = b"a tar, by its name".to_vec();
    let diff_ids = [Digest::of(&tar).to_string(), Digest::of(b"x").to_string()];
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string();
    let saved = json!([{ "Config": "c.json", "RepoTags": ["a:b"], "Layers": ["1.tar", "2.tar"] }]);
    let path = dir.path().join("saved.tar");
    let mut archive = tar::Builder::new(fs::File::create(&path).unwrap());
    let parts = [
        ("1.tar", &tar[..]),
        ("2.tar", &layer),
        ("c.json", config.as_bytes()),
        ("manifest.json", saved.to_string().as_bytes()),
    ]
    .map(|(name, bytes)| (name, bytes.to_vec()));
    for (name, bytes) in &parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    archive.finish().unwrap();
    for (end, reference) in [("", "latest"), (":a:b", "b")] {
        let explorer = explore(&format!("docker-archive:{}{end}", path.display()), |_| {}).await;
        let (media_type, bytes) = manifest(&explorer, reference).await;
        assert_eq!(media_type, media::DOCKER_MANIFEST);
        let found: Manifest = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(manifest(&explorer, &Digest::of(&bytes).to_string()).await.1, bytes);
        let digests: Vec<_> = found.layers.iter().map(|layer| layer.digest).collect();
        assert_eq!(digests, [Digest::of(&tar), Digest::of(&layer)]);
        assert_eq!(found.config.digest, Digest::of(config.as_bytes()));
        for blob in [&tar[..], &layer, config.as_bytes()] {
            check_blob(&explorer, blob).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_served_as_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let lazy = build(layer_options(Format::Estargz, 4096, 0), &[file("etc/name", "content")]);
    let lazy_blob = lazy.blob.clone();
    let plain = lazystar_tests::layers::gzip(&[0; 10_000]);
    for (blob, toc) in [(&lazy_blob, Some(Digest::of(&lazy.toc))), (&plain, None)] {
        let path = dir.path().join("layer");
        fs::write(&path, blob).unwrap();
        let explorer = explore(&format!("file:{}", path.display()), |_| {}).await;
        assert_eq!(explorer.url, format!("http://{}/#/r/local/image:latest", explorer.address));
        let (media_type, bytes) = manifest(&explorer, "latest").await;
        assert_eq!(media_type, media::OCI_MANIFEST);
        let found: Manifest = serde_json::from_slice(&bytes).unwrap();
        let [layer] = &found.layers[..] else { panic!("{found:?}") };
        assert_eq!(layer.digest, Digest::of(blob));
        assert_eq!((layer.size, &*layer.media_type), (blob.len() as u64, media::OCI_LAYER_GZIP));
        let stated = layer.annotations.get(lazystar::open::TOC_DIGEST);
        assert_eq!(stated.cloned(), toc.map(|toc| toc.to_string()));
        check_blob(&explorer, blob).await;
        let config = format!("/registry/local/v2/image/blobs/{}", found.config.digest);
        let config = explorer.get(&config, &[]).await;
        assert_eq!(Digest::of(&config.body), found.config.digest);
    }
}
