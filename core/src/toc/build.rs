//! Entries to tables.
//!
//! The TOC leaves much implicit: parents may be missing, names repeat (the last one counts), hard
//! links name paths that may come later, a chunk without a size goes through to the end of its
//! file, whiteouts are names with a prefix. Here all of that is resolved and checked, so that the
//! tables hold only what can be served.

mod finish;
mod names;

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::entry::{Entry, EntryKind};
use super::error::{EntryFault, TocError, fault_at};
use super::{Chunk, HOLE, KINDS, Kind, NONE, Node, SharedAttr};
use crate::digest::Digest;
use crate::footer::Footer;
use crate::limits::Limits;

/// Linux file systems name nothing longer (`NAME_MAX`).
const NAME_MAX: usize = 255;
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
const PREFETCH_LANDMARK: &[u8] = b".prefetch.landmark";
const NO_PREFETCH_LANDMARK: &[u8] = b".no.prefetch.landmark";
const IMPLIED_DIR_MODE: u16 = 0o755;

/// A node that a hard link stands for until all names are known.
const PENDING_LINK: u32 = u32::MAX;

pub(super) struct Builder {
    footer: Footer,
    blob_size: u64,
    limits: Limits,
    hash: FixedState,
    entries: u32,
    /// Room for the path of an entry.
    path: Vec<u8>,
    /// Directories that were made because an entry lies below them.
    implied: u32,
    nodes: Vec<Node>,
    names: Vec<Name>,
    /// Indices into `names` by directory and name.
    by_name: HashTable<u32>,
    links: Vec<PendingLink>,
    /// Directories that hide what is below; some may be there more than once.
    opaque: Vec<u32>,
    /// What whiteouts name: indices into `names`.
    hidden: Vec<u32>,
    replaced_dir: bool,
    attrs: Vec<SharedAttr>,
    /// Indices into `attrs`.
    attr_numbers: HashTable<u32>,
    xattrs: Vec<u8>,
    /// Where each set starts in `xattrs`, and its length there.
    xattr_sets: HashTable<(u32, u32)>,
    text: Vec<u8>,
    link_text: Vec<u8>,
    chunks: Vec<Chunk>,
    hole_bytes: u64,
    /// Starts of members that hold no chunk of the layer: where the member before them ends.
    breaks: Vec<u64>,
    /// The regular file whose chunks are being read.
    file: Option<OpenFile>,
    /// The directory of the last entry, which the next one mostly shares.
    last_dir: (Vec<u8>, u32),
    landmark: Option<(bool, u64)>,
    undigested: Option<Vec<u8>>,
}

struct Name {
    dir: u32,
    name: u32,
    node: u32,
    len: u8,
}

struct PendingLink {
    /// Index into `names`.
    from: u32,
    target: u32,
    target_len: u32,
}

struct OpenFile {
    node: u32,
    /// Its name, for errors: an index into `names`.
    name: u32,
    next_offset: u64,
}

