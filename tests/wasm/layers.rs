//! Layers written by core's writer, and what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use lazystar_core::Digest;
use lazystar_core::tar::{Entry, Kind, encode_header};
use lazystar_core::write::{Compressor, Format, Miniz, Options, Ruzstd, Summary, Writer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The plain bytes of a chunk at most.
pub(crate) const CHUNK: u32 = 100_000;

/// A layer in a directory of its own.
pub(crate) struct Packed {
    directory: TempDir,
    pub(crate) blob: Vec<u8>,
    pub(crate) summary: Summary,
}

impl Packed {
    fn new(entries: &[(Entry, Vec<u8>)], options: Options) -> Self {
        match options.format.compression() {
            lazystar_core::footer::Compression::Gzip => {
                Self::write(entries, options, Miniz::default())
            }
            lazystar_core::footer::Compression::Zstd => Self::write(entries, options, Ruzstd),
        }
    }

    fn write(entries: &[(Entry, Vec<u8>)], options: Options, codec: impl Compressor) -> Self {
        let mut writer = Writer::new(options, codec).unwrap();
        for (entry, content) in entries {
            writer.append(entry.clone(), &encode_header(entry).unwrap()).unwrap();
            writer.data(content).unwrap();
        }
        let summary = writer.finish().unwrap();
        let blob = writer.take_output();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("toc"), writer.toc_json()).unwrap();
        Self { directory, blob, summary }
    }

    /// The layer as a job of `run.mjs` describes it.
    pub(crate) fn job(&self) -> Value {
        let annotations: BTreeMap<_, _> = self.summary.annotations().into_iter().collect();
        let mut job = json!({ "blob": self.file("blob", &self.blob), "annotations": annotations });
        if self.summary.format == Format::EstargzExternalToc {
            job["toc"] = json!(self.directory.path().join("toc"));
        }
        job
    }

    pub(crate) fn toc(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("toc")).unwrap()
    }

    /// Writes a file beside the layer.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

/// Files of sizes that end in, before and after chunks, some of which hardly shrink.
pub(crate) fn files() -> Vec<(String, Vec<u8>)> {
    let mut seed = 1_u32;
    let mut content = |size: usize| -> Vec<u8> {
        let mut byte = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if size.is_multiple_of(2) { (seed >> 24) as u8 } else { (seed >> 30) as u8 }
        };
        (0..size).map(|_| byte()).collect()
    };
    let sizes = [0, 1, 2, 4095, 4096, 99_999, 100_000, 100_001, 300_000, 700_001];
    let mut files: Vec<_> =
        sizes.iter().map(|size| (format!("dir/file-{size}"), content(*size))).collect();
    files.extend((0..1200).map(|at| (format!("many/{at:04}"), content(at % 50))));
    files.push(("dir/ñ ☃".to_owned(), b"a name beyond ASCII".to_vec()));
    files
}

/// A layer of all [`files`], a link, and a deletion.
pub(crate) fn pack(format: Format, min_chunk_size: u32) -> Packed {
    let mut entries: Vec<_> = files()
        .into_iter()
        .map(|(name, content)| {
            let mut entry = Entry::new(name, Kind::Regular);
            entry.size = content.len() as u64;
            entry.mode = 0o644;
            (entry, content)
        })
        .collect();
    let mut link = Entry::new("link", Kind::Symlink);
    link.link_name = "dir/file-1".to_owned();
    entries.push((link, Vec::new()));
    let mut hard = Entry::new("hard", Kind::HardLink);
    hard.link_name = "dir/file-2".to_owned();
    entries.push((hard, Vec::new()));
    Packed::new(&entries, Options { format, chunk_size: CHUNK, min_chunk_size, lossless: false })
}

/// What `read` should find in a layer of [`pack`].
pub(crate) fn expected() -> BTreeMap<String, Value> {
    let file = |content: &[u8]| json!({ "kind": "regular", "size": content.len(), "layer": 0, "digest": Digest::of(content).to_string() });
    let mut found: BTreeMap<_, _> =
        files().iter().map(|(name, content)| (format!("/{name}"), file(content))).collect();
    found.insert("/hard".to_owned(), found["/dir/file-2"].clone());
    found.insert(
        "/link".to_owned(),
        json!({ "kind": "symlink", "size": 10, "layer": 0, "target": "dir/file-1" }),
    );
    for directory in ["/dir", "/many"] {
        found.insert(directory.to_owned(), json!({ "kind": "directory", "size": 0, "layer": 0 }));
    }
    found
}

/// A layer that replaces one file of [`pack`] and deletes two directories' worth of others.
pub(crate) fn pack_upper(format: Format) -> Packed {
    let file = |name: &str, content: &[u8]| {
        let mut entry = Entry::new(name, Kind::Regular);
        entry.size = content.len() as u64;
        (entry, content.to_vec())
    };
    let entries =
        [file("dir/file-1", b"replaced"), file("dir/.wh.file-2", b""), file(".wh.many", b"")];
    Packed::new(&entries, Options { format, ..Options::default() })
}
