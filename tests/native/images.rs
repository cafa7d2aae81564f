//! Images open from registries, layouts and files, with as few requests as can be.

use bytes::Bytes;
use lazystar::image::{Image, ImageError, OpenOptions};
use lazystar::keychain::Keychain;
use lazystar::oci::{DocumentError, media};
use lazystar::source::FetchError;
use lazystar_core::Digest;
use lazystar_tests::fault_registry::{Counts, Fault, FaultRegistry};

use crate::sample::{self, Sample};

fn options() -> OpenOptions {
    OpenOptions {
        client: crate::client(Keychain::Anonymous),
        platform: "linux/riscv64".parse().unwrap(),
        ..OpenOptions::default()
    }
}

async fn check(image: &Image, sample: &Sample) {
    assert_eq!(image.manifest_digest, Some(Digest::of(&sample.manifest)));
    assert_eq!(image.documents.last().unwrap().1, sample.manifest);
    let (config, config_bytes) = image.config().await.unwrap();
    assert_eq!(config_bytes, sample.config);
    assert_eq!(config.config.env, ["A=b"]);
    assert_eq!((config.config.entrypoint.len(), config.config.user.as_str()), (0, "7"));
    assert_eq!((image.layers.len(), config.rootfs.diff_ids.len()), (2, 2));
    for ((layer, bytes), diff_id) in
        image.layers.iter().zip(&sample.layers).zip(&config.rootfs.diff_ids)
    {
        assert_eq!(layer.descriptor.digest, Digest::of(bytes));
        assert_eq!(*diff_id, Digest::of(&bytes[1..]));
        assert_eq!(layer.blob.fetch_all(10..500).await.unwrap(), bytes[10..500]);
    }
}

#[tokio::test]
async fn from_a_registry() {
    let sample = Sample::new();
    for fault in [
        Fault::Ok,
        Fault::BearerAnonymous,
        Fault::Redirect,
        Fault::BearerRedirect,
        Fault::CutsOnce,
        Fault::Slow,
    ] {
        let registry = FaultRegistry::start(fault).await.unwrap();
        sample.push(&registry, "v1");
        let reference = format!("{}/team/app:v1", registry.address()).parse().unwrap();
        let image = Image::open(&reference, &options())
            .await
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        check(&image, &sample).await;
        assert_eq!(registry.counts().leaked, 0);
    }
}

#[tokio::test]
async fn from_a_layout() {
    let sample = Sample::new();
    let dir = tempfile::tempdir().unwrap();
    sample.write(dir.path(), "v1");
    for reference in
        [format!("oci:{}", dir.path().display()), format!("oci:{}:v1", dir.path().display())]
    {
        check(&Image::open(&reference.parse().unwrap(), &options()).await.unwrap(), &sample).await;
    }
    let unknown = format!("oci:{}:v2", dir.path().display()).parse().unwrap();
    let error = Image::open(&unknown, &options()).await.unwrap_err().to_string();
    assert!(error.contains("v2") && error.contains("v1"), "{error}");
    // A document that was changed is noticed.
    let config = dir.path().join("blobs/sha256").join(Digest::of(&sample.config).hex());
    let mut forged = sample.config.to_vec();
    forged[20] ^= 1;
    std::fs::write(config, forged).unwrap();
    let reference = format!("oci:{}", dir.path().display()).parse().unwrap();
    let image = Image::open(&reference, &options()).await.unwrap();
    let error = image.config().await.unwrap_err();
    assert!(matches!(error, ImageError::Document(DocumentError::DigestMismatch { .. })), "{error}");
}

#[tokio::test]
async fn from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layer");
    std::fs::write(&path, [0x1f, 0x8b, 8, 0, 0]).unwrap();
    let reference = format!("file:{}", path.display()).parse().unwrap();
    let image = Image::open(&reference, &options()).await.unwrap();
    let [layer] = &image.layers[..] else { panic!("{image:?}") };
    assert_eq!((layer.descriptor.size, &*layer.descriptor.media_type), (5, media::OCI_LAYER_GZIP));
    let before = layer.descriptor.digest;
    assert_eq!(
        Image::open(&reference, &options()).await.unwrap().layers[0].descriptor.digest,
        before
    );
    std::fs::write(&path, [0x1f, 0x8b, 8, 0, 1]).unwrap();
    assert_ne!(
        Image::open(&reference, &options()).await.unwrap().layers[0].descriptor.digest,
        before
    );
}

