//! OCI image layouts (OCI image specification, "Image Layout").

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lazystar_core::Digest;
use lazystar_core::write::Summary;
use serde_json::{Map, Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A layer whose blob is a file.
#[derive(Clone, Copy, Debug)]
pub struct LayerBlob<'a> {
    /// The blob.
    pub path: &'a Path,
    /// What was packed.
    pub summary: &'a Summary,
}

/// What a container of the image runs. Empty fields are left out.
#[derive(Clone, Debug, Default)]
pub struct ImageConfig {
    /// As OCI names it (`amd64`, `arm64`); this machine's if empty.
    pub architecture: String,
    /// `KEY=value` each.
    pub env: Vec<String>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// Directory in which it starts.
    pub working_dir: String,
    /// User (and group) as which it runs.
    pub user: String,
}

/// Why a layout could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A file cannot be read or written.
    #[error("cannot write the image layout: {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory has an `index.json` that is none.
    #[error("{path} is not an image index: {source}", path = path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Writes an image of `layers` (lowest first) to the OCI layout at `dir` and tags it. The layout is
/// created if there is none; other images in it stay, an image with this tag loses the tag. Gives the
/// manifest's digest.
///
/// # Errors
///
/// If a file cannot be read or written.
pub fn write_oci_layout(
    dir: &Path,
    layers: &[LayerBlob<'_>],
    config: &ImageConfig,
    tag: &str,
) -> Result<Digest, LayoutError> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(at(&blobs))?;
    for LayerBlob { path, summary } in layers {
        let blob = blobs.join(summary.blob_digest.hex());
        if !blob.exists() {
            let partial = partial(&blob);
            fs::copy(path, &partial).map_err(at(path))?;
            fs::rename(&partial, &blob).map_err(at(&blob))?;
        }
    }
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        write(&blobs.join(digest.hex()), bytes).map(|()| digest)
    };

    let config = image_config(layers, config).to_string();
    let config_digest = put(config.as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": CONFIG,
            "digest": config_digest.to_string(),
            "size": config.len(),
        },
        "layers": layers.iter().map(|layer| layer_descriptor(layer.summary)).collect::<Vec<_>>(),
    })
    .to_string();
    let digest = put(manifest.as_bytes())?;
    let descriptor = json!({
        "mediaType": MANIFEST,
        "digest": digest.to_string(),
        "size": manifest.len(),
        "annotations": { REF_NAME: tag },
    });

    write(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add_to_index(&dir.join("index.json"), descriptor, tag)?;
    Ok(digest)
}

/// The descriptor of a layer, with the annotations that make it lazily readable.
#[must_use]
pub fn layer_descriptor(summary: &Summary) -> Value {
    let annotations: Map<String, Value> =
        summary.annotations().into_iter().map(|(key, value)| (key, value.into())).collect();
    let mut descriptor = json!({
        "mediaType": summary.media_type(),
        "digest": summary.blob_digest.to_string(),
        "size": summary.blob_size,
    });
    if !annotations.is_empty() {
        descriptor["annotations"] = annotations.into();
    }
    descriptor
}

fn image_config(layers: &[LayerBlob<'_>], config: &ImageConfig) -> Value {
    let mut container = Map::new();
    for (key, values) in
        [("Env", &config.env), ("Entrypoint", &config.entrypoint), ("Cmd", &config.cmd)]
    {
        if !values.is_empty() {
            container.insert(key.to_owned(), json!(values));
        }
    }
    for (key, value) in [("WorkingDir", &config.working_dir), ("User", &config.user)] {
        if !value.is_empty() {
            container.insert(key.to_owned(), json!(value));
        }
    }
    let architecture = match config.architecture.as_str() {
        "" => this_architecture(),
        given => given,
    };
    let diff_ids: Vec<String> =
        layers.iter().map(|layer| layer.summary.diff_id.to_string()).collect();
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": container,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

/// The name that OCI uses (Go's).
fn this_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

fn add_to_index(path: &Path, descriptor: Value, tag: &str) -> Result<(), LayoutError> {
    let mut manifests: Vec<Value> = match fs::read(path) {
        Ok(bytes) => {
            let mut index: Value = serde_json::from_slice(&bytes)
                .map_err(|source| LayoutError::Index { path: path.to_path_buf(), source })?;
            match index.get_mut("manifests").map(Value::take) {
                Some(Value::Array(manifests)) => manifests,
                _ => Vec::new(),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(at(path)(source)),
    };
    manifests.retain(|manifest| manifest["annotations"][REF_NAME] != tag);
    manifests.push(descriptor);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    write(path, index.to_string().as_bytes())
}

/// Replaces a file as a whole: a reader sees the old or the new one.
fn write(path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
    let partial = partial(path);
    fs::write(&partial, bytes).map_err(at(&partial))?;
    fs::rename(&partial, path).map_err(at(path))
}

fn partial(path: &Path) -> PathBuf {
    path.with_extension(format!("partial-{}", std::process::id()))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LayoutError + use<'_> {
    move |source| LayoutError::Io { path: path.to_path_buf(), source }
}
