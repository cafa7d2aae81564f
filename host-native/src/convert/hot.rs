//! Which files of which layers come first.

use std::collections::{BTreeMap, BTreeSet};

use lazystar_core::Digest;

use crate::pack::{GlobError, Wanted};
use crate::trace::Trace;

/// What comes first in the layers of an image.
#[derive(Clone, Debug, Default)]
pub struct Hot {
    /// In every layer that has it.
    everywhere: Vec<Wanted>,
    /// What was recorded, by manifest and number of the layer.
    recorded: BTreeMap<(Digest, usize), Vec<String>>,
}

/// A list of paths that is none.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {cause}")]
pub struct HotError {
    /// Which, counted from 1.
    pub line: usize,
    /// Why.
    pub cause: GlobError,
}

impl Hot {
    /// Adds paths and patterns for every layer.
    pub fn add_everywhere(&mut self, wanted: impl IntoIterator<Item = Wanted>) {
        self.everywhere.extend(wanted);
    }

    /// Adds a list of paths and patterns, one a line; empty lines and those that begin with `#` are
    /// not counted.
    ///
    /// # Errors
    ///
    /// If a line is a broken pattern.
    pub fn add_list(&mut self, text: &str) -> Result<(), HotError> {
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let wanted =
                    Wanted::parse(line).map_err(|cause| HotError { line: at + 1, cause })?;
                self.everywhere.push(wanted);
            }
        }
        Ok(())
    }

    /// Adds what was recorded.
    pub fn add_trace(&mut self, trace: &Trace) {
        for access in &trace.accesses {
            let layer = (access.manifest_digest, access.layer_index);
            self.recorded.entry(layer).or_default().push(access.path.clone());
        }
    }

    /// Whether nothing comes first anywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.everywhere.is_empty() && self.recorded.is_empty()
    }

    /// What comes first in layer number `layer` of the image with the manifest `manifest`.
    ///
    /// What was recorded of one image alone holds for one that is `alone` as well: it was recorded of
    /// the same image in another form, before or after a conversion.
    pub(super) fn of(&self, manifest: Digest, layer: usize, alone: bool) -> Vec<Wanted> {
        let manifests: BTreeSet<Digest> = self.recorded.keys().map(|(it, _)| *it).collect();
        let manifest = match manifests.first() {
            Some(only) if manifests.len() == 1 && alone => *only,
            _ => manifest,
        };
        let recorded = self.recorded.get(&(manifest, layer)).into_iter().flatten();
        let recorded = recorded.map(|path| Wanted::Path(path.clone()));
        recorded.chain(self.everywhere.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_records() {
        let mut hot = Hot::default();
        hot.add_list("# what starts\n\n /bin/sh\nusr/lib/*.so\n").unwrap();
        assert_eq!(hot.add_list("a\n[\n").unwrap_err().line, 2);
        let trace = format!(
            "{{\"path\":\"etc/a\",\"manifestDigest\":\"{}\",\"layerIndex\":1}}",
            Digest::of(b"x")
        );
        hot.add_trace(&Trace::parse(&trace).unwrap());
        let names = |layer| -> Vec<String> {
            let wanted = hot.of(Digest::of(b"converted"), layer, true);
            wanted.iter().map(|it| format!("{it:?}")).collect()
        };
        assert_eq!(names(0).len(), 3);
        assert_eq!(names(1)[0], "Path(\"etc/a\")");
    }
}