#[tokio::test]
async fn a_known_image_costs_one_request_or_none() {
    let (sample, store) = (Sample::new(), tempfile::tempdir().unwrap());
    let registry = FaultRegistry::start(Fault::Ok).await.unwrap();
    sample.push(&registry, "v1");
    let options = OpenOptions { manifests: Some(store.path().to_owned()), ..options() };
    let by_tag = format!("{}/team/app:v1", registry.address()).parse().unwrap();
    let by_digest =
        format!("{}/team/app@{}", registry.address(), Digest::of(&sample.index)).parse().unwrap();
    let requests = async |reference, fault| {
        registry.reset();
        registry.set(fault);
        let opened = async { Image::open(reference, &options).await?.config().await };
        (opened.await.map(drop), registry.counts().registry)
    };
    assert!(matches!(requests(&by_tag, Fault::Ok).await, (Ok(()), 3)));
    assert!(matches!(requests(&by_tag, Fault::Ok).await, (Ok(()), 1)));
    assert!(matches!(requests(&by_digest, Fault::Ok).await, (Ok(()), 0)));
    assert!(matches!(requests(&by_tag, Fault::NoHead).await, (Ok(()), 2)));
    // A registry that is away does not matter; one that says no does.
    assert!(matches!(requests(&by_tag, Fault::Always(503)).await, (Ok(()), 2)));
    assert!(matches!(requests(&by_tag, Fault::Silent).await, (Ok(()), 2)));
    let (denied, _) = requests(&by_tag, Fault::Unauthorized).await;
    assert!(matches!(denied, Err(ImageError::Fetch(FetchError::Denied { .. }))));
    let (gone, _) = requests(&by_tag, Fault::NotFound).await;
    assert!(matches!(gone, Err(ImageError::Fetch(FetchError::NotFound { .. }))));
    // A damaged file is fetched again; a tag that moved is followed.
    let kept = store.path().join("blobs/sha256").join(Digest::of(&sample.manifest).hex());
    std::fs::write(&kept, "damaged").unwrap();
    assert!(matches!(requests(&by_digest, Fault::Ok).await, (Ok(()), 1)));
    registry.add_manifest("v1", media::OCI_MANIFEST, sample.manifest.clone());
    assert!(matches!(requests(&by_tag, Fault::Ok).await, (Ok(()), 1)));
    assert!(matches!(requests(&by_tag, Fault::Always(503)).await, (Ok(()), _)));
    let names = std::fs::read_dir(store.path().join("blobs/sha256")).unwrap();
    assert!(names.flatten().all(|name| name.file_name().len() == 64));
}

#[tokio::test]
async fn a_stopped_registry_does_not_matter_either() {
    let (sample, store) = (Sample::new(), tempfile::tempdir().unwrap());
    let registry = FaultRegistry::start(Fault::Ok).await.unwrap();
    sample.push(&registry, "v1");
    let reference = format!("{}/team/app:v1", registry.address()).parse().unwrap();
    let open = async || {
        let options = OpenOptions { manifests: Some(store.path().to_owned()), ..options() };
        Image::open(&reference, &options).await?.config().await
    };
    open().await.unwrap();
    registry.stop();
    open().await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let sample = Sample::new();
    let registry = FaultRegistry::start(Fault::Ok).await.unwrap();
    sample.push(&registry, "v1");
    let open = async |name: &str, options: &OpenOptions| {
        let reference = format!("{}/team/app{name}", registry.address()).parse().unwrap();
        Image::open(&reference, options).await?.config().await
    };
    let forged = Digest::of(b"another");
    registry.add_manifest(&forged.to_string(), media::OCI_MANIFEST, sample.manifest.clone());
    let error = open(&format!("@{forged}"), &options()).await.unwrap_err();
    assert!(matches!(error, ImageError::Document(DocumentError::DigestMismatch { .. })), "{error}");
    registry.add_manifest("huge", media::OCI_MANIFEST, Bytes::from(vec![b' '; 5 << 20]));
    let error = open(":huge", &options()).await.unwrap_err();
    assert!(matches!(error, ImageError::Fetch(FetchError::Protocol { .. })), "{error}");
    let layers: Vec<_> =
        sample.layers[..1].iter().map(|layer| sample::descriptor("", layer)).collect();
    registry.add_manifest("short", media::OCI_MANIFEST, sample::manifest(&sample.config, &layers));
    let error = open(":short", &options()).await.unwrap_err();
    assert!(
        matches!(error, ImageError::Document(DocumentError::LayerCount { diff_ids: 2, layers: 1 })),
        "{error}"
    );
    let elsewhere = OpenOptions { platform: "linux/arm64".parse().unwrap(), ..options() };
    let error = open(":v1", &elsewhere).await.unwrap_err();
    assert!(matches!(error, ImageError::Document(DocumentError::NoPlatform { .. })), "{error}");
}

#[tokio::test]
async fn opening_fetches_no_more_than_the_manifest() {
    let sample = Sample::new();
    let registry = FaultRegistry::start(Fault::Ok).await.unwrap();
    sample.push(&registry, "v1");
    let reference = format!("{}/team/app:v1", registry.address()).parse().unwrap();
    let image = Image::open(&reference, &options()).await.unwrap();
    assert_eq!(registry.counts(), Counts { registry: 2, ..Counts::default() });
    assert_eq!(image.layers[1].blob.fetch_all(0..9).await.unwrap(), sample.layers[1][..9]);
    check(&image, &sample).await;
}
