//! `layer`: the tables of an open layer.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use lazystar_core::Toc;
use lazystar_core::toc::{Kind, NodeId};

use crate::bindings::exports::lazystar::engine::layers::{
    Chunk, ChunkPage, DirectoryEntry, GuestLayer, Page, Reader, Span, Summary, Xattr,
};
use crate::bindings::exports::lazystar::engine::types::{Entry, ErrorCode};
use crate::convert::{self, PAGE};
use crate::reader::FileReader;

/// Targets of symbolic links that a call gives: a path has less than 4096 bytes, so they stay below
/// 1 MiB.
const LINKS: u32 = 200;

/// The resource `layer`.
#[derive(Debug)]
pub(crate) struct OpenLayer {
    toc: Arc<Toc>,
    member_limit: u64,
}

impl OpenLayer {
    pub(crate) fn new(toc: Arc<Toc>, member_limit: u64) -> Self {
        Self { toc, member_limit }
    }

    pub(crate) fn toc(&self) -> &Arc<Toc> {
        &self.toc
    }

    fn node(&self, id: u32) -> Result<NodeId, ErrorCode> {
        let node = NodeId(id);
        if self.toc.contains(node) { Ok(node) } else { Err(ErrorCode::NotFound) }
    }

    fn node_of(&self, id: u32, kind: Kind) -> Result<NodeId, ErrorCode> {
        let node = self.node(id)?;
        if self.toc.kind(node) == kind { Ok(node) } else { Err(ErrorCode::WrongKind) }
    }

    pub(crate) fn reader(&self, spans: Vec<Span>) -> Result<FileReader, ErrorCode> {
        for span in &spans {
            self.node_of(span.file, Kind::Regular)?;
        }
        Ok(FileReader::new(Arc::clone(&self.toc), self.member_limit, spans))
    }

    fn entry(&self, node: NodeId) -> Entry {
        convert::entry(node, &self.toc.attr(node), self.toc.is_opaque(node))
    }
}

impl GuestLayer for OpenLayer {
    fn summary(&self) -> Summary {
        convert::summary(&self.toc)
    }

    fn lookup(&self, path: String) -> Result<Entry, ErrorCode> {
        let mut node = Toc::ROOT;
        for name in path.split('/').filter(|name| !matches!(*name, "" | ".")) {
            if self.toc.kind(node) != Kind::Directory {
                return Err(ErrorCode::WrongKind);
            }
            node = self.toc.lookup(node, name.as_bytes()).ok_or(ErrorCode::NotFound)?;
        }
        Ok(self.entry(node))
    }

    fn stat(&self, ids: Vec<u32>) -> Result<Vec<Entry>, ErrorCode> {
        convert::at_most(&ids, PAGE, "identifiers in a call")?;
        convert::each(ids, |id| Ok(self.entry(self.node(id)?)))
    }

    fn children(&self, directory: u32, start: u32, maximum: u32) -> Result<Page, ErrorCode> {
        let directory = self.node_of(directory, Kind::Directory)?;
        let len = self.toc.entries(directory).len();
        let (skip, take, next) = convert::page(len, start, maximum);
        let entries = self.toc.entries_from(directory, skip).take(take).map(|dirent| {
            DirectoryEntry { name: convert::text(dirent.name), entry: self.entry(dirent.node) }
        });
        Ok(Page { entries: entries.collect(), next })
    }

    fn read_links(&self, links: Vec<u32>) -> Result<Vec<String>, ErrorCode> {
        convert::at_most(&links, LINKS, "links in a call")?;
        convert::each(links, |id| {
            Ok(convert::text(self.toc.readlink(self.node_of(id, Kind::Symlink)?)))
        })
    }

    fn xattrs(&self, id: u32) -> Result<Vec<Xattr>, ErrorCode> {
        let xattrs = self.toc.xattrs(self.node(id)?);
        Ok(xattrs
            .map(|(name, value)| Xattr { name: convert::text(name), value: value.to_vec() })
            .collect())
    }

    fn chunks(&self, file: u32, start: u32, maximum: u32) -> Result<ChunkPage, ErrorCode> {
        let file = self.node_of(file, Kind::Regular)?;
        let all = self.toc.file_chunks(file);
        let (skip, take, next) = convert::page(all.len(), start, maximum);
        let base = self.toc.flat_range(file).start;
        let chunks = all.iter().skip(skip).take(take).map(|chunk| Chunk {
            offset: chunk.flat - base,
            length: u64::from(chunk.len),
            blob_range: (!chunk.is_hole())
                .then(|| convert::byte_range(self.toc.member_span(chunk.member))),
            digest: chunk.digest().map(|digest| digest.to_string()),
        });
        Ok(ChunkPage { chunks: chunks.collect(), next })
    }

    fn read(&self, spans: Vec<Span>) -> Result<Reader, ErrorCode> {
        self.reader(spans).map(Reader::new)
    }
}
