//! Layers made by core's own writer from a few words, and by hand where the writer would refuse.

use lazystar_core::tar::{Entry, Kind, encode_header};
use lazystar_core::write::{Compressor, Format, Landmark, Miniz, Options, Ruzstd, Summary, Writer};

/// Every format that the writer makes.
pub const FORMATS: [Format; 5] = [
    Format::Estargz,
    Format::EstargzExternalToc,
    Format::LegacyStargz,
    Format::ZstdChunked,
    Format::ZstdChunkedStorage,
];

/// How names may start in a tar; all of them mean the same path.
pub const PREFIXES: [&str; 4] = ["", "./", "/", "../"];

/// An entry of a tar and its data.
#[derive(Clone, Debug)]
pub struct Item {
    /// What the header says.
    pub entry: Entry,
    /// The content, for regular files.
    pub data: Vec<u8>,
}

impl Item {
    fn new(name: &str, kind: Kind, mode: u32) -> Self {
        let mut entry = Entry::new(name, kind);
        entry.mode = mode;
        Self { entry, data: Vec::new() }
    }

    /// The same with other permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.entry.mode = mode;
        self
    }

    /// The same with another owner and group.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.entry.uid, self.entry.gid) = (uid, gid);
        self
    }

    /// The same with a time of modification, in seconds.
    #[must_use]
    pub fn mtime(mut self, mtime: i64) -> Self {
        self.entry.mtime = mtime;
        self
    }

    /// The same with one more extended attribute.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.entry.xattrs.insert(name.into(), value.as_ref().into());
        self
    }

    /// The same with a prefix before its name, and before its target if that is a path in the tar.
    #[must_use]
    pub fn prefixed(mut self, prefix: &str) -> Self {
        self.entry.name.insert_str(0, prefix);
        if self.entry.kind == Kind::HardLink {
            self.entry.link_name.insert_str(0, prefix);
        }
        self
    }
}

/// A directory, mode 0755.
#[must_use]
pub fn dir(name: &str) -> Item {
    Item::new(name, Kind::Directory, 0o755)
}

/// A regular file, mode 0644.
#[must_use]
pub fn file(name: &str, data: impl AsRef<[u8]>) -> Item {
    let mut item = Item::new(name, Kind::Regular, 0o644);
    item.entry.size = data.as_ref().len() as u64;
    item.data = data.as_ref().to_vec();
    item
}

/// A symbolic link.
#[must_use]
pub fn symlink(name: &str, target: &str) -> Item {
    let mut item = Item::new(name, Kind::Symlink, 0o777);
    item.entry.link_name = target.into();
    item
}

/// Another name of a file.
#[must_use]
pub fn hardlink(name: &str, target: &str) -> Item {
    let mut item = Item::new(name, Kind::HardLink, 0o644);
    item.entry.link_name = target.into();
    item
}

/// A character device, block device or named pipe.
#[must_use]
pub fn special(name: &str, kind: Kind, (major, minor): (u32, u32)) -> Item {
    let mut item = Item::new(name, kind, 0o644);
    (item.entry.dev_major, item.entry.dev_minor) = (major, minor);
    item
}

/// Printable bytes that compress badly, the same for the same seed.
#[must_use]
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = crate::script_host::Random::new(seed);
    (0..len).map(|_| b' ' + random.below(95) as u8).collect()
}

/// A layer and what was said of it.
#[derive(Clone, Debug)]
pub struct Built {
    /// The blob.
    pub blob: Vec<u8>,
    /// The JSON of its TOC.
    pub toc: Vec<u8>,
    /// Digests and sizes.
    pub summary: Summary,
}

/// The portable compressor of a format.
#[must_use]
pub fn compressor(format: Format) -> Box<dyn Compressor> {
    match format {
        Format::ZstdChunked | Format::ZstdChunkedStorage => Box::new(Ruzstd),
        _ => Box::new(Miniz::default()),
    }
}

/// Writes a layer. `landmark` is put before the item of that number.
///
/// # Panics
/// When the writer refuses the items.
#[must_use]
pub fn build_with(options: Options, items: &[Item], landmark: Option<(usize, Landmark)>) -> Built {
    let mut writer = Writer::new(options, compressor(options.format)).expect("the codec fits");
    for (at, item) in items.iter().enumerate() {
        if let Some((before, landmark)) = landmark
            && before == at
        {
            writer.append_landmark(landmark).expect("a landmark fits anywhere");
        }
        let header = encode_header(&item.entry).expect("the test's entries can be encoded");
        writer.append(item.entry.clone(), &header).expect("the test's entries are sound");
        writer.data(&item.data).expect("the test's files have their size");
    }
    let summary = writer.finish().expect("the test's layers are sound");
    Built { toc: writer.toc_json().to_vec(), blob: writer.take_output(), summary }
}

/// Writes a layer without landmarks.
#[must_use]
pub fn build(options: Options, items: &[Item]) -> Built {
    build_with(options, items, None)
}

/// Options for a format, a chunk size and a minimum chunk size.
#[must_use]
pub fn options(format: Format, chunk_size: u32, min_chunk_size: u32) -> Options {
    let mut options = Options::default();
    (options.format, options.chunk_size, options.min_chunk_size) =
        (format, chunk_size, min_chunk_size);
    options
}

/// One gzip member.
///
/// # Panics
/// Never: the compressor does not fail.
#[must_use]
pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Miniz::default().compress(plain, &mut out).expect("miniz does not fail");
    out
}

/// An eStargz blob with the given members and TOC: nothing is checked, so anything can be said.
///
/// # Panics
/// When the TOC cannot be put into a tar.
#[must_use]
pub fn estargz_by_hand(members: &[u8], toc: &[u8]) -> Vec<u8> {
    let mut entry = Entry::new("stargz.index.json", Kind::Regular);
    entry.size = toc.len() as u64;
    let mut index = encode_header(&entry).expect("the header is plain");
    index.extend(toc);
    index.resize(index.len().next_multiple_of(512) + 1024, 0);
    let mut blob = members.to_vec();
    blob.extend(gzip(&index));
    blob.extend(estargz_footer(members.len() as u64));
    blob
}

/// The footer of an eStargz blob whose TOC starts at `toc`.
#[must_use]
pub fn estargz_footer(toc: u64) -> Vec<u8> {
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0];
    footer.extend(b"SG\x16\0");
    footer.extend(format!("{toc:016x}STARGZ").bytes());
    footer.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    footer
}
