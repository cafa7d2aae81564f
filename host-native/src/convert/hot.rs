//! Which files of which layers come first.

use std::collections::BTreeMap;

use lazystar_core::Digest;

use crate::pack::{GlobError, Wanted};
use crate::trace::Trace;

/// What comes first in the layers of an image.
#[derive(Clone, Debug, Default)]
pub struct Hot {
    /// In every layer that has it.
    everywhere: Vec<Wanted>,
    /// What was recorded, by number of the layer: paths, and of which manifest.
    recorded: BTreeMap<usize, Vec<(Digest, String)>>,
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
            let recorded = (access.manifest_digest, access.path.clone());
            self.recorded.entry(access.layer_index).or_default().push(recorded);
        }
    }

    /// Whether nothing comes first anywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.everywhere.is_empty() && self.recorded.is_empty()
    }

    /// What comes first in layer number `layer` of the image with the manifest `manifest`.
    ///
    /// For one that is `alone` all records hold, whatever the manifest: they were made of the same image,
    /// maybe in another form, before or after a conversion. Of several platforms each has its own.
    pub(super) fn of(&self, manifest: Digest, layer: usize, alone: bool) -> Vec<Wanted> {
        let recorded = self.recorded.get(&layer).into_iter().flatten();
        let recorded = recorded.filter(|(of, _)| alone || *of == manifest);
        let recorded = recorded.map(|(_, path)| Wanted::Path(path.clone()));
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

    #[test]
    fn records_of_several_forms_of_an_image_all_count() {
        let mut hot = Hot::default();
        for (path, of) in [("a", "lazy"), ("b", "plain"), ("c", "lazy")] {
            let manifest = Digest::of(of.as_bytes());
            let record = format!("{{\"path\":\"{path}\",\"manifestDigest\":\"{manifest}\"}}");
            hot.add_trace(&Trace::parse(&record).unwrap());
        }
        let names = |alone| -> Vec<String> {
            let wanted = hot.of(Digest::of(b"plain"), 0, alone);
            wanted.iter().map(|it| format!("{it:?}")).collect()
        };
        assert_eq!(names(true), ["Path(\"a\")", "Path(\"b\")", "Path(\"c\")"]);
        assert_eq!(names(false), ["Path(\"b\")"]);
    }
}
