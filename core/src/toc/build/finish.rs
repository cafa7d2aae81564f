//! The end of the TOC: what was left open is resolved, and the tables are put in order.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::hash::BuildHasher;

use hashbrown::HashTable;

use super::super::{
    Assurance, Chunk, FLAT_ALIGN, Kind, Landmark, NONE, Node, SharedAttr, StoredDirent, Toc, pack,
};
use super::{Builder, EntryFault, Name, PENDING_LINK, TocError, count, fault_at};
use crate::digest::Digest;

impl Builder {
    /// Resolves what was left open and makes the tables.
    pub(in super::super) fn finish(
        mut self,
        digest: Digest,
        assurance: Assurance,
        unverified: bool,
    ) -> Result<Toc, TocError> {
        let assurance = match self.undigested.take() {
            Some(path) if !unverified || assurance == Assurance::Verified => {
                return Err(fault_at(&path, EntryFault::NoDigest));
            }
            Some(_) => Assurance::Unverified,
            None => assurance,
        };
        // A whiteout hides what lower layers have, also where this layer has a directory instead.
        for name in core::mem::take(&mut self.hidden) {
            let node = self.names[name as usize].node;
            if self.is_dir(node) {
                self.opaque.push(node);
            }
        }
        if self.replaced_dir {
            let reachable = self.reachable_dirs();
            let Self { links, names, .. } = &mut self;
            links.retain(|link| reachable[names[link.from as usize].dir as usize]);
            self.resolve_links()?;
            self.names.retain(|name| reachable[name.dir as usize]);
        } else {
            self.resolve_links()?;
        }
        self.by_name = HashTable::new();
        for dir in core::mem::take(&mut self.opaque) {
            let attr = self.attrs[self.nodes[dir as usize].attr as usize];
            self.nodes[dir as usize].attr = self.share_attr(SharedAttr { opaque: true, ..attr });
        }
        let dirents = self.directories();
        let flat_size = self.lay_out()?;
        let landmark = match self.landmark {
            Some((true, offset)) => {
                let before = self.chunks.partition_point(|chunk| chunk.member < offset);
                Landmark::Prefetch(self.chunks.get(before).map_or(flat_size, |chunk| chunk.flat))
            }
            Some((false, _)) => Landmark::NoPrefetch,
            None => Landmark::None,
        };
        self.nodes.shrink_to_fit();
        self.chunks.shrink_to_fit();
        self.text.shrink_to_fit();
        Ok(Toc {
            format: self.footer.format,
            digest,
            assurance,
            blob_size: self.blob_size,
            payload_end: self.footer.payload_end,
            landmark,
            flat_size,
            nodes: self.nodes,
            dirents,
            chunks: self.chunks,
            breaks: self.breaks,
            attrs: self.attrs,
            text: self.text,
            xattrs: self.xattrs,
        })
    }

    /// Lets every hard link name the node that its chain of targets ends at.
    fn resolve_links(&mut self) -> Result<(), TocError> {
        let links = core::mem::take(&mut self.links);
        let mut by_name = HashTable::with_capacity(links.len());
        let hash_of = |from: u32| self.hash.hash_one(from);
        // Of several links with one name the last counts.
        for (at, link) in links.iter().enumerate().rev() {
            let hash = hash_of(link.from);
            if by_name.find(hash, |other: &u32| links[*other as usize].from == link.from).is_none()
            {
                by_name.insert_unique(hash, count(at), |at| hash_of(links[*at as usize].from));
            }
        }
        for link in &links {
            let mut followed = Vec::new();
            let mut at = link.from;
            let node = loop {
                let node = self.names[at as usize].node;
                if node != PENDING_LINK {
                    let whiteout = self.is_whiteout(node);
                    break if whiteout { Err(EntryFault::LinkTargetMissing) } else { Ok(node) };
                }
                followed.push(at);
                if followed.len() > links.len() {
                    break Err(EntryFault::LinkCycle);
                }
                let hash = self.hash.hash_one(at);
                let step = by_name.find(hash, |step| links[*step as usize].from == at);
                let Some(step) = step.map(|step| &links[*step as usize]) else {
                    break Err(EntryFault::LinkTargetMissing);
                };
                let start = step.target as usize;
                let target = &self.link_text[start..start + step.target_len as usize];
                match self.walk(target) {
                    Some(next) => at = next,
                    None => break Err(EntryFault::LinkTargetMissing),
                }
            };
            let checked = node.and_then(|node| {
                let bad = self.is_dir(node) && !followed.is_empty();
                if bad { Err(EntryFault::LinkToDirectory) } else { Ok(node) }
            });
            let node = checked.map_err(|fault| fault_at(&self.path_of(link.from), fault))?;
            for name in followed {
                self.names[name as usize].node = node;
            }
        }
        Ok(())
    }

