//! Manifests, indexes and configurations: what has to change in them changes, the rest stays.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use lazystar_core::Digest;
use lazystar_core::footer::Compression;
use serde_json::{Value, json};

use super::destination::Destination;
use super::layer::{Converted, is_about_toc};
use super::{Conversion, ConvertError, ConvertedImage, ConvertedLayer, Flavour, Outcome};
use crate::image::TOC_LAYER;
use crate::oci::{
    Descriptor, Document, DocumentError, ImageConfig, Index, MAX_INDEXES, Manifest, media,
};
use crate::open::TOC_DIGEST;

/// Layers that are converted at the same time. Each keeps all cores busy except at its ends.
const LAYERS_AT_ONCE: usize = 2;
/// What BuildKit calls a manifest that says something about another one, and which that is.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// A document of the new image.
pub(super) struct Written {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Bytes,
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, ConvertError>> + 'a>>;

impl Conversion<'_> {
    /// Converts the document at `descriptor` and everything below it. It is not put anywhere yet.
    pub(super) fn document<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        bytes: Bytes,
        depth: usize,
    ) -> Boxed<'a, Written> {
        Box::pin(async move {
            match Document::parse(&bytes, &descriptor.media_type)? {
                Document::Index(_) if depth > MAX_INDEXES => Err(ConvertError::Nested),
                Document::Index(index) => self.index(descriptor, &bytes, &index, depth).await,
                Document::Manifest(manifest) => self.manifest(descriptor, bytes, &manifest).await,
            }
        })
    }

    async fn index(
        &self,
        descriptor: &Descriptor,
        bytes: &Bytes,
        index: &Index,
        depth: usize,
    ) -> Result<Written, ConvertError> {
        let mut value = value("index", bytes)?;
        let entries = value["manifests"].as_array().cloned().unwrap_or_default();
        let is_about = |entry: &Descriptor| entry.annotations.get(REFERENCE_DIGEST).cloned();
        let chosen = if self.options.all_platforms {
            None
        } else {
            Some(self.open.platform.choose(index)?.digest)
        };
        let wanted = |entry: &Descriptor| match (chosen, is_about(entry)) {
            (None, _) => true,
            (Some(chosen), Some(about)) => about == chosen.to_string(),
            (Some(chosen), None) => entry.digest == chosen,
        };
        let mut renamed = BTreeMap::new();
        let mut kept = Vec::new();
        for (entry, value) in index.manifests.iter().zip(entries) {
            if !wanted(entry) {
                continue;
            }
            let bytes = self.source.document(entry).await?;
            let written = if is_attestation(entry) {
                self.pass(entry, bytes).await?
            } else {
                self.document(entry, bytes, depth + 1).await?
            };
            renamed.insert(entry.digest.to_string(), written.descriptor.digest.to_string());
            kept.push((value, written));
        }
        if chosen.is_some() && kept.len() == 1 {
            return kept.pop().map(|(_, written)| written).ok_or(ConvertError::Empty);
        }
        let mut manifests = Vec::new();
        for (mut entry, written) in kept {
            self.destination.put_document(&written.descriptor, &written.bytes).await?;
            point(&mut entry, &written.descriptor);
            if let Some(about) = entry["annotations"][REFERENCE_DIGEST].as_str()
                && let Some(new) = renamed.get(about)
            {
                entry["annotations"][REFERENCE_DIGEST] = new.as_str().into();
            }
            manifests.push(entry);
        }
        value["manifests"] = manifests.into();
        let media_type =
            self.of_flavour(&descriptor.media_type, media::OCI_INDEX, media::DOCKER_INDEX);
        Ok(self.written(value, media_type))
    }

    /// Something that is no image with layers: it stays what it is.
    async fn pass(&self, descriptor: &Descriptor, bytes: Bytes) -> Result<Written, ConvertError> {
        if let Document::Manifest(manifest) = Document::parse(&bytes, &descriptor.media_type)? {
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                if blob.urls.is_empty() && !media::is_foreign(&blob.media_type) {
                    self.copy(blob).await?;
                }
            }
        }
        let descriptor =
            Descriptor { annotations: BTreeMap::new(), platform: None, ..descriptor.clone() };
        Ok(Written { descriptor, bytes })
    }

    async fn manifest(
        &self,
        descriptor: &Descriptor,
        bytes: Bytes,
        manifest: &Manifest,
    ) -> Result<Written, ConvertError> {
        let is_image = media::is_config(&manifest.config.media_type)
            && manifest.layers.iter().all(|layer| media::is_layer(&layer.media_type));
        if !is_image {
            return self.pass(descriptor, bytes).await;
        }
        let config = self.source.config(&manifest.config).await?;
        let parsed = ImageConfig::parse(&config)?;
        let (count, diff_ids) = (manifest.layers.len(), parsed.rootfs.diff_ids);
        if diff_ids.len() != count {
            let diff_ids = diff_ids.len();
            return Err(DocumentError::LayerCount { diff_ids, layers: count }.into());
        }
        let converted = manifest.layers.iter().zip(&diff_ids).enumerate();
        let converted = converted.map(|(at, (layer, diff_id))| async move {
            if media::is_foreign(&layer.media_type) || !layer.urls.is_empty() {
                return Ok(foreign(layer, *diff_id));
            }
            let alone = !self.options.all_platforms;
            let hot = self.options.hot.of(descriptor.digest, at, alone);
            self.layer(layer, *diff_id, hot).await.map_err(|cause| ConvertError::Layer {
                number: at + 1,
                count,
                digest: layer.digest,
                cause: Arc::new(cause),
            })
        });
        let converted: Vec<Converted> =
            stream::iter(converted).buffered(LAYERS_AT_ONCE).try_collect().await?;

        let new_ids: Vec<Digest> = converted.iter().map(|layer| layer.diff_id).collect();
        let config = if new_ids == diff_ids {
            config
        } else {
            let mut config = value("image configuration", &config)?;
            let ids = new_ids.iter().map(ToString::to_string).collect::<Vec<_>>();
            config["rootfs"]["diff_ids"] = ids.into();
            config.to_string().into()
        };
        let config_digest = self.destination.put_blob(&config).await?;
        let mut value = value("manifest", &bytes)?;
        let config_type =
            self.of_flavour(&manifest.config.media_type, media::OCI_CONFIG, media::DOCKER_CONFIG);
        value["config"]["mediaType"] = config_type.into();
        value["config"]["digest"] = config_digest.to_string().into();
        value["config"]["size"] = config.len().into();
        for (at, (layer, converted)) in manifest.layers.iter().zip(&converted).enumerate() {
            self.describe(&mut value["layers"][at], layer, converted);
        }
        let media_type =
            self.of_flavour(&descriptor.media_type, media::OCI_MANIFEST, media::DOCKER_MANIFEST);
        let written = self.written(value, media_type);
        let (os, architecture) = (&parsed.os, &parsed.architecture);
        crate::lock::lock(&self.images).push(ConvertedImage {
            platform: format!("{os}/{architecture}"),
            source_digest: descriptor.digest.to_string(),
            digest: written.descriptor.digest.to_string(),
            layers: manifest.layers.iter().zip(converted).map(report).collect(),
        });
        Ok(written)
    }

    /// Makes the descriptor of a layer that of what it was converted to.
    fn describe(&self, value: &mut Value, layer: &Descriptor, converted: &Converted) {
        if converted.outcome == Outcome::Foreign {
            return;
        }
        let docker = match self.flavour {
            Some(flavour) => flavour == Flavour::Docker,
            None => layer.media_type.starts_with("application/vnd.docker."),
        };
        let gzip = self.options.layer.format.compression() == Compression::Gzip;
        value["mediaType"] = match (docker, gzip) {
            (true, true) => media::DOCKER_LAYER_GZIP,
            (true, false) => media::DOCKER_LAYER_ZSTD,
            (false, true) => media::OCI_LAYER_GZIP,
            (false, false) => media::OCI_LAYER_ZSTD,
        }
        .into();
        value["digest"] = converted.digest.to_string().into();
        value["size"] = converted.size.into();
        let mut annotations = value["annotations"].as_object().cloned().unwrap_or_default();
        annotations.retain(|name, _| !is_about_toc(name));
        for (name, text) in &converted.annotations {
            annotations.insert(name.clone(), text.as_str().into());
        }
        value["annotations"] = annotations.into();
    }

    /// Which of the two media types, for something that has `now`.
    fn of_flavour<'t>(&self, now: &'t str, oci: &'t str, docker: &'t str) -> &'t str {
        match self.flavour {
            Some(Flavour::Oci) => oci,
            Some(Flavour::Docker) => docker,
            None => now,
        }
    }

    fn written(&self, mut value: Value, media_type: &str) -> Written {
        // An OCI document may leave it out, and then it is told beside it.
        if value.get("mediaType").is_some() || self.flavour.is_some() {
            value["mediaType"] = media_type.into();
        }
        let bytes = Bytes::from(value.to_string());
        let descriptor = Descriptor::of(media_type, &bytes);
        Written { descriptor, bytes }
    }

    /// Writes the image with the external TOCs of all layers; gives its digest.
    pub(super) async fn write_tocs(&self, tocs: Destination) -> Result<Digest, ConvertError> {
        let mut blobs = BTreeMap::new();
        let slots: Vec<_> = crate::lock::lock(&self.layers).values().cloned().collect();
        for converted in slots.iter().filter_map(|slot| slot.get()) {
            if let Some(toc) = &converted.toc {
                blobs.insert(converted.digest, Bytes::from(toc.clone()));
            }
        }
        let mut layers = Vec::new();
        for (layer, toc) in blobs {
            tocs.put_blob(&toc).await?;
            let mut descriptor = Descriptor::of(media::OCI_LAYER_GZIP, &toc);
            descriptor.annotations.insert(TOC_LAYER.to_owned(), layer.to_string());
            layers.push(descriptor);
        }
        let config =
            json!({ "architecture": "", "os": "", "rootfs": { "type": "", "diff_ids": null } });
        let config = Bytes::from(config.to_string());
        tocs.put_blob(&config).await?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "config": Descriptor::of(media::OCI_CONFIG, &config),
            "layers": layers,
        });
        let written = self.written(manifest, media::OCI_MANIFEST);
        tocs.put_tagged(&written.descriptor, &written.bytes).await?;
        Ok(written.descriptor.digest)
    }
}

fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.get(REFERENCE_TYPE).is_some_and(|it| it == "attestation-manifest")
}

fn foreign(layer: &Descriptor, diff_id: Digest) -> Converted {
    Converted {
        outcome: Outcome::Foreign,
        digest: layer.digest,
        size: layer.size,
        diff_id,
        annotations: layer.annotations.clone(),
        toc: None,
        missing: 0,
        seconds: 0.0,
    }
}

fn report((layer, converted): (&Descriptor, Converted)) -> ConvertedLayer {
    ConvertedLayer {
        outcome: converted.outcome,
        source_digest: layer.digest.to_string(),
        source_size: layer.size,
        digest: converted.digest.to_string(),
        size: converted.size,
        diff_id: converted.diff_id.to_string(),
        toc_digest: converted.annotations.get(TOC_DIGEST).cloned(),
        missing: converted.missing,
        seconds: converted.seconds,
    }
}

/// Makes an entry of an index point at what it became.
fn point(entry: &mut Value, to: &Descriptor) {
    entry["mediaType"] = to.media_type.as_str().into();
    entry["digest"] = to.digest.to_string().into();
    entry["size"] = to.size.into();
}

fn value(what: &'static str, bytes: &[u8]) -> Result<Value, ConvertError> {
    let value = serde_json::from_slice(bytes);
    value.map_err(|cause| DocumentError::Malformed { what, cause }.into())
}
