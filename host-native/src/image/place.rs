//! Where an image is, and how its documents are brought from there.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use lazystar_core::Digest;
use reqwest::Method;
use tokio::time::timeout;

use super::archive::Archive;
use super::store::Store;
use super::{ImageError, OpenOptions, layout};
use crate::oci::{
    Descriptor, Document, DocumentError, Index, MAX_INDEXES, MAX_MANIFEST, Manifest, Platform,
    check_digest, check_size,
};
use crate::reference::{ImageRef, RegistryRef};
use crate::registry::{Answer, Repository, collect};
use crate::source::{Blob, FetchError};

/// Manifests of one index that are looked into for a layer.
const MAX_PLATFORMS: usize = 64;
/// How long a registry may take to say whether a tag has moved, if what it was is known.
const KNOWN_TAG_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is asked then.
const KNOWN_TAG_ATTEMPTS: u32 = 2;

/// Where an image is.
#[derive(Debug)]
pub(super) enum Place {
    Registry { repository: Repository, reference: RegistryRef, store: Store },
    Layout { dir: PathBuf, tag: Option<String> },
    Archive(Archive),
    File { path: PathBuf },
}

/// A manifest, verified.
pub(super) struct Found {
    pub(super) manifest: Manifest,
    /// What led to it, from what the reference names to the manifest itself.
    pub(super) documents: Vec<(Descriptor, Bytes)>,
}

impl Place {
    pub(super) fn of(reference: &ImageRef, options: &OpenOptions) -> Result<Self, ImageError> {
        Ok(match reference {
            ImageRef::Registry(reference) => Self::Registry {
                repository: Repository::new(&options.client, reference, options.plain_http)?,
                reference: reference.clone(),
                store: Store::new(options.manifests.as_deref()),
            },
            ImageRef::OciLayout { dir, tag } => Self::Layout { dir: dir.clone(), tag: tag.clone() },
            ImageRef::DockerArchive { path, name } => {
                Self::Archive(Archive::open(path, name.as_deref())?)
            }
            ImageRef::File(path) => Self::File { path: path.clone() },
        })
    }

    /// What the reference names: its digest, its bytes, and its type as far as its source tells. Of
    /// several images with one tag in a layout, that for `platform`.
    pub(super) async fn top(
        &self,
        platform: &Platform,
    ) -> Result<(Digest, Bytes, String), ImageError> {
        Ok(match self {
            Self::Registry { repository, reference, store } => {
                top(repository, reference, store).await?
            }
            Self::Layout { dir, tag } => {
                let entry = layout::entry(dir, tag.as_deref(), platform).await?;
                (entry.digest, self.manifest(&entry).await?, entry.media_type)
            }
            Self::Archive(archive) => archive.top(),
            Self::File { path } => return Err(layout::fail(path, "it is a file")),
        })
    }

    /// Finds the manifest for `platform`; or, of an index in which that has not the layer `wanted`,
    /// one that has.
    pub(super) async fn resolve(
        &self,
        platform: &Platform,
        wanted: Option<Digest>,
    ) -> Result<Found, ImageError> {
        let (mut digest, mut bytes, mut media_type) = self.top(platform).await?;
        let mut documents = Vec::new();
        for _ in 0..MAX_INDEXES {
            let document = Document::parse(&bytes, &media_type)?;
            documents.push((document.descriptor(digest, &bytes, &media_type), bytes.clone()));
            match document {
                Document::Manifest(manifest) => return Ok(Found { manifest, documents }),
                Document::Index(index) => {
                    let found = match wanted {
                        Some(layer) => self.with_layer(&index, platform, layer).await?,
                        None => None,
                    };
                    let entry = found.map_or_else(|| platform.choose(&index), Ok)?;
                    bytes = self.manifest(entry).await?;
                    (digest, media_type) = (entry.digest, entry.media_type.clone());
                }
            }
        }
        Err(DocumentError::Unsupported {
            media_type: format!("{media_type}, nested {MAX_INDEXES} deep"),
        }
        .into())
    }

