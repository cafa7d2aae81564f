//! Where credentials for registries come from.
//!
//! A keychain is a live source: files are read, helpers run and servers asked each time that a
//! credential is needed, which is when a token is.

mod cri;
mod docker;
mod helper;
mod kubernetes;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cri::CriCredentials;
pub use kubernetes::Kubernetes;

/// What proves to a registry who is asking. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A long-lived token that a token server exchanges for short-lived ones.
    IdentityToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Credential::Password",
            Self::IdentityToken(_) => "Credential::IdentityToken",
        })
    }
}

/// A source of credentials, asked again each time a token is needed.
#[derive(Clone, Debug, Default)]
pub enum Keychain {
    /// What `docker login` and `podman login` stored: `$DOCKER_CONFIG/config.json` or
    /// `~/.docker/config.json`, then podman's `auth.json`, all with their credential helpers.
    #[default]
    Docker,
    /// A file as `docker login` writes it, or a directory of pull secrets as Kubernetes mounts them:
    /// `.dockerconfigjson` or `.dockercfg` in it, or in directories in it.
    DockerConfig(PathBuf),
    /// No credentials.
    Anonymous,
    /// These, by the host of a reference.
    Fixed(Arc<BTreeMap<String, Credential>>),
    /// What came with pulls over CRI, in this file of [`CriCredentials`].
    Cri(PathBuf),
    /// The pull secrets of a cluster.
    Kubernetes(Arc<Kubernetes>),
    /// All that these have, in this order.
    Several(Arc<[Self]>),
}

impl Keychain {
    /// A keychain with one credential, for `host` as references write it.
    #[must_use]
    pub fn fixed(host: &str, credential: Credential) -> Self {
        Self::Fixed(Arc::new([(host.to_owned(), credential)].into()))
    }

    /// The keychain of a snapshotter below `root`: what `docker login` stored, then `others`, then
    /// what came with pulls over CRI.
    #[must_use]
    pub fn of_snapshotter(root: &Path, others: impl IntoIterator<Item = Self>) -> Self {
        let cri = Self::Cri(CriCredentials::file(root));
        Self::Several([Self::Docker].into_iter().chain(others).chain([cri]).collect())
    }

    /// The credentials for `repository` of `host`, both as references write them, those first that
    /// are for it most likely.
    ///
    /// What cannot be read is logged and counts as none: the registry then says whether it matters.
    pub async fn credentials(&self, host: &str, repository: &str) -> Vec<Credential> {
        match self {
            Self::Anonymous => Vec::new(),
            Self::Several(all) => {
                let mut found = Vec::new();
                for one in &**all {
                    for credential in Box::pin(one.credentials(host, repository)).await {
                        if !found.contains(&credential) {
                            found.push(credential);
                        }
                    }
                }
                found
            }
            Self::Cri(file) => {
                let (file, host, repository) =
                    (file.clone(), host.to_owned(), repository.to_owned());
                let look_up = move || cri::look_up(&file, &host, &repository);
                let found = tokio::task::spawn_blocking(look_up).await.unwrap_or(None);
                found.into_iter().collect()
            }
            Self::Fixed(credentials) => credentials.get(host).cloned().into_iter().collect(),
            Self::Docker => docker::stored(docker::usual_files(), host, repository).await,
            Self::DockerConfig(file) => docker::stored(vec![file.clone()], host, repository).await,
            Self::Kubernetes(cluster) => cluster.credentials(host, repository).await,
        }
    }
}
