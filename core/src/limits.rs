//! How much a layer may ask of its reader.

/// Bounds on what a table of contents may claim. Everything that a hostile blob could inflate is
/// under one of them; the defaults leave room above the largest images seen in practice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the compressed TOC that are fetched. 200,000 entries take 8 to 16 MB.
    pub toc_compressed_bytes: u64,
    /// Bytes of TOC JSON that are read: about 400 an entry, so this goes with `entries`.
    pub toc_bytes: u64,
    /// Entries, chunk entries and directories that are only implied included. Each costs about 100 bytes of memory for good.
    pub entries: u32,
    /// Bytes of all names, link targets and extended attributes, which are kept in memory. The
    /// JSON that states them compresses a thousandfold, so `toc_compressed_bytes` does not bound it.
    pub text_bytes: usize,
    /// Bytes of a path: Linux cannot name a longer one (`PATH_MAX`). Bounds the depth as well.
    pub path_bytes: usize,
    /// Bytes of all extended attributes of one entry: Linux lists no more (`XATTR_LIST_MAX`).
    pub xattr_bytes: usize,
    /// Bytes of one chunk, which is held in memory until its digest is known. Writers use 4 MiB.
    pub chunk_bytes: u64,
    /// Plain bytes of one member up to the end of its last chunk; held in memory likewise.
    pub member_bytes: u64,
    /// Bytes of the flat space: what a sparse file on ext4 can hold (16 TiB), with room to spare.
    pub flat_bytes: u64,
}

impl Limits {
    /// The limits used unless a host sets its own.
    pub const DEFAULT: Self = Self {
        toc_compressed_bytes: 128 << 20,
        toc_bytes: 1 << 30,
        entries: 2_000_000,
        text_bytes: 256 << 20,
        path_bytes: 4096,
        xattr_bytes: 64 << 10,
        chunk_bytes: 64 << 20,
        member_bytes: 128 << 20,
        flat_bytes: 8 << 40,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
