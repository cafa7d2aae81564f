//! Compares a directory tree with the tar file that it should show, entry by entry.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use lazystar_core::Digest;
use lazystar_core::digest::Hasher;
use rustix::fs::{lgetxattr, llistxattr, major, minor};
use rustix::io::Errno;
use tar::EntryType;

/// What a path is, as far as a reader of the file system can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Type, and what is particular to it.
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time in whole seconds: what a TOC keeps.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// The type of a [`Node`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the cases and fields are those of every Unix file system")]
pub enum Kind {
    Directory,
    File { size: u64, digest: Digest },
    Symlink { target: PathBuf },
    CharacterDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// A tree by path; the root is the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Every path, hard links included.
    pub nodes: BTreeMap<PathBuf, Node>,
    /// The sets of paths, each of two or more, that are one file.
    pub hard_links: BTreeSet<BTreeSet<PathBuf>>,
}

impl Tree {
    /// What extracting the tar file at `path` should make.
    ///
    /// # Errors
    /// Fails where the file cannot be read, or has something that this reader does not know.
    pub fn of_tar(path: &Path) -> io::Result<Self> {
        let mut nodes = BTreeMap::new();
        let mut links: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        let mut extended = Extended::default();
        let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, File::open(path)?));
        // Raw entries: the crate splits PAX records at line feeds, which values may contain.
        for entry in archive.entries()?.raw(true) {
            let mut entry = entry?;
            match entry.header().entry_type() {
                EntryType::XGlobalHeader => continue,
                EntryType::XHeader => extended.read_pax(&read_all(&mut entry)?)?,
                EntryType::GNULongName => extended.path = Some(read_name(&mut entry)?),
                EntryType::GNULongLink => extended.link = Some(read_name(&mut entry)?),
                kind => {
                    let extended = std::mem::take(&mut extended);
                    let header = entry.header().clone();
                    let name = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
                    let link = extended
                        .link
                        .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                        .unwrap_or_default();
                    let path = clean(&name);
                    links.remove(&path);
                    if kind == EntryType::Link {
                        nodes.remove(&path);
                        links.insert(path, clean(&link));
                        continue;
                    }
                    let major = || Ok::<_, io::Error>(header.device_major()?.unwrap_or(0));
                    let minor = || Ok::<_, io::Error>(header.device_minor()?.unwrap_or(0));
                    let kind = match kind {
                        EntryType::Directory => Kind::Directory,
                        EntryType::Symlink => Kind::Symlink { target: path_of(link) },
                        EntryType::Char => {
                            Kind::CharacterDevice { major: major()?, minor: minor()? }
                        }
                        EntryType::Block => Kind::BlockDevice { major: major()?, minor: minor()? },
                        EntryType::Fifo => Kind::Fifo,
                        EntryType::Regular | EntryType::Continuous => content(&mut entry)?,
                        other => return Err(unknown(&format!("entry type {other:?} of {path:?}"))),
                    };
                    let node = Node {
                        kind,
                        mode: header.mode()? & 0o7777,
                        uid: extended.uid.map_or_else(|| header.uid(), Ok)?,
                        gid: extended.gid.map_or_else(|| header.gid(), Ok)?,
                        mtime: match extended.mtime {
                            Some(seconds) => seconds,
                            None => header.mtime()?.cast_signed(),
                        },
                        xattrs: extended.xattrs,
                    };
                    nodes.insert(path, node);
                }
            }
        }
        let mut groups: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
        for link in links.keys() {
            let mut target = link;
            while let Some(next) = links.get(target) {
                target = next;
            }
            let node = nodes
                .get(target)
                .ok_or_else(|| unknown(&format!("hard link {link:?} to nothing")))?;
            nodes.insert(link.clone(), node.clone());
            groups
                .entry(target.clone())
                .or_insert_with(|| [target.clone()].into())
                .insert(link.clone());
        }
        Ok(Self { nodes, hard_links: groups.into_values().collect() })
    }

    /// What the directory at `root` shows, every byte read.
    ///
    /// # Errors
    /// Fails where something in it cannot be read.
    pub fn of_directory(root: &Path) -> io::Result<Self> {
        let mut nodes = BTreeMap::new();
        let mut inodes: BTreeMap<(u64, u64), (u64, BTreeSet<PathBuf>)> = BTreeMap::new();
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            let full = root.join(&path);
            let metadata = full.symlink_metadata()?;
            if metadata.is_dir() {
                for child in fs::read_dir(&full)? {
                    waiting.push(path.join(child?.file_name()));
                }
            } else if metadata.nlink() > 1 {
                let inode = inodes.entry((metadata.dev(), metadata.ino())).or_default();
                inode.0 = metadata.nlink();
                inode.1.insert(path.clone());
            }
            let node = Node::of_file(&full, &metadata).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", full.display()))
            })?;
            nodes.insert(path, node);
        }
        if let Some((count, paths)) =
            inodes.values().find(|(count, paths)| *count != paths.len() as u64)
        {
            return Err(unknown(&format!("link count {count}, but found as {paths:?}")));
        }
        Ok(Self { nodes, hard_links: inodes.into_values().map(|(_, paths)| paths).collect() })
    }

    /// Removes the path `name`, for what a packer adds to an image.
    pub fn forget(&mut self, name: &str) {
        self.nodes.remove(Path::new(name));
    }

    /// Each difference from `self`, the expected tree, to `found`: one line each, none when they are the same.
    #[must_use]
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, node) in &self.nodes {
            match found.nodes.get(path) {
                None => lines.push(format!("{}: missing", path.display())),
                Some(other) if other != node => {
                    lines.push(format!("{}: expected {node:?}, found {other:?}", path.display()));
                }
                Some(_) => {}
            }
        }
        let added = found.nodes.keys().filter(|path| !self.nodes.contains_key(*path));
        lines.extend(added.map(|path| format!("{}: not expected", path.display())));
        let links = self.hard_links.symmetric_difference(&found.hard_links);
        lines.extend(links.map(|group| format!("hard links differ: {group:?}")));
        lines
    }
}

