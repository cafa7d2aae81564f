//! A tar and the TOC that claims to describe it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lazystar_core::Digest;
use lazystar_core::digest::Hasher;
use lazystar_core::tar::{Entry, Event, Kind};
use lazystar_core::time::parse_rfc3339;
use lazystar_core::write::{TOC_NAME, clean, type_name};
use serde::Deserialize;

use super::Lies;

/// A TOC as it is written, not as the engine understands it.
#[derive(Debug, Deserialize)]
pub(super) struct TocFile {
    #[serde(default)]
    entries: Vec<TocEntry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TocEntry {
    name: String,
    r#type: String,
    size: u64,
    modtime: String,
    link_name: String,
    mode: u32,
    uid: u32,
    gid: u32,
    dev_major: u32,
    dev_minor: u32,
    xattrs: BTreeMap<String, String>,
    digest: String,
    offset: u64,
    inner_offset: u64,
    chunk_offset: u64,
    chunk_size: u64,
    chunk_digest: String,
    chunk_type: String,
}

/// A chunk that the TOC has, and where the tar has its bytes.
struct Chunk {
    size: u64,
    digest: String,
}

/// Compares the events of a tar with a TOC.
pub(super) struct Comparison {
    toc: Vec<TocEntry>,
    has_toc: bool,
    /// The digest of the TOC, which is an entry of the tar itself.
    json_digest: Option<Digest>,
    /// A TOC without digests.
    legacy: bool,
    /// The next entry of the TOC.
    next: usize,
    /// How much of the tar has been seen.
    at: u64,
    file: Option<File>,
    /// Where chunks are to be found: offset of the member, offset in it, offset in the tar, name.
    places: Vec<(u64, u64, u64, usize)>,
    pub(super) entries: u64,
    pub(super) chunks: u64,
}

struct File {
    name: String,
    left: u64,
    whole: Hasher,
    whole_digest: String,
    chunks: std::vec::IntoIter<Chunk>,
    chunk: Option<(u64, String, Hasher)>,
    is_toc: bool,
}

impl Comparison {
    pub(super) fn new(toc: Option<TocFile>, json_digest: Option<Digest>, legacy: bool) -> Self {
        Self {
            has_toc: toc.is_some(),
            toc: toc.map(|toc| toc.entries).unwrap_or_default(),
            json_digest,
            legacy,
            next: 0,
            at: 0,
            file: None,
            places: Vec::new(),
            entries: 0,
            chunks: 0,
        }
    }

    pub(super) fn event(&mut self, event: Event<'_>, lies: &mut Lies) {
        match event {
            Event::Entry { entry, header } => {
                self.at += header.len() as u64;
                self.entry(&entry, lies);
            }
            Event::Data(bytes) => {
                self.at += bytes.len() as u64;
                self.data(bytes, lies);
            }
            Event::Padding(bytes) | Event::Trailer(bytes) => self.at += bytes.len() as u64,
            Event::Global(bytes) => self.at += bytes.len() as u64,
        }
    }

    /// Compares what is left; `starts` says where members begin, in the blob and in the tar.
    pub(super) fn end(&mut self, starts: &BTreeMap<u64, u64>, lies: &mut Lies) {
        if let Some(entry) = self.toc.get(self.next) {
            lies.add(format!("its TOC has {:?}, which its tar has not", entry.name));
        }
        for (offset, inner, at, entry) in &self.places {
            let name = || self.toc.get(*entry).map(|entry| entry.name.clone()).unwrap_or_default();
            match starts.get(offset) {
                None => lies.add(format!(
                    "the TOC has a chunk of {:?} at byte {offset}, where nothing can be decompressed from",
                    name()
                )),
                Some(start) if start.checked_add(*inner) != Some(*at) => lies.add(format!(
                    "what is decompressed from byte {offset} is not the chunk of {:?} that the TOC has there",
                    name()
                )),
                Some(_) => {}
            }
        }
    }