    /// The manifest in an index that has a layer; that for `platform` is looked at first.
    async fn with_layer<'a>(
        &self,
        index: &'a Index,
        platform: &Platform,
        layer: Digest,
    ) -> Result<Option<&'a Descriptor>, ImageError> {
        let first = platform.choose(index).ok();
        let others =
            index.manifests.iter().filter(|it| first.is_none_or(|first| first.digest != it.digest));
        for entry in first.into_iter().chain(others).take(MAX_PLATFORMS) {
            let bytes = self.manifest(entry).await?;
            let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, &entry.media_type)
            else {
                continue;
            };
            if manifest.layers.iter().any(|it| it.digest == layer) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The manifest or index that `descriptor` points at.
    pub(super) async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, ImageError> {
        check_size("manifest", descriptor.size, MAX_MANIFEST)?;
        match self {
            Self::Registry { repository, store, .. } => {
                by_digest(repository, descriptor.digest, store).await
            }
            Self::Layout { dir, .. } => layout::document(dir, "manifest", descriptor).await,
            Self::Archive(archive) => archive.document("manifest", descriptor).await,
            Self::File { path } => Err(layout::fail(path, "it is a file")),
        }
    }

    /// The configuration that `descriptor` points at.
    pub(super) async fn config(&self, descriptor: &Descriptor) -> Result<Bytes, ImageError> {
        let what = "image configuration";
        match self {
            Self::Registry { repository, store, .. } => {
                if let Some(bytes) = store.document(descriptor.digest).await {
                    return Ok(bytes);
                }
                let bytes =
                    Blob::registry(repository, descriptor).fetch_all(0..descriptor.size).await?;
                check_digest(what, &bytes, descriptor.digest)?;
                store.keep(descriptor.digest, &bytes).await;
                Ok(bytes)
            }
            Self::Layout { dir, .. } => layout::document(dir, what, descriptor).await,
            Self::Archive(archive) => archive.document(what, descriptor).await,
            Self::File { path } => Err(layout::fail(path, "it is a file")),
        }
    }

    /// What has `digest`, on this machine.
    pub(super) fn find(&self, digest: Digest) -> Result<Option<Blob>, ImageError> {
        match self {
            Self::Layout { dir, .. } => layout::find(dir, digest),
            Self::Archive(archive) => archive.find(digest),
            Self::Registry { .. } | Self::File { .. } => Ok(None),
        }
    }

    /// The blob of a layer.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Blob, ImageError> {
        match self {
            Self::Registry { repository, .. } => Ok(Blob::registry(repository, descriptor)),
            Self::Layout { dir, .. } => layout::blob(dir, descriptor),
            Self::Archive(archive) => archive.blob(descriptor),
            Self::File { path } => Ok(Blob::file(path)?),
        }
    }
}

/// The document that a reference names, its digest and what the registry says it is.
///
/// Costs no request for a known digest, one for an unmoved tag, and none that succeeds for a known
/// tag while the registry is away.
async fn top(
    repository: &Repository,
    reference: &RegistryRef,
    store: &Store,
) -> Result<(Digest, Bytes, String), ImageError> {
    if let Some(digest) = reference.digest() {
        return Ok((digest, by_digest(repository, digest, store).await?, String::new()));
    }
    let tag = reference.tag().unwrap_or("latest");
    let name = reference.to_string();
    let known = store.record(&name).await;
    let Some(known) = known else { return by_tag(repository, tag, &name, store).await };
    let asked = timeout(KNOWN_TAG_PATIENCE, still(repository, tag)).await;
    let after = KNOWN_TAG_PATIENCE;
    let asked = asked
        .unwrap_or_else(|_| Err(FetchError::Timeout { origin: repository.to_string(), after }));
    let current = match asked {
        Ok(Some(digest)) => {
            by_digest(repository, digest, store).await.map(|bytes| (digest, bytes, String::new()))
        }
        Ok(None) => by_tag(repository, tag, &name, store).await,
        Err(error) => Err(error.into()),
    };
    if let Err(ImageError::Fetch(error)) = &current
        && error.is_transient()
        && let Some(bytes) = store.document(known).await
    {
        tracing::warn!(image = name, "using what the tag was when last seen, {known}: {error}");
        return Ok((known, bytes, String::new()));
    }
    if let Ok((digest, ..)) = &current
        && *digest != known
    {
        store.remember(&name, *digest).await;
    }
    current
}

/// What `tag` points at now, if the registry can tell without sending it.
async fn still(repository: &Repository, tag: &str) -> Result<Option<Digest>, FetchError> {
    match repository.manifest(Method::HEAD, tag, KNOWN_TAG_ATTEMPTS).await {
        Ok(Answer { response, .. }) => {
            let digest = response.headers().get("docker-content-digest");
            Ok(digest.and_then(|digest| digest.to_str().ok()?.parse().ok()))
        }
        // A registry that does not know HEAD.
        Err(FetchError::Status { code: 400 | 405 | 501, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn by_tag(
    repository: &Repository,
    tag: &str,
    name: &str,
    store: &Store,
) -> Result<(Digest, Bytes, String), ImageError> {
    let (bytes, media_type) = get(repository, tag).await?;
    let digest = Digest::of(&bytes);
    store.keep(digest, &bytes).await;
    store.remember(name, digest).await;
    Ok((digest, bytes, media_type))
}

async fn by_digest(
    repository: &Repository,
    digest: Digest,
    store: &Store,
) -> Result<Bytes, ImageError> {
    if let Some(bytes) = store.document(digest).await {
        return Ok(bytes);
    }
    let (bytes, _) = get(repository, &digest.to_string()).await?;
    check_digest("manifest", &bytes, digest)?;
    store.keep(digest, &bytes).await;
    Ok(bytes)
}

/// Gets a manifest, again if its transfer breaks off.
async fn get(repository: &Repository, reference: &str) -> Result<(Bytes, String), FetchError> {
    let client = repository.client();
    let attempts = client.options().attempts;
    let mut attempt = 1;
    loop {
        let Answer { response, endpoint } =
            repository.manifest(Method::GET, reference, attempts).await?;
        let media_type =
            response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let media_type =
            media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned();
        match collect(client, response, MAX_MANIFEST).await {
            Ok(bytes) => {
                client.count_bytes(bytes.len() as u64);
                endpoint.metrics.bytes.inc_by(bytes.len() as u64);
                return Ok((bytes, media_type));
            }
            Err(error) if error.is_transient() && attempt < attempts => {
                repository.put_to_rest(&endpoint, &error);
                tokio::time::sleep(client.options().pause(attempt)).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}
