//! An image on this machine as a registry would serve it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use lazystar_core::Digest;
use lazystar_core::digest::Hasher;
use serde_json::{Value, json};

use super::about::REPOSITORY;
use super::refusal::Refusal;
use super::target::{Asked, Target};
use super::{never_old, range, set};
use crate::image::{Image, OpenOptions, Source};
use crate::oci::{Descriptor, Document, MAX_MANIFEST, Platform, media};
use crate::open::{TOC_DIGEST, own_toc_digest};
use crate::reference::{ImageRef, RegistryRef};
use crate::source::{Blob, BlobStream};

/// What an image is served as that has no tag.
const USUAL: &str = "latest";
/// Bytes that are hashed at once.
const STEP: u64 = 4 << 20;

/// An image on this machine.
#[derive(Debug)]
pub(super) struct Local {
    reference: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// A layout, whose tags may move: they are looked at each time.
    Layout {
        image: ImageRef,
        options: OpenOptions,
        source: Box<Source>,
    },
    Archive(Box<Source>),
    Layer(Layer),
}

/// A layer in a file and what makes an image of it.
#[derive(Debug)]
struct Layer {
    manifest: (Digest, Bytes),
    /// The configuration and the layer.
    blobs: BTreeMap<Digest, Blob>,
}

/// A manifest with its digest and type.
struct Manifest {
    digest: Digest,
    media_type: String,
    bytes: Bytes,
}

impl Local {
    /// Looks at `image`, which is in no registry.
    pub(super) async fn open(image: &ImageRef, platform: &Platform) -> Result<Self> {
        let options = OpenOptions { platform: platform.clone(), ..OpenOptions::default() };
        let (reference, content) = match image {
            ImageRef::File(path) => {
                (USUAL.to_owned(), Content::Layer(Layer::read(path, image, &options).await?))
            }
            ImageRef::OciLayout { tag, .. } => {
                let source = Source::open(image, &options).await?;
                let image = image.clone();
                let reference = served_as(tag.as_deref(), &source);
                (reference, Content::Layout { image, options, source: Box::new(source) })
            }
            ImageRef::DockerArchive { name, .. } => {
                let source = Source::open(image, &options).await?;
                let name = name.as_deref().and_then(|name| name.parse::<RegistryRef>().ok());
                let tag = name.as_ref().and_then(RegistryRef::tag);
                (served_as(tag, &source), Content::Archive(Box::new(source)))
            }
            ImageRef::Registry(image) => anyhow::bail!("{image} is in a registry"),
        };
        Ok(Self { reference, content })
    }

    /// By what the image is asked for.
    pub(super) fn reference(&self) -> &str {
        &self.reference
    }

    /// Answers as a registry does that has this image and no other.
    pub(super) async fn answer(&self, target: &Target, head: &Parts) -> Result<Response, Refusal> {
        match &target.asked {
            Asked::Api => Ok(list(&json!({}))),
            Asked::Catalog => Ok(list(&json!({ "repositories": [REPOSITORY] }))),
            asked if asked.repository() != Some(REPOSITORY) => {
                Err(unknown("NAME_UNKNOWN", format!("the repository here is {REPOSITORY}")))
            }
            Asked::Tags { .. } => {
                Ok(list(&json!({ "name": REPOSITORY, "tags": [self.reference] })))
            }
            Asked::Manifest { reference, .. } => {
                let manifest = match reference.parse() {
                    Ok(digest) => self.content.by_digest(digest).await?,
                    Err(_) => self.content.by_tag(reference, *reference == self.reference).await?,
                };
                let missing = || unknown("MANIFEST_UNKNOWN", format!("there is no {reference}"));
                let manifest = manifest.ok_or_else(missing)?;
                let is_fixed = reference.contains(':');
                let mut headers = head_of(manifest.digest, &manifest.media_type);
                if !is_fixed {
                    never_old(&mut headers);
                }
                set(&mut headers, CONTENT_LENGTH, &manifest.bytes.len().to_string());
                Ok((headers, Body::from(manifest.bytes)).into_response())
            }
            Asked::Blob { digest, .. } => {
                let digest: Digest = digest.parse().map_err(|_| {
                    let message = format!("{digest:?} is no sha256 digest");
                    Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
                })?;
                let missing = || unknown("BLOB_UNKNOWN", format!("there is no {digest}"));
                let blob = self.content.blob(digest)?.ok_or_else(missing)?;
                serve(&blob, digest, head).await
            }
        }
    }
}

/// The tag that an image is served by, or its digest where its name is no tag.
fn served_as(tag: Option<&str>, source: &Source) -> String {
    let Some(tag) = tag else { return USUAL.to_owned() };
    if RegistryRef::is_tag(tag) { tag.to_owned() } else { source.top.digest.to_string() }
}

impl Content {
    /// What `tag` names; `is_own` if that is what the image is served as.
    async fn by_tag(&self, tag: &str, is_own: bool) -> Result<Option<Manifest>, Refusal> {
        match self {
            Self::Layout { image, options, .. } => {
                let named = match image {
                    ImageRef::OciLayout { dir, .. } if !is_own => {
                        ImageRef::OciLayout { dir: dir.clone(), tag: Some(tag.to_owned()) }
                    }
                    image => image.clone(),
                };
                Ok(Some(Manifest::top_of(&Source::open(&named, options).await?)))
            }
            Self::Archive(source) => Ok(is_own.then(|| Manifest::top_of(source))),
            Self::Layer(layer) => Ok(is_own.then(|| layer.manifest())),
        }
    }

