//! The order of entries in a layer: what a container reads first goes before the landmark.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::TOC_NAME;

/// A file that tells readers what to prefetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Landmark {
    /// The data before it should be prefetched.
    Prefetch,
    /// Nothing of the layer should be prefetched.
    NoPrefetch,
}

impl Landmark {
    /// Content of either landmark.
    pub const CONTENT: [u8; 1] = [0x0f];

    /// Its name in the layer.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefetch => ".prefetch.landmark",
            Self::NoPrefetch => ".no.prefetch.landmark",
        }
    }
}

/// What matters of an entry for its place in the layer.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Name as in the tar.
    pub name: &'a str,
    /// Target if the entry is a hard link.
    pub hard_link: Option<&'a str>,
}

/// One step of writing a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the entry of this index.
    Entry(usize),
    /// Write this landmark.
    Landmark(Landmark),
}

/// How to write a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to write, one after another.
    pub steps: Vec<Step>,
    /// Prioritised paths that the layer does not have, as they were given.
    pub missing: Vec<String>,
}

/// Dropping an earlier duplicate would give this hard link other content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderError {
    /// Name of the link.
    pub name: String,
    /// Its target, of which a second entry follows after the link.
    pub target: String,
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, target } = self;
        write!(f, "hard link {name:?} leads to {target:?}, which a later entry replaces")
    }
}

impl core::error::Error for OrderError {}

/// Orders the entries of a layer: for each of the `prioritised` paths its directories, the target if it
/// is a hard link, then itself; after them a landmark; then the rest as it was.
///
/// Of several entries with one name the last stays, at its place. Landmarks and TOCs of the input are
/// left out. If none of the paths exists, the landmark is the one that forbids prefetching: there is
/// nothing to prefetch.
///
/// # Errors
///
/// If leaving out a duplicate would change what a hard link means.
pub fn order(entries: &[Candidate<'_>], prioritised: &[&str]) -> Result<Order, OrderError> {
    let paths: Vec<String> = entries.iter().map(|entry| clean(entry.name)).collect();
    let mut last = BTreeMap::new();
    let mut meant = Vec::new();
    for (index, (entry, path)) in entries.iter().zip(&paths).enumerate() {
        if reserved(entry.name).is_some() {
            continue;
        }
        if let Some(target) = entry.hard_link.map(clean)
            && let Some(&target) = last.get(target.as_str())
        {
            meant.push((index, target));
        }
        last.insert(path.as_str(), index);
    }
    for (link, target) in meant {
        let replaced = paths.get(target).and_then(|path| last.get(path.as_str())) != Some(&target);
        if let (true, Some(entry)) = (replaced, entries.get(link)) {
            return Err(OrderError {
                name: entry.name.to_string(),
                target: entry.hard_link.unwrap_or_default().to_string(),
            });
        }
    }

    let mut picks = Picks { entries, last: &last, taken: Vec::new(), steps: Vec::new() };
    picks.taken.resize(entries.len(), false);
    let mut missing = Vec::new();
    for &wanted in prioritised {
        if !picks.pick(&clean(wanted)) {
            missing.push(wanted.to_string());
        }
    }
    let Picks { taken, mut steps, .. } = picks;
    let landmark = if steps.is_empty() { Landmark::NoPrefetch } else { Landmark::Prefetch };
    steps.push(Step::Landmark(landmark));
    let stays = |index: &usize| {
        let current = paths.get(*index).and_then(|path| last.get(path.as_str())) == Some(index);
        current && taken.get(*index) == Some(&false)
    };
    steps.extend((0..entries.len()).filter(stays).map(Step::Entry));
    Ok(Order { steps, missing })
}

struct Picks<'a> {
    entries: &'a [Candidate<'a>],
    last: &'a BTreeMap<&'a str, usize>,
    taken: Vec<bool>,
    steps: Vec<Step>,
}

impl Picks<'_> {
    /// Takes the entry at a clean path and what has to precede it; says whether there is one.
    fn pick(&mut self, path: &str) -> bool {
        let Some(&index) = self.last.get(path) else { return false };
        // Links to links, until a file or an entry that is in the chain or the layer already.
        let mut chain = Vec::from([(path.to_string(), index)]);
        let mut seen = BTreeSet::from([index]);
        let mut current = index;
        while let Some(target) = self.entries.get(current).and_then(|entry| entry.hard_link) {
            let target = clean(target);
            let Some(&next) = self.last.get(target.as_str()) else { break };
            if self.taken.get(next) != Some(&false) || !seen.insert(next) {
                break;
            }
            chain.push((target, next));
            current = next;
        }
        for (path, _) in &chain {
            self.parents(path);
        }
        for (_, index) in chain.into_iter().rev() {
            self.take(index);
        }
        true
    }

    fn parents(&mut self, path: &str) {
        let slashes = path.match_indices('/').map(|(at, _)| at);
        for end in core::iter::once(0).chain(slashes) {
            if let Some(&parent) = self.last.get(&path[..end]) {
                self.take(parent);
            }
        }
    }

    fn take(&mut self, index: usize) {
        if let Some(taken) = self.taken.get_mut(index)
            && !*taken
        {
            *taken = true;
            self.steps.push(Step::Entry(index));
        }
    }
}

