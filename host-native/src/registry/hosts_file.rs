//! containerd's directories of hosts: `hosts.toml`, or certificates alone as Docker keeps them.
//!
//! What is read and how it counts is what containerd does with its `config_path`
//! (`docs/hosts.md` there), so that one directory serves both.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lazystar_core::write::clean;
use reqwest::Url;
use serde::Deserialize;
use toml::Spanned;

use super::endpoint::Capabilities;
use super::transport::{Pem, TransportSettings};
use crate::bounded;

/// Larger than any such file that somebody wrote.
const MAX_FILE: u64 = 1 << 20;

/// A host as a directory describes it.
#[derive(Clone, PartialEq)]
pub(super) struct Entry {
    /// Where it is; `None` for the host that references name.
    pub(super) address: Option<Address>,
    pub(super) capabilities: Capabilities,
    pub(super) headers: Vec<(String, String)>,
    pub(super) transport: TransportSettings,
}

/// Where the API of a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Whether it is spoken to with TLS.
    pub(super) secure: bool,
    /// Host and port, as written.
    pub(super) host: String,
    /// Begins with a slash, and ends with none.
    pub(super) path: String,
}

/// What a directory says of a host's hosts: mirrors in their order, then the server.
#[derive(Clone, PartialEq)]
pub(super) struct Listed {
    pub(super) entries: Vec<Entry>,
    /// Why `hosts.toml` does not count; the certificates in the directory do.
    pub(super) broken: Option<String>,
}

/// The directory for `host` below the first of `roots` that has one.
pub(super) fn directory(roots: &[PathBuf], host: &str) -> Option<PathBuf> {
    let with_port = match host.rfind(':') {
        Some(colon) if colon > 0 => Some(format!("{}_{}_", &host[..colon], &host[colon + 1..])),
        _ => None,
    };
    roots.iter().filter(|root| !root.as_os_str().is_empty()).find_map(|root| {
        let names = with_port.as_deref().into_iter().chain([host, "_default"]);
        names.map(|name| root.join(name)).find(|dir| dir.exists())
    })
}

/// Reads a directory.
///
/// # Errors
/// If it cannot be read. A `hosts.toml` with mistakes is no error.
pub(super) fn load(dir: &Path) -> io::Result<Listed> {
    let file = dir.join("hosts.toml");
    let text = match bounded::read(&file, MAX_FILE) {
        Ok(content) => String::from_utf8(content).map_err(io::Error::other)?,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    if text.is_empty() {
        return Ok(Listed { entries: vec![certificates(dir)?], broken: None });
    }
    match parse(&text, dir) {
        Ok(entries) => Ok(Listed { entries, broken: None }),
        Err(why) => {
            let broken = Some(format!("{}: {why}", file.display()));
            Ok(Listed { entries: vec![certificates(dir)?], broken })
        }
    }
}

/// The hosts that a `hosts.toml` in `dir` lists.
///
/// # Errors
/// If it is no TOML, or something in it cannot be meant. Keys that nobody knows are no error.
pub(super) fn parse(text: &str, dir: &Path) -> Result<Vec<Entry>, String> {
    let file: HostsFile = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let line = 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
        format!("line {line}: {}", error.message())
    })?;
    // The order in the file is the order of asking.
    let mut hosts: Vec<_> = file.host.into_iter().collect();
    hosts.sort_by_key(|(name, _)| name.span().start);
    let mut entries = Vec::with_capacity(hosts.len() + 1);
    for (name, of_host) in hosts {
        let name = name.into_inner();
        if name.is_empty() {
            return Err("a host needs its address, as [host.\"https://mirror.example\"]".to_owned());
        }
        entries.push(of_host.entry(&name, dir)?);
    }
    entries.push(file.own.entry(&file.server, dir)?);
    Ok(entries)
}

