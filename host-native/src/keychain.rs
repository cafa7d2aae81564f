//! Where credentials for registries come from.

mod cri;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};

pub use cri::CriCredentials;

/// How long a credential helper may take. Helpers of clouds ask the network and take some seconds.
const HELPER_TIMEOUT: Duration = Duration::from_secs(20);
/// The key under which `docker login` stores the credential of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

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
    /// `~/.docker/config.json` with its credential helpers, then podman's `auth.json`.
    #[default]
    Docker,
    /// What `docker login` stored in this file, with its credential helpers.
    DockerConfig(PathBuf),
    /// No credentials.
    Anonymous,
    /// These, by the host of a reference.
    Fixed(Arc<BTreeMap<String, Credential>>),
    /// What came with pulls over CRI, in this file of [`CriCredentials`].
    Cri(PathBuf),
    /// The first of these that has one.
    Several(Arc<[Self]>),
}

impl Keychain {
    /// A keychain with one credential, for `host` as references write it.
    #[must_use]
    pub fn fixed(host: &str, credential: Credential) -> Self {
        Self::Fixed(Arc::new([(host.to_owned(), credential)].into()))
    }

    /// The keychain of a snapshotter below `root`: what `docker login` stored, then what came with
    /// pulls over CRI.
    #[must_use]
    pub fn of_snapshotter(root: &Path) -> Self {
        Self::Several([Self::Docker, Self::Cri(CriCredentials::file(root))].into())
    }

    /// The credential for `repository` of `host`, both as references write them.
    ///
    /// What cannot be read is logged and counts as none: the registry then says whether it matters.
    pub async fn credential(&self, host: &str, repository: &str) -> Option<Credential> {
        match self {
            Self::Anonymous => None,
            Self::Several(all) => {
                for one in &**all {
                    let found = Box::pin(one.credential(host, repository)).await;
                    if found.is_some() {
                        return found;
                    }
                }
                None
            }
            Self::Cri(file) => {
                let (file, host, repository) =
                    (file.clone(), host.to_owned(), repository.to_owned());
                let look_up = move || cri::look_up(&file, &host, &repository);
                tokio::task::spawn_blocking(look_up).await.unwrap_or(None)
            }
            Self::Fixed(credentials) => credentials.get(host).cloned(),
            Self::Docker | Self::DockerConfig(_) => {
                let server = if host == "docker.io" { DOCKER_HUB_KEY } else { host }.to_owned();
                let file =
                    if let Self::DockerConfig(file) = self { Some(file.clone()) } else { None };
                // Reading files and running helpers block, and helpers may do so for ever.
                let look_up = tokio::task::spawn_blocking(move || match file {
                    Some(file) => usable(&server, from_file(&file, &server)),
                    None => [
                        docker_credential::get_credential,
                        docker_credential::get_podman_credential,
                    ]
                    .iter()
                    .find_map(|source| usable(&server, source(&server))),
                });
                match tokio::time::timeout(HELPER_TIMEOUT, look_up).await {
                    Ok(found) => found.unwrap_or(None),
                    Err(_) => {
                        tracing::warn!(
                            host,
                            "the credential helper did not answer in {HELPER_TIMEOUT:?}; going on without"
                        );
                        None
                    }
                }
            }
        }
    }
}

fn from_file(path: &Path, server: &str) -> Result<DockerCredential, CredentialRetrievalError> {
    let file = File::open(path).map_err(|_| CredentialRetrievalError::ConfigNotFound)?;
    docker_credential::get_credential_from_reader(BufReader::new(file), server)
}

fn usable(
    server: &str,
    found: Result<DockerCredential, CredentialRetrievalError>,
) -> Option<Credential> {
    match found {
        // The last step of a logout may leave an entry without content.
        Ok(DockerCredential::UsernamePassword(user, password))
            if user.is_empty() && password.is_empty() =>
        {
            None
        }
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Some(Credential::Password { user, password })
        }
        Ok(DockerCredential::IdentityToken(token)) => Some(Credential::IdentityToken(token)),
        Err(
            CredentialRetrievalError::NoCredentialConfigured
            | CredentialRetrievalError::ConfigNotFound,
        ) => None,
        Err(CredentialRetrievalError::ConfigReadError) => None,
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
            // Not what it printed: that may hold the secret.
            tracing::debug!(server, helper, "the credential helper has nothing");
            None
        }
        Err(error) => {
            tracing::warn!(server, "cannot use the stored credential: {error}");
            None
        }
    }
}
