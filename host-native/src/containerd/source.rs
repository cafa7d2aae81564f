//! Where content came from: labels that other clients set and read too.

use std::collections::BTreeMap;

use super::Stored;
use crate::reference::RegistryRef;

/// Starts the label that says from which repositories content came; the rest is their host, the
/// value their names with commas between them.
const SOURCE: &str = "containerd.io/distribution.source.";

/// Labels that say that content came from the repository of `reference`, beside those that it is
/// `stored` with.
#[must_use]
pub fn source_labels(reference: &RegistryRef, stored: Option<&Stored>) -> BTreeMap<String, String> {
    let key = format!("{SOURCE}{}", reference.host());
    let known = stored.and_then(|stored| stored.labels.get(&key)).map_or("", String::as_str);
    let mut repositories: Vec<_> = known.split(',').filter(|name| !name.is_empty()).collect();
    if !repositories.contains(&reference.repository()) {
        repositories.push(reference.repository());
        repositories.sort_unstable();
    }
    [(key, repositories.join(","))].into()
}

impl Stored {
    /// This content in each repository that it came from, by its digest.
    #[must_use]
    pub fn sources(&self) -> Vec<RegistryRef> {
        let hosts = self.labels.iter();
        let hosts = hosts.filter_map(|(key, names)| Some((key.strip_prefix(SOURCE)?, names)));
        let mut names: Vec<String> = hosts
            .flat_map(|(host, names)| names.split(',').map(move |name| format!("{host}/{name}")))
            .collect();
        names.sort_unstable();
        names.iter().filter_map(|name| format!("{name}@{}", self.digest).parse().ok()).collect()
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
        let labelled = |stored: Option<&Stored>| {
            let labels = source_labels(&reference, stored);
            labels[&format!("{SOURCE}localhost:5000")].clone()
        };
        assert_eq!(labelled(Some(&stored(&[("localhost:5000", "a,c")]))), "a,b,c");
        assert_eq!(labelled(Some(&stored(&[("localhost:5000", "a,b")]))), "a,b");
        assert_eq!(labelled(None), "b");
    }

    #[test]
    fn sources_are_references() {
        let it = stored(&[("docker.io", "library/go,me/go"), ("bad host", "x"), ("localhost", "")]);
        let found: Vec<_> = it.sources().iter().map(ToString::to_string).collect();
        let digest = it.digest;
        let wanted =
            [format!("docker.io/library/go@{digest}"), format!("docker.io/me/go@{digest}")];
        assert_eq!(found, wanted);
        assert!(stored(&[]).sources().is_empty());
    }
}
