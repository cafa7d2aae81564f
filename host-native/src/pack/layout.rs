//! OCI image layouts (OCI image specification, "Image Layout").

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use lazystar_core::Digest;
use lazystar_core::write::Summary;
use serde_json::{Map, Value, json};

use crate::image::REF_NAME;
use crate::oci::{Descriptor, media};

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

/// An OCI layout that images are written to.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
    blobs: PathBuf,
}

impl Layout {
    /// The layout at `dir`, which is made if there is none.
    ///
    /// # Errors
    ///
    /// If its directories cannot be made.
    pub fn create(dir: &Path) -> Result<Self, LayoutError> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(at(&blobs))?;
        remove_leftovers(&blobs).map_err(at(&blobs))?;
        Ok(Self { dir: dir.to_owned(), blobs })
    }

    /// Where a blob is, or would be.
    #[must_use]
    pub fn blob(&self, digest: Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Whether it has a blob of that size.
    #[must_use]
    pub fn has(&self, digest: Digest, size: u64) -> bool {
        fs::metadata(self.blob(digest)).is_ok_and(|it| it.is_file() && it.len() == size)
    }

    /// A blob to be written whose digest is not known yet.
    ///
    /// # Errors
    ///
    /// If there cannot be a file for it.
    pub fn begin(&self) -> Result<NewBlob, LayoutError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = self.blobs.join(format!(".partial-{}-{number}", std::process::id()));
        let file = File::create(&path).map_err(at(&path))?;
        Ok(NewBlob { file, path, kept: false })
    }

    /// Writes a small blob.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, LayoutError> {
        let digest = Digest::of(bytes);
        write(&self.blob(digest), bytes).map(|()| digest)
    }

    /// Puts what `descriptor` points at under `tag`. Other images stay, one with this tag loses it.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or written.
    pub fn tag(&self, mut descriptor: Descriptor, tag: &str) -> Result<(), LayoutError> {
        // Whoever writes to it at the same time waits: the index is read, changed and written.
        let lock = File::open(&self.dir).and_then(|dir| dir.lock().map(|()| dir));
        let _lock = lock.map_err(at(&self.dir))?;
        descriptor.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        write(&self.dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add_to_index(&self.dir.join("index.json"), json!(descriptor), tag)
    }
}

/// Removes what processes left that were killed while they wrote blobs.
fn remove_leftovers(blobs: &Path) -> io::Result<()> {
    for file in fs::read_dir(blobs)? {
        let file = file?;
        let name = file.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(".partial-"));
        let process = process.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// A blob that is being written to a layout. What is not [kept](Self::keep) is removed.
#[derive(Debug)]
pub struct NewBlob {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl NewBlob {
    /// Gives it its place in the layout.
    ///
    /// # Errors
    ///
    /// If it cannot be moved there.
    pub fn keep(mut self, layout: &Layout, digest: Digest) -> Result<(), LayoutError> {
        // Without it, a machine that stops could leave a name without content.
        self.file.sync_data().map_err(at(&self.path))?;
        fs::rename(&self.path, layout.blob(digest)).map_err(at(&self.path))?;
        self.kept = true;
        Ok(())
    }
}

impl Write for NewBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewBlob {
    fn drop(&mut self) {
        if !self.kept {
            // What is there of it is of no use.
            let _ = fs::remove_file(&self.path);
        }
    }
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
    let layout = Layout::create(dir)?;
    for LayerBlob { path, summary } in layers {
        if !layout.has(summary.blob_digest, summary.blob_size) {
            let mut blob = layout.begin()?;
            let copied = File::open(path).and_then(|mut file| io::copy(&mut file, &mut blob));
            copied.map_err(at(path))?;
            blob.keep(&layout, summary.blob_digest)?;
        }
    }
    let config = image_config(layers, config).to_string();
    layout.put(config.as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_MANIFEST,
        "config": Descriptor::of(media::OCI_CONFIG, config.as_bytes()),
        "layers": layers.iter().map(|layer| layer_descriptor(layer.summary)).collect::<Vec<_>>(),
    })
    .to_string();
    let digest = layout.put(manifest.as_bytes())?;
    layout.tag(Descriptor::of(media::OCI_MANIFEST, manifest.as_bytes()), tag)?;
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
    let index =
        json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests });
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
