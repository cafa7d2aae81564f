//! The table of contents of a layer, as compact immutable tables.
//!
//! No string or map per entry: names lie end to end in one buffer, attributes that entries share
//! are kept once, and directories, chunks and names are found by binary search. A regular file
//! with one chunk costs 100 bytes and its name.
//!
//! Source of the format: the stargz and eStargz specifications (`stargz.index.json`) and the
//! `zstd:chunked` additions of containers/storage (`chunkType`).

mod build;
mod entry;
mod error;
pub(crate) mod json;
mod parse;

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

pub use error::{EntryFault, TocError};
pub use json::JsonError;
pub use parse::TocReader;

use crate::digest::Digest;
use crate::footer::Format;
use crate::range::ByteRange;

/// The alignment of every file in the flat space: the page size that the kernel maps.
pub const FLAT_ALIGN: u64 = 4096;

/// What a member may take in the blob beyond an eighth more than its plain chunks: block headers,
/// and the tar headers behind its last chunk, a hundred thousand of them at the least. A zstd
/// decoder wants those as well, because it gives nothing out until a window after it has come.
const MEMBER_SLACK: u64 = 16 << 20;

/// A file, directory or other object of a layer. Stable: the same TOC gives the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// The number of a chunk, in blob order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(pub u32);

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A mark that the same name in lower layers is deleted (`.wh.NAME` in the tar).
    Whiteout,
}

/// The attributes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits (`07777`).
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Bytes in a regular file or symbolic link, 0 for the rest.
    pub size: u64,
    /// Time of the last modification in nanoseconds since 1970, saturated at what fits.
    pub mtime_nanos: i64,
    /// Number of names, and for directories of sub-directories as well.
    pub nlink: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// The name, which is UTF-8 because the TOC is JSON.
    pub name: &'a [u8],
    /// What it names.
    pub node: NodeId,
}

/// A unit of verification: some bytes of a file and where their compressed form is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// SHA-256 of the plain bytes; all zero when the TOC has none.
    digest: [u8; 32],
    /// Where the plain bytes are in the flat space.
    pub flat: u64,
    /// Where the member that holds it starts in the blob.
    pub member: u64,
    /// Where it starts in the plain bytes of the member, or [`HOLE`].
    inner: u32,
    /// How many plain bytes.
    pub len: u32,
}

const HOLE: u32 = u32::MAX;

impl Chunk {
    /// The digest that its bytes must have, if the TOC states one.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        (self.digest != [0; 32]).then(|| Digest::from_bytes(self.digest))
    }

    /// Whether it is all zeros and has no bytes in the blob.
    #[must_use]
    pub const fn is_hole(&self) -> bool {
        self.inner == HOLE
    }

    /// Where its plain bytes are in the flat space.
    #[must_use]
    pub fn flat_range(&self) -> Range<u64> {
        self.flat..self.flat + u64::from(self.len)
    }

    /// Where its bytes are in the plain bytes of its member.
    #[must_use]
    pub fn member_range(&self) -> Range<usize> {
        let start = self.inner as usize;
        start..start + self.len as usize
    }
}

/// What the landmarks of a layer ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landmark {
    /// No landmark: nothing is known of what will be read.
    None,
    /// Everything before this flat offset should be fetched ahead (`.prefetch.landmark`).
    Prefetch(u64),
    /// Nothing should be fetched ahead (`.no.prefetch.landmark`).
    NoPrefetch,
}

/// How far the bytes of a layer can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assurance {
    /// The TOC has the digest that the image's manifest states, and every chunk has a digest.
    Verified,
    /// Every chunk is checked against the TOC, but nothing vouches for the TOC itself.
    Consistent,
    /// Chunks without digests are passed on unchecked, because a person asked for that.
    Unverified,
}

impl Assurance {
    /// The name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Consistent => "consistent",
            Self::Unverified => "unverified",
        }
    }
}

#[derive(Clone, Copy)]
struct Node {
    /// Regular: size. Symlink: length of the target. Directory: parent, then own dirent.
    size: u64,
    mtime_nanos: i64,
    /// Regular: first chunk. Symlink: offset of the target. Device: major. Directory: first dirent.
    a: u32,
    /// Regular: number of chunks. Device: minor. Directory: number of dirents.
    b: u32,
    attr: u32,
    nlink: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct SharedAttr {
    kind: u8,
    opaque: bool,
    mode: u16,
    uid: u32,
    gid: u32,
    /// Offset of the extended attributes, or [`NONE`].
    xattrs: u32,
}

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct StoredDirent {
    name: u32,
    node: u32,
    name_len: u8,
}

/// The table of contents of one layer.
pub struct Toc {
    format: Format,
    digest: Digest,
    assurance: Assurance,
    blob_size: u64,
    payload_end: u64,
    landmark: Landmark,
    flat_size: u64,
    nodes: Vec<Node>,
    dirents: Vec<StoredDirent>,
    chunks: Vec<Chunk>,
    /// Where members start that hold no chunk: those of landmarks and of replaced files. Sorted.
    breaks: Vec<u64>,
    attrs: Vec<SharedAttr>,
    /// Names and link targets.
    text: Vec<u8>,
    /// For each set: count, then for each attribute two lengths, name and value.
    xattrs: Vec<u8>,
}

impl Toc {
    /// The top directory.
    pub const ROOT: NodeId = NodeId(0);

