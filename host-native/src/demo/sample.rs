//! An image with real content on a machine that has none: files of that machine itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lazystar_core::Digest;

use crate::pack::Gunzip;

/// Where files are taken from, and how many bytes from each: programs, libraries, data and
/// configuration in proportions that root file systems have.
const SOURCES: [(&str, u64); 5] = [
    ("/etc", 4 << 20),
    ("/usr/bin", 40 << 20),
    ("/usr/lib", 80 << 20),
    ("/usr/libexec", 8 << 20),
    ("/usr/share", 30 << 20),
];
/// No file larger than this, so that the sample is not a single one.
const MAX_FILE: u64 = 24 << 20;
/// A container reads about 6 % of its image (Slacker, FAST '16): runs of eight files that lie
/// side by side, as those of a program and its library do, all over the image.
const WORKLOAD_PERCENT: u64 = 6;
const RUN: usize = 8;
const RUNS_SKIPPED: usize = 16;

/// What was packed, and what the workload is.
#[derive(Debug)]
pub struct Sample {
    /// Paths in the image.
    pub files: Vec<String>,
    /// Bytes of all files.
    pub bytes: u64,
    /// What the workload reads: path, size and digest.
    pub workload: Vec<(String, u64, Digest)>,
}

impl Sample {
    /// Writes a tar of files of this machine to `out`. What cannot be read is left out.
    ///
    /// # Errors
    /// When there is next to nothing to be read, or the tar cannot be written.
    pub fn gather(out: impl Write) -> Result<Self> {
        let mut tar = tar::Builder::new(out);
        tar.follow_symlinks(false);
        let mut sample = Self { files: Vec::new(), bytes: 0, workload: Vec::new() };
        let itself = std::env::current_exe().context("cannot find this program")?;
        sample.add(&mut tar, &itself, "opt/lazystar")?;
        for (source, limit) in SOURCES {
            let before = sample.bytes;
            for (name, path) in files_below(Path::new(source), limit) {
                if sample.bytes - before < limit {
                    sample.add(&mut tar, &path, &name)?;
                }
            }
        }
        ensure!(
            sample.bytes > 1 << 20,
            "less than 1 MiB of files could be read below /etc and /usr"
        );
        tar.finish()?;
        sample.choose_workload(&itself)?;
        Ok(sample)
    }

    fn choose_workload(&mut self, itself: &Path) -> Result<()> {
        let mut left = self.bytes * WORKLOAD_PERCENT / 100;
        let runs = self.files.chunks(RUN).step_by(RUNS_SKIPPED);
        for name in runs.flatten() {
            let program = name == "opt/lazystar";
            let source = if program { itself.to_owned() } else { Path::new("/").join(name) };
            let bytes = fs::read(&source).with_context(|| format!("cannot read {name}"))?;
            let size = bytes.len() as u64;
            if size <= left {
                left -= size;
                self.workload.push((name.clone(), size, Digest::of(&bytes)));
            }
        }
        Ok(())
    }

    fn add(&mut self, tar: &mut tar::Builder<impl Write>, path: &Path, name: &str) -> Result<()> {
        // In memory first: what cannot be read, or changes meanwhile, must not spoil the tar.
        let (Ok(bytes), Ok(metadata)) = (fs::read(path), fs::metadata(path)) else { return Ok(()) };
        let mut header = tar::Header::new_ustar();
        header.set_metadata(&metadata);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes.as_slice())?;
        self.files.push(name.to_owned());
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Bytes that the workload reads.
    #[must_use]
    pub fn workload_bytes(&self) -> u64 {
        self.workload.iter().map(|(_, size, _)| size).sum()
    }

    /// Runs the workload: reads its files and compares them with the originals.
    ///
    /// # Errors
    /// When a file cannot be read, or is another.
    pub fn run(&self, read: impl Fn(&str) -> Result<Vec<u8>>) -> Result<()> {
        for (name, _, digest) in &self.workload {
            let bytes = read(name).with_context(|| format!("the workload cannot read {name}"))?;
            ensure!(Digest::of(&bytes) == *digest, "{name} is not what was packed");
        }
        Ok(())
    }
}

/// Regular files below `dir` in a stable order, with their names in the image, of up to a number
/// of bytes in all.
fn files_below(dir: &Path, limit: u64) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut bytes = 0;
    let mut queue = vec![dir.to_owned()];
    while let Some(dir) = queue.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        let mut entries: Vec<_> = entries.filter_map(io::Result::ok).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            if metadata.is_dir() {
                queue.push(path);
            } else if metadata.is_file()
                && metadata.len() <= MAX_FILE
                && bytes + metadata.len() <= limit
                && let Some(name) = path.to_str()
            {
                bytes += metadata.len();
                found.insert(name.trim_start_matches('/').to_owned(), path.clone());
            }
        }
    }
    found
}

/// Unpacks a gzip-compressed layer, as a full pull does.
///
/// # Errors
/// When it cannot be read or written.
pub fn unpack(blob: &[u8], dir: &Path) -> Result<()> {
    fs::create_dir(dir)?;
    let mut archive = tar::Archive::new(Gunzip::new(blob));
    archive.set_preserve_permissions(true);
    archive.unpack(dir).context("cannot unpack the layer")
}
