//! A host as it is asked, and the hosts of a repository in their order.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, Url};

use super::client::Call;
use super::is_loopback;
use super::transport::Transport;
use crate::metrics::HostMetrics;

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Content by its digest.
    pub(crate) pull: bool,
    /// What a tag points at.
    pub(crate) resolve: bool,
    /// Taking content in.
    pub(crate) push: bool,
}

impl Capabilities {
    pub(super) const ALL: Self = Self { pull: true, resolve: true, push: true };
    pub(super) const NONE: Self = Self { pull: false, resolve: false, push: false };
    /// Of whoever is asked what a tag points at.
    pub(crate) const RESOLVE: Self = Self { pull: true, resolve: true, push: false };
    /// Of whoever is asked for content.
    pub(crate) const PULL: Self = Self { pull: true, resolve: false, push: false };

    pub(super) const fn include(self, wanted: Self) -> bool {
        (self.pull || !wanted.pull)
            && (self.resolve || !wanted.resolve)
            && (self.push || !wanted.push)
    }
}

/// How the protocol of a host is found.
#[derive(Debug)]
pub(super) enum Scheme {
    /// It is the one in the address.
    Stated,
    /// A host that may speak either, as hosts on this machine do; what it was found to speak.
    Either(AtomicU8),
}

/// A host as it is asked.
pub(crate) struct Endpoint {
    /// The host, as references write it; credentials are stored under it.
    pub(crate) host: String,
    /// Whether it stands in for another host.
    pub(crate) is_mirror: bool,
    pub(crate) metrics: HostMetrics,
    /// Where its API begins: `https://host/v2/`.
    pub(super) base: Url,
    pub(super) scheme: Scheme,
    pub(super) capabilities: Capabilities,
    pub(super) headers: HeaderMap,
    pub(super) patience: Option<Duration>,
    pub(super) transport: Transport,
    /// Whether this machine's configuration says where it is.
    pub(super) is_configured: bool,
    /// The host that a mirror stands in for, which it is told.
    pub(super) namespace: Option<String>,
}

const UNKNOWN: u8 = 0;
const HTTPS: u8 = 1;
const HTTP: u8 = 2;

impl Scheme {
    pub(super) const fn either() -> Self {
        Self::Either(AtomicU8::new(UNKNOWN))
    }
}

impl Endpoint {
    /// The URL of something in a repository of it.
    pub(crate) fn url(&self, repository: &str, path: &[&str]) -> Url {
        let mut url = self.base();
        // The base is http or https, which always has path segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            segments.extend(repository.split('/').filter(|part| !part.is_empty())).extend(path);
        }
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }

    /// A request to `url`, which may be where the host sends others, with all that is configured for
    /// the host.
    pub(super) fn call(&self, method: Method, url: Url) -> Call {
        Call {
            configured: self.configures(&url),
            headers: if self.is_own(&url) { self.headers.clone() } else { HeaderMap::new() },
            patience: self.patience,
            sent: Some(self.metrics.requests.clone()),
            transport: self.transport.clone(),
            ..Call::new(method, url)
        }
    }

    /// Where its API begins, by the protocol that it is believed to speak.
    pub(crate) fn base(&self) -> Url {
        let Scheme::Either(found) = &self.scheme else { return self.base.clone() };
        match found.load(Ordering::Relaxed) {
            HTTPS => with_scheme(&self.base, "https"),
            HTTP => with_scheme(&self.base, "http"),
            // Both are tried; on this machine mostly nobody encrypts.
            _ if is_loopback(&self.base) => with_scheme(&self.base, "http"),
            _ => with_scheme(&self.base, "https"),
        }
    }

    /// Whether `url` is served by the host itself, so that it may see credentials.
    pub(crate) fn is_own(&self, url: &Url) -> bool {
        match self.scheme {
            Scheme::Stated => url.origin() == self.base.origin(),
            Scheme::Either(_) => {
                url.host() == self.base.host()
                    && url.port() == self.base.port()
                    && matches!(url.scheme(), "http" | "https")
            }
        }
    }

    /// Whether this machine's configuration says that `url` may be asked, wherever it leads.
    pub(super) fn configures(&self, url: &Url) -> bool {
        self.is_configured && self.is_own(url)
    }

    /// Whether its configuration has secrets for it: headers, or certificates of ours.
    pub(crate) fn has_secrets(&self) -> bool {
        !self.headers.is_empty() || !self.transport.settings().client.is_empty()
    }

    /// `url` by the other protocol, of a host that is not known to speak the one of `url`.
    pub(super) fn other_scheme(&self, url: &Url) -> Option<Url> {
        let Scheme::Either(found) = &self.scheme else { return None };
        let unknown = found.load(Ordering::Relaxed) == UNKNOWN && self.is_own(url);
        unknown.then(|| with_scheme(url, if url.scheme() == "https" { "http" } else { "https" }))
    }

    /// Remembers that the host answered sensibly at `url`.
    pub(super) fn speaks(&self, url: &Url) {
        if let Scheme::Either(found) = &self.scheme {
            found.store(if url.scheme() == "https" { HTTPS } else { HTTP }, Ordering::Relaxed);
        }
    }

    /// Forgets what it speaks: when it comes back, that may have changed.
    pub(super) fn is_away(&self) {
        if let Scheme::Either(found) = &self.scheme {
            found.store(UNKNOWN, Ordering::Relaxed);
        }
    }
}

fn with_scheme(url: &Url, scheme: &str) -> Url {
    let mut url = url.clone();
    // Between http and https it always works; the port stays where it is stated.
    let _ = url.set_scheme(scheme);
    url
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.base)
    }
}

/// What is asked of the endpoint: the URL of its repository and all that goes beside it. Values of
/// headers are left out.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut base = self.base.to_string();
        if let Scheme::Either(_) = self.scheme {
            base = base.replacen("https://", "https|http://", 1);
        }
        f.write_str(&base)?;
        let Capabilities { pull, resolve, push } = self.capabilities;
        let able: Vec<_> = [(pull, "pull"), (resolve, "resolve"), (push, "push")]
            .iter()
            .filter_map(|(able, name)| able.then_some(*name))
            .collect();
        write!(f, " {}", able.join("+"))?;
        if let Some(namespace) = &self.namespace {
            write!(f, " ns={namespace}")?;
        }
        for name in self.headers.keys() {
            write!(f, " header={name}")?;
            let values = self.headers.get_all(name).iter().count();
            if values > 1 {
                write!(f, "*{values}")?;
            }
        }
        write!(f, "{}", self.transport)
    }
}

/// The hosts to ask for a repository, best first. Clones are cheap.
#[derive(Clone, Debug)]
pub(crate) struct Plan(pub(super) Arc<[Arc<Endpoint>]>);

impl Plan {
    /// All hosts, best first.
    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.0
    }

    /// Whether `endpoint` is one of them.
    pub(super) fn has(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.0.iter().any(|it| Arc::ptr_eq(it, endpoint))
    }
}
