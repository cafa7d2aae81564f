//! Archives of `docker save`: a tar with `manifest.json`, and since Docker 25 an OCI layout as well.
//!
//! Layers are read where they lie in the archive. Of one without a layout a manifest is made up.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lazystar_core::Digest;
use lazystar_core::write::clean;
use serde::Deserialize;
use serde_json::json;

use super::ImageError;
use super::layout::REF_NAME;
use crate::oci::{Descriptor, ImageConfig, Index, MAX_CONFIG, MAX_MANIFEST, check_digest, media};
use crate::source::Blob;

/// What Docker calls an image in an archive with a layout; `ref.name` is the tag alone there.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// An image in an archive.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    /// What is known of it by digest: where in the file, and what was made up.
    parts: BTreeMap<Digest, Range<u64>>,
    made: BTreeMap<Digest, Bytes>,
    top: (Digest, Bytes, String),
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    pub(super) fn open(path: &Path, name: Option<&str>) -> Result<Self, ImageError> {
        let archive = Reader { path, file: File::open(path).map_err(|why| fail(path, why))? };
        let files = archive.files()?;
        match files.get("index.json") {
            Some(index) => archive.layout(&files, &archive.read(index, MAX_MANIFEST)?, name),
            None => match files.get("manifest.json") {
                Some(saved) => archive.saved(&files, &archive.read(saved, MAX_MANIFEST)?, name),
                None => Err(fail(path, "it has neither manifest.json nor index.json")),
            },
        }
    }

    pub(super) fn top(&self) -> (Digest, Bytes, String) {
        self.top.clone()
    }

    pub(super) async fn document(
        &self,
        what: &'static str,
        descriptor: &Descriptor,
    ) -> Result<Bytes, ImageError> {
        let bytes = self.blob(descriptor)?.fetch_all(0..descriptor.size).await?;
        check_digest(what, &bytes, descriptor.digest)?;
        Ok(bytes)
    }

    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Blob, ImageError> {
        let digest = descriptor.digest;
        let found = self.find(digest)?;
        let blob = found.ok_or_else(|| fail(&self.path, format!("it has no blob {digest}")))?;
        if blob.size() != Some(descriptor.size) {
            let why = format!("blob {digest} has not the size that the image says");
            return Err(fail(&self.path, why));
        }
        Ok(blob)
    }

    /// What has `digest`, if it is there.
    pub(super) fn find(&self, digest: Digest) -> Result<Option<Blob>, ImageError> {
        let name = || self.path.display().to_string();
        let made = [(&self.top.0, &self.top.1)].into_iter().chain(&self.made);
        if let Some((_, bytes)) = made.into_iter().find(|(known, _)| **known == digest) {
            return Ok(Some(Blob::memory(&name(), bytes.clone())));
        }
        let part = self.parts.get(&digest);
        Ok(part.map(|part| Blob::file_part(&self.path, part.clone())).transpose()?)
    }
}

struct Reader<'a> {
    path: &'a Path,
    file: File,
}

type Files = BTreeMap<String, Range<u64>>;

