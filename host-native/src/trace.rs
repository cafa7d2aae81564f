//! What a workload reads of an image: the first access to each file, in order.
//!
//! A file of records has a JSON object a line, in the order of the first access:
//!
//! ```json
//! {"path":"usr/bin/go","manifestDigest":"sha256:…","layerIndex":2,"chunks":[0,3]}
//! ```
//!
//! `path` is that of the file in its layer, from the root without a leading slash; `manifestDigest` is
//! that of the image's manifest, `layerIndex` the number of the layer, counted from 0, the lowest first.
//! That much is what `ctr-remote` writes and reads. `chunks`, which need not be there, are the numbers of
//! the chunks of the file that were read.

use std::collections::BTreeMap;

use lazystar_core::Digest;
use serde::{Deserialize, Serialize};

use crate::driver::reads::ReadFile;

/// The first access to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The file, from the root of its layer.
    pub path: String,
    /// The image.
    #[serde(with = "crate::as_text")]
    pub manifest_digest: Digest,
    /// The layer, counted from 0, the lowest first.
    #[serde(default)]
    pub layer_index: usize,
    /// Which chunks of the file were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<u32>,
}

/// What was read, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// One for each file.
    pub accesses: Vec<Access>,
}

/// A file of records that is none.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is not a record: {why}")]
pub struct TraceError {
    /// Which, counted from 1.
    pub line: usize,
    /// Why.
    pub why: String,
}

impl Trace {
    /// What was read of the layers, the lowest first, of the image with the manifest `manifest`.
    #[must_use]
    pub fn of(manifest: Digest, layers: impl IntoIterator<Item = Vec<ReadFile>>) -> Self {
        let layers = layers.into_iter().enumerate();
        let mut files: Vec<_> =
            layers.flat_map(|(at, files)| files.into_iter().map(move |file| (at, file))).collect();
        files.sort_by_key(|(_, file)| file.rank);
        let access = |(layer_index, file): (usize, ReadFile)| Access {
            path: file.path,
            manifest_digest: manifest,
            layer_index,
            chunks: file.chunks,
        };
        Self { accesses: files.into_iter().map(access).collect() }
    }

    /// Reads a file of records.
    ///
    /// # Errors
    ///
    /// If a line is not a record.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut accesses = Vec::new();
        for (at, text) in text.lines().enumerate() {
            if text.trim().is_empty() {
                continue;
            }
            let access = serde_json::from_str(text);
            let fail =
                |error: serde_json::Error| TraceError { line: at + 1, why: error.to_string() };
            accesses.push(access.map_err(fail)?);
        }
        Ok(Self { accesses })
    }

    /// The file of records.
    ///
    /// # Errors
    ///
    /// None that happen with what a trace holds.
    pub fn to_text(&self) -> serde_json::Result<String> {
        let mut text = String::new();
        for access in &self.accesses {
            text += &serde_json::to_string(access)?;
            text.push('\n');
        }
        Ok(text)
    }

    /// Several traces as one: what any of them needs early comes early, and of what they need equally
    /// early, what the first of them needs.
    #[must_use]
    pub fn merge(traces: impl IntoIterator<Item = Self>) -> Self {
        let mut first: BTreeMap<(Digest, usize, String), usize> = BTreeMap::new();
        let mut all: Vec<(usize, Access)> = Vec::new();
        for trace in traces {
            for (rank, access) in trace.accesses.into_iter().enumerate() {
                let file = (access.manifest_digest, access.layer_index, access.path.clone());
                match first.get(&file) {
                    Some(&at) => {
                        let (known, merged) = &mut all[at];
                        *known = rank.min(*known);
                        for chunk in access.chunks {
                            if !merged.chunks.contains(&chunk) {
                                merged.chunks.push(chunk);
                            }
                        }
                    }
                    None => {
                        first.insert(file, all.len());
                        all.push((rank, access));
                    }
                }
            }
        }
        all.sort_by_key(|(rank, _)| *rank);
        Self { accesses: all.into_iter().map(|(_, access)| access).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(paths: &[&str]) -> Trace {
        let access = |path: &&str| Access {
            path: (*path).to_owned(),
            manifest_digest: Digest::of(b"manifest"),
            layer_index: 0,
            chunks: vec![0],
        };
        Trace { accesses: paths.iter().map(access).collect() }
    }

    #[test]
    fn what_ctr_remote_writes_is_read() {
        let digest = Digest::of(b"manifest");
        let line = format!(r#"{{"path":"a/b","manifestDigest":"{digest}","layerIndex":2}}"#);
        let parsed = Trace::parse(&format!("{line}\n\n{line}\n")).unwrap();
        assert_eq!(parsed.accesses.len(), 2);
        assert_eq!(parsed.accesses[0].layer_index, 2);
        assert_eq!(parsed.to_text().unwrap(), format!("{line}\n{line}\n"));
        for broken in ["{}", "x", r#"{"path":"a","manifestDigest":"sha256:12","layerIndex":0}"#] {
            let error = Trace::parse(&format!("{line}\n{broken}")).unwrap_err();
            assert_eq!(error.line, 2);
        }
        let ours = trace(&["x"]);
        assert_eq!(Trace::parse(&ours.to_text().unwrap()).unwrap(), ours);
    }

    #[test]
    fn what_any_run_needs_early_comes_early() {
        let merged = Trace::merge([trace(&["a", "b", "c"]), trace(&["c", "a", "d"])]);
        let paths: Vec<_> = merged.accesses.iter().map(|access| access.path.as_str()).collect();
        assert_eq!(paths, ["a", "c", "b", "d"]);
    }
}
