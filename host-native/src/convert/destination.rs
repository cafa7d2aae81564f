//! Where images are written to.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use lazystar_core::Digest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ConvertError;
use super::archive::write_archive;
use crate::oci::Descriptor;
use crate::pack::layout::{Layout, NewBlob};
use crate::reference::{ImageRef, RegistryRef};
use crate::registry::{Client, PIECE, Pusher, Repository, Upload};
use crate::source::FetchError;
use crate::temporary::TemporaryDir;

/// Pieces that wait to be sent while the next one is made.
const PIECES_WAITING: usize = 2;

/// Where an image goes: a repository, a layout, or an archive that is made of a layout.
pub(super) enum Destination {
    Registry { pusher: Pusher, reference: RegistryRef, tag: String },
    Layout { layout: Layout, dir: PathBuf, tag: String },
    Archive { layout: Layout, dir: TemporaryDir, path: PathBuf, name: Option<String> },
}

impl Destination {
    /// `reference`, by which `source` was found in a tag's absence.
    pub(super) async fn open(
        reference: &ImageRef,
        source: &ImageRef,
        client: &Client,
        plain_http: bool,
    ) -> Result<Self, ConvertError> {
        Ok(match reference {
            ImageRef::Registry(reference) => {
                let tag = reference.tag().filter(|_| reference.digest().is_none());
                let tag = tag.ok_or(ConvertError::Untagged)?.to_owned();
                let repository = Repository::new(client, reference, plain_http)?;
                let pusher = repository.pusher().await?;
                Self::Registry { pusher, reference: reference.clone(), tag }
            }
            ImageRef::OciLayout { dir, tag } => {
                let tag = tag.clone().or_else(|| tag_of(source));
                let tag = tag.unwrap_or_else(|| "latest".to_owned());
                Self::Layout { layout: Layout::create(dir)?, dir: dir.clone(), tag }
            }
            ImageRef::DockerArchive { path, name } => {
                // On the disk of the file that is to be made of it.
                let mut beside = path.as_os_str().to_owned();
                beside.push(".partial");
                let dir = TemporaryDir::new(Path::new(&beside))?;
                let name = name.clone().or_else(|| name_of(source));
                Self::Archive { layout: Layout::create(dir.path())?, dir, path: path.clone(), name }
            }
            ImageRef::File(_) => return Err(ConvertError::NoFile),
        })
    }

    /// The same place under another tag, for the TOC image.
    pub(super) fn with_tag(&self, add: &str) -> Result<Self, ConvertError> {
        Ok(match self {
            Self::Registry { pusher, reference, tag } => Self::Registry {
                pusher: pusher.clone(),
                reference: reference.clone(),
                tag: format!("{tag}{add}"),
            },
            Self::Layout { layout, dir, tag } => Self::Layout {
                layout: layout.clone(),
                dir: dir.clone(),
                tag: format!("{tag}{add}"),
            },
            Self::Archive { .. } => return Err(ConvertError::ExternalTocInArchive),
        })
    }

