//! OCI and Docker image documents: descriptors, indexes, manifests and configurations.

use std::collections::BTreeMap;

use lazystar_core::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub mod media;
pub mod platform;

pub use platform::Platform;

/// Indexes that may point at one another before a manifest comes.
pub(crate) const MAX_INDEXES: usize = 4;
/// Largest manifest or index that is read (OCI distribution specification, "Pushing manifests":
/// registries must accept 4 MiB and commonly refuse more).
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Largest image configuration that is read. Histories of big images reach some 100 KiB.
pub const MAX_CONFIG: u64 = 8 << 20;

/// What points at a blob or a document (OCI image specification, "Content Descriptors").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The type of the content.
    #[serde(default)]
    pub media_type: String,
    /// The digest of the content.
    #[serde(with = "crate::as_text")]
    pub digest: Digest,
    /// The length of the content in bytes.
    pub size: u64,
    /// Annotations, such as the digest of a TOC.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The platform that an entry of an index is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Other places that have the content.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

impl Descriptor {
    /// What points at `content`.
    #[must_use]
    pub fn of(media_type: &str, content: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(content),
            size: content.len() as u64,
            annotations: BTreeMap::new(),
            platform: None,
            urls: Vec::new(),
        }
    }
}

/// An image index, or Docker's manifest list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The type of this document; may be left out by OCI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    #[serde(deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// Annotations of the whole.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// An image manifest: a configuration and layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The type of this document; may be left out by OCI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// Annotations of the whole.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// The parts of an image configuration that a runtime needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The operating system.
    #[serde(default)]
    pub os: String,
    /// The processor architecture.
    #[serde(default)]
    pub architecture: String,
    /// The variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The digests of the uncompressed layers.
    pub rootfs: RootFs,
    /// How the layers were made.
    #[serde(default, deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// What to run.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: Execution,
}

/// The layers that a configuration lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// DiffIDs, lowest layer first.
    #[serde(default, with = "digest_list")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether this step made no layer.
    #[serde(default)]
    pub empty_layer: bool,
}

/// How a container of the image is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    /// Environment, each `NAME=value`.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The command's fixed part.
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// The command's default arguments.
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// The directory to start in.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// The user and group to run as.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// Labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
}

/// Why an image's document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// More bytes than a document of its kind may have.
    #[error(
        "the {what} has {size} bytes, more than the {limit} that are allowed; the image is broken or hostile"
    )]
    TooLarge {
        /// The kind of document.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The most it may have.
        limit: u64,
    },
    /// The bytes are not those that the digest stands for.
    #[error(
        "the {what} has digest {actual} instead of {expected}; its source serves damaged or forged content: push the image again"
    )]
    DigestMismatch {
        /// The kind of document.
        what: &'static str,
        /// The digest that points at it.
        expected: Digest,
        /// The digest of what arrived.
        actual: Digest,
    },
    /// Not the JSON that it should be.
    #[error("the {what} is malformed: {cause}; build and push the image again")]
    Malformed {
        /// The kind of document.
        what: &'static str,
        /// What the JSON reader says.
        cause: serde_json::Error,
    },
    /// A type that is not an image.
    #[error(
        "the image's document has type {media_type:?}, which is not an OCI or Docker (schema 2) image"
    )]
    Unsupported {
        /// The type, or what stands for it.
        media_type: String,
    },
    /// No manifest of an index is for the platform.
    #[error(
        "the image has nothing for {wanted}, only for {available}; choose one of them with --platform"
    )]
    NoPlatform {
        /// The platform asked for.
        wanted: Platform,
        /// What there is.
        available: String,
    },
    /// The configuration lists another number of layers than the manifest.
    #[error(
        "the image's configuration lists {diff_ids} layers and its manifest {layers}; build and push the image again"
    )]
    LayerCount {
        /// DiffIDs in the configuration.
        diff_ids: usize,
        /// Layers in the manifest.
        layers: usize,
    },
}

/// What a manifest reference can lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Several images.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

impl Document {
    /// Parses a manifest or an index and tells which it is from its own words.
    ///
    /// `media_type` is what the source says it is; it decides only if the document does not.
    ///
    /// # Errors
    /// If the bytes are too many, malformed, or another kind of document.
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            schema_version: Option<u32>,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        check_size("manifest", bytes.len() as u64, MAX_MANIFEST)?;
        let malformed = |cause| DocumentError::Malformed { what: "manifest", cause };
        let shape: Shape = serde_json::from_slice(bytes).map_err(malformed)?;
        let media_type = shape.media_type.as_deref().unwrap_or(media_type);
        let unsupported = || Err(DocumentError::Unsupported { media_type: media_type.to_owned() });
        if shape.schema_version != Some(2) {
            return unsupported();
        }
        // A document that could be read as both kinds is an attempt to show different images to
        // different tools.
        match (shape.manifests.is_some(), shape.layers.is_some()) {
            (true, false) if !media::is_manifest(media_type) => {
                serde_json::from_slice(bytes).map(Self::Index).map_err(malformed)
            }
            (false, true) if !media::is_index(media_type) => {
                serde_json::from_slice(bytes).map(Self::Manifest).map_err(malformed)
            }
            _ => unsupported(),
        }
    }

    /// What points at this document, which has `digest` and `bytes`. Its type is what it says
    /// itself, else what its source says, else OCI's.
    #[must_use]
    pub fn descriptor(&self, digest: Digest, bytes: &[u8], media_type: &str) -> Descriptor {
        let (own, usual) = match self {
            Self::Index(index) => (&index.media_type, media::OCI_INDEX),
            Self::Manifest(manifest) => (&manifest.media_type, media::OCI_MANIFEST),
        };
        let stated = Some(media_type).filter(|stated| !stated.is_empty());
        Descriptor {
            media_type: own.as_deref().or(stated).unwrap_or(usual).to_owned(),
            digest,
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
            platform: None,
            urls: Vec::new(),
        }
    }
}

/// The names of a stack of layers, lowest first: the first is the DiffID of the lowest, each
/// further one the digest of the one below and the DiffID (OCI image specification, "Layer
/// ChainID").
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => *diff_id,
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

impl ImageConfig {
    /// Parses a configuration.
    ///
    /// # Errors
    /// If the bytes are too many or malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let what = "image configuration";
        check_size(what, bytes.len() as u64, MAX_CONFIG)?;
        serde_json::from_slice(bytes).map_err(|cause| DocumentError::Malformed { what, cause })
    }
}

/// Checks that a document is not larger than `limit`.
///
/// # Errors
/// If it is.
pub const fn check_size(what: &'static str, size: u64, limit: u64) -> Result<(), DocumentError> {
    if size > limit { Err(DocumentError::TooLarge { what, size, limit }) } else { Ok(()) }
}

/// Checks that `bytes` are what `expected` stands for.
///
/// # Errors
/// If they are not.
pub fn check_digest(
    what: &'static str,
    bytes: &[u8],
    expected: Digest,
) -> Result<(), DocumentError> {
    let actual = Digest::of(bytes);
    if actual == expected {
        Ok(())
    } else {
        Err(DocumentError::DigestMismatch { what, expected, actual })
    }
}

/// Go programs write `null` for empty lists and maps.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

mod digest_list {
    use super::{Deserialize, Deserializer, Digest, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Text(#[serde(with = "crate::as_text")] Digest);

    pub(super) fn serialize<S: Serializer>(
        digests: &[Digest],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(digests.iter().map(|digest| Text(*digest)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Digest>, D::Error> {
        let list = Option::<Vec<Text>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(list.into_iter().map(|Text(digest)| digest).collect())
    }
}
