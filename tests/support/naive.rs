//! The tree of a layer, worked out the plain way: a map from paths, no tables, no numbers.

use std::collections::{BTreeMap, BTreeSet};

use lazystar_core::tar;
use lazystar_core::toc::{Kind, NodeId, Toc};

use crate::layers::Item;
use crate::script_host::ScriptHost;

/// What can be said of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u16,
    /// User and group.
    pub owner: (u32, u32),
    /// Seconds since 1970.
    pub mtime: i64,
    /// Number of links.
    pub nlink: u32,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// Numbers of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether lower layers are hidden.
    pub opaque: bool,
    /// What is in a file.
    pub content: Vec<u8>,
    /// The first path of the same node.
    pub same_as: String,
}

/// A tree by clean paths; the root is the empty one.
pub type Tree = BTreeMap<String, Node>;

enum Slot {
    Node(Node),
    Link(String),
}

/// The tree that the entries of a tar mean; `None` if they mean none.
#[must_use]
pub fn tree(items: &[Item]) -> Option<Tree> {
    let mut slots = BTreeMap::from([(String::new(), Slot::Node(implied_dir()))]);
    let mut hidden = BTreeSet::new();
    for item in items {
        put(&mut slots, &mut hidden, item)?;
    }
    for (path, slot) in &mut slots {
        if let Slot::Node(node) = slot
            && node.kind == Kind::Directory
        {
            node.opaque |= hidden.contains(path);
        }
    }
    let mut tree = Tree::new();
    let mut first_path = BTreeMap::new();
    for path in slots.keys() {
        let mut at = path;
        let mut steps = 0;
        let node = loop {
            match slots.get(at)? {
                Slot::Node(node) => break node,
                Slot::Link(target) => at = target,
            }
            steps += 1;
            if steps > slots.len() {
                return None;
            }
        };
        if steps > 0 && matches!(node.kind, Kind::Directory | Kind::Whiteout) {
            return None;
        }
        let first = first_path.entry(at).or_insert(path).to_string();
        tree.insert(path.clone(), Node { same_as: first, ..node.clone() });
    }
    count_links(&mut tree);
    Some(tree)
}

fn put(
    slots: &mut BTreeMap<String, Slot>,
    hidden_paths: &mut BTreeSet<String>,
    item: &Item,
) -> Option<()> {
    let path = clean(&item.entry.name);
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
    imply(slots, dir)?;
    if dir.is_empty() && [".prefetch.landmark", ".no.prefetch.landmark"].contains(&name) {
        return Some(());
    }
    if name == ".wh..wh..opq" {
        if let Some(Slot::Node(dir)) = slots.get_mut(dir) {
            dir.opaque = true;
        }
        return Some(());
    }
    if let Some(hidden) = name.strip_prefix(".wh.") {
        if hidden == "." || hidden == ".." {
            return None;
        }
        let path = if dir.is_empty() { hidden.into() } else { format!("{dir}/{hidden}") };
        if hidden.is_empty() || hidden.starts_with(".wh.") {
            return Some(());
        }
        hidden_paths.insert(path.clone());
        slots
            .entry(path)
            .or_insert_with(|| Slot::Node(Node { kind: Kind::Whiteout, mode: 0, ..implied_dir() }));
        return Some(());
    }
    let is_dir = |slot: Option<&Slot>| matches!(slot, Some(Slot::Node(node)) if node.kind == Kind::Directory);
    let entry = &item.entry;
    if path.is_empty() && entry.kind != tar::Kind::Directory {
        return None;
    }
    let keeps = entry.kind == tar::Kind::Directory && is_dir(slots.get(&path));
    let opaque = match slots.get(&path) {
        Some(Slot::Node(node)) if keeps => node.opaque,
        _ => false,
    };
    if !keeps {
        let below = format!("{path}/");
        slots.retain(|other, _| !other.starts_with(&below));
        hidden_paths.retain(|other| !other.starts_with(&below));
    }
    let slot = if entry.kind == tar::Kind::HardLink {
        Slot::Link(clean(&entry.link_name))
    } else {
        let is_device = matches!(entry.kind, tar::Kind::CharDevice | tar::Kind::BlockDevice);
        Slot::Node(Node {
            kind: match entry.kind {
                tar::Kind::Directory => Kind::Directory,
                tar::Kind::Symlink => Kind::Symlink,
                tar::Kind::CharDevice => Kind::CharDevice,
                tar::Kind::BlockDevice => Kind::BlockDevice,
                tar::Kind::Fifo => Kind::Fifo,
                _ => Kind::Regular,
            },
            mode: entry.mode as u16,
            owner: (entry.uid, entry.gid),
            mtime: entry.mtime,
            nlink: 0,
            target: entry.link_name.clone().into_bytes(),
            device: if is_device { (entry.dev_major, entry.dev_minor) } else { (0, 0) },
            xattrs: entry.xattrs.iter().map(|(k, v)| (k.clone().into_bytes(), v.clone())).collect(),
            opaque,
            content: item.data.clone(),
            same_as: String::new(),
        })
    };
    slots.insert(path, slot);
    Some(())
}

