//! A small image, for a registry or an OCI layout.

use std::path::Path;

use bytes::Bytes;
use lazystar::oci::media;
use lazystar_core::Digest;
use lazystar_tests::fault_registry::FaultRegistry;

/// An image of two platforms whose layers are any bytes.
pub(crate) struct Sample {
    pub(crate) layers: [Bytes; 2],
    pub(crate) config: Bytes,
    pub(crate) manifest: Bytes,
    pub(crate) index: Bytes,
}

impl Sample {
    pub(crate) fn new() -> Self {
        let layers =
            [Bytes::from(vec![1; 1000]), (0..300_000).map(|at| (at % 253) as u8).collect()];
        let diff_ids: Vec<_> =
            layers.iter().map(|layer| Digest::of(&layer[1..]).to_string()).collect();
        let config = serde_json::json!({
            "os": "linux", "architecture": "riscv64",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": null,
            "config": { "Env": ["A=b"], "Cmd": ["/bin/sh"], "Entrypoint": null, "WorkingDir": "/w", "User": "7" },
        });
        let config = Bytes::from(config.to_string());
        let descriptors: Vec<_> =
            layers.iter().map(|layer| descriptor(media::OCI_LAYER_GZIP, layer)).collect();
        let manifest = manifest(&config, &descriptors);
        let mut entry = descriptor(media::OCI_MANIFEST, &manifest);
        entry["platform"] = serde_json::json!({ "os": "linux", "architecture": "riscv64" });
        let mut other = descriptor(media::OCI_MANIFEST, b"not there");
        other["platform"] = serde_json::json!({ "os": "linux", "architecture": "s390x" });
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [other, entry] });
        Self { layers, config, manifest, index: Bytes::from(index.to_string()) }
    }

    /// Puts the image into `registry` as `tag`.
    pub(crate) fn push(&self, registry: &FaultRegistry, tag: &str) {
        for blob in self.layers.iter().chain([&self.config]) {
            registry.add_blob(blob.clone());
        }
        registry.add_manifest("unused", media::OCI_MANIFEST, self.manifest.clone());
        registry.add_manifest(tag, media::OCI_INDEX, self.index.clone());
    }

    /// Writes the image into the layout `dir` as its only image, `tag`.
    pub(crate) fn write(&self, dir: &Path, tag: &str) {
        for blob in self.layers.iter().chain([&self.config, &self.manifest, &self.index]) {
            write_blob(dir, blob);
        }
        write_index(dir, &[(tag, media::OCI_INDEX, &self.index)]);
    }
}

pub(crate) fn manifest(config: &[u8], layers: &[serde_json::Value]) -> Bytes {
    let config = descriptor(media::OCI_CONFIG, config);
    let manifest = serde_json::json!({ "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": config, "layers": layers });
    Bytes::from(manifest.to_string())
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({ "mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len() })
}

pub(crate) fn write_blob(dir: &Path, bytes: &[u8]) {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
}

pub(crate) fn write_index(dir: &Path, images: &[(&str, &str, &[u8])]) {
    let entries: Vec<_> = images
        .iter()
        .map(|(tag, media_type, bytes)| {
            let mut entry = descriptor(media_type, bytes);
            entry["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": tag });
            entry
        })
        .collect();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
}
