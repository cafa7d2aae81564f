//! What a conversion did.

use serde::Serialize;

/// What a conversion did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was converted.
    pub source: String,
    /// Where it was written.
    pub destination: String,
    /// The digest that the tag has now.
    pub digest: String,
    /// The digest of the image with the external TOCs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toc_image: Option<String>,
    /// The images, one a platform.
    pub images: Vec<ConvertedImage>,
    /// How long it took.
    pub seconds: f64,
}

/// The image of one platform.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConvertedImage {
    /// Its platform, as far as it is known.
    pub platform: String,
    /// The digest of its manifest before.
    pub source_digest: String,
    /// The digest of its manifest now.
    pub digest: String,
    /// Its layers, lowest first.
    pub layers: Vec<ConvertedLayer>,
}

/// One layer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConvertedLayer {
    /// What became of it.
    pub outcome: Outcome,
    /// The digest of its blob before.
    pub source_digest: String,
    /// The size of its blob before, in bytes.
    pub source_size: u64,
    /// The digest of its blob now.
    pub digest: String,
    /// The size of its blob now, in bytes.
    pub size: u64,
    /// Its DiffID.
    pub diff_id: String,
    /// The digest of its TOC, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toc_digest: Option<String>,
    /// How many of the files that were to come first it has not got.
    pub missing: usize,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// What became of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was converted.
    Converted,
    /// It was converted by an earlier run, and is there or was taken from there.
    Known,
    /// It was lazy already.
    Lazy,
    /// It is foreign: nobody distributes it, so it stays what it is.
    Foreign,
}

impl Outcome {
    /// The word for it in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Converted => "converted",
            Self::Known => "known",
            Self::Lazy => "lazy already",
            Self::Foreign => "foreign",
        }
    }
}