/// Makes the directories on the way to `path`.
fn imply(slots: &mut BTreeMap<String, Slot>, path: &str) -> Option<()> {
    if path.is_empty() {
        return Some(());
    }
    imply(slots, path.rsplit_once('/').map_or("", |(dir, _)| dir))?;
    match slots.get(path) {
        Some(Slot::Node(node)) if node.kind == Kind::Directory => {}
        Some(Slot::Node(node)) if node.kind != Kind::Whiteout => return None,
        Some(Slot::Link(_)) => return None,
        _ => {
            slots.insert(path.into(), Slot::Node(implied_dir()));
        }
    }
    Some(())
}

fn implied_dir() -> Node {
    Node {
        kind: Kind::Directory,
        mode: 0o755,
        owner: (0, 0),
        mtime: 0,
        nlink: 0,
        target: Vec::new(),
        device: (0, 0),
        xattrs: BTreeMap::new(),
        opaque: false,
        content: Vec::new(),
        same_as: String::new(),
    }
}

fn count_links(tree: &mut Tree) {
    let mut links = BTreeMap::<String, u32>::new();
    for (path, node) in &*tree {
        let is_dir = node.kind == Kind::Directory;
        *links.entry(node.same_as.clone()).or_default() += if is_dir { 2 } else { 1 };
        if is_dir && !path.is_empty() {
            let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
            *links.entry(dir.into()).or_default() += 1;
        }
    }
    for node in tree.values_mut() {
        node.nlink = links[&node.same_as];
    }
}

/// A path without slashes at its ends, empty parts, `.` and `..`.
#[must_use]
pub fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The tree that a layer shows, its files read through the host.
///
/// # Panics
/// When a file cannot be read, or the tables contradict each other.
#[must_use]
pub fn shown(host: &mut ScriptHost) -> Tree {
    let mut tree = Tree::new();
    let mut first = BTreeMap::new();
    let toc = std::sync::Arc::clone(&host.toc);
    let mut queue = vec![(String::new(), Toc::ROOT)];
    let mut paths = BTreeMap::new();
    while let Some((path, id)) = queue.pop() {
        for entry in toc.entries(id) {
            assert_eq!(toc.lookup(id, entry.name), Some(entry.node), "{path}");
            let name = std::str::from_utf8(entry.name).expect("names are UTF-8");
            let child = if path.is_empty() { name.into() } else { format!("{path}/{name}") };
            queue.push((child, entry.node));
        }
        paths.insert(path, id);
    }
    for (path, id) in paths {
        let same_as = first.entry(id).or_insert_with(|| path.clone()).clone();
        tree.insert(path, node(host, &toc, id, same_as));
    }
    tree
}

fn node(host: &mut ScriptHost, toc: &Toc, id: NodeId, same_as: String) -> Node {
    let attr = toc.attr(id);
    assert_eq!(attr.mtime_nanos % 1_000_000_000, 0);
    let content = match attr.kind {
        Kind::Regular => host.read(id).expect("the file can be read"),
        _ => Vec::new(),
    };
    if attr.kind == Kind::Regular {
        assert_eq!(attr.size, content.len() as u64);
    }
    Node {
        kind: attr.kind,
        mode: attr.mode,
        owner: (attr.uid, attr.gid),
        mtime: attr.mtime_nanos / 1_000_000_000,
        nlink: attr.nlink,
        target: toc.readlink(id).to_vec(),
        device: attr.device,
        xattrs: toc.xattrs(id).map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
        opaque: toc.is_opaque(id),
        content,
        same_as,
    }
}
