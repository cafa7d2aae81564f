//! The configuration of the snapshotter, in the format of containerd-stargz-grpc's `config.toml`.
//!
//! Every key that program documents is read: most are honoured, the others say why they have no
//! effect here. A key that nobody knows is an error. Keys of our own are in `[lazystar]`.

mod keys;
mod read;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

pub use read::{ConfigError, Note};

use crate::keychain::{Keychain, Kubernetes};
use crate::registry::{ClientOptions, Hosts, Outage};

/// Where the file is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/containerd-stargz-grpc/config.toml";
/// Larger than any configuration that somebody wrote.
const MAX_FILE: u64 = 1 << 20;

/// The values in effect: those of the file, and the defaults for the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// How registries are reached.
    pub registry: RegistryConfig,
    /// Whether what nothing vouches for may be mounted.
    pub verification: Verification,
    /// What is fetched before anybody reads it.
    pub prefetch: Prefetch,
    /// How long the layers of an image stay open for the next of them to be asked for; `None` for
    /// the snapshotter's own default.
    pub resolved_ttl: Option<Duration>,
    /// Whether to log the first access to each file.
    pub log_file_access: bool,
    /// The TCP address to serve metrics on, `HOST:PORT`.
    pub metrics_address: Option<String>,
    /// The unix socket to serve `/debug/vars` and `/metrics` on.
    pub debug_address: Option<PathBuf>,
    /// Credentials from what passes through containerd's CRI socket.
    pub cri_keychain: Option<CriKeychain>,
    /// Credentials from pull secrets.
    pub pull_secrets: PullSecrets,
    /// The most that the cache may take on the disk, in bytes.
    pub cache_limit: Option<u64>,
    /// Images, or hosts or directories of images, of which nothing is taken from the cache.
    pub pinned_images: Vec<String>,
    /// How to find the layer of a client that does not say which it wants.
    pub lookup: Lookup,
}

/// How registries are reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistryConfig {
    /// Mirrors, where more of them are configured, and how long each host may take.
    pub hosts: Hosts,
    /// How often a request is sent before its failure is believed, the first time included.
    pub attempts: Option<u32>,
    /// The pause before the second attempt.
    pub backoff: Option<Duration>,
    /// The longest pause between two attempts.
    pub longest_pause: Option<Duration>,
    /// How long all attempts at one request may take, and a transfer without progress.
    pub total_timeout: Option<Duration>,
    /// What a reader gets while its registry is away.
    pub outage: Outage,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        let hosts = Hosts { directories: Hosts::usual_directories(), ..Hosts::default() };
        let (attempts, backoff, longest_pause, total_timeout) = Default::default();
        Self { hosts, attempts, backoff, longest_pause, total_timeout, outage: Outage::WAIT }
    }
}

/// What becomes of layers whose content nothing vouches for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verification {
    /// They are not lazy.
    #[default]
    Required,
    /// They are mounted for clients that say so by the label `stargz.skipverify`
    /// (`allow_no_verification`).
    Skippable,
    /// They are always mounted (`disable_verification`).
    Off,
}

/// What is fetched before anybody reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefetch {
    /// Whether anything is.
    pub enabled: bool,
    /// How many bytes from the start of the blob of a layer that has no landmark.
    pub size: u64,
}

impl Default for Prefetch {
    fn default() -> Self {
        Self { enabled: true, size: 0 }
    }
}

/// Where pull secrets of Kubernetes are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullSecrets {
    /// Files and directories of mounted secrets.
    pub paths: Vec<PathBuf>,
    /// A cluster that is asked for them.
    pub cluster: Option<Cluster>,
}

/// A cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its kubeconfig, if not the usual one.
    pub kubeconfig: Option<PathBuf>,
}

impl PullSecrets {
    /// The keychains that read them.
    #[must_use]
    pub fn keychains(&self) -> Vec<Keychain> {
        let cluster = self.cluster.iter();
        let cluster = cluster.map(|it| Kubernetes::new(it.kubeconfig.clone()));
        let cluster = cluster.map(|it| Keychain::Kubernetes(it.into()));
        self.paths.iter().cloned().map(Keychain::DockerConfig).chain(cluster).collect()
    }
}

/// Sockets of the CRI keychain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CriKeychain {
    /// containerd's socket, to which requests are passed on.
    pub image_service_path: PathBuf,
    /// The socket to serve on; `None` for the snapshotter's own.
    pub listen_path: Option<PathBuf>,
}

/// How layers of clients that send no labels are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// Whether they are looked for.
    pub enabled: bool,
    /// containerd's socket, whose content store is asked.
    pub containerd_address: PathBuf,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { enabled: true, containerd_address: PathBuf::from(keys::CONTAINERD) }
    }
}

/// A configuration and what is to be said about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Keys that have no effect.
    pub notes: Vec<Note>,
}

impl Config {
    /// Reads `file`, or the file at [`DEFAULT_PATH`], which need not be there.
    ///
    /// # Errors
    /// When it is not there, not readable, or holds something that cannot be meant.
    pub fn load(file: Option<&Path>) -> Result<Loaded> {
        let path = file.unwrap_or_else(|| Path::new(DEFAULT_PATH));
        let open = match File::open(path) {
            Err(error)
                if error.kind() == ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) =>
            {
                return Ok(Loaded::default());
            }
            other => other,
        };
        let what = || format!("cannot read the configuration {}", path.display());
        let mut bytes = Vec::new();
        open.and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).with_context(what)?;
        if bytes.len() as u64 > MAX_FILE {
            bail!("{} is larger than 1 MiB; that is no configuration", path.display());
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
            ConfigError { line, why: "this is no UTF-8 text".to_owned() }
        });
        let parsed = text.and_then(|text| Self::parse(&text));
        parsed.with_context(|| format!("cannot use the configuration {}", path.display()))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it is no TOML, or holds a key or value that cannot be meant.
    pub fn parse(text: &str) -> Result<Loaded, ConfigError> {
        let document = DeTable::parse(text).map_err(|error| ConfigError {
            line: read::line(text, error.span().unwrap_or_default()),
            why: format!("this is no TOML: {}", error.message()),
        })?;
        keys::read(text, document.get_ref())
    }

    /// What a client for registries is made with.
    #[must_use]
    pub fn client_options(&self, keychain: Keychain) -> ClientOptions {
        let usual = ClientOptions::default();
        let registry = &self.registry;
        ClientOptions {
            keychain,
            hosts: registry.hosts.clone(),
            attempts: registry.attempts.unwrap_or(usual.attempts),
            backoff: registry.backoff.unwrap_or(usual.backoff),
            longest_pause: registry.longest_pause.unwrap_or(usual.longest_pause),
            total_timeout: registry.total_timeout.unwrap_or(usual.total_timeout),
            outage: registry.outage,
            ..usual
        }
    }
}