    /// The format of the layer.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// SHA-256 of the TOC's JSON.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How far the bytes can be trusted.
    #[must_use]
    pub fn assurance(&self) -> Assurance {
        self.assurance
    }

    /// The size of the compressed blob.
    #[must_use]
    pub fn blob_size(&self) -> u64 {
        self.blob_size
    }

    /// What the landmarks ask for.
    #[must_use]
    pub fn landmark(&self) -> Landmark {
        self.landmark
    }

    /// One past the last byte of the flat space.
    #[must_use]
    pub fn flat_size(&self) -> u64 {
        self.flat_size
    }

    /// How many nodes there are; every [`NodeId`] is below it.
    #[must_use]
    pub fn node_count(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    /// Whether `node` is one of this layer.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        (node.0 as usize) < self.nodes.len()
    }

    /// Every chunk, in blob order.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Whether any node has extended attributes or is opaque.
    #[must_use]
    pub fn has_xattrs(&self) -> bool {
        self.attrs.iter().any(|attr| attr.opaque || attr.xattrs != NONE)
    }

    /// The attributes of `node`; those of the root when there is no such node.
    #[must_use]
    pub fn attr(&self, node: NodeId) -> Attr {
        let node = self.node(node);
        let shared = self.shared(node);
        let kind = kind_from(shared.kind);
        Attr {
            kind,
            mode: shared.mode,
            uid: shared.uid,
            gid: shared.gid,
            size: if matches!(kind, Kind::Regular | Kind::Symlink) { node.size } else { 0 },
            mtime_nanos: node.mtime_nanos,
            nlink: node.nlink,
            device: match kind {
                Kind::CharDevice | Kind::BlockDevice => (node.a, node.b),
                _ => (0, 0),
            },
        }
    }

    /// What `node` is.
    #[must_use]
    pub fn kind(&self, node: NodeId) -> Kind {
        kind_from(self.shared(self.node(node)).kind)
    }

    /// Whether `node` is a directory that hides what lower layers have in it.
    #[must_use]
    pub fn is_opaque(&self, node: NodeId) -> bool {
        self.shared(self.node(node)).opaque
    }

    /// The names in a directory, sorted by their bytes; empty for anything else.
    pub fn entries(&self, dir: NodeId) -> impl ExactSizeIterator<Item = Dirent<'_>> + Clone {
        self.dirents_of(dir).iter().map(|dirent| self.dirent(dirent))
    }