#[derive(Deserialize)]
struct HostsFile {
    #[serde(default)]
    server: String,
    #[serde(default)]
    host: BTreeMap<Spanned<String>, OfHost>,
    #[serde(flatten)]
    own: OfHost,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OfHost {
    capabilities: Vec<String>,
    ca: Option<Texts>,
    client: Option<Pairs>,
    skip_verify: Option<bool>,
    header: BTreeMap<String, Texts>,
    override_path: bool,
    dial_timeout: String,
    proxy: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum Texts {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "client takes a path, a list of paths, or a list of pairs of paths")]
enum Pairs {
    One(String),
    Several(Vec<Pair>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Together(String),
    Apart(String, String),
}

impl OfHost {
    fn entry(self, address: &str, dir: &Path) -> Result<Entry, String> {
        let address = (!address.is_empty())
            .then(|| Address::parse(address, self.override_path))
            .transpose()?;
        let mut capabilities = Capabilities::NONE;
        for capability in &self.capabilities {
            match capability.to_ascii_lowercase().as_str() {
                "pull" => capabilities.pull = true,
                "resolve" => capabilities.resolve = true,
                "push" => capabilities.push = true,
                // It is never asked for.
                "referrers" => {}
                _ => {
                    return Err(format!(
                        "{capability:?} is no capability; they are pull, resolve and push"
                    ));
                }
            }
        }
        // A server that is not named is the host itself, which may be asked for everything.
        if self.capabilities.is_empty() || address.is_none() {
            capabilities = Capabilities::ALL;
        }
        let pem = |path: &str| Pem::read(&dir.join(path));
        let client = match &self.client {
            None => Vec::new(),
            Some(Pairs::One(path)) => vec![(pem(path), None)],
            Some(Pairs::Several(pairs)) => pairs
                .iter()
                .map(|pair| match pair {
                    Pair::Together(path) => (pem(path), None),
                    Pair::Apart(path, key) => (pem(path), (!key.is_empty()).then(|| pem(key))),
                })
                .collect(),
        };
        let transport = TransportSettings {
            ca: self.ca.iter().flat_map(Texts::all).map(|path| pem(path)).collect(),
            client,
            skip_verify: self.skip_verify,
            dial_timeout: match &*self.dial_timeout {
                "" => None,
                text => Some(duration(text)?),
            },
            proxy: self.proxy.filter(|proxy| !proxy.is_empty()).map(check_proxy).transpose()?,
        };
        let headers = self.header.iter();
        let headers = headers
            .flat_map(|(name, values)| values.all().iter().map(|it| (name.clone(), it.clone())));
        Ok(Entry { address, capabilities, headers: headers.collect(), transport })
    }
}

impl Texts {
    fn all(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts,
        }
    }
}

impl Address {
    fn parse(text: &str, override_path: bool) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is not the address of a host: {why}");
        let with_scheme = if text.starts_with("http://") || text.starts_with("https://") {
            text.to_owned()
        } else if text.contains("://") {
            return Err(wrong("it is spoken to by http:// or https://"));
        } else {
            format!("https://{text}")
        };
        let url = Url::parse(&with_scheme).map_err(|error| wrong(&error.to_string()))?;
        // What follows the slashes, without the name of a user, which nobody is told.
        let rest = with_scheme.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        if host.is_empty() {
            return Err(wrong("it names none"));
        }
        let written = &rest[authority.len()..];
        let written = written.split(['?', '#']).next().unwrap_or_default();
        let mut path = match clean(written) {
            root if root.is_empty() => root,
            below => format!("/{below}"),
        };
        if !override_path && !path.ends_with("/v2") {
            path.push_str("/v2");
        }
        Ok(Self { secure: url.scheme() == "https", host, path })
    }
}

fn check_proxy(text: String) -> Result<String, String> {
    let url = Url::parse(&text).ok();
    let bare = url.is_some_and(|url| {
        matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h")
            && url.has_host()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
    });
    // It may hold a password: it is not repeated.
    bare.then_some(text).ok_or_else(|| {
        "a proxy is written as http://HOST:PORT, https:// or socks5://, without a path".to_owned()
    })
}

/// The host that references name, with the certificates that Docker would use for it: `*.crt` of
/// authorities, `*.cert` of our own with `*.key` beside them.
fn certificates(dir: &Path) -> io::Result<Entry> {
    let mut transport = TransportSettings::default();
    let mut paths: Vec<_> = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.sort();
    for path in paths.iter().filter(|path| !path.is_dir()) {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => transport.ca.push(Pem::read(path)),
            Some("cert") => {
                let key = path.with_extension("key");
                transport.client.push((Pem::read(path), key.exists().then(|| Pem::read(&key))));
            }
            _ => {}
        }
    }
    Ok(Entry { address: None, capabilities: Capabilities::ALL, headers: Vec::new(), transport })
}