impl Node {
    fn of_file(path: &Path, metadata: &Metadata) -> io::Result<Self> {
        let kind = metadata.file_type();
        let (major, minor) = (major(metadata.rdev()), minor(metadata.rdev()));
        let kind = if kind.is_dir() {
            Kind::Directory
        } else if kind.is_symlink() {
            Kind::Symlink { target: fs::read_link(path)? }
        } else if kind.is_char_device() {
            Kind::CharacterDevice { major, minor }
        } else if kind.is_block_device() {
            Kind::BlockDevice { major, minor }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_socket() {
            Kind::Socket
        } else {
            let kind = content(&mut File::open(path)?)?;
            if !matches!(kind, Kind::File { size, .. } if size == metadata.len()) {
                return Err(unknown(&format!("size is {}, but reads as {kind:?}", metadata.len())));
            }
            kind
        };
        Ok(Self {
            kind,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid().into(),
            gid: metadata.gid().into(),
            mtime: metadata.mtime(),
            xattrs: xattrs(path)?,
        })
    }
}

/// What extended headers say of the entry that follows them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

impl Extended {
    /// Records of the form `length key=value\n` (POSIX pax, "pax Extended Header").
    fn read_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        while !records.is_empty() {
            let record = || -> Option<(&str, &[u8], &[u8])> {
                let space = records.iter().position(|byte| *byte == b' ')?;
                let length: usize = str::from_utf8(&records[..space]).ok()?.parse().ok()?;
                let (record, rest) = records.split_at_checked(length)?;
                let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
                let equals = record.iter().position(|byte| *byte == b'=')?;
                Some((str::from_utf8(&record[..equals]).ok()?, &record[equals + 1..], rest))
            };
            let (key, value, rest) = record().ok_or_else(|| unknown("malformed PAX record"))?;
            records = rest;
            let number = || str::from_utf8(value).ok().and_then(|text| text.parse::<f64>().ok());
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.link = Some(value.to_vec()),
                "uid" => self.uid = number().map(|number| number as u64),
                "gid" => self.gid = number().map(|number| number as u64),
                "mtime" => self.mtime = number().map(|number| number.floor() as i64),
                "size" => return Err(unknown("a size in a PAX record")),
                key if key.starts_with("GNU.sparse.") => return Err(unknown("a sparse file")),
                key => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        self.xattrs.insert(name.to_owned(), value.to_vec());
                    }
                }
            }
        }
        Ok(())
    }
}

fn content(reader: &mut impl Read) -> io::Result<Kind> {
    let (mut hasher, mut size) = (Hasher::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(Kind::File { size, digest: hasher.finish() }),
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0; 1 << 16];
    let length = match llistxattr(path, names.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
        Err(error) => return Err(error.into()),
    };
    names.truncate(length);
    let mut found = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let length = lgetxattr(path, name, value.as_mut_slice())?;
        value.truncate(length);
        let name = String::from_utf8_lossy(name).into_owned();
        // A label of the machine's own security module is not of the image.
        if name != "security.selinux" {
            found.insert(name, value);
        }
    }
    Ok(found)
}

fn read_all(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_name(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut name = read_all(reader)?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

fn clean(name: &[u8]) -> PathBuf {
    let parts = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.map(std::ffi::OsStr::from_bytes).collect()
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    std::ffi::OsString::from_vec(bytes).into()
}

fn unknown(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Packs a directory with GNU tar and compares it with itself.
    #[test]
    fn a_directory_equals_its_tar() {
        let work = tempfile::tempdir().expect("a temporary directory");
        let root = work.path().join("root");
        fs::create_dir_all(root.join("empty")).unwrap();
        let long = "n".repeat(200);
        fs::write(root.join(&long), vec![7; 3_000_000]).unwrap();
        fs::hard_link(root.join(&long), root.join("second-name")).unwrap();
        std::os::unix::fs::symlink("t".repeat(150), root.join("link")).unwrap();
        let binary = b"a\nb\0c=";
        let flags = rustix::fs::XattrFlags::empty();
        let has_xattrs = rustix::fs::setxattr(&root, "user.test", binary, flags).is_ok();
        for format in ["gnu", "pax"] {
            let tar = work.path().join(format);
            let mut pack = Command::new("tar");
            pack.arg(format!("--format={format}")).arg("-cf").arg(&tar).arg("-C").arg(&root);
            if format == "pax" {
                pack.arg("--xattrs");
            }
            assert!(pack.arg(".").status().expect("tar runs").success());
            let expected = Tree::of_tar(&tar).expect("tar reads");
            let mut found = Tree::of_directory(&root).expect("directory reads");
            if format == "gnu" {
                found.nodes.values_mut().for_each(|node| node.xattrs.clear());
            } else if has_xattrs {
                assert_eq!(expected.nodes[Path::new("")].xattrs["user.test"], binary);
            }
            assert_eq!(expected.differences(&found), Vec::<String>::new(), "{format}");
            assert_eq!(expected.hard_links.len(), 1);

            found.nodes.get_mut(Path::new("empty")).unwrap().mode ^= 1;
            found.forget("link");
            found.hard_links.clear();
            assert_eq!(expected.differences(&found).len(), 3);
        }
    }
}