/// A name that the format keeps for itself.
pub(super) enum Reserved {
    Toc,
    Landmark,
}

pub(super) fn reserved(name: &str) -> Option<Reserved> {
    // Most names end otherwise, and then need not be cleaned.
    let base = name.trim_end_matches(['/', '.']).rsplit('/').next()?;
    let reserved = match base {
        TOC_NAME => Reserved::Toc,
        ".prefetch.landmark" | ".no.prefetch.landmark" => Reserved::Landmark,
        _ => return None,
    };
    (clean(name) == base).then_some(reserved)
}

/// Checks that every hard link leads to an entry that is none; gives name and target of one that does
/// not.
pub(super) fn check_links<'a>(
    entries: impl Iterator<Item = Candidate<'a>> + Clone,
) -> Result<(), (String, String)> {
    if entries.clone().all(|entry| entry.hard_link.is_none()) {
        return Ok(());
    }
    // Where each path leads: to another path, or to an entry itself.
    let leads: BTreeMap<String, Option<String>> =
        entries.clone().map(|entry| (clean(entry.name), entry.hard_link.map(clean))).collect();
    let mut good = BTreeMap::new();
    for entry in entries {
        let Some(target) = entry.hard_link else { continue };
        let mut path = clean(target);
        let mut seen = Vec::new();
        let found = loop {
            if let Some(&known) = good.get(&path) {
                break known;
            }
            // Until the chain is through, its paths lead nowhere: a cycle ends here.
            good.insert(path.clone(), false);
            seen.push(path.clone());
            match leads.get(&path) {
                Some(Some(next)) => path.clone_from(next),
                Some(None) => break true,
                None => break false,
            }
        };
        for path in seen {
            good.insert(path, found);
        }
        if !found {
            return Err((entry.name.to_string(), target.to_string()));
        }
    }
    Ok(())
}

