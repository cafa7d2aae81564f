//! Where content came from: labels that other clients set and read too.

use std::collections::BTreeMap;

use super::Stored;
use crate::reference::RegistryRef;

/// Starts the label that says from which repositories content came; the rest is their host, the
/// value their names with commas between them.
const SOURCE: &str = "containerd.io/distribution.source.";

/// Labels that say that content came from the repository of `reference`, beside those that it is
/// `stored` with.
///
/// Other clients leave out the port of the host, and look for such labels; one that has it is for
/// ourselves.
#[must_use]
pub fn source_labels(reference: &RegistryRef, stored: Option<&Stored>) -> BTreeMap<String, String> {
    let hosts = [reference.hostname(), reference.host()].into_iter();
    let labels = hosts.map(|host| {
        let key = format!("{SOURCE}{host}");
        let known = stored.and_then(|stored| stored.labels.get(&key)).map_or("", String::as_str);
        let mut repositories: Vec<_> = known.split(',').filter(|name| !name.is_empty()).collect();
        if !repositories.contains(&reference.repository()) {
            repositories.push(reference.repository());
            repositories.sort_unstable();
        }
        (key, repositories.join(","))
    });
    labels.collect()
}

impl Stored {
    /// This content in each repository that it came from, by its digest; those of hosts that are
    /// given with their port first.
    #[must_use]
    pub fn sources(&self) -> Vec<RegistryRef> {
        let hosts = self.labels.iter();
        let hosts = hosts.filter_map(|(key, names)| Some((key.strip_prefix(SOURCE)?, names)));
        let names = hosts
            .flat_map(|(host, names)| names.split(',').map(move |name| format!("{host}/{name}")));
        let parsed = names.filter_map(|name| format!("{name}@{}", self.digest).parse().ok());
        let mut sources: Vec<RegistryRef> = parsed.collect();
        sources.sort_by_cached_key(|it| (it.host() == it.hostname(), it.to_string()));
        sources
    }
}

#[cfg(test)]
mod tests {
    use lazystar_core::Digest;

    use super::*;

    fn stored(labels: &[(&str, &str)]) -> Stored {
        let labels = labels.iter();
        let labels = labels.map(|(host, names)| (format!("{SOURCE}{host}"), (*names).to_owned()));
        Stored { digest: Digest::of(b"x"), size: 1, created: 0, labels: labels.collect() }
    }

    #[test]
    fn sources_add_up() {
        let reference: RegistryRef = "localhost:5000/b:1".parse().expect("a reference");
        let labelled = |stored: Option<&Stored>, host: &str| {
            let labels = source_labels(&reference, stored);
            labels[&format!("{SOURCE}{host}")].clone()
        };
        let known = stored(&[("localhost:5000", "a,c"), ("localhost", "a,b")]);
        assert_eq!(labelled(Some(&known), "localhost:5000"), "a,b,c");
        assert_eq!(labelled(Some(&known), "localhost"), "a,b");
        assert_eq!(labelled(None, "localhost"), "b");
        let plain: RegistryRef = "docker.io/a/b".parse().expect("a reference");
        assert_eq!(source_labels(&plain, None).len(), 1);
    }

    #[test]
    fn sources_are_references() {
        let it = stored(&[
            ("docker.io", "library/go,me/go"),
            ("bad host", "x"),
            ("localhost", ""),
            ("localhost:5000", "z"),
        ]);
        let found: Vec<_> = it.sources().iter().map(ToString::to_string).collect();
        let digest = it.digest;
        let wanted = ["localhost:5000/z", "docker.io/library/go", "docker.io/me/go"]
            .map(|name| format!("{name}@{digest}"));
        assert_eq!(found, wanted);
        assert!(stored(&[]).sources().is_empty());
    }
}
