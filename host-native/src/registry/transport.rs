//! How connections to a host are made: certificates, proxies, patience.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::{Certificate, ClientBuilder, Identity, Proxy};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::client_certificates;
use crate::bounded;

/// Largest file of certificates or keys.
const MAX_PEM: u64 = 4 << 20;

/// What is configured of the connections to a host. Equal settings give connections that are
/// trusted equally.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct TransportSettings {
    /// Certificates of authorities that are trusted beside the system's.
    pub(crate) ca: Vec<Pem>,
    /// Certificates that prove who we are, and their keys where these are in a file of their own.
    /// The first one that the host takes is shown.
    pub(crate) client: Vec<(Pem, Option<Pem>)>,
    /// Whether whatever certificate the host has is taken.
    pub(crate) skip_verify: Option<bool>,
    /// How long a connection may take to be made.
    pub(crate) dial_timeout: Option<Duration>,
    /// The proxy, in place of that of the environment.
    pub(crate) proxy: Option<String>,
}

/// A file of certificates or keys, as it was when it was read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pem {
    pub(crate) path: PathBuf,
    content: Result<Arc<[u8]>, String>,
}

/// Connections of a host's own; without settings those that all hosts share.
#[derive(Clone, Default)]
pub(crate) struct Transport(Option<Arc<Own>>);

struct Own {
    settings: TransportSettings,
    /// By their way.
    clients: [OnceLock<Result<reqwest::Client, String>>; 3],
}

/// Where connections lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To this machine.
    Near,
    /// To any other.
    Far,
    /// To public addresses only.
    Guarded,
}

impl Pem {
    /// Reads a file. What is wrong with it is said when it is needed.
    pub(crate) fn read(path: &Path) -> Self {
        let content = bounded::read(path, MAX_PEM)
            .map_err(|why| format!("cannot read {}: {why}", path.display()));
        Self { path: path.to_owned(), content: content.map(Into::into) }
    }

    /// A certificate or key that is in memory; `path` says in messages where it came from.
    pub(crate) fn inline(path: &Path, content: Vec<u8>) -> Self {
        Self { path: path.to_owned(), content: Ok(content.into()) }
    }

    fn bytes(&self) -> Result<&[u8], String> {
        self.content.as_deref().map_err(Clone::clone)
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let found = CertificateDer::pem_slice_iter(self.bytes()?).collect::<Result<_, _>>();
        found.map_err(|_| self.holds_no_certificates())
    }

    fn holds_no_certificates(&self) -> String {
        format!("{} holds no certificates (PEM)", self.path.display())
    }
}

impl TransportSettings {
    /// Adds the settings to `builder`.
    ///
    /// # Errors
    /// If a file cannot be used, in one sentence that names it.
    pub(crate) fn apply(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, String> {
        if self.client.len() > 1 {
            let config = self.tls_config()?;
            builder = builder.tls_backend_preconfigured(config);
        } else {
            for pem in &self.ca {
                let certificates = Certificate::from_pem_bundle(pem.bytes()?).unwrap_or_default();
                if certificates.is_empty() {
                    return Err(pem.holds_no_certificates());
                }
                builder = builder.tls_certs_merge(certificates);
            }
            if let Some((certificate, key)) = self.client.first() {
                let mut both = certificate.bytes()?.to_vec();
                if let Some(key) = key {
                    both.push(b'\n');
                    both.extend_from_slice(key.bytes()?);
                }
                let identity = Identity::from_pem(&both)
                    .map_err(|_| no_client_certificate(certificate, key.as_ref()))?;
                builder = builder.identity(identity);
            }
            if self.skip_verify == Some(true) {
                builder = builder.tls_danger_accept_invalid_certs(true);
            }
        }
        if let Some(timeout) = self.dial_timeout {
            builder = builder.connect_timeout(timeout);
        }
        if let Some(proxy) = &self.proxy {
            let proxy =
                Proxy::all(proxy).map_err(|_| "its proxy is not the URL of one".to_owned())?;
            builder = builder.no_proxy().proxy(proxy);
        }
        Ok(builder)
    }

    fn tls_config(&self) -> Result<ClientConfig, String> {
        let mut authorities = Vec::new();
        for pem in &self.ca {
            let found = pem.certificates()?;
            if found.is_empty() {
                return Err(pem.holds_no_certificates());
            }
            authorities.extend(found);
        }
        let mut shown = Vec::new();
        for (certificate, key) in &self.client {
            let unusable = || no_client_certificate(certificate, key.as_ref());
            let chain = certificate.certificates()?;
            let key = key.as_ref().unwrap_or(certificate).bytes()?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| unusable())?;
            if chain.is_empty() {
                return Err(unusable());
            }
            shown.push((chain, key));
        }
        let config =
            client_certificates::config(authorities, shown, self.skip_verify == Some(true));
        config.map_err(|error| error.to_string())
    }
}

fn no_client_certificate(certificate: &Pem, key: Option<&Pem>) -> String {
    let certificate = certificate.path.display();
    match key {
        Some(key) => format!(
            "{certificate} and {} are no client certificate and its key (PEM)",
            key.path.display()
        ),
        None => format!("{certificate} holds no client certificate with its key (PEM)"),
    }
}

impl Transport {
    pub(super) fn new(settings: TransportSettings) -> Self {
        let own = settings != TransportSettings::default();
        Self(own.then(|| Arc::new(Own { settings, clients: Default::default() })))
    }

    /// The connections of the host's own, made from `builder` when they are first needed; `None` if
    /// it has none. Each way has others.
    pub(super) fn client(
        &self,
        way: Way,
        builder: impl FnOnce() -> ClientBuilder,
    ) -> Option<&Result<reqwest::Client, String>> {
        let own = self.0.as_ref()?;
        Some(own.clients[way as usize].get_or_init(|| {
            let builder = own.settings.apply(builder())?;
            builder.build().map_err(super::cause_of)
        }))
    }

    /// Whether a proxy of its own makes them.
    pub(super) fn has_proxy(&self) -> bool {
        self.0.as_ref().is_some_and(|own| own.settings.proxy.is_some())
    }

    pub(super) fn dial_timeout(&self) -> Option<Duration> {
        self.0.as_ref()?.settings.dial_timeout
    }

    pub(crate) fn settings(&self) -> TransportSettings {
        self.0.as_ref().map(|own| own.settings.clone()).unwrap_or_default()
    }
}

/// What is set, each with a space before it. A proxy may have a password in it.
impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.settings();
        settings.ca.iter().try_for_each(|pem| write!(f, " ca={}", pem.path.display()))?;
        for (certificate, key) in &settings.client {
            write!(f, " client={}", certificate.path.display())?;
            key.iter().try_for_each(|key| write!(f, ",{}", key.path.display()))?;
        }
        settings.skip_verify.iter().try_for_each(|skip| write!(f, " skip_verify={skip}"))?;
        settings.dial_timeout.iter().try_for_each(|it| write!(f, " dial_timeout={it:?}"))?;
        settings.proxy.iter().try_for_each(|_| f.write_str(" proxy"))
    }
}