    /// Whether it has a blob, or can get it from one of `places` without anything being sent.
    pub(super) async fn obtain(
        &self,
        digest: Digest,
        size: u64,
        places: &[String],
    ) -> Result<bool, FetchError> {
        match self {
            Self::Registry { pusher, reference, .. } => {
                if pusher.has_blob(digest).await? {
                    return Ok(true);
                }
                let host = format!("{}/", reference.host());
                for from in places.iter().filter_map(|place| place.strip_prefix(&host)) {
                    if from != reference.repository() && pusher.mount(digest, from).await? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Layout { layout, .. } | Self::Archive { layout, .. } => {
                if layout.has(digest, size) {
                    return Ok(true);
                }
                for dir in places.iter().filter_map(|place| place.strip_prefix("oci:")) {
                    let there = Path::new(dir).join("blobs/sha256").join(digest.hex());
                    let fits = fs::metadata(&there).is_ok_and(|it| it.len() == size);
                    // Where the disk cannot do that, the blob is made again.
                    if fits && fs::hard_link(&there, layout.blob(digest)).is_ok() {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// Begins a blob whose digest is known at its end only.
    pub(super) async fn begin(&self) -> Result<BlobWriter, ConvertError> {
        Ok(match self {
            Self::Registry { pusher, .. } => BlobWriter::upload(pusher.begin().await?),
            Self::Layout { layout, .. } | Self::Archive { layout, .. } => {
                BlobWriter::File { blob: layout.begin()?, layout: layout.clone() }
            }
        })
    }

    /// Puts a small blob.
    pub(super) async fn put_blob(&self, bytes: &Bytes) -> Result<Digest, ConvertError> {
        let digest = Digest::of(bytes);
        match self {
            Self::Registry { pusher, .. } => {
                if !pusher.has_blob(digest).await? {
                    let mut upload = pusher.begin().await?;
                    upload.send(bytes.clone()).await?;
                    upload.finish(digest).await?;
                }
            }
            Self::Layout { layout, .. } | Self::Archive { layout, .. } => drop(layout.put(bytes)?),
        }
        Ok(digest)
    }

    /// Puts a manifest or index that another document points at.
    pub(super) async fn put_document(
        &self,
        descriptor: &Descriptor,
        bytes: &Bytes,
    ) -> Result<(), ConvertError> {
        match self {
            Self::Registry { pusher, .. } => {
                let digest = descriptor.digest.to_string();
                pusher.put_manifest(&digest, &descriptor.media_type, bytes.clone()).await?;
            }
            Self::Layout { layout, .. } | Self::Archive { layout, .. } => drop(layout.put(bytes)?),
        }
        Ok(())
    }

    /// Puts the document that the tag is to name, now that all it needs is there.
    pub(super) async fn put_tagged(
        self,
        descriptor: &Descriptor,
        bytes: &Bytes,
    ) -> Result<(), ConvertError> {
        let pointer = Descriptor::of(&descriptor.media_type, bytes);
        match self {
            Self::Registry { pusher, tag, .. } => {
                pusher.put_manifest(&tag, &descriptor.media_type, bytes.clone()).await?;
            }
            Self::Layout { layout, tag, .. } => {
                layout.put(bytes)?;
                layout.tag(pointer, &tag)?;
            }
            Self::Archive { layout, dir, path, name } => {
                layout.put(bytes)?;
                layout.tag(pointer, name.as_deref().unwrap_or("latest"))?;
                let bytes = bytes.clone();
                let written = tokio::task::spawn_blocking(move || {
                    write_archive(dir.path(), &path, &bytes, name.as_deref())
                });
                written
                    .await
                    .map_err(io::Error::other)
                    .and_then(|it| it)
                    .map_err(|cause| ConvertError::Archive { cause })?;
            }
        }
        Ok(())
    }
}

/// A blob on its way to where it goes.
pub(super) enum BlobWriter {
    File { blob: NewBlob, layout: Layout },
    Upload { buffer: BytesMut, pieces: Option<mpsc::Sender<Bytes>>, task: Task },
}

type Task = JoinHandle<Result<Upload, FetchError>>;

impl BlobWriter {
    fn upload(mut upload: Upload) -> Self {
        let (pieces, mut waiting) = mpsc::channel::<Bytes>(PIECES_WAITING);
        let task = tokio::spawn(async move {
            while let Some(piece) = waiting.recv().await {
                upload.send(piece).await?;
            }
            Ok(upload)
        });
        Self::Upload { buffer: BytesMut::new(), pieces: Some(pieces), task }
    }

    /// Adds bytes without blocking the thread for a network.
    pub(super) async fn write_some(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        match self {
            Self::File { blob, .. } => {
                blob.write_all(bytes).map_err(|cause| ConvertError::Write { cause })
            }
            Self::Upload { buffer, pieces, .. } => {
                buffer.extend_from_slice(bytes);
                if buffer.len() >= PIECE
                    && let Some(pieces) = pieces
                {
                    // What it failed of is told at the end.
                    let _ = pieces.send(buffer.split().freeze()).await;
                }
                Ok(())
            }
        }
    }

    /// Gives the blob its name.
    pub(super) async fn finish(self, digest: Digest) -> Result<(), ConvertError> {
        match self {
            Self::File { blob, layout } => {
                let kept = tokio::task::spawn_blocking(move || blob.keep(&layout, digest)).await;
                kept.map_err(|panic| ConvertError::Write { cause: io::Error::other(panic) })??;
            }
            Self::Upload { buffer, pieces, task } => {
                if let Some(pieces) = &pieces
                    && !buffer.is_empty()
                {
                    let _ = pieces.send(buffer.freeze()).await;
                }
                drop(pieces);
                let upload = task.await.map_err(io::Error::other);
                let upload = upload.map_err(|cause| ConvertError::Write { cause })??;
                upload.finish(digest).await?;
            }
        }
        Ok(())
    }

    /// Why writing failed, where the one who wrote could not know.
    pub(super) async fn failure(self) -> Option<ConvertError> {
        let Self::Upload { pieces, task, .. } = self else { return None };
        drop(pieces);
        task.await.ok()?.err().map(ConvertError::from)
    }
}

/// For threads that may wait.
impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { blob, .. } => blob.write(bytes),
            Self::Upload { buffer, pieces, .. } => {
                buffer.extend_from_slice(bytes);
                if buffer.len() >= PIECE
                    && let Some(pieces) = pieces
                    && pieces.blocking_send(buffer.split().freeze()).is_err()
                {
                    return Err(io::Error::other("the registry did not take it"));
                }
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tag_of(source: &ImageRef) -> Option<String> {
    match source {
        ImageRef::Registry(reference) => reference.tag().map(str::to_owned),
        ImageRef::OciLayout { tag, .. } => tag.clone(),
        ImageRef::DockerArchive { .. } | ImageRef::File(_) => None,
    }
}

fn name_of(source: &ImageRef) -> Option<String> {
    match source {
        ImageRef::Registry(reference) => {
            let tag = reference.tag().unwrap_or("latest");
            Some(format!("{}/{}:{tag}", reference.host(), reference.repository()))
        }
        ImageRef::DockerArchive { name, .. } => name.clone(),
        ImageRef::OciLayout { .. } | ImageRef::File(_) => None,
    }
}
