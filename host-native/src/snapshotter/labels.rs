//! Labels of snapshots: what clients say about a layer, and what the snapshotter says to them.

use std::str::FromStr;

use lazystar_core::Digest;
use serde::{Deserialize, Serialize};

use super::store::Labels;
use crate::open::TOC_DIGEST;
use crate::reference::RegistryRef;

/// The name under which a client will look for the snapshot; asks for a remote one.
pub const TARGET: &str = "containerd.io/snapshot.ref";
/// Marks a committed snapshot that is served lazily.
pub const REMOTE: &str = "containerd.io/snapshot/remote";
/// The value of [`REMOTE`].
pub const REMOTE_VALUE: &str = "remote snapshot";
/// Allows a layer that nothing vouches for, where the daemon does.
const SKIP_VERIFY: &str = "containerd.io/snapshot/remote/stargz.skipverify";
/// Names of the reference and the digest of a layer: containerd's own, then the reference
/// snapshotter's. The first pair that is complete counts.
const SOURCES: [(&str, &str); 2] = [
    ("containerd.io/snapshot/cri.image-ref", "containerd.io/snapshot/cri.layer-digest"),
    (
        "containerd.io/snapshot/remote/stargz.reference",
        "containerd.io/snapshot/remote/stargz.digest",
    ),
];

/// The layer that the labels of a snapshot name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LayerSource {
    /// The image.
    #[serde(with = "crate::as_text")]
    pub reference: RegistryRef,
    /// The blob of the layer.
    #[serde(with = "crate::as_text")]
    pub digest: Digest,
    /// The digest that its table of contents must have.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::as_text::option")]
    pub toc_digest: Option<Digest>,
    /// Whether the client would have it unverified.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_verify: bool,
}

impl LayerSource {
    /// Reads labels.
    ///
    /// # Errors
    /// One sentence, when they do not name a layer.
    pub fn parse(labels: &Labels) -> Result<Self, String> {
        let pair = SOURCES.iter().find_map(|(reference, digest)| {
            Some(((*reference, labels.get(*reference)?), (*digest, labels.get(*digest)?)))
        });
        let Some((reference, digest)) = pair else {
            return Err(format!(
                "the client does not say which layer of which image this is (no labels {} and {}); in containerd's CRI plugin, disable_snapshot_annotations = false makes it do so",
                SOURCES[0].0, SOURCES[0].1
            ));
        };
        let toc_digest = labels.get(TOC_DIGEST).filter(|text| !text.is_empty());
        Ok(Self {
            reference: parse(reference)?,
            digest: parse(digest)?,
            toc_digest: toc_digest.map(|text| parse((TOC_DIGEST, text))).transpose()?,
            skip_verify: labels.get(SKIP_VERIFY).is_some_and(|value| value == "true"),
        })
    }
}

fn parse<T: FromStr>((name, text): (&str, &String)) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error| format!("the label {name} is {text:?}, which is not usable: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn reads_both_families() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (reference, layer) in SOURCES {
            let labels =
                labels(&[(reference, "localhost:5000/go:1"), (layer, &digest), (TOC_DIGEST, "")]);
            let source = LayerSource::parse(&labels).expect("complete");
            assert_eq!((source.digest.to_string(), source.toc_digest), (digest.clone(), None));
        }
    }

    #[test]
    fn says_what_is_missing_or_wrong() {
        let (reference, digest) = SOURCES[0];
        let missing = LayerSource::parse(&labels(&[(reference, "a/b")])).expect_err("no digest");
        assert!(missing.contains(digest), "{missing}");
        for bad in ["sha256:../../etc", "md5:00", "x\ny", ""] {
            let error = LayerSource::parse(&labels(&[(reference, "a/b:1"), (digest, bad)]));
            assert!(error.expect_err("no digest").contains(digest));
        }
    }
}
