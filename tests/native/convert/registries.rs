//! What is not sent twice, and what a registry that fails is left with.

use std::fs;

use lazystar::convert::{ConvertOptions, Outcome};
use lazystar::image::Image;
use lazystar::reference::ImageRef;
use lazystar_core::write::Format;
use lazystar_tests::fault_registry::{Fault, FaultRegistry};
use lazystar_tests::layers::{file, noise};
use lazystar_tests::push_registry::{PushFault, PushRegistry};
use tempfile::TempDir;

use super::{OCI, layers, layout_ref, lies, open, options, outcomes, tar, to, verify, write_image};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_converted_or_sent_twice() {
    let work = TempDir::new().unwrap();
    let source = write_image(&work.path().join("source"), &layers());
    let registry = PushRegistry::start().await.unwrap();
    let records = Some(work.path().join("records"));
    let options = ConvertOptions { records, ..options(Format::Estargz) };
    let target = |name: &str| format!("{}/{name}", registry.host()).parse::<ImageRef>().unwrap();
    let first = to(&source, &target("one:a"), &options).await.unwrap();
    assert_eq!(outcomes(&first), [Outcome::Converted; 3]);
    assert_eq!(lies(&verify(&target("one:a")).await), [""; 0]);
    let _ = registry.take_log();

    let again = to(&source, &target("one:b"), &options).await.unwrap();
    assert_eq!(outcomes(&again), [Outcome::Known; 3]);
    assert_eq!(again.digest, first.digest);
    let log = registry.take_log();
    assert!(!log.iter().any(|line| line.starts_with("PATCH")), "{log:?}");
    // The tag comes last.
    assert!(log.last().unwrap().contains("PUT /v2/one/manifests/b"), "{log:?}");

    // Another repository takes the blobs from there.
    let other = to(&source, &target("two:a"), &options).await.unwrap();
    assert_eq!(outcomes(&other), [Outcome::Known; 3]);
    let log = registry.take_log();
    assert_eq!(log.iter().filter(|line| line.contains("mount=")).count(), 3, "{log:?}");
    assert!(log.iter().filter(|line| line.starts_with("PATCH")).count() <= 1, "{log:?}");

    // Lazy layers stay what they are, and are taken over as well.
    let plain = ConvertOptions { records: None, ..options };
    let moved = to(&target("two:a"), &target("three:a"), &plain).await.unwrap();
    assert_eq!(outcomes(&moved), [Outcome::Lazy; 3]);
    assert_eq!(moved.digest, first.digest);
    let log = registry.take_log();
    assert_eq!(log.iter().filter(|line| line.contains("mount=")).count(), 3, "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_gets_the_rest_and_no_tag_before() {
    let work = TempDir::new().unwrap();
    let big = tar(&[file("big", noise(24 << 20, 5))]);
    let mut all = layers();
    all.push((big.clone(), "tar", big));
    let source = write_image(&work.path().join("source"), &all);
    let registry = PushRegistry::start().await.unwrap();
    let target: ImageRef = format!("{}/it:a", registry.host()).parse().unwrap();
    let records = Some(work.path().join("records"));
    let options = ConvertOptions { records, ..options(Format::Estargz) };

    registry.set(PushFault::Denied);
    let denied = to(&source, &target, &options).await.unwrap_err().to_string();
    assert!(denied.contains("docker login"), "{denied}");
    registry.set(PushFault::PiecesFrom(4));
    let failed = to(&source, &target, &options).await.unwrap_err().to_string();
    assert!(failed.contains("layer 4 of 4") && failed.contains("500"), "{failed}");
    assert!(registry.manifest("it", "a").is_none());

    // What was sent is there, and goes on from there; a piece that broke off as well.
    registry.set(PushFault::HalfAPiece(2));
    let report = to(&source, &target, &options).await.unwrap();
    let [.., last] = &outcomes(&report)[..] else { panic!("it has layers") };
    assert_eq!(*last, Outcome::Converted);
    assert_eq!(outcomes(&report)[..3], [Outcome::Known; 3]);
    assert_eq!(lies(&verify(&target).await), [""; 0]);

    // A manifest that is not taken moves no tag.
    let before = registry.manifest("it", "a");
    registry.set(PushFault::Manifests);
    let mut other = options.clone();
    other.layer.chunk_size = 10_000;
    let refused = to(&source, &target, &other).await.unwrap_err().to_string();
    assert!(refused.contains("not like this"), "{refused}");
    assert_eq!(registry.manifest("it", "a"), before);
}

/// The other way round: a source that breaks off is asked again, and given up when that does not help.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_breaks_off_leaves_nothing_by_halves() {
    let work = TempDir::new().unwrap();
    let dir = work.path().join("source");
    let source = write_image(&dir, &layers());
    let image = Image::open(&source, &open()).await.unwrap();
    let registry = FaultRegistry::start(Fault::Ok).await.unwrap();
    let manifest = image.documents[0].1.clone();
    registry.add_manifest("a", &format!("{OCI}.manifest.v1+json"), manifest);
    for blob in fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        registry.add_blob(fs::read(blob.unwrap().path()).unwrap().into());
    }
    let from: ImageRef = format!("{}/team/app:a", registry.address()).parse().unwrap();
    let target = layout_ref(&work.path().join("target"), "it");
    registry.set(Fault::CutsShort);
    let failed = to(&from, &target, &options(Format::Estargz)).await.unwrap_err().to_string();
    assert!(failed.contains(&registry.address().to_string()), "{failed}");
    assert!(!work.path().join("target/index.json").exists());
    registry.set(Fault::CutsOnce);
    to(&from, &target, &options(Format::Estargz)).await.unwrap();
    assert_eq!(lies(&verify(&target).await), [""; 0]);
}
