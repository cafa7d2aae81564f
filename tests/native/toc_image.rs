//! External TOCs are found beside the image.

use bytes::Bytes;
use lazystar::image::{Image, ImageError, OpenOptions};
use lazystar::keychain::Keychain;
use lazystar::oci::media;
use lazystar::source::FetchError;
use lazystar_core::Digest;
use lazystar_tests::fault_registry::{Fault, FaultRegistry};

use crate::sample::{self, Sample};

fn packed(name: &str, toc: &[u8]) -> Bytes {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(toc.len() as u64);
    header.set_mode(0o444);
    tar.append_data(&mut header, name, toc).unwrap();
    let tar = tar.into_inner().unwrap();
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut packed = vec![0; compressor.gzip_compress_bound(tar.len())];
    let length = compressor.gzip_compress(&tar, &mut packed).unwrap();
    packed.truncate(length);
    packed.into()
}

fn described(layer: &Bytes, toc: &Bytes) -> serde_json::Value {
    let mut descriptor = sample::descriptor(media::OCI_LAYER_GZIP, toc);
    descriptor["annotations"] = serde_json::json!({ "containerd.io/snapshot/stargz/layer.digest": Digest::of(layer).to_string() });
    descriptor
}

#[tokio::test]
async fn a_layer_finds_its_toc() {
    let sample = Sample::new();
    let toc = br#"{"version":1,"entries":[]}"#;
    let (good, bad) = (packed("stargz.index.json", toc), packed("else", b"x"));
    let layers = [described(&sample.layers[0], &good), described(&sample.layers[1], &bad)];
    let manifest = sample::manifest(b"{}", &layers);
    let options = OpenOptions {
        client: crate::client(Keychain::Anonymous),
        platform: "linux/riscv64".parse().unwrap(),
        ..OpenOptions::default()
    };

    let registry = FaultRegistry::start(Fault::Ok).await.unwrap();
    sample.push(&registry, "v1");
    for blob in [&good, &bad] {
        registry.add_blob(blob.clone());
    }
    let dir = tempfile::tempdir().unwrap();
    sample.write(dir.path(), "v1");
    for blob in [&good, &bad, &manifest] {
        sample::write_blob(dir.path(), blob);
    }
    sample::write_index(
        dir.path(),
        &[("v1", media::OCI_INDEX, &sample.index), ("v1-esgztoc", media::OCI_MANIFEST, &manifest)],
    );
    for reference in
        [format!("{}/team/app:v1", registry.address()), format!("oci:{}:v1", dir.path().display())]
    {
        let image = Image::open(&reference.parse().unwrap(), &options).await.unwrap();
        let [first, second] = [0, 1].map(|at| image.layers[at].descriptor.digest);
        if !reference.starts_with("oci:") {
            let none = image.external_toc(first).await.unwrap_err();
            assert!(matches!(none, ImageError::Fetch(FetchError::NotFound { .. })), "{none}");
            registry.add_manifest("v1-esgztoc", media::OCI_MANIFEST, manifest.clone());
        }
        assert_eq!(image.external_toc(first).await.unwrap(), &toc[..]);
        let unusable = image.external_toc(second).await.unwrap_err().to_string();
        assert!(unusable.contains("stargz.index.json"), "{unusable}");
        let unknown = image.external_toc(Digest::of(b"unknown")).await.unwrap_err();
        assert!(matches!(unknown, ImageError::ExternalToc { .. }), "{unknown}");
    }
}
