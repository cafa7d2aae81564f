//! Platforms, and which manifest of an index to take for one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Descriptor, DocumentError, Index};

/// An operating system and a processor, as `os/architecture[/variant]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system, as Go names it.
    #[serde(default)]
    pub os: String,
    /// The processor architecture, as Go names it.
    #[serde(default)]
    pub architecture: String,
    /// The variant of the architecture, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform that this program runs on; its images are Linux images everywhere.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "powerpc64" => ("ppc64", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// The number of the variant; platforms without one have their architecture's usual one.
    fn level(&self) -> Option<u32> {
        match self.variant.as_deref().filter(|variant| !variant.is_empty()) {
            Some(variant) => variant.strip_prefix('v').unwrap_or(variant).parse().ok(),
            None => Some(match self.architecture.as_str() {
                "arm64" => 8,
                "arm" => 7,
                _ => 1,
            }),
        }
    }

    /// How well `offer` suits this platform; nothing if it does not run here.
    fn suits(&self, offer: &Self) -> Option<u32> {
        if self.os != offer.os || self.architecture != offer.architecture {
            return None;
        }
        if self.variant == offer.variant {
            return Some(u32::MAX);
        }
        // A processor runs what is made for earlier variants of it; the latest of them is best.
        let (have, need) = (self.level()?, offer.level()?);
        (need <= have).then_some(need)
    }

    /// The manifest of `index` that suits this platform best.
    ///
    /// # Errors
    /// If there is none; the message lists what there is.
    pub fn choose<'a>(&self, index: &'a Index) -> Result<&'a Descriptor, DocumentError> {
        let images: Vec<_> =
            index.manifests.iter().filter(|entry| !is_attestation(entry)).collect();
        if let [only] = images[..]
            && only.platform.is_none()
        {
            return Ok(only);
        }
        let suiting =
            images.iter().filter_map(|entry| Some((self.suits(entry.platform.as_ref()?)?, *entry)));
        // The first of equals wins, as it does elsewhere.
        let best = suiting.reduce(|best, next| if next.0 > best.0 { next } else { best });
        best.map(|(_, entry)| entry).ok_or_else(|| DocumentError::NoPlatform {
            wanted: self.clone(),
            available: match images
                .iter()
                .filter_map(|entry| Some(entry.platform.as_ref()?.to_string()))
                .collect::<Vec<_>>()
            {
                none if none.is_empty() => "no platform at all".to_owned(),
                some => some.join(", "),
            },
        })
    }
}

/// Build tools put provenance and SBOMs beside images, for a platform that cannot exist.
fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.type")
        || entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

/// A text is not `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a platform; write os/architecture or os/architecture/variant, such as linux/arm64/v8"
)]
pub struct PlatformError(String);

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let legal = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        let parts: Vec<&str> = text.split('/').collect();
        let fail = || Err(PlatformError(text.to_owned()));
        if !parts.iter().all(legal) {
            return fail();
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return fail(),
        };
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "i386" => "386",
            other => other,
        };
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .iter()
            .filter(|variant| !variant.is_empty())
            .try_for_each(|variant| write!(f, "/{variant}"))
    }
}