    /// Sorts the names of each directory, tells directories where theirs are, and counts links.
    fn directories(&mut self) -> Vec<StoredDirent> {
        let mut names = core::mem::take(&mut self.names);
        names.sort_unstable_by(|one, other| match one.dir.cmp(&other.dir) {
            Ordering::Equal => self.name_text(one).cmp(self.name_text(other)),
            unequal => unequal,
        });
        self.nodes[0].nlink = 2;
        self.nodes[0].size = pack(0, NONE);
        for (at, name) in names.iter().enumerate() {
            let at = count(at);
            let dir = &mut self.nodes[name.dir as usize];
            if dir.b == 0 {
                dir.a = at;
            }
            dir.b += 1;
            if self.is_dir(name.node) {
                self.nodes[name.dir as usize].nlink += 1;
                let node = &mut self.nodes[name.node as usize];
                node.size = pack(name.dir, at);
                node.nlink += 2;
            } else {
                self.nodes[name.node as usize].nlink += 1;
            }
        }
        let stored =
            |name: &Name| StoredDirent { name: name.name, node: name.node, name_len: name.len };
        names.iter().map(stored).collect()
    }

    /// For each node whether it is a directory that can be reached from the root: those that a
    /// later entry replaced by something else cannot, and what was below them is gone.
    fn reachable_dirs(&self) -> Vec<bool> {
        let mut parents = vec![NONE; self.nodes.len()];
        for name in self.names.iter().filter(|name| self.is_dir(name.node)) {
            parents[name.node as usize] = name.dir;
        }
        let mut reachable = vec![false; self.nodes.len()];
        reachable[0] = true;
        // A directory is made after the one that it is in.
        for (node, parent) in parents.into_iter().enumerate().skip(1) {
            reachable[node] = reachable.get(parent as usize).is_some_and(|reachable| *reachable);
        }
        reachable
    }

    /// Gives every file its place in the flat space, in blob order, and returns the end of that.
    fn lay_out(&mut self) -> Result<u64, TocError> {
        let mut files: Vec<u32> = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            // A file that a later entry replaced has no name left.
            if node.nlink > 0 && node.b > 0 && self.kind_of(node) == Kind::Regular {
                files.push(count(at));
            }
        }
        // Holes lie where the chunk before them does, and those that start a file where the chunk
        // after them does, so that the order of the blob is kept.
        for file in &files {
            let node = self.nodes[*file as usize];
            let first = self.first_data(&node).map_or(0, |chunk| chunk.member);
            let chunks = &mut self.chunks[node.a as usize..(node.a + node.b) as usize];
            let mut member = first;
            for chunk in chunks {
                if chunk.is_hole() {
                    chunk.member = member;
                } else {
                    member = chunk.member;
                }
            }
        }
        let complete =
            files.iter().map(|file| self.nodes[*file as usize].b as usize).sum::<usize>();
        if complete != self.chunks.len() {
            // Where the data of replaced files starts, that of the files before them ends.
            let data = self.chunks.iter().filter(|chunk| !chunk.is_hole());
            self.breaks.extend(data.map(|chunk| chunk.member));
        }
        let place = |node: u32| {
            // Files of nothing but holes come before all that have data.
            let first = self.first_data(&self.nodes[node as usize]);
            first.map(|chunk| (chunk.member, chunk.inner))
        };
        let in_order = files.windows(2).all(|pair| {
            let next = &self.nodes[pair[1] as usize];
            let last = &self.nodes[pair[0] as usize];
            place(pair[0]) <= place(pair[1]) && last.a + last.b == next.a
        });
        if !in_order || complete != self.chunks.len() {
            files.sort_by_cached_key(|file| place(*file));
            let mut chunks = Vec::with_capacity(complete);
            for file in &files {
                let node = &mut self.nodes[*file as usize];
                let start = count(chunks.len());
                chunks.extend_from_slice(&self.chunks[node.a as usize..(node.a + node.b) as usize]);
                node.a = start;
            }
            self.chunks = chunks;
        }
        let end = self.assign_flat(&files)?;
        self.breaks.sort_unstable();
        self.breaks.dedup();
        let chunks = &self.chunks;
        self.breaks
            .retain(|start| chunks.binary_search_by_key(start, |chunk| chunk.member).is_err());
        self.breaks.shrink_to_fit();
        Ok(end)
    }

    /// The first chunk of a file that is not a hole.
    fn first_data(&self, file: &Node) -> Option<&Chunk> {
        let chunks = &self.chunks[file.a as usize..(file.a + file.b) as usize];
        chunks.iter().find(|chunk| !chunk.is_hole())
    }

    fn assign_flat(&mut self, files: &[u32]) -> Result<u64, TocError> {
        let mut flat = 0_u64;
        // Where the data before ends: member, and position in it.
        let mut last = (0, 0);
        for file in files {
            let node = &self.nodes[*file as usize];
            for chunk in &mut self.chunks[node.a as usize..(node.a + node.b) as usize] {
                if chunk.is_hole() {
                    if chunk.member > last.0 {
                        last = (chunk.member, 0);
                    }
                } else {
                    if (chunk.member, chunk.inner) < last {
                        return Err(TocError::Shape("the data of its files is not in blob order"));
                    }
                    last = (chunk.member, chunk.inner + chunk.len);
                }
                chunk.flat = flat;
                flat += u64::from(chunk.len);
                if flat > self.limits.flat_bytes {
                    let limit = self.limits.flat_bytes;
                    return Err(TocError::OverLimit { what: "bytes of file content", limit });
                }
            }
            flat = flat.next_multiple_of(FLAT_ALIGN);
        }
        Ok(flat)
    }
}