/// Reads a duration as Go writes it: `300ms`, `1.5h`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration, as \"3s\" or \"1m30s\"");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let seconds = match &unit[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        sum = sum.checked_add(part).ok_or_else(wrong)?;
        rest = &unit[end..];
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines of files, good and bad.
    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("[host.\"https://a.example\"]".to_owned()),
            Just("[host.\"http://[::1]:5000/x/../v2\".header]".to_owned()),
            "\\[host\\.\"[a-z:/.@?\\[\\]0-9]{0,20}\"\\]",
            "(server|proxy|dial_timeout) = \"[a-z:/.@0-9]{0,20}\"",
            "(ca|client|capabilities|x-one) = (\\[(\"pull\"|\\[\"a\", \"b\"\\])?\\]|\"pull\"|3|true)",
            "(skip_verify|override_path) = (true|false|1)",
            ".{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(lines in prop::collection::vec(line(), 0..8)) {
            let text = lines.join("\n");
            if let Ok(entries) = parse(&text, Path::new("/nowhere")) {
                prop_assert!(!entries.is_empty());
                for Address { host, path, .. } in entries.iter().filter_map(|it| it.address.as_ref()) {
                    prop_assert!(path.is_empty() || path.starts_with('/') && !path.ends_with('/'));
                    prop_assert!(!host.is_empty() && !host.contains(['/', '@']), "{host:?}");
                }
            }
        }

        #[test]
        fn any_duration_is_read_or_refused(text in "[0-9.]{0,5}(ms|s|m|h|ns)?[0-9.]{0,4}(ms|s)?|.{0,9}") {
            let _ = duration(&text);
        }
    }

    #[test]
    fn an_address_names_a_host() {
        for bad in ["", "/a", "https://", "https:///a", "https://user@/", "ftp://a"] {
            assert!(Address::parse(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in
            [("3s", 3000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("250ms", 250), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "3", "s", "-3s", "3 s", "1e3s", "..s", "3d", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_lead_to_the_api() {
        let at = |text: &str, override_path| {
            let Address { secure, host, path } = Address::parse(text, override_path).expect(text);
            format!("{}://{host}{path}", if secure { "https" } else { "http" })
        };
        for (text, plain, overridden) in [
            ("https://a.example", "https://a.example/v2", "https://a.example"),
            ("a.example:5000", "https://a.example:5000/v2", "https://a.example:5000"),
            ("http://a.example/", "http://a.example/v2", "http://a.example"),
            ("https://a.example/us//x/../", "https://a.example/us/v2", "https://a.example/us"),
            ("https://a.example/v2/", "https://a.example/v2", "https://a.example/v2"),
            (
                "https://me:secret@a.example:443/x?y",
                "https://a.example:443/x/v2",
                "https://a.example:443/x",
            ),
        ] {
            assert_eq!(at(text, false), plain, "{text}");
            assert_eq!(at(text, true), overridden, "{text}");
        }
        for bad in ["ftp://a.example", "https://", "a b", "https://a:b"] {
            assert!(Address::parse(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_is_chosen_by_host_and_port() {
        let root = tempfile::tempdir().expect("a directory");
        let empty = tempfile::tempdir().expect("a directory");
        let roots = [PathBuf::new(), empty.path().to_owned(), root.path().to_owned()];
        let name = |host: &str| {
            let found = directory(&roots, host)?;
            Some(found.file_name()?.to_string_lossy().into_owned())
        };
        assert_eq!(name("r.example:5000"), None);
        for (made, host) in [
            ("_default", "r.example:5000"),
            ("r.example:5000", "r.example:5000"),
            ("r.example_5000_", "r.example:5000"),
            ("r.example", "r.example"),
            ("[::1]_5000_", "[::1]:5000"),
        ] {
            fs::create_dir(root.path().join(made)).expect("made");
            assert_eq!(name(host).as_deref(), Some(made));
        }
        assert_eq!(name("other.example").as_deref(), Some("_default"));
    }
}