/// The path from the root without leading or trailing slash; `.` and `..` resolved, the latter never
/// beyond the root, which itself is empty.
#[must_use]
pub fn clean(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => path.truncate(path.rfind('/').unwrap_or(0)),
            _ => {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(part);
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    /// The names in order. A hard link is written `name=target`.
    fn ordered(prefix: &str, entries: &[&str], prioritised: &[&str]) -> (Vec<String>, Vec<String>) {
        let names: Vec<(String, Option<String>)> = entries
            .iter()
            .map(|entry| match entry.split_once('=') {
                Some((name, target)) => {
                    (format!("{prefix}{name}"), Some(format!("{prefix}{target}")))
                }
                None => (format!("{prefix}{entry}"), None),
            })
            .collect();
        let candidates: Vec<Candidate<'_>> = names
            .iter()
            .map(|(name, link)| Candidate { name, hard_link: link.as_deref() })
            .collect();
        let order = order(&candidates, prioritised).unwrap();
        let steps = order.steps.iter().map(|step| match *step {
            Step::Entry(index) => names[index].0[prefix.len()..].to_string(),
            Step::Landmark(Landmark::Prefetch) => "PL".to_string(),
            Step::Landmark(Landmark::NoPrefetch) => "NPL".to_string(),
        });
        (steps.collect(), order.missing)
    }

    #[test]
    fn prioritised_paths_come_first() {
        let long = ["l".repeat(150), format!("{}/{}", "d".repeat(60), "e".repeat(59))];
        let long_dir = format!("{}/", "d".repeat(60));
        type Names<'a> = &'a [&'a str];
        let cases: &[(&str, Names<'_>, Names<'_>, Names<'_>)] = &[
            ("none", &["foo", "bar/", "bar/baz"], &[], &["NPL", "foo", "bar/", "bar/baz"]),
            (
                "identical",
                &["foo.txt", "bar/", "bar/baz.txt", "bar/bar.txt"],
                &["foo.txt", "bar/baz.txt"],
                &["foo.txt", "bar/", "bar/baz.txt", "PL", "bar/bar.txt"],
            ),
            (
                "shuffled files",
                &["foo", "baz", "bar", "baa"],
                &["baa", "bar", "baz"],
                &["baa", "bar", "baz", "PL", "foo"],
            ),
            (
                "shuffled directories",
                &[
                    "foo.txt", "bar/", "bar/a", "baz/", "baz/baz1", "baz/baz2", "baz/bb/",
                    "baz/bb/a",
                ],
                &["baz/bb/a", "baz/baz2", "foo.txt"],
                &[
                    "baz/", "baz/bb/", "baz/bb/a", "baz/baz2", "foo.txt", "PL", "bar/", "bar/a",
                    "baz/baz1",
                ],
            ),
            (
                "other link stays",
                &["foo", "bar=baz", "baz", "baa"],
                &["baz"],
                &["baz", "PL", "foo", "bar", "baa"],
            ),
            (
                "hard link",
                &["baa", "bazlink=baz", "baz", "foo"],
                &["bazlink"],
                &["baz", "bazlink", "PL", "baa", "foo"],
            ),
            (
                "hard link chain with directories",
                &["a/", "a/l=b/m", "b/", "b/m=c/f", "c/", "c/f"],
                &["a/l"],
                &["a/", "b/", "c/", "c/f", "b/m", "a/l", "PL"],
            ),
            ("cycle", &["a=b", "b=a"], &["a"], &["b", "a", "PL"]),
            (
                "long names",
                &["foo", &long[0], &long_dir, &long[1]],
                &[&long[1], &long[0]],
                &[&long_dir, &long[1], &long[0], "PL", "foo"],
            ),
            (
                "existing landmark",
                &["PL?", ".prefetch.landmark", ".no.prefetch.landmark", "foo", "stargz.index.json"],
                &["foo"],
                &["foo", "PL", "PL?"],
            ),
            (
                "existing landmark, none wanted",
                &[".prefetch.landmark", "foo"],
                &[],
                &["NPL", "foo"],
            ),
            (
                "last of duplicates",
                &["bar/", "bar/baz", "foo", "bar/baz"],
                &["bar/baz"],
                &["bar/", "bar/baz", "PL", "foo"],
            ),
            ("duplicates, unordered", &["a", "b", "a"], &[], &["NPL", "b", "a"]),
            ("wanted twice", &["foo", "bar"], &["bar", "/bar", "./bar/"], &["bar", "PL", "foo"]),
        ];
        for (case, entries, wanted, expected) in cases {
            for prefix in ["", "./", "/", "../"] {
                for log_prefix in ["", "./", "/", "../"] {
                    let wanted: Vec<String> =
                        wanted.iter().map(|name| format!("{log_prefix}{name}")).collect();
                    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
                    let (names, missing) = ordered(prefix, entries, &wanted);
                    assert_eq!(names, *expected, "{case}");
                    assert!(missing.is_empty(), "{case}");
                }
            }
        }
    }

    #[test]
    fn the_root_goes_before_all() {
        for root in ["./", "/", "."] {
            let (names, _) = ordered("", &["foo", root, "bar"], &["bar"]);
            assert_eq!(names, [root, "bar", "PL", "foo"]);
        }
    }

    #[test]
    fn missing_paths_are_reported_as_given() {
        let (names, missing) = ordered("", &["foo"], &["/dummy1", "foo", "./dummy2"]);
        assert_eq!(names, ["foo", "PL"]);
        assert_eq!(missing, ["/dummy1", "./dummy2"]);
        let (names, _) = ordered("", &["foo"], &["dummy"]);
        assert_eq!(names, ["NPL", "foo"]);
    }

    #[test]
    fn a_link_must_not_change_its_content() {
        let candidate = |name, hard_link| Candidate { name, hard_link };
        let entries = [candidate("a", None), candidate("b", Some("a")), candidate("./a", None)];
        let error = order(&entries, &[]).unwrap_err();
        assert_eq!((error.name.as_str(), error.target.as_str()), ("b", "a"));
        assert!(order(&[entries[0], entries[2], entries[1]], &[]).is_ok());
    }

    #[test]
    fn clean_paths() {
        for (name, expected) in [
            ("./a//b/", "a/b"),
            ("/a/../../b", "b"),
            ("a/b/..", "a"),
            ("..", ""),
            ("/", ""),
            ("a/.b", "a/.b"),
            ("...", "..."),
        ] {
            assert_eq!(clean(name), expected);
        }
        assert!(matches!(reserved("x/../stargz.index.json/."), Some(Reserved::Toc)));
        assert!(reserved("x/stargz.index.json").is_none());
        assert!(reserved("stargz.index.json.").is_none());
    }
}
