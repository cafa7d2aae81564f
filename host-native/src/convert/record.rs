//! What became of layers that were converted before, by digest: the same layer is not converted twice.
//!
//! A record says what came out and where that was put. It is believed only as far as a blob of that
//! digest is found there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lazystar_core::Digest;
use serde::{Deserialize, Serialize};

use crate::reference::ImageRef;

/// Of records that can be read; another writer of layers needs another number.
const VERSION: u32 = 2;
/// Places that are remembered for one layer.
const MAX_PLACES: usize = 16;

/// A converted layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    #[serde(with = "crate::as_text")]
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(with = "crate::as_text")]
    pub(super) diff_id: Digest,
    pub(super) uncompressed_size: u64,
    pub(super) annotations: BTreeMap<String, String>,
    /// Where the blob was put, the last place first.
    #[serde(default)]
    pub(super) places: Vec<String>,
    /// The blob of an external TOC is in a file beside this one.
    #[serde(default)]
    pub(super) has_toc: bool,
}

/// The records of this machine.
#[derive(Clone, Debug)]
pub(super) struct Records(Option<PathBuf>);

impl Records {
    pub(super) const fn new(dir: Option<PathBuf>) -> Self {
        Self(dir)
    }

    /// What is known of the conversion that `key` stands for, and its external TOC.
    pub(super) fn get(&self, key: Digest) -> Option<(Record, Option<Vec<u8>>)> {
        let path = self.path(key)?;
        let record: Record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let toc =
            if record.has_toc { Some(fs::read(path.with_extension("toc")).ok()?) } else { None };
        Some((record, toc))
    }

    /// Remembers a conversion that was put at `place`. A record is of use, not of need: failing to
    /// write it is no failure.
    pub(super) fn put(
        &self,
        key: Digest,
        mut record: Record,
        toc: Option<&[u8]>,
        place: Option<&str>,
    ) {
        let Some(path) = self.path(key) else { return };
        if let Some(place) = place {
            record.places.retain(|known| known != place);
            record.places.insert(0, place.to_owned());
            record.places.truncate(MAX_PLACES);
        }
        record.has_toc = toc.is_some();
        let written = (|| {
            if let Some(toc) = toc {
                replace(&path.with_extension("toc"), toc)?;
            }
            replace(&path, serde_json::to_string(&record)?.as_bytes())
        })();
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot remember a conversion");
        }
    }

    fn path(&self, key: Digest) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join(format!("{}.json", key.hex())))
    }
}

/// What records call the place of an image, where blobs can be had from again.
pub(super) fn place(image: &ImageRef) -> Option<String> {
    match image {
        ImageRef::Registry(reference) => {
            Some(format!("{}/{}", reference.host(), reference.repository()))
        }
        ImageRef::OciLayout { dir, .. } => {
            let dir = dir.canonicalize().ok()?;
            Some(format!("oci:{}", dir.to_str()?))
        }
        ImageRef::DockerArchive { .. } | ImageRef::File(_) => None,
    }
}

/// What a conversion is known by: its input and everything that has an influence on its output.
pub(super) fn key(source: Digest, how: &impl std::fmt::Debug) -> Digest {
    let version = env!("CARGO_PKG_VERSION");
    Digest::of(format!("{VERSION} {version} {source} {how:?}").as_bytes())
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new(".")))?;
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    fs::write(&partial, bytes)?;
    fs::rename(partial, path)
}
