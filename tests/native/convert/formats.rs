//! What comes out, in every format, on every number of threads: what was there.

use std::num::NonZeroUsize;

use lazystar::convert::{ConvertError, ConvertOptions, Flavour};
use lazystar::image::Image;
use lazystar::pack::Wanted;
use lazystar::reference::ImageRef;
use lazystar::workers::Workers;
use lazystar_core::write::Format;
use lazystar_tests::layers::{Item, file, gzip, noise};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{contents, layers, layout_ref, lies, open, options, tar, to, verify, write_image};

#[tokio::test(flavor = "multi_thread")]
async fn every_format_holds_what_was_there_and_verifies() {
    let work = TempDir::new().unwrap();
    let source = write_image(&work.path().join("source"), &layers());
    for (format, name) in [
        (Format::Estargz, "estargz"),
        (Format::EstargzExternalToc, "estargz-external-toc"),
        (Format::ZstdChunked, "zstd-chunked"),
    ] {
        for min_chunk_size in [0, 5000] {
            let mut options = options(format);
            options.layer.min_chunk_size = min_chunk_size;
            let target =
                layout_ref(&work.path().join("target"), &format!("{name}-{min_chunk_size}"));
            let report = to(&source, &target, &options).await.unwrap();
            assert_eq!(report.toc_image.is_some(), format == Format::EstargzExternalToc);
            let verified = verify(&target).await;
            assert_eq!(lies(&verified), [""; 0], "{name}");
            assert!(verified.iter().all(|layer| layer.format == name), "{verified:?}");
            // Thirteen entries and a landmark; the TOC itself is an entry of some.
            assert!(verified[0].entries >= 14 && verified[0].chunks >= 8, "{verified:?}");
            for (path, content) in [
                ("early", noise(10_000, 1)),
                ("alias", noise(10_000, 1)),
                ("nines", b"9".repeat(70_000)),
                (&format!("{}/{}", "d".repeat(150), "n".repeat(150)), b"long".to_vec()),
                ("caf\u{e9}", b"not ASCII".to_vec()),
                ("a", b"the later one".to_vec()),
                ("up", b"escaped".to_vec()),
                ("opt/e", noise(40_000, 2)),
                ("y", b"y".to_vec()),
            ] {
                assert!(contents(&target, &[path]).await == [content], "{name}: {path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_survives_and_media_types_are_as_asked() {
    let work = TempDir::new().unwrap();
    let source = write_image(&work.path().join("source"), &layers());
    let dir = work.path().join("target");
    let docker = ConvertOptions { flavour: Some(Flavour::Docker), ..options(Format::Estargz) };
    to(&source, &layout_ref(&dir, "docker"), &docker).await.unwrap();
    let back = layout_ref(&dir, "back");
    to(&layout_ref(&dir, "docker"), &back, &options(Format::ZstdChunked)).await.unwrap();
    for (tag, types) in [
        ("docker", ["docker.distribution.manifest.v2", "docker.container", "tar.gzip"]),
        ("back", ["oci.image.manifest.v1", "oci.image.config.v1", "v1.tar+zstd"]),
    ] {
        let image = Image::open(&layout_ref(&dir, tag), &open()).await.unwrap();
        let manifest: Value = serde_json::from_slice(&image.documents[0].1).unwrap();
        let (config, bytes) = image.config().await.unwrap();
        let bytes: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(manifest["x-manifest"]["a"], 1.5);
        assert_eq!(manifest["annotations"]["org.example"], "kept");
        assert_eq!(manifest["layers"][2]["x-descriptor"], 2);
        assert_eq!(manifest["config"]["x-descriptor"], "c");
        assert_eq!(bytes["x-config"], json!([1, null]));
        assert_eq!(bytes["config"]["x-inner"], "kept");
        assert_eq!(bytes["history"][0]["created_by"], "somebody");
        assert_eq!(config.rootfs.diff_ids.len(), 3);
        let stated = [
            &manifest["mediaType"],
            &manifest["config"]["mediaType"],
            &manifest["layers"][0]["mediaType"],
        ];
        for (stated, expected) in stated.iter().zip(types) {
            assert!(stated.as_str().unwrap().contains(expected), "{stated} {expected}");
        }
    }
    let zstd = ConvertOptions { flavour: Some(Flavour::Docker), ..options(Format::ZstdChunked) };
    let refused = to(&source, &back, &zstd).await.unwrap_err();
    assert!(matches!(refused, ConvertError::DockerZstd));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_depends_on_no_number_of_threads() {
    let work = TempDir::new().unwrap();
    let small = |at: usize| file(&format!("f{at}"), noise(at * 37 % 9000, at as u64));
    let large = |at| file(&format!("l{at}"), noise(1000, at).repeat(120));
    let big: Vec<Item> = (0..400).map(small).chain((0..100).map(large)).collect();
    let big = tar(&big);
    let source = write_image(&work.path().join("source"), &[(gzip(&big), "tar+gzip", big)]);
    for (format, min_chunk_size) in [
        (Format::Estargz, 0),
        (Format::Estargz, 20_000),
        (Format::ZstdChunked, 0),
        (Format::LegacyStargz, 0),
    ] {
        let mut digests = Vec::new();
        for threads in [1, 2, 8] {
            let workers = Some(Workers::new(NonZeroUsize::new(threads).unwrap()));
            let mut options = ConvertOptions { workers, ..options(format) };
            options.layer.min_chunk_size = min_chunk_size;
            let target = layout_ref(&work.path().join(format!("{threads}")), "it");
            digests.push(to(&source, &target, &options).await.unwrap().digest);
        }
        assert!(
            digests.iter().all(|digest| *digest == digests[0]),
            "{format:?} {min_chunk_size} {digests:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lossless_conversion_keeps_diff_ids_and_configuration() {
    let work = TempDir::new().unwrap();
    // It has a landmark and a name twice, which a lossless conversion keeps.
    let source = write_image(&work.path().join("source"), &layers());
    let target = layout_ref(&work.path().join("target"), "it");
    let mut options = options(Format::EstargzExternalToc);
    options.layer.lossless = true;
    to(&source, &target, &options).await.unwrap();
    let ids = async |image: &ImageRef| {
        let image = Image::open(image, &open()).await.unwrap();
        (image.config.clone().unwrap().digest, image.config().await.unwrap().0.rootfs.diff_ids)
    };
    assert_eq!(ids(&target).await, ids(&source).await);
    assert_eq!(lies(&verify(&target).await), [""; 0]);
    options.hot.add_everywhere([Wanted::Path("a".to_owned())]);
    let other = layout_ref(&work.path().join("target"), "other");
    let refused = to(&source, &other, &options).await.unwrap_err().to_string();
    assert!(refused.contains("keeps its DiffID"), "{refused}");
}
