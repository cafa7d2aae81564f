//! What a layer changes in the layers below it.

use alloc::vec::Vec;

use super::side::{SideBySide, descend, visible};
use super::{Image, ImageNode};
use crate::toc::{Kind, Toc};

/// How a layer changes a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// Its content, kind or target is another one, or is stored in other chunks, which cannot be
    /// told from other content.
    Modified,
    /// It has the same content, but another mode, owner, time or other attributes.
    Metadata,
    /// It is stored once more as it was.
    Duplicated,
    /// It is there no longer.
    Removed,
}

/// A path that a layer changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The path, which starts with a slash.
    pub path: &'a [u8],
    /// How.
    pub kind: ChangeKind,
    /// What is there without the layer.
    pub before: Option<ImageNode>,
    /// What is there with it.
    pub after: Option<ImageNode>,
}

/// Goes through the paths that a layer changes, in the order of [`Walk`](super::Walk).
///
/// Directories that are there before and after, the same, are left out: tars list them for what is
/// in them. Of what goes with a directory every path is reported.
#[derive(Clone, Debug)]
pub struct Changes {
    image: Image,
    upper: u32,
    levels: Vec<Level>,
    path: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Level {
    names: SideBySide,
    /// Whether nothing of the lower layers is seen here any more.
    hidden: bool,
}

impl Changes {
    pub(super) fn new(image: Image, upper: u32) -> Self {
        let mut levels = Vec::new();
        if let Some(toc) = image.layers.get(upper as usize) {
            let below = image.root_stack(upper);
            let top = ImageNode { layer: upper, node: Toc::ROOT };
            let names = SideBySide::new([top].into_iter().chain(below), 0);
            levels.push(Level { names, hidden: toc.is_opaque(Toc::ROOT) });
        }
        Self { image, upper, levels, path: Vec::new() }
    }

    /// The next change; `None` after the last.
    pub fn next_change(&mut self) -> Option<Change<'_>> {
        loop {
            let level = self.levels.last_mut()?;
            let layers = self.image.layers();
            let Some((name, nodes)) = level.names.next(layers) else {
                self.levels.pop();
                continue;
            };
            let after = nodes.first().copied().filter(|node| node.layer == self.upper);
            if after.is_none() && !level.hidden {
                continue;
            }
            let lower = visible(layers, nodes.into_iter().filter(|node| node.layer < self.upper));
            let before = lower.first().copied();
            let kind_of = |node: Option<ImageNode>| node.and_then(|node| self.image.kind(node));
            let whiteout = kind_of(after) == Some(Kind::Whiteout);
            let after = after.filter(|_| !whiteout);
            let hidden = level.hidden
                || whiteout
                || after.is_some_and(|node| self.image.is_opaque_or_other(node));
            descend(&mut self.path, level.names.path, name);
            let below = lower.iter().filter(|node| kind_of(Some(**node)) == Some(Kind::Directory));
            let upper = after.filter(|_| kind_of(after) == Some(Kind::Directory));
            let parts: Vec<_> = upper.into_iter().chain(below.copied()).collect();
            if !parts.is_empty() {
                let names = SideBySide::new(parts, self.path.len());
                self.levels.push(Level { names, hidden });
            }
            let kind = match (before, after) {
                (None, None) => continue,
                (None, Some(_)) => ChangeKind::Added,
                (Some(_), None) => ChangeKind::Removed,
                (Some(before), Some(after)) => match self.image.compare(before, after) {
                    ChangeKind::Duplicated if upper.is_some() => continue,
                    kind => kind,
                },
            };
            return Some(Change { path: &self.path, kind, before, after });
        }
    }
}

impl Image {
    /// Whether a node of an upper layer hides all that lower layers have at its path.
    fn is_opaque_or_other(&self, node: ImageNode) -> bool {
        self.layer(node)
            .is_some_and(|toc| toc.kind(node.node) != Kind::Directory || toc.is_opaque(node.node))
    }

    fn compare(&self, before: ImageNode, after: ImageNode) -> ChangeKind {
        let Some((old, new)) = self.layer(before).zip(self.layer(after)) else {
            return ChangeKind::Modified;
        };
        let (was, is) = (old.attr(before.node), new.attr(after.node));
        let same_content = was.kind == is.kind
            && was.size == is.size
            && was.device == is.device
            && old.readlink(before.node) == new.readlink(after.node)
            && same_chunks(old, before, new, after);
        let same_attributes = (was.mode, was.uid, was.gid, was.mtime_nanos)
            == (is.mode, is.uid, is.gid, is.mtime_nanos)
            && old.xattrs(before.node).eq(new.xattrs(after.node));
        match (same_content, same_attributes) {
            (false, _) => ChangeKind::Modified,
            (true, false) => ChangeKind::Metadata,
            (true, true) => ChangeKind::Duplicated,
        }
    }
}

/// Whether two files of the same size are made up of the same chunks.
fn same_chunks(old: &Toc, before: ImageNode, new: &Toc, after: ImageNode) -> bool {
    let (old, new) = (old.file_chunks(before.node), new.file_chunks(after.node));
    old.len() == new.len()
        && old.iter().zip(new).all(|(old, new)| {
            let known = old.digest().is_some() || old.is_hole();
            known
                && old.is_hole() == new.is_hole()
                && old.len == new.len
                && old.digest() == new.digest()
        })
}
