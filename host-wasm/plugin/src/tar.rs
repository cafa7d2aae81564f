//! A tree as a tar.

use std::collections::HashMap;
use std::io::Write;

use lazystar_core::tar::{BLOCK, Entry, Kind, encode_header, padding};

use crate::error::Error;
use crate::image::Image;
use crate::overlay::{Found, Located};
use crate::sandbox::Source;
use crate::types::EntryKind;

/// Writes all that is below a directory of an image as a tar with names relative to it: modes, owners,
/// times, links and extended attributes included. The content of many files is fetched together.
///
/// # Errors
/// When the image cannot be read, or `out` cannot be written to.
pub fn write_tar<S: Source + Sync>(
    image: &Image<S>,
    directory: &Located,
    path: &str,
    mut out: impl Write,
) -> Result<(), Error> {
    let walk = image.walk(directory)?;
    let prefix = format!("{}/", path.trim_matches('/'));
    let prefix = prefix.trim_start_matches('/');
    // Where the content of a file with several names was written.
    let mut names = HashMap::new();
    loop {
        let page = image.next(walk)?;
        if page.is_empty() {
            break;
        }
        let mut entries = Vec::new();
        for found in &page {
            entries.push(entry(image, found, prefix, &mut names)?);
        }
        write_page(image, &page, &entries, &mut out)?;
    }
    out.write_all(&[0; 2 * BLOCK])?;
    Ok(out.flush()?)
}

fn entry<S: Source + Sync>(
    image: &Image<S>,
    found: &Found,
    prefix: &str,
    names: &mut HashMap<(u32, u32), String>,
) -> Result<Entry, Error> {
    let Located { layer, entry: object } = &found.target;
    let path = found.path.trim_start_matches('/');
    let path = path.strip_prefix(prefix).unwrap_or(path).to_owned();
    let (kind, device) = match object.kind {
        EntryKind::Directory => (Kind::Directory, None),
        EntryKind::Symlink => (Kind::Symlink, None),
        EntryKind::CharacterDevice(device) => (Kind::CharDevice, Some(device)),
        EntryKind::BlockDevice(device) => (Kind::BlockDevice, Some(device)),
        EntryKind::Fifo => (Kind::Fifo, None),
        // A merged tree has no whiteouts.
        EntryKind::Regular | EntryKind::Whiteout => (Kind::Regular, None),
    };
    let is_directory = kind == Kind::Directory;
    let name = if is_directory { format!("{path}/") } else { path.clone() };
    if !is_directory && object.links > 1 {
        if let Some(first) = names.get(&(*layer, object.id)) {
            let mut link = Entry::new(name, Kind::HardLink);
            link.link_name.clone_from(first);
            return Ok(link);
        }
        names.insert((*layer, object.id), path);
    }
    let mut entry = Entry::new(name, kind);
    entry.mode = object.mode;
    (entry.uid, entry.gid) = (object.uid, object.gid);
    entry.mtime = object.modified.seconds;
    entry.xattrs = image.xattrs(&found.target)?;
    if let Some(device) = device {
        (entry.dev_major, entry.dev_minor) = (device.major, device.minor);
    }
    match kind {
        Kind::Regular => entry.size = object.size,
        Kind::Symlink => entry.link_name = image.read_link(&found.target)?,
        _ => {}
    }
    Ok(entry)
}

/// Writes entries, with the content of those that have any.
fn write_page<S: Source + Sync>(
    image: &Image<S>,
    page: &[Found],
    entries: &[Entry],
    out: &mut impl Write,
) -> Result<(), Error> {
    let with_content: Vec<usize> =
        (0..).zip(entries).filter(|(_, it)| it.size > 0).map(|(at, _)| at).collect();
    let files: Vec<Located> = with_content.iter().map(|at| page[*at].target).collect();
    // Headers up to that of the file whose content comes next, then the content.
    let (mut written, mut left) = (0, 0);
    image.read(&files, |file, bytes| {
        while written <= with_content[file] {
            out.write_all(&encode_header(&entries[written])?)?;
            left = entries[written].size;
            written += 1;
        }
        out.write_all(bytes)?;
        left -= bytes.len() as u64;
        if left == 0 {
            let size = entries[with_content[file]].size;
            out.write_all(&[0; BLOCK][..padding(size)])?;
        }
        Ok(())
    })?;
    for entry in &entries[written..] {
        out.write_all(&encode_header(entry)?)?;
    }
    Ok(())
}
