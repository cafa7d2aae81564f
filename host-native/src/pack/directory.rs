//! Packing a directory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lazystar_core::tar::{Entry, Kind, encode_header};
use lazystar_core::write::Step;
use rustix::fs::{OFlags, lgetxattr, llistxattr};
use rustix::io::Errno;

use super::{INPUT_PIECE, PackError, PackOptions, Packed, Sink, at_path, ordered};

/// Packs the content of the directory at `path` as a layer.
///
/// The same content gives the same blob: entries are sorted by name, owners are numbers, times whole
/// seconds. The directory itself is not an entry. Sockets are left out with a warning; attributes are
/// kept if they are `user.*` or `security.*`.
///
/// # Errors
///
/// If something cannot be read, has a name that is not UTF-8, or changes meanwhile; if a prioritised
/// path does not exist; if writing fails.
pub fn pack_directory(
    path: &Path,
    options: &PackOptions,
    out: impl Write,
) -> Result<Packed, PackError> {
    let found = walk(path, options)?;
    let order = ordered(found.iter().map(|found| &found.entry), options)?;
    let mut sink = Sink::new(options, out)?;
    for step in order.steps {
        match step {
            Step::Landmark(landmark) => sink.append_landmark(landmark)?,
            Step::Entry(index) => {
                let Found { path, entry, stamp } = &found[index];
                sink.append(entry.clone(), &encode_header(entry)?)?;
                if entry.size > 0 {
                    copy(path, entry.size, stamp, &mut sink)?;
                }
            }
        }
    }
    sink.finish(order.missing)
}

struct Found {
    path: PathBuf,
    entry: Entry,
    stamp: Stamp,
}

/// What must not change between the walk and the end of reading.
#[derive(PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    mtime: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Everything below `root`, each directory before its content.
fn walk(root: &Path, options: &PackOptions) -> Result<Vec<Found>, PackError> {
    let mut found: Vec<Found> = Vec::new();
    let mut first_names: HashMap<(u64, u64), String> = HashMap::new();
    let mut pending = children(root, "")?;
    while let Some((path, name)) = pending.pop() {
        if options.excludes(&name) {
            continue;
        }
        let metadata = fs::symlink_metadata(&path).map_err(at_path(&path))?;
        let kind = metadata.file_type();
        let shared = metadata.nlink() > 1 && !kind.is_dir();
        let file = (metadata.dev(), metadata.ino());
        let mut entry = Entry::new(name, Kind::Regular);
        if let Some(first) = first_names.get(&file).filter(|_| shared) {
            entry.kind = Kind::HardLink;
            entry.link_name.clone_from(first);
        } else if kind.is_dir() {
            pending.append(&mut children(&path, &format!("{}/", entry.name))?);
            entry.kind = Kind::Directory;
            entry.name.push('/');
        } else if kind.is_file() {
            entry.size = metadata.size();
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(at_path(&path))?;
            entry.kind = Kind::Symlink;
            entry.link_name = utf8(target.into_os_string(), &path)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            let char_device = kind.is_char_device();
            entry.kind = if char_device { Kind::CharDevice } else { Kind::BlockDevice };
            entry.dev_major = rustix::fs::major(metadata.rdev());
            entry.dev_minor = rustix::fs::minor(metadata.rdev());
        } else if kind.is_fifo() {
            entry.kind = Kind::Fifo;
        } else {
            tracing::warn!(path = %path.display(), "left out a socket: layers cannot hold it");
            continue;
        }
        if shared && entry.kind != Kind::HardLink {
            first_names.insert(file, entry.name.clone());
        }
        entry.mode = metadata.mode() & 0o7777;
        (entry.uid, entry.gid) = (metadata.uid(), metadata.gid());
        entry.mtime = metadata.mtime();
        options.change(&mut entry);
        entry.xattrs = xattrs(&path)?;
        found.push(Found { path, entry, stamp: Stamp::of(&metadata) });
    }
    Ok(found)
}

/// Paths and names of a directory's entries, last one first.
fn children(dir: &Path, prefix: &str) -> Result<Vec<(PathBuf, String)>, PackError> {
    let mut names = fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(at_path(dir))
        .map(|names: Vec<OsString>| names)?;
    names.sort_unstable_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
    let named = |name: OsString| {
        let path = dir.join(&name);
        let name = utf8(name, &path)?;
        Ok((path, format!("{prefix}{name}")))
    };
    names.into_iter().map(named).collect()
}

fn utf8(text: OsString, path: &Path) -> Result<String, PackError> {
    text.into_string().map_err(|_| PackError::NotUtf8 { path: path.to_path_buf() })
}

/// The attributes that belong to the file wherever it is: not those of an overlay, for instance.
fn xattrs(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, PackError> {
    let failed = |error: Errno| at_path(path)(error.into());
    let names = match grow(|buffer| llistxattr(path, buffer)) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = BTreeMap::new();
    for name in names.split(|&byte| byte == 0) {
        if !name.starts_with(b"user.") && !name.starts_with(b"security.") {
            continue;
        }
        let value = match grow(|buffer| lgetxattr(path, name, buffer)) {
            Ok(value) => value,
            // Removed meanwhile.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(failed(error)),
        };
        found.insert(utf8(OsString::from_vec(name.to_vec()), path)?, value);
    }
    Ok(found)
}

/// Calls `fill` with a buffer that is large enough.
fn grow(mut fill: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match fill(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // Lists and values have at most 64 KiB.
            Err(Errno::RANGE) if buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}

/// Copies a file that has to be as it was when it was found.
fn copy<W: Write>(
    path: &Path,
    size: u64,
    stamp: &Stamp,
    sink: &mut Sink<W>,
) -> Result<(), PackError> {
    let changed = || PackError::Changed { path: path.to_path_buf() };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(at_path(path))?;
    let unchanged =
        |file: &File| -> io::Result<bool> { Ok(Stamp::of(&file.metadata()?) == *stamp) };
    if !unchanged(&file).map_err(at_path(path))? {
        return Err(changed());
    }
    let mut buffer = vec![0; INPUT_PIECE.min(usize::try_from(size).unwrap_or(INPUT_PIECE))];
    let mut left = size;
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let length = match file.read(&mut buffer[..wanted]) {
            Ok(0) => return Err(changed()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(at_path(path)(error)),
        };
        sink.data(&buffer[..length])?;
        left -= length as u64;
    }
    if unchanged(&file).map_err(at_path(path))? { Ok(()) } else { Err(changed()) }
}
