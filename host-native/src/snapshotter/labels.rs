//! Labels of snapshots: what clients say about a layer, and what the snapshotter says to them.

use std::str::FromStr;

use lazystar_core::Digest;
use serde::{Deserialize, Serialize};

use super::record::Labels;
use crate::open::TOC_DIGEST;
use crate::reference::RegistryRef;

/// The name under which a client will look for the snapshot; asks for a remote one.
pub const TARGET: &str = "containerd.io/snapshot.ref";
/// Marks a committed snapshot that is served lazily.
pub const REMOTE: &str = "containerd.io/snapshot/remote";
/// The value of [`REMOTE`].
pub const REMOTE_VALUE: &str = "remote snapshot";
/// Allows a layer that nothing vouches for, where the daemon does.
pub const SKIP_VERIFY: &str = "containerd.io/snapshot/remote/stargz.skipverify";
/// Names of the reference and the digest of a layer: containerd's own, then the reference
/// snapshotter's. The first pair that is complete counts.
const SOURCES: [(&str, &str); 2] = [
    ("containerd.io/snapshot/cri.image-ref", "containerd.io/snapshot/cri.layer-digest"),
    (
        "containerd.io/snapshot/remote/stargz.reference",
        "containerd.io/snapshot/remote/stargz.digest",
    ),
];
/// Names of the list of a layer and those above it, in the same order.
const UPPER: [&str; 2] =
    ["containerd.io/snapshot/cri.image-layers", "containerd.io/snapshot/remote/stargz.layers"];
/// containerd refuses labels whose key and value have more bytes together.
const MAX_LABEL: usize = 4096;

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

/// Whether labels say which layer of which image a snapshot is.
#[must_use]
pub fn name_layer(labels: &Labels) -> bool {
    SOURCES.iter().any(|(image, layer)| labels.contains_key(*image) && labels.contains_key(*layer))
}

/// Labels that say so.
pub fn naming(reference: &RegistryRef, layer: Digest) -> [(String, String); 2] {
    let (image, digest) = SOURCES[1];
    [(image.to_owned(), reference.to_string()), (digest.to_owned(), layer.to_string())]
}

/// Labels that say so in both families, and which layers are above it, as far as a label can hold
/// them.
#[must_use]
pub fn all_naming(
    reference: &RegistryRef,
    layer: Digest,
    upper: impl Iterator<Item = Digest>,
) -> Labels {
    let upper: Vec<_> = upper.map(|digest| digest.to_string()).collect();
    let mut labels = Labels::new();
    for ((image, digest), list) in SOURCES.into_iter().zip(UPPER) {
        labels.insert(image.to_owned(), reference.to_string());
        labels.insert(digest.to_owned(), layer.to_string());
        let mut text = String::new();
        for one in &upper {
            let separator = if text.is_empty() { "" } else { "," };
            if list.len() + text.len() + separator.len() + one.len() > MAX_LABEL {
                break;
            }
            text.extend([separator, one]);
        }
        labels.insert(list.to_owned(), text);
    }
    labels
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
    fn names_layers_in_both_families() {
        let reference = "localhost:5000/go:1".parse().expect("a reference");
        let layers: Vec<_> = (0..200u8).map(|number| Digest::of(&[number])).collect();
        let labels = all_naming(&reference, layers[0], layers.iter().copied());
        assert_eq!(labels.len(), 6);
        assert!(labels.iter().all(|(key, value)| key.len() + value.len() <= MAX_LABEL));
        assert_eq!(LayerSource::parse(&labels).expect("complete").digest, layers[0]);
        assert!(labels[UPPER[0]].starts_with(&format!("{},{},", layers[0], layers[1])));
        assert!(name_layer(&labels) && !name_layer(&Labels::new()));
        assert!(name_layer(&naming(&reference, layers[0]).into()));
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
