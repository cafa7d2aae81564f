//! Where credentials for registries come from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};

/// How long a credential helper may take. Helpers of clouds ask the network and take some seconds.
const HELPER_TIMEOUT: Duration = Duration::from_secs(20);

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
    /// No credentials.
    Anonymous,
    /// These, by the host of a reference.
    Fixed(Arc<BTreeMap<String, Credential>>),
}

impl Keychain {
    /// A keychain with one credential, for `host` as references write it.
    #[must_use]
    pub fn fixed(host: &str, credential: Credential) -> Self {
        Self::Fixed(Arc::new([(host.to_owned(), credential)].into()))
    }

    /// The credential for `host`, as references write it.
    ///
    /// What cannot be read is logged and counts as none: the registry then says whether it matters.
    pub async fn credential(&self, host: &str) -> Option<Credential> {
        match self {
            Self::Anonymous => None,
            Self::Fixed(credentials) => credentials.get(host).cloned(),
            Self::Docker => {
                let server = if host == "docker.io" { "https://index.docker.io/v1/" } else { host }
                    .to_owned();
                let look_up = tokio::task::spawn_blocking(move || stored(&server));
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

fn stored(server: &str) -> Option<Credential> {
    let sources = [docker_credential::get_credential, docker_credential::get_podman_credential];
    sources.iter().find_map(|source| match source(server) {
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
    })
}
