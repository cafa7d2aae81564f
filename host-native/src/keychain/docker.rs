//! Credentials in files as `docker login`, `podman login` and Kubernetes write them.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Credential, helper};
use crate::bounded;

/// The key under which `docker login` stores the credential of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Names of Docker Hub in keys.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// Larger than any such file.
const MAX_FILE: u64 = 4 << 20;
/// What a pull secret's file is called in the directory that Kubernetes mounts.
const SECRETS: [&str; 3] = [".dockerconfigjson", ".dockercfg", "config.json"];

/// The content of a file.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// The files of this user, Docker's first.
pub(super) fn usual_files() -> Vec<PathBuf> {
    let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = env::home_dir();
    let docker = var("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let config = var("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let podman = "containers/auth.json";
    [
        docker.map(|dir| dir.join("config.json")),
        var("REGISTRY_AUTH_FILE"),
        var("XDG_RUNTIME_DIR").map(|dir| dir.join(podman)),
        config.map(|dir| dir.join(podman)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The credentials in `paths`, files or directories of pull secrets.
pub(super) async fn stored(paths: Vec<PathBuf>, host: &str, repository: &str) -> Vec<Credential> {
    let read = move || paths.iter().flat_map(|path| files(path)).collect::<Vec<_>>();
    let files = tokio::task::spawn_blocking(read).await.unwrap_or_default();
    let mut found = Vec::new();
    for file in files {
        for credential in file.credentials(host, repository).await {
            if !found.contains(&credential) {
                found.push(credential);
            }
        }
    }
    found
}

/// What is at `path`; what cannot be read is said.
fn files(path: &Path) -> Vec<AuthFile> {
    let paths = if path.is_dir() { below(path) } else { vec![path.to_owned()] };
    let readable = paths.iter().filter_map(|path| match read(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!("cannot use the credentials in {}: {error}", path.display());
            None
        }
    });
    readable.collect()
}

/// The secrets in a directory, and in directories in it.
fn below(dir: &Path) -> Vec<PathBuf> {
    let in_dir = |dir: &Path| SECRETS.map(|name| dir.join(name));
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    // Kubernetes keeps what a mounted secret was, and is, in directories whose names begin with dots.
    let hidden =
        |path: &PathBuf| path.file_name().is_some_and(|it| it.as_encoded_bytes()[0] == b'.');
    let mut dirs: Vec<_> =
        entries.map(|it| it.path()).filter(|path| path.is_dir() && !hidden(path)).collect();
    dirs.sort();
    in_dir(dir).into_iter().chain(dirs.iter().flat_map(|dir| in_dir(dir))).collect()
}

fn read(path: &Path) -> io::Result<AuthFile> {
    AuthFile::parse(&bounded::read(path, MAX_FILE)?)
        .ok_or_else(|| io::Error::other("it is not what `docker login` writes"))
}

impl AuthFile {
    /// Reads `config.json`, `.dockerconfigjson` or `auth.json`; or `.dockercfg`, which is what they
    /// have in `auths`. Errors of the JSON reader may repeat a secret: there is none.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        if content.iter().all(u8::is_ascii_whitespace) {
            return Some(Self::default());
        }
        let value: serde_json::Value = serde_json::from_slice(content).ok()?;
        let object = value.as_object()?;
        let is_config = object.is_empty()
            || ["auths", "credHelpers", "credsStore"].iter().any(|key| object.contains_key(*key))
            || !object.values().all(|it| it.get("auth").is_some() || it.get("username").is_some());
        if is_config {
            return serde_json::from_value(value).ok();
        }
        let auths = serde_json::from_value(value).ok()?;
        Some(Self { auths, ..Self::default() })
    }

    /// The credentials for `repository` of `host`, the most special one first.
    pub(super) async fn credentials(&self, host: &str, repository: &str) -> Vec<Credential> {
        let mut found = Vec::new();
        let server = if host == "docker.io" { DOCKER_HUB_KEY } else { host };
        let helpers = ranked(&self.cred_helpers, host, repository);
        let helpers = helpers.map(|(_, name)| name.as_str());
        for name in helpers.chain([&*self.creds_store].into_iter().filter(|name| !name.is_empty()))
        {
            found.extend(helper::credential(name, server).await);
        }
        let entries = ranked(&self.auths, host, repository);
        found.extend(entries.filter_map(|(key, entry)| {
            let credential = entry.credential();
            if credential.is_none() && !entry.auth.is_empty() {
                tracing::warn!(key, "the stored credential cannot be read");
            }
            credential
        }));
        found
    }
}

impl Entry {
    fn credential(&self) -> Option<Credential> {
        if !self.identitytoken.is_empty() {
            return Some(Credential::IdentityToken(self.identitytoken.clone()));
        }
        let (user, password) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            let decoded = STANDARD.decode(self.auth.trim()).ok()?;
            let text = String::from_utf8(decoded).ok()?;
            let (user, password) = text.split_once(':')?;
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        };
        // The last step of a logout may leave an entry without content.
        (!user.is_empty() || !password.is_empty())
            .then_some(Credential::Password { user, password })
    }
}