impl Builder {
    pub(super) fn new(footer: Footer, blob_size: u64, seed: Digest, limits: Limits) -> Self {
        let (words, _) = seed.as_bytes().as_chunks::<8>();
        let mut builder = Self {
            footer,
            blob_size,
            limits,
            hash: FixedState::with_seed(words.first().map_or(0, |word| u64::from_le_bytes(*word))),
            entries: 0,
            path: Vec::new(),
            implied: 0,
            nodes: Vec::new(),
            names: Vec::new(),
            by_name: HashTable::new(),
            links: Vec::new(),
            opaque: Vec::new(),
            hidden: Vec::new(),
            replaced_dir: false,
            hole_bytes: 0,
            breaks: Vec::new(),
            attrs: Vec::new(),
            attr_numbers: HashTable::new(),
            xattrs: Vec::new(),
            xattr_sets: HashTable::new(),
            text: Vec::new(),
            link_text: Vec::new(),
            chunks: Vec::new(),
            file: None,
            last_dir: (Vec::new(), 0),
            landmark: None,
            undigested: None,
        };
        builder.push_implied_dir();
        builder
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Adds an entry.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), TocError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            let limit = u64::from(self.limits.entries);
            return Err(TocError::OverLimit { what: "entries", limit });
        }
        let fault = |fault| fault_at(&entry.name, fault);
        if entry.kind == EntryKind::Chunk {
            return match self.file.take() {
                Some(mut file) => {
                    file.next_offset = self.push_chunk(entry, file.node, file.next_offset)?;
                    self.file = Some(file);
                    Ok(())
                }
                None => Err(fault(EntryFault::StrayChunk)),
            };
        }
        self.end_file()?;
        let unusable = |text: &[u8], max| text.len() > max || text.contains(&0);
        let max = self.limits.path_bytes;
        if unusable(&entry.name, max) || unusable(&entry.link, max.saturating_sub(1)) {
            return Err(fault(EntryFault::Name));
        }
        if self.text.len() + self.link_text.len() + self.xattrs.len() > self.limits.text_bytes {
            let limit = self.limits.text_bytes as u64;
            return Err(TocError::OverLimit { what: "bytes of names and attributes", limit });
        }
        let mut path = core::mem::take(&mut self.path);
        path.clear();
        clean(&entry.name, &mut path);
        let result = self.push_at(entry, &path);
        self.path = path;
        result
    }

    /// Adds an entry whose path, made clean, is `path`.
    fn push_at(&mut self, entry: &Entry, path: &[u8]) -> Result<(), TocError> {
        let fault = |fault| fault_at(&entry.name, fault);
        let (dir_path, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        if name.is_empty() {
            return self.push_root(entry);
        }
        if name.len() > NAME_MAX {
            return Err(fault(EntryFault::Name));
        }
        let dir = self.directory(dir_path, &entry.name)?;
        if dir == 0 && (name == PREFETCH_LANDMARK || name == NO_PREFETCH_LANDMARK) {
            self.landmark = Some((name == PREFETCH_LANDMARK, entry.offset));
            if entry.offset < self.footer.payload_end {
                self.breaks.push(entry.offset);
            }
            return Ok(());
        }
        if name == OPAQUE_MARK {
            self.opaque.push(dir);
            return Ok(());
        }
        match name.strip_prefix(WHITEOUT_PREFIX) {
            // Names such as `.wh..wh.plnk` are bookkeeping of other storage drivers.
            Some(hidden) if hidden.starts_with(WHITEOUT_PREFIX) || hidden.is_empty() => Ok(()),
            Some(b"." | b"..") => Err(fault(EntryFault::Name)),
            Some(hidden) => {
                let name = self.find_name(dir, hidden).unwrap_or_else(|| {
                    let attr = self.share(Kind::Whiteout, 0, 0, 0, NONE);
                    let node = self.push_node(attr, 0, 0, 0, 0);
                    self.set_name(dir, hidden, node)
                });
                self.hidden.push(name);
                Ok(())
            }
            None => self.push_named(entry, dir, name),
        }
    }

    fn push_named(&mut self, entry: &Entry, dir: u32, name: &[u8]) -> Result<(), TocError> {
        let fault = |fault| fault_at(&entry.name, fault);
        let kind = match entry.kind {
            EntryKind::Node(kind) => kind,
            EntryKind::Hardlink => {
                let mut target = Vec::with_capacity(entry.link.len());
                clean(&entry.link, &mut target);
                let from = self.set_name(dir, name, PENDING_LINK);
                let start = self.link_text.len();
                self.link_text.extend_from_slice(&target);
                self.links.push(PendingLink {
                    from,
                    target: count(start),
                    target_len: count(target.len()),
                });
                return Ok(());
            }
            _ => return Err(fault(EntryFault::Kind)),
        };
        let xattrs = self.intern_xattrs(entry);
        let attr = self.share(kind, entry.mode, entry.uid, entry.gid, xattrs);
        if kind == Kind::Directory
            && let Some(existing) = self.find(dir, name)
            && self.is_dir(existing)
        {
            self.nodes[existing as usize].attr = attr;
            self.nodes[existing as usize].mtime_nanos = entry.mtime_nanos;
            return Ok(());
        }
        let (mut size, mut a, mut b) = (0, 0, 0);
        match kind {
            Kind::Regular => {
                size = entry.size;
                a = count(self.chunks.len());
            }
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(fault(EntryFault::EmptySymlink));
                }
                size = entry.link.len() as u64;
                a = count(self.text.len());
                self.text.extend_from_slice(&entry.link);
            }
            Kind::CharDevice | Kind::BlockDevice => (a, b) = entry.device,
            _ => {}
        }
        let node = self.push_node(attr, entry.mtime_nanos, size, a, b);
        let name = self.set_name(dir, name, node);
        if kind == Kind::Regular && size > 0 {
            let next_offset = self.push_chunk(entry, node, 0)?;
            self.file = Some(OpenFile { node, name, next_offset });
        }
        Ok(())
    }

    fn push_root(&mut self, entry: &Entry) -> Result<(), TocError> {
        if entry.kind != EntryKind::Node(Kind::Directory) {
            return Err(fault_at(&entry.name, EntryFault::Name));
        }
        let xattrs = self.intern_xattrs(entry);
        self.nodes[0].attr = self.share(Kind::Directory, entry.mode, entry.uid, entry.gid, xattrs);
        self.nodes[0].mtime_nanos = entry.mtime_nanos;
        Ok(())
    }

    /// Adds a chunk that must start at `expected` in its file; returns where it ends.
    fn push_chunk(&mut self, entry: &Entry, node: u32, expected: u64) -> Result<u64, TocError> {
        let fault = |fault| Err(fault_at(&entry.name, fault));
        let size = self.nodes[node as usize].size;
        if entry.chunk_offset != expected || expected >= size {
            return fault(EntryFault::Chunks);
        }
        let left = size - expected;
        let len = if entry.chunk_size == 0 { left } else { entry.chunk_size };
        if len > left {
            return fault(EntryFault::Chunks);
        }
        if entry.zeros {
            return self.push_hole(node, len).map(|()| expected + len);
        }
        let end_in_member = entry.inner_offset.checked_add(len);
        // Positions in a member are kept in 32 bits, and the last of them stands for holes.
        let member_bytes = self.limits.member_bytes.min(u64::from(HOLE - 1));
        if len > self.limits.chunk_bytes || end_in_member.is_none_or(|end| end > member_bytes) {
            return fault(EntryFault::TooLarge);
        }
        if entry.offset >= self.footer.payload_end {
            return fault(EntryFault::Offset);
        }
        // A file of one chunk may state the digest of the whole instead.
        let digest = entry.chunk_digest.or_else(|| entry.digest.filter(|_| len == size));
        if digest.is_none() && self.undigested.is_none() {
            self.undigested = Some(entry.name.clone());
        }
        self.chunks.push(Chunk {
            digest: digest.unwrap_or_default(),
            flat: 0,
            member: entry.offset,
            inner: u32::try_from(entry.inner_offset).unwrap_or(HOLE - 1),
            len: u32::try_from(len).unwrap_or(u32::MAX),
        });
        self.nodes[node as usize].b += 1;
        Ok(expected + len)
    }

    /// Holes have no size limit of their own: one costs nothing but addresses, and is cut into
    /// chunks that 32 bits can describe.
    fn push_hole(&mut self, node: u32, len: u64) -> Result<(), TocError> {
        self.hole_bytes = self.hole_bytes.saturating_add(len);
        if self.hole_bytes > self.limits.flat_bytes {
            let limit = self.limits.flat_bytes;
            return Err(TocError::OverLimit { what: "bytes of file content", limit });
        }
        let mut left = len;
        while left > 0 {
            let part = left.min(1 << 31);
            left -= part;
            let len = u32::try_from(part).unwrap_or(u32::MAX);
            self.chunks.push(Chunk { digest: [0; 32], flat: 0, member: 0, inner: HOLE, len });
            self.nodes[node as usize].b += 1;
        }
        Ok(())
    }

    /// Ends the chunks of the current file.
    pub(super) fn end_file(&mut self) -> Result<(), TocError> {
        match self.file.take() {
            Some(file) if file.next_offset != self.nodes[file.node as usize].size => {
                Err(fault_at(&self.path_of(file.name), EntryFault::Chunks))
            }
            _ => Ok(()),
        }
    }

    fn push_implied_dir(&mut self) -> u32 {
        let attr = self.share(Kind::Directory, IMPLIED_DIR_MODE, 0, 0, NONE);
        self.push_node(attr, 0, 0, 0, 0)
    }

    fn push_node(&mut self, attr: u32, mtime_nanos: i64, size: u64, a: u32, b: u32) -> u32 {
        self.nodes.push(Node { size, mtime_nanos, a, b, attr, nlink: 0 });
        count(self.nodes.len() - 1)
    }

    fn share(&mut self, kind: Kind, mode: u16, uid: u32, gid: u32, xattrs: u32) -> u32 {
        let kind = KINDS.iter().position(|known| *known == kind).unwrap_or(0);
        let kind = u8::try_from(kind).unwrap_or(0);
        self.share_attr(SharedAttr { kind, opaque: false, mode, uid, gid, xattrs })
    }

    fn share_attr(&mut self, attr: SharedAttr) -> u32 {
        let Self { attrs, attr_numbers, hash: state, .. } = self;
        let hash = state.hash_one(attr);
        if let Some(known) = attr_numbers.find(hash, |at| attrs[*at as usize] == attr) {
            return *known;
        }
        let at = count(attrs.len());
        attrs.push(attr);
        attr_numbers.insert_unique(hash, at, |at| state.hash_one(attrs[*at as usize]));
        at
    }

    fn intern_xattrs(&mut self, entry: &Entry) -> u32 {
        if entry.xattr_count == 0 {
            return NONE;
        }
        let Self { xattrs, xattr_sets, hash: state, .. } = self;
        let start = count(xattrs.len());
        xattrs.extend(entry.xattr_count.to_le_bytes());
        xattrs.extend_from_slice(&entry.xattrs);
        let of = |(start, len): (u32, u32)| &xattrs[start as usize..(start + len) as usize];
        let set = (start, count(xattrs.len()) - start);
        let hash_of = |set: &[u8]| {
            let mut hasher = state.build_hasher();
            hasher.write(set);
            hasher.finish()
        };
        let hash = hash_of(of(set));
        if let Some((known, _)) = xattr_sets.find(hash, |known| of(*known) == of(set)) {
            let known = *known;
            xattrs.truncate(start as usize);
            return known;
        }
        xattr_sets.insert_unique(hash, set, |known| hash_of(of(*known)));
        start
    }

    fn is_kind(&self, node: u32, kind: Kind) -> bool {
        self.nodes.get(node as usize).is_some_and(|node| self.kind_of(node) == kind)
    }

    fn kind_of(&self, node: &Node) -> Kind {
        KINDS[usize::from(self.attrs[node.attr as usize].kind)]
    }

    fn is_dir(&self, node: u32) -> bool {
        self.is_kind(node, Kind::Directory)
    }

    fn is_whiteout(&self, node: u32) -> bool {
        self.is_kind(node, Kind::Whiteout)
    }
}

/// Writes `path` without a leading slash, empty parts, `.` and `..`, which cannot leave the root.
fn clean(path: &[u8], out: &mut Vec<u8>) {
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => out.truncate(out.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            _ => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(part);
            }
        }
    }
}

/// Counts are limited far below 2^32: entries by their number, text by the bytes of the TOC.
fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_paths() {
        for (path, expected) in [
            ("a/b", "a/b"),
            ("./a/b/", "a/b"),
            ("/a//b", "a/b"),
            (".//a", "a"),
            ("././a/./", "a"),
            ("a/../../b", "b"),
            ("a/b/..", "a"),
            ("..", ""),
            ("./", ""),
            ("/", ""),
            ("", ""),
            ("...", "..."),
            (".a/..b", ".a/..b"),
        ] {
            let mut out = Vec::new();
            clean(path.as_bytes(), &mut out);
            assert_eq!(out, expected.as_bytes(), "{path}");
        }
    }
}