impl Reader<'_> {
    /// Where each file is; links to files are those files.
    fn files(&self) -> Result<Files, ImageError> {
        let mut archive = tar::Archive::new(&self.file);
        let mut files = Files::new();
        let mut links = Vec::new();
        let not_tar = |error: io::Error| {
            fail(self.path, format!("{error}; a compressed archive has to be decompressed first"))
        };
        for entry in archive.entries_with_seek().map_err(not_tar)? {
            let entry = entry.map_err(not_tar)?;
            let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let start = entry.raw_file_position();
                files.insert(name, start..start + entry.size());
            } else if let Some(target) = entry.link_name_bytes() {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                let base = if kind.is_symlink() { parent } else { "" };
                let target = clean(&format!("{base}/{}", String::from_utf8_lossy(&target)));
                links.push((name, target));
            }
        }
        for (name, target) in links {
            if let Some(file) = files.get(&target).cloned() {
                files.insert(name, file);
            }
        }
        Ok(files)
    }

    fn read(&self, part: &Range<u64>, limit: u64) -> Result<Bytes, ImageError> {
        let length = part.end - part.start;
        if length > limit {
            return Err(fail(self.path, format!("a document in it has {length} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, part.start).map_err(|why| fail(self.path, why))?;
        Ok(bytes.into())
    }

    /// An archive that holds an OCI layout.
    fn layout(
        &self,
        files: &Files,
        index: &[u8],
        name: Option<&str>,
    ) -> Result<Archive, ImageError> {
        let index: Index = serde_json::from_slice(index)
            .map_err(|why| fail(self.path, format!("index.json: {why}")))?;
        let names = |entry: &Descriptor| {
            [IMAGE_NAME, REF_NAME]
                .map(|key| entry.annotations.get(key).cloned())
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        };
        let entry = self.choose(&index.manifests, names, name)?;
        let parts = files.iter().filter_map(|(path, part)| {
            let hex = path.strip_prefix("blobs/sha256/")?;
            Some((format!("sha256:{hex}").parse().ok()?, part.clone()))
        });
        let parts: BTreeMap<Digest, _> = parts.collect();
        let part = parts.get(&entry.digest);
        let part = part.ok_or_else(|| fail(self.path, format!("it has no {}", entry.digest)))?;
        let bytes = self.read(part, MAX_MANIFEST)?;
        check_digest("manifest", &bytes, entry.digest)?;
        let top = (entry.digest, bytes, entry.media_type.clone());
        Ok(Archive { path: self.path.to_owned(), parts, made: BTreeMap::new(), top })
    }

    /// An archive of before: configuration and layers by name.
    fn saved(
        &self,
        files: &Files,
        saved: &[u8],
        name: Option<&str>,
    ) -> Result<Archive, ImageError> {
        let saved: Vec<Saved> = serde_json::from_slice(saved)
            .map_err(|why| fail(self.path, format!("manifest.json: {why}")))?;
        let tags = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
        let image = self.choose(&saved, tags, name)?;
        let find = |name: &str| {
            let file = files.get(&clean(name)).cloned();
            file.ok_or_else(|| fail(self.path, format!("it has no {name}")))
        };
        let config = self.read(&find(&image.config)?, MAX_CONFIG)?;
        let config_descriptor = Descriptor::of(media::DOCKER_CONFIG, &config);
        let diff_ids = ImageConfig::parse(&config)?.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() {
            let (diff_ids, layers) = (diff_ids.len(), image.layers.len());
            return Err(crate::oci::DocumentError::LayerCount { diff_ids, layers }.into());
        }
        let mut parts = BTreeMap::new();
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(diff_ids) {
            let part = find(name)?;
            let head = self.read(&(part.start..part.end.min(part.start + 4)), 4)?;
            let media_type = media::docker_of_layer(&head);
            let digest =
                if media_type == media::DOCKER_LAYER { diff_id } else { self.digest(&part)? };
            layers.push(json!({
                "mediaType": media_type,
                "digest": digest.to_string(),
                "size": part.end - part.start,
            }));
            parts.insert(digest, part);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::DOCKER_MANIFEST,
            "config": config_descriptor,
            "layers": layers,
        });
        let manifest = Bytes::from(manifest.to_string());
        let digest = Digest::of(&manifest);
        let top = (digest, manifest, media::DOCKER_MANIFEST.to_owned());
        let made = BTreeMap::from([(config_descriptor.digest, config)]);
        Ok(Archive { path: self.path.to_owned(), parts, made, top })
    }

    fn digest(&self, part: &Range<u64>) -> Result<Digest, ImageError> {
        let mut hasher = lazystar_core::digest::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        let mut at = part.start;
        while at < part.end {
            let step = usize::try_from(part.end - at).unwrap_or(usize::MAX).min(buffer.len());
            let piece = &mut buffer[..step];
            self.file.read_exact_at(piece, at).map_err(|why| fail(self.path, why))?;
            hasher.update(piece);
            at += step as u64;
        }
        Ok(hasher.finish())
    }

    /// The image that is `wanted`, or the only one.
    fn choose<'a, T>(
        &self,
        images: &'a [T],
        names: impl Fn(&T) -> Vec<String>,
        wanted: Option<&str>,
    ) -> Result<&'a T, ImageError> {
        let is_wanted =
            |image: &&T| wanted.is_none_or(|name| names(image).iter().any(|it| same(it, name)));
        let mut found = images.iter().filter(is_wanted);
        if let (Some(image), None) = (found.next(), found.next()) {
            return Ok(image);
        }
        let all: Vec<_> = images.iter().flat_map(&names).collect();
        let all = if all.is_empty() { "without names".to_owned() } else { all.join(", ") };
        Err(fail(
            self.path,
            match wanted {
                Some(name) => format!("{name} is not the name of one image in it: {all}"),
                None => format!("write docker-archive:FILE:NAME; its images are {all}"),
            },
        ))
    }
}

/// Whether a name in an archive is the one asked for, which may leave out what Docker adds.
fn same(known: &str, asked: &str) -> bool {
    let full = |name: &str| name.parse::<crate::reference::RegistryRef>().map(|it| it.to_string());
    known == asked || matches!((full(known), full(asked)), (Ok(known), Ok(asked)) if known == asked)
}

fn fail(path: &Path, why: impl ToString) -> ImageError {
    ImageError::Archive { path: path.display().to_string(), why: why.to_string() }
}
