//! Paths to directories and nodes, by a hash table of the names in them.

use alloc::vec;
use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};

use super::super::NONE;
use super::{Builder, EntryFault, NAME_MAX, Name, TocError, count, fault_at};

impl Builder {
    /// The directory at a clean path; what is missing of it is made.
    pub(super) fn directory(&mut self, path: &[u8], entry: &[u8]) -> Result<u32, TocError> {
        if path.is_empty() {
            return Ok(0);
        }
        if self.last_dir.0 == path {
            return Ok(self.last_dir.1);
        }
        let mut dir = 0;
        for name in path.split(|byte| *byte == b'/') {
            if name.len() > NAME_MAX {
                return Err(fault_at(entry, EntryFault::Name));
            }
            dir = match self.find(dir, name) {
                Some(node) if self.is_dir(node) => node,
                Some(node) if self.is_whiteout(node) => self.imply_dir(dir, name)?,
                Some(_) => return Err(fault_at(entry, EntryFault::ParentNotDirectory)),
                None => self.imply_dir(dir, name)?,
            };
        }
        self.last_dir.0.clear();
        self.last_dir.0.extend_from_slice(path);
        self.last_dir.1 = dir;
        Ok(dir)
    }

    /// Makes a directory that no entry has named yet. One path can imply two thousand of them, so
    /// they count like entries.
    fn imply_dir(&mut self, dir: u32, name: &[u8]) -> Result<u32, TocError> {
        self.implied += 1;
        let limit = u64::from(self.limits.entries);
        if u64::from(self.entries) + u64::from(self.implied) > limit {
            return Err(TocError::OverLimit { what: "entries", limit });
        }
        let node = self.push_implied_dir();
        self.set_name(dir, name, node);
        Ok(node)
    }

    fn name_hash(&self, dir: u32, name: &[u8]) -> u64 {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u32(dir);
        hasher.write(name);
        hasher.finish()
    }

    pub(super) fn name_text(&self, name: &Name) -> &[u8] {
        let start = name.name as usize;
        &self.text[start..start + usize::from(name.len)]
    }

    pub(super) fn find_name(&self, dir: u32, name: &[u8]) -> Option<u32> {
        self.find_hashed(self.name_hash(dir, name), dir, name)
    }

    fn find_hashed(&self, hash: u64, dir: u32, name: &[u8]) -> Option<u32> {
        let found = self.by_name.find(hash, |at| {
            let found = &self.names[*at as usize];
            found.dir == dir && self.name_text(found) == name
        });
        found.copied()
    }

    pub(super) fn find(&self, dir: u32, name: &[u8]) -> Option<u32> {
        self.find_name(dir, name).map(|at| self.names[at as usize].node)
    }

    /// Lets `name` in `dir` name `node`; returns the index of the name.
    pub(super) fn set_name(&mut self, dir: u32, name: &[u8], node: u32) -> u32 {
        let hash = self.name_hash(dir, name);
        if let Some(at) = self.find_hashed(hash, dir, name) {
            if self.is_dir(self.names[at as usize].node) {
                self.replaced_dir = true;
                self.last_dir.0.clear();
            }
            self.names[at as usize].node = node;
            return at;
        }
        let at = count(self.names.len());
        let start = count(self.text.len());
        self.text.extend_from_slice(name);
        let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.names.push(Name { dir, name: start, node, len });
        let Self { by_name, names, text, hash: state, .. } = self;
        by_name.insert_unique(hash, at, |at| {
            let name = &names[*at as usize];
            let mut hasher = state.build_hasher();
            hasher.write_u32(name.dir);
            hasher.write(&text[name.name as usize..name.name as usize + usize::from(name.len)]);
            hasher.finish()
        });
        at
    }

    /// The name at a clean path.
    pub(super) fn walk(&self, path: &[u8]) -> Option<u32> {
        let mut dir = 0;
        let mut found = None;
        for name in path.split(|byte| *byte == b'/') {
            let at = self.find_name(dir, name)?;
            dir = self.names[at as usize].node;
            found = Some(at);
        }
        found
    }

    /// The path of a name; for errors, because it looks at every name.
    pub(super) fn path_of(&self, name: u32) -> Vec<u8> {
        let mut own_names = vec![NONE; self.nodes.len()];
        for (at, name) in self.names.iter().enumerate().filter(|(_, name)| self.is_dir(name.node)) {
            own_names[name.node as usize] = count(at);
        }
        let mut parts = Vec::new();
        let mut at = name;
        while let Some(name) = self.names.get(at as usize) {
            parts.push(self.name_text(name));
            at = own_names[name.dir as usize];
        }
        parts.reverse();
        parts.join(&b'/')
    }
}
