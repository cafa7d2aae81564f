//! The TOC as JSON.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;

use super::json::Object;
use super::{Compressor, TOC_NAME, WriteError};
use crate::Digest;
use crate::footer::Compression;
use crate::tar::{BLOCK, Entry, Kind, encode_header, padding};
use crate::time::rfc3339;

/// An entry of the layer and where its data is.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) entry: Entry,
    /// Of the whole content of a regular file.
    pub(super) digest: Option<Digest>,
    pub(super) chunks: Vec<Chunk>,
}

/// A piece of a file.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Index of the member that holds it, once it is placed.
    pub(super) member: usize,
    /// Where it begins in the member's plain bytes.
    pub(super) inner: u64,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Its size unless it is a last, shorter one, which extends to the end of the file.
    pub(super) size: Option<u64>,
    pub(super) digest: Option<Digest>,
}

/// The TOC of `records`; `offsets` says where members begin, and at the end where the data ends. With
/// `ends` every chunk also says where its member ends, which containers/storage relies on.
pub(super) fn encode(records: &[Record], offsets: &[u64], ends: bool) -> Vec<u8> {
    let mut out = b"{\"version\":1,\"entries\":[".to_vec();
    let mut users = Names::default();
    let mut groups = Names::default();
    let mut first = true;
    let mut separate = |out: &mut Vec<u8>| {
        // An entry a line: readable without a tool, and still a fraction of an indented TOC.
        out.extend_from_slice(if first { b"\n" } else { b",\n" });
        first = false;
    };
    for Record { entry, digest, chunks } in records {
        separate(&mut out);
        let mut object = Object::begin(&mut out);
        object.text("name", &entry.name);
        object.text("type", type_name(entry.kind));
        object.number_if_any("size", entry.size);
        if entry.mtime != 0 {
            object.text("modtime", &rfc3339(entry.mtime));
        }
        object.text_if_any("linkName", &entry.link_name);
        object.number_if_any("mode", u64::from(entry.mode));
        object.number_if_any("uid", u64::from(entry.uid));
        object.number_if_any("gid", u64::from(entry.gid));
        object.text_if_any("userName", users.if_changed(entry.uid, &entry.user_name));
        object.text_if_any("groupName", groups.if_changed(entry.gid, &entry.group_name));
        if let Some(chunk) = chunks.first() {
            position(&mut object, chunk, offsets, ends);
        }
        object.number_if_any("devMajor", u64::from(entry.dev_major));
        object.number_if_any("devMinor", u64::from(entry.dev_minor));
        if !entry.xattrs.is_empty() {
            let mut xattrs = object.object("xattrs");
            for (name, value) in &entry.xattrs {
                xattrs.bytes(name, value);
            }
            xattrs.end();
        }
        if let Some(digest) = digest {
            object.text("digest", &digest.to_string());
        }
        if let Some(chunk) = chunks.first() {
            extent(&mut object, chunk);
        }
        object.end();
        for chunk in chunks.iter().skip(1) {
            separate(&mut out);
            let mut object = Object::begin(&mut out);
            object.text("name", &entry.name);
            object.text("type", "chunk");
            position(&mut object, chunk, offsets, ends);
            extent(&mut object, chunk);
            object.end();
        }
    }
    out.extend_from_slice(b"\n]}");
    out
}

fn position(object: &mut Object<'_>, chunk: &Chunk, offsets: &[u64], ends: bool) {
    let at = |member: usize| offsets.get(member).copied().unwrap_or(0);
    object.number_if_any("offset", at(chunk.member));
    if ends {
        object.number_if_any("endOffset", at(chunk.member + 1));
    }
    object.number_if_any("innerOffset", chunk.inner);
}

fn extent(object: &mut Object<'_>, chunk: &Chunk) {
    object.number_if_any("chunkOffset", chunk.offset);
    object.number_if_any("chunkSize", chunk.size.unwrap_or(0));
    if let Some(digest) = chunk.digest {
        object.text("chunkDigest", &digest.to_string());
    }
}

/// What a TOC calls a kind of entry.
#[must_use]
pub const fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Directory => "dir",
        Kind::Regular => "reg",
        Kind::Symlink => "symlink",
        Kind::HardLink => "hardlink",
        Kind::CharDevice => "char",
        Kind::BlockDevice => "block",
        Kind::Fifo => "fifo",
    }
}

/// The blob of a TOC image's layer: a gzip member with a tar that holds nothing but the TOC.
///
/// # Errors
///
/// If `compressor` is not gzip or fails.
pub fn external_toc_layer(
    toc_json: Vec<u8>,
    compressor: &mut impl Compressor,
) -> Result<Vec<u8>, WriteError> {
    if compressor.compression() != Compression::Gzip {
        return Err(WriteError::WrongCodec { expected: Compression::Gzip });
    }
    let mut out = Vec::new();
    compressor.compress(Tar::around(toc_json)?.bytes(), &mut out)?;
    Ok(out)
}

/// The TOC's tar entry and the end of the tar. A TOC is large, so it is made around the JSON.
pub(super) struct Tar {
    bytes: Vec<u8>,
    json: Range<usize>,
}

impl Tar {
    pub(super) fn around(mut json: Vec<u8>) -> Result<Self, WriteError> {
        let mut entry = Entry::new(TOC_NAME.to_string(), Kind::Regular);
        entry.size = json.len() as u64;
        let header = encode_header(&entry)?;
        let place = header.len()..header.len() + json.len();
        let end = place.end + padding(entry.size) + 2 * BLOCK;
        json.reserve_exact(end - json.len());
        json.splice(..0, header);
        json.resize(end, 0);
        Ok(Self { bytes: json, json: place })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_json(mut self) -> Vec<u8> {
        self.bytes.truncate(self.json.end);
        self.bytes.drain(..self.json.start);
        self.bytes
    }
}

/// The last name written for each id: readers carry it on to the entries that follow.
#[derive(Default)]
struct Names<'a>(BTreeMap<u32, &'a str>);

impl<'a> Names<'a> {
    fn if_changed(&mut self, id: u32, name: &'a str) -> &'a str {
        if name.is_empty() || self.0.insert(id, name) == Some(name) { "" } else { name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_are_written_when_they_change() {
        let mut names = Names::default();
        let written = [(0, "root"), (0, "root"), (0, ""), (0, "toor"), (1, "toor"), (0, "root")]
            .map(|(id, name)| names.if_changed(id, name));
        assert_eq!(written, ["root", "", "", "toor", "toor", "root"]);
    }
}