    async fn by_digest(&self, digest: Digest) -> Result<Option<Manifest>, Refusal> {
        if let Self::Layer(layer) = self {
            return Ok(Some(layer.manifest()).filter(|it| it.digest == digest));
        }
        let Some(blob) = self.blob(digest)? else { return Ok(None) };
        let size = blob.size().filter(|size| *size <= MAX_MANIFEST);
        let Some(size) = size else { return Ok(None) };
        let bytes = blob.fetch_all(0..size).await?;
        let Ok(document) = Document::parse(&bytes, "") else { return Ok(None) };
        let Descriptor { media_type, .. } = document.descriptor(digest, &bytes, "");
        Ok(Some(Manifest { digest, media_type, bytes }))
    }

    fn blob(&self, digest: Digest) -> Result<Option<Blob>, Refusal> {
        match self {
            Self::Layout { source, .. } | Self::Archive(source) => Ok(source.find(digest)?),
            Self::Layer(layer) => Ok(layer.blobs.get(&digest).cloned()),
        }
    }
}

impl Manifest {
    fn top_of(source: &Source) -> Self {
        let Descriptor { digest, media_type, .. } = source.top.clone();
        Self { digest, media_type, bytes: source.bytes.clone() }
    }
}

impl Layer {
    /// Reads the layer as a whole, for its digest.
    async fn read(path: &Path, image: &ImageRef, options: &OpenOptions) -> Result<Self> {
        let image = Image::open(image, options).await?;
        let [layer] = &image.layers[..] else { anyhow::bail!("it is not one layer") };
        let blob = layer.blob.clone();
        let digest = digest_of(&blob).await.with_context(|| path.display().to_string())?;
        let mut descriptor = Descriptor { digest, ..layer.descriptor.clone() };
        // A layer that is not lazy has no TOC; it is read as what it is.
        if let Ok(toc) = own_toc_digest(&image, layer).await {
            descriptor.annotations.insert(TOC_DIGEST.to_owned(), toc.to_string());
        }
        let platform = &options.platform;
        // Nothing says what the DiffID is: it would take unpacking the layer.
        let config = json!({
            "os": platform.os,
            "architecture": platform.architecture,
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        let config = Bytes::from(config.to_string());
        let of_config = Descriptor::of(media::OCI_CONFIG, &config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "config": of_config,
            "layers": [descriptor],
        });
        let manifest = Bytes::from(manifest.to_string());
        let config = Blob::memory("configuration", config);
        let blobs = [(of_config.digest, config), (digest, blob)].into();
        Ok(Self { manifest: (Digest::of(&manifest), manifest), blobs })
    }

    fn manifest(&self) -> Manifest {
        let (digest, bytes) = self.manifest.clone();
        Manifest { digest, media_type: media::OCI_MANIFEST.to_owned(), bytes }
    }
}

async fn digest_of(blob: &Blob) -> Result<Digest> {
    let size = blob.size().unwrap_or(0);
    let mut hasher = Hasher::new();
    let mut at = 0;
    while at < size {
        let end = size.min(at + STEP);
        let bytes = blob.fetch_all(at..end).await?;
        hasher = tokio::task::spawn_blocking(move || {
            hasher.update(&bytes);
            hasher
        })
        .await?;
        at = end;
    }
    Ok(hasher.finish())
}

async fn serve(blob: &Blob, digest: Digest, head: &Parts) -> Result<Response, Refusal> {
    let size = blob.size().unwrap_or(0);
    let mut headers = head_of(digest, "application/octet-stream");
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let (status, part) = match range::asked(&head.headers)? {
        None => (StatusCode::OK, 0..size),
        Some(asked) => {
            let part = range::within(&asked, size)?;
            set(&mut headers, CONTENT_RANGE, &range::sent(&part, size));
            (StatusCode::PARTIAL_CONTENT, part)
        }
    };
    set(&mut headers, CONTENT_LENGTH, &(part.end - part.start).to_string());
    let body = match head.method {
        Method::HEAD => Body::empty(),
        _ => Body::from_stream(stream::try_unfold(blob.fetch(part).await?, next)),
    };
    Ok((status, headers, body).into_response())
}

async fn next(
    mut stream: BlobStream,
) -> Result<Option<(Bytes, BlobStream)>, crate::source::FetchError> {
    Ok(stream.next().await.transpose()?.map(|bytes| (bytes, stream)))
}

fn list(value: &Value) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    never_old(&mut headers);
    (headers, Body::from(value.to_string())).into_response()
}

/// The headers of what has a digest, which never changes.
fn head_of(digest: Digest, media_type: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, CONTENT_TYPE, media_type);
    set(&mut headers, ETAG, &format!("\"{digest}\""));
    set(&mut headers, HeaderName::from_static("docker-content-digest"), &digest.to_string());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    headers
}

fn unknown(code: &'static str, message: String) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, code, message)
}