/// The values whose keys are for `repository` of `host`, the most special first.
fn ranked<'a, T>(
    all: &'a BTreeMap<String, T>,
    host: &str,
    repository: &str,
) -> impl Iterator<Item = (&'a String, &'a T)> + use<'a, T> {
    let mut found: Vec<_> = all
        .iter()
        .filter_map(|entry| Some((speciality(entry.0, host, repository)?, entry)))
        .collect();
    found.sort_by_key(|(speciality, _)| std::cmp::Reverse(*speciality));
    found.into_iter().map(|(_, entry)| entry)
}

/// How special a key is, if it is for `repository` of `host`: the length of the path in it, and
/// whether its host has no wildcard.
fn speciality(key: &str, host: &str, repository: &str) -> Option<(usize, bool)> {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (of, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = path.trim_matches('/');
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    let of_hub = host == "docker.io" && DOCKER_HUB.contains(&of);
    let is_exact = of_hub || of.eq_ignore_ascii_case(host);
    let is_below = path.is_empty()
        || repository
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (is_below && (is_exact || matches_wildcard(of, host))).then_some((path.len(), is_exact))
}

/// Whether a host is one of `pattern`, in which `*` stands for anything between two dots.
fn matches_wildcard(pattern: &str, host: &str) -> bool {
    if !pattern.contains('*') {
        return false;
    }
    let (pattern, host) = (pattern.split('.'), host.split('.'));
    pattern.clone().count() == host.clone().count()
        && pattern.zip(host).all(|(pattern, label)| match pattern.split_once('*') {
            None => pattern.eq_ignore_ascii_case(label),
            Some((start, end)) => {
                label.len() >= start.len() + end.len()
                    && label.starts_with(start)
                    && label.ends_with(end)
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(text: &str) -> serde_json::Value {
        serde_json::json!({ "auth": STANDARD.encode(text) })
    }

    async fn names(file: &AuthFile, host: &str, repository: &str) -> Vec<String> {
        let found = file.credentials(host, repository).await;
        let name = |credential| match credential {
            Credential::Password { user, .. } => user,
            Credential::IdentityToken(token) => format!("<{token}>"),
        };
        found.into_iter().map(name).collect()
    }

    #[tokio::test]
    async fn the_most_special_entry_comes_first() {
        let config = serde_json::json!({ "auths": {
            "r.example": auth("host:x"),
            "r.example/team": auth("team:x"),
            "r.example/team/app": auth("app:x"),
            "https://r.example:5000/v2/": auth("port:x"),
            "*.cloud.example": auth("any:x"),
            "one.cloud.example": { "identitytoken": "one" },
            "index.docker.io": auth("hub:x"),
            "https://index.docker.io/v1/": auth("hub1:a:b\0"),
            "empty.example": { "auth": "" },
            "plain.example": { "username": "plain", "password": "x" },
        } });
        let file = AuthFile::parse(config.to_string().as_bytes()).expect("parsed");
        for (host, repository, wanted) in [
            ("r.example", "team/app", &["app", "team", "host"][..]),
            ("r.example", "team/application", &["team", "host"]),
            ("r.example", "other", &["host"]),
            ("r.example:5000", "team/app", &["port"]),
            ("one.cloud.example", "a", &["<one>", "any"]),
            ("two.cloud.example", "a", &["any"]),
            ("a.two.cloud.example", "a", &[]),
            ("docker.io", "library/a", &["hub1", "hub"]),
            ("empty.example", "a", &[]),
            ("plain.example", "a", &["plain"]),
        ] {
            assert_eq!(names(&file, host, repository).await, wanted, "{host}/{repository}");
        }
        let hub = file.credentials("docker.io", "a").await;
        let colon = Credential::Password { user: "hub1".into(), password: "a:b".into() };
        assert_eq!(hub[0], colon);
    }

    #[tokio::test]
    async fn mounted_secrets_are_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, value: serde_json::Value| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, value.to_string()).expect("written");
        };
        write(".dockerconfigjson", serde_json::json!({ "auths": { "r.example": auth("one:x") } }));
        write("team/.dockercfg", serde_json::json!({ "r.example": auth("two:x") }));
        write("..data/.dockercfg", serde_json::json!({ "r.example": auth("hidden:x") }));
        write("bad/.dockercfg", serde_json::json!([]));
        let found = stored(vec![dir.path().to_owned()], "r.example", "a").await;
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(AuthFile::parse(b" ").is_some() && AuthFile::parse(b"{}").is_some());
        for bad in ["[]", "{", "{\"auths\": 1}", "{\"auths\": {\"a\": 3}}"] {
            assert!(AuthFile::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