    /// The names in a directory from the `skip`th on.
    pub fn entries_from(
        &self,
        dir: NodeId,
        skip: usize,
    ) -> impl ExactSizeIterator<Item = Dirent<'_>> + Clone {
        self.dirents_of(dir).get(skip..).unwrap_or(&[]).iter().map(|dirent| self.dirent(dirent))
    }

    /// What `name` in `dir` names.
    #[must_use]
    pub fn lookup(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        let dirents = self.dirents_of(dir);
        let at = dirents.binary_search_by(|dirent| self.dirent(dirent).name.cmp(name)).ok()?;
        Some(NodeId(dirents.get(at)?.node))
    }

    /// The directory that a directory is in (itself for the root) and its name there.
    #[must_use]
    pub fn parent(&self, dir: NodeId) -> Option<Dirent<'_>> {
        let node = self.node(dir);
        if self.kind(dir) != Kind::Directory {
            return None;
        }
        let (parent, own) = unpack(node.size);
        let name = self.dirents.get(own as usize).map_or(&[][..], |own| self.dirent(own).name);
        Some(Dirent { name, node: NodeId(parent) })
    }

    /// The target of a symbolic link; empty for anything else.
    #[must_use]
    pub fn readlink(&self, node: NodeId) -> &[u8] {
        let is_link = self.kind(node) == Kind::Symlink;
        let node = self.node(node);
        let start = node.a as usize;
        let len = usize::try_from(node.size).unwrap_or(usize::MAX);
        let target = start.checked_add(len).and_then(|end| self.text.get(start..end));
        target.filter(|_| is_link).unwrap_or_default()
    }

    /// The extended attributes of a node: name and value.
    pub fn xattrs(&self, node: NodeId) -> impl Iterator<Item = (&[u8], &[u8])> {
        entry::XattrIter::new(&self.xattrs, self.shared(self.node(node)).xattrs)
    }

    /// The chunks of a regular file, in file order.
    #[must_use]
    pub fn file_chunks(&self, node: NodeId) -> &[Chunk] {
        if self.kind(node) != Kind::Regular {
            return &[];
        }
        let node = self.node(node);
        self.chunks.get(node.a as usize..(node.a + node.b) as usize).unwrap_or(&[])
    }

    /// Where the bytes of a regular file are in the flat space.
    #[must_use]
    pub fn flat_range(&self, node: NodeId) -> Range<u64> {
        match self.file_chunks(node).first() {
            Some(first) => first.flat..first.flat + self.node(node).size,
            None => 0..0,
        }
    }

    /// The chunks that hold any byte of a range of the flat space.
    #[must_use]
    pub fn chunks_in(&self, flat: Range<u64>) -> Range<u32> {
        if flat.is_empty() {
            return 0..0;
        }
        let start = self.chunks.partition_point(|chunk| chunk.flat_range().end <= flat.start);
        let rest = self.chunks.get(start..).unwrap_or(&[]);
        // Most reads touch one or two chunks: look at those before searching.
        let len = match rest.iter().take(3).position(|chunk| chunk.flat >= flat.end) {
            Some(len) => len,
            None => rest.partition_point(|chunk| chunk.flat < flat.end),
        };
        index(start)..index(start + len)
    }

    /// A chunk by its number.
    #[must_use]
    pub fn chunk(&self, chunk: ChunkIndex) -> Option<&Chunk> {
        self.chunks.get(chunk.0 as usize)
    }

    /// The chunks whose bytes are in the member that starts at `member`, holes among them included.
    #[must_use]
    pub fn member_chunks(&self, member: u64) -> Range<u32> {
        let start = self.chunks.partition_point(|chunk| chunk.member < member);
        let rest = self.chunks.get(start..).unwrap_or(&[]);
        let len = match rest.iter().take(3).position(|chunk| chunk.member > member) {
            Some(len) => len,
            None => rest.partition_point(|chunk| chunk.member == member),
        };
        index(start)..index(start + len)
    }

    /// The compressed bytes that hold the chunks of a member: up to where the next one starts, but
    /// no more than their plain size can need, so that a TOC with a hole in it asks for no more
    /// memory than one without.
    #[must_use]
    pub fn member_span(&self, member: u64) -> ByteRange {
        let chunks = self.member_chunks(member);
        let next = self.chunks.get(chunks.end as usize);
        let mut end = next.map_or(self.payload_end, |chunk| chunk.member);
        if let Some(at) = self.breaks.get(self.breaks.partition_point(|start| *start <= member)) {
            end = end.min(*at);
        }
        if end.saturating_sub(member) > MEMBER_SLACK {
            let chunks = self.chunks.get(chunks.start as usize..chunks.end as usize);
            let plain = chunks.into_iter().flatten().rev().find(|chunk| !chunk.is_hole());
            let plain = plain.map_or(0, |chunk| chunk.member_range().end as u64);
            end = end.min(member.saturating_add(plain + plain / 8 + MEMBER_SLACK));
        }
        ByteRange::new(member, end).unwrap_or(ByteRange { start: member, end: member })
    }

    /// Bytes of memory that the tables take.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.dirents.capacity() * size_of::<StoredDirent>()
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.breaks.capacity() * size_of::<u64>()
            + self.attrs.capacity() * size_of::<SharedAttr>()
            + self.text.capacity()
            + self.xattrs.capacity()
    }

    fn node(&self, node: NodeId) -> &Node {
        self.nodes.get(node.0 as usize).unwrap_or(&self.nodes[0])
    }

    fn shared(&self, node: &Node) -> &SharedAttr {
        &self.attrs[node.attr as usize]
    }

    fn dirents_of(&self, dir: NodeId) -> &[StoredDirent] {
        if self.kind(dir) != Kind::Directory {
            return &[];
        }
        let node = self.node(dir);
        self.dirents.get(node.a as usize..(node.a + node.b) as usize).unwrap_or(&[])
    }

    fn dirent(&self, dirent: &StoredDirent) -> Dirent<'_> {
        let start = dirent.name as usize;
        let name = self.text.get(start..start + usize::from(dirent.name_len)).unwrap_or(&[]);
        Dirent { name, node: NodeId(dirent.node) }
    }
}

impl fmt::Debug for Toc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toc")
            .field("format", &self.format)
            .field("digest", &self.digest)
            .field("nodes", &self.nodes.len())
            .field("chunks", &self.chunks.len())
            .finish_non_exhaustive()
    }
}

const KINDS: [Kind; 7] = [
    Kind::Directory,
    Kind::Regular,
    Kind::Symlink,
    Kind::CharDevice,
    Kind::BlockDevice,
    Kind::Fifo,
    Kind::Whiteout,
];

fn kind_from(stored: u8) -> Kind {
    KINDS.get(usize::from(stored)).copied().unwrap_or(Kind::Directory)
}

const fn pack(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[allow(clippy::cast_possible_truncation, reason = "takes the two halves apart")]
const fn unpack(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

/// Counts of entries are limited far below 2^32 when the tables are built.
fn index(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