    fn entry(&mut self, entry: &Entry, lies: &mut Lies) {
        self.entries += 1;
        self.file = None;
        let is_toc = clean(&entry.name) == TOC_NAME;
        let mut file = File {
            name: entry.name.clone(),
            left: entry.size,
            whole: Hasher::new(),
            whole_digest: String::new(),
            chunks: Vec::new().into_iter(),
            chunk: None,
            is_toc,
        };
        if is_toc || !self.has_toc {
            self.file = (entry.size > 0).then_some(file);
            return;
        }
        let at = self.next;
        let Some(claim) = self.toc.get(at) else {
            return lies.add(format!("its TOC lacks {:?}, which its tar has", entry.name));
        };
        if clean(&claim.name) != clean(&entry.name) {
            return lies
                .add(format!("its TOC has {:?} where its tar has {:?}", claim.name, entry.name));
        }
        for what in differences(claim, entry) {
            lies.add(format!("its TOC is wrong about the {what} of {:?}", entry.name));
        }
        file.whole_digest.clone_from(&claim.digest);
        let mut chunks = Vec::new();
        self.next += 1;
        if entry.kind == Kind::Regular && entry.size > 0 {
            let mut covered = 0;
            let mut index = at;
            while let Some(chunk) = self.toc.get(index)
                && (index == at || chunk.r#type == "chunk")
            {
                let left = entry.size.saturating_sub(chunk.chunk_offset);
                let size = if chunk.chunk_size == 0 { left } else { chunk.chunk_size };
                if chunk.chunk_offset != covered || size > left || size == 0 {
                    lies.add(format!("the chunks of {:?} do not make up the file", entry.name));
                }
                covered = chunk.chunk_offset.saturating_add(size);
                if chunk.chunk_type != "zeros" {
                    let place = self.at.saturating_add(chunk.chunk_offset);
                    self.places.push((chunk.offset, chunk.inner_offset, place, at));
                }
                chunks.push(Chunk { size, digest: chunk.chunk_digest.clone() });
                index += 1;
            }
            if covered != entry.size {
                lies.add(format!("the chunks of {:?} do not make up the file", entry.name));
            }
            self.next = index;
            if chunks.len() == 1 && chunks[0].digest.is_empty() {
                // What readers fall back to.
                chunks[0].digest.clone_from(&claim.digest);
            }
            file.chunks = chunks.into_iter();
            self.file = Some(file);
        }
    }

    fn data(&mut self, mut bytes: &[u8], lies: &mut Lies) {
        let Some(file) = &mut self.file else { return };
        file.left = file.left.saturating_sub(bytes.len() as u64);
        file.whole.update(bytes);
        while self.has_toc && !file.is_toc && !bytes.is_empty() {
            if file.chunk.is_none() {
                let Some(chunk) = file.chunks.next() else { break };
                file.chunk = Some((chunk.size, chunk.digest, Hasher::new()));
            }
            let Some((left, _, hasher)) = &mut file.chunk else { break };
            let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            hasher.update(&bytes[..length]);
            *left -= length as u64;
            bytes = &bytes[length..];
            if *left == 0
                && let Some((_, stated, hasher)) = file.chunk.take()
            {
                self.chunks += 1;
                let actual = hasher.finish().to_string();
                if stated.is_empty() && !self.legacy {
                    lies.add(format!("its TOC has no digest of a chunk of {:?}", file.name));
                } else if !stated.is_empty() && stated != actual {
                    lies.add(format!(
                        "a chunk of {:?} has digest {actual}, not {stated} as its TOC says",
                        file.name
                    ));
                }
            }
        }
        if file.left == 0 {
            let actual = std::mem::take(&mut file.whole).finish();
            if file.is_toc {
                if self.json_digest.is_some_and(|expected| expected != actual) {
                    lies.add(
                        "the TOC that its footer points at is another one than that in its tar",
                    );
                }
            } else if !file.whole_digest.is_empty() && file.whole_digest != actual.to_string() {
                lies.add(format!("its TOC is wrong about the digest of {:?}", file.name));
            }
        }
    }
}

/// What a TOC says otherwise than the tar.
fn differences(claim: &TocEntry, entry: &Entry) -> Vec<&'static str> {
    let xattrs: BTreeMap<_, _> =
        entry.xattrs.iter().map(|(name, value)| (name.clone(), STANDARD.encode(value))).collect();
    // Times are shown in nanoseconds, which end in the years 1677 and 2262. Other writers leave out a time before 1970 or at
    // its beginning.
    const BILLION: i64 = 1_000_000_000;
    let claimed = parse_rfc3339(claim.modtime.as_bytes()).unwrap_or_default();
    let same_time = claimed.div_euclid(BILLION)
        == entry.mtime.saturating_mul(BILLION).div_euclid(BILLION)
        || (claim.modtime.is_empty() && entry.mtime <= 0);
    [
        (claim.r#type == type_name(entry.kind), "type"),
        (claim.size == entry.size, "size"),
        (claim.mode & 0o7777 == entry.mode, "mode"),
        ((claim.uid, claim.gid) == (entry.uid, entry.gid), "owner"),
        (claim.link_name == entry.link_name, "target"),
        ((claim.dev_major, claim.dev_minor) == (entry.dev_major, entry.dev_minor), "device"),
        (claim.xattrs == xattrs, "attributes"),
        (same_time, "time"),
    ]
    .into_iter()
    .filter_map(|(same, what)| (!same).then_some(what))
    .collect()
}
