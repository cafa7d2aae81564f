//! Which hosts are asked for what is in a repository, in which order, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::is_loopback;
use crate::metrics::{HostMetrics, METRICS, Source};
use crate::reference::RegistryRef;
use crate::source::FetchError;

/// How long a mirror may take unless it says otherwise: there is another host to ask, and a client
/// that waits for a layer has 30 s of patience.
const MIRROR_PATIENCE: Duration = Duration::from_secs(10);

/// Mirrors by the host that they stand in for, and how patient to be with hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hosts {
    /// The mirrors of each host, as references write it, best first. The host itself comes last.
    pub mirrors: BTreeMap<String, Vec<Mirror>>,
    /// How long a request may wait for the head of its answer; `None` for the client's default.
    pub patience: Option<Duration>,
}

/// A host that has what another one has. Its `Debug` shows no value of a header.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    /// Its name, with a port if that is not the usual one.
    pub host: String,
    /// Whether it is spoken to without TLS. Mirrors on this machine always are.
    pub insecure: bool,
    /// How long a request to it may wait for the head of its answer.
    pub patience: Option<Duration>,
    /// What is sent to it and to nobody else.
    pub headers: Vec<(String, String)>,
}

/// A host as it is asked.
pub(crate) struct Endpoint {
    /// The host, as references write it; credentials are stored under it.
    pub(crate) host: String,
    /// Where its API begins: `https://host/v2/`.
    pub(crate) base: Url,
    /// Whether it stands in for another host.
    pub(crate) is_mirror: bool,
    pub(crate) metrics: HostMetrics,
    pub(super) headers: HeaderMap,
    pub(super) patience: Option<Duration>,
    /// The host that a mirror stands in for, which it is told.
    namespace: Option<String>,
}

/// The hosts to ask for a repository, best first; never empty.
#[derive(Clone, Debug)]
pub(crate) struct Plan(Vec<Arc<Endpoint>>);

impl Hosts {
    /// The plan for `reference`.
    ///
    /// # Errors
    /// If one of its hosts cannot stand in a URL.
    pub(crate) fn plan(
        &self,
        reference: &RegistryRef,
        plain_http: bool,
    ) -> Result<Plan, FetchError> {
        let own = reference.host();
        let mirrors = self.mirrors.get(own).map(Vec::as_slice).unwrap_or_default();
        let mut plan = Vec::with_capacity(mirrors.len() + 1);
        for mirror in mirrors {
            // A mirror may be the host itself, with headers or patience of its own.
            let is_own = mirror.host == own || mirror.host == reference.endpoint();
            plan.push(Arc::new(Endpoint {
                host: if is_own { own.to_owned() } else { mirror.host.clone() },
                base: base(&mirror.host, mirror.insecure)?,
                is_mirror: true,
                metrics: METRICS.host(&mirror.host, Source::Mirror),
                headers: mirror.header_map().map_err(|cause| FetchError::Unreachable {
                    origin: mirror.host.clone(),
                    cause,
                })?,
                patience: Some(mirror.patience.or(self.patience).unwrap_or(MIRROR_PATIENCE)),
                namespace: (!is_own).then(|| own.to_owned()),
            }));
        }
        plan.push(Arc::new(Endpoint {
            host: own.to_owned(),
            base: base(reference.endpoint(), plain_http)?,
            is_mirror: false,
            metrics: METRICS.host(own, Source::Registry),
            headers: HeaderMap::new(),
            patience: self.patience,
            namespace: None,
        }));
        Ok(Plan(plan))
    }
}

impl Mirror {
    /// Whether the mirror can be asked at all.
    ///
    /// # Errors
    /// One sentence that says what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.host.is_empty() {
            return Err("a mirror needs its host, as host = \"mirror.example\"".to_owned());
        }
        let url = base(&self.host, self.insecure).map_err(|_| ());
        if self.host.contains(['/', '?', '#', '@']) || url.is_err() {
            return Err(format!(
                "{:?} is not the host of a mirror: write its name, and a port where it has one, without a scheme or a path",
                self.host
            ));
        }
        self.header_map().map(|_| ())
    }

    fn header_map(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let wrong = |what| format!("the {what} of the header {name:?} cannot be sent");
            let key = HeaderName::try_from(name).map_err(|_| wrong("name"))?;
            let mut value = HeaderValue::try_from(value).map_err(|_| wrong("value"))?;
            value.set_sensitive(true);
            headers.append(key, value);
        }
        Ok(headers)
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        let Self { host, insecure, patience, .. } = self;
        f.debug_struct("Mirror")
            .field("host", host)
            .field("insecure", insecure)
            .field("patience", patience)
            .field("headers", &names)
            .finish()
    }
}

impl Endpoint {
    /// The URL of something in a repository of it.
    pub(crate) fn url(&self, repository: &str, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // The base is http or https, which always has path segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(repository.split('/')).extend(path);
        }
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }

    /// Whether `url` is served by the host itself, so that it may see credentials.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.base)
    }
}

impl Plan {
    /// All hosts, best first.
    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.0
    }

    /// The host that references name, which is asked last.
    pub(crate) fn origin(&self) -> &Arc<Endpoint> {
        // A plan is made with it.
        &self.0[self.0.len() - 1]
    }
}

fn base(host: &str, plain: bool) -> Result<Url, FetchError> {
    let parse = |scheme: &str| Url::parse(&format!("{scheme}://{host}/v2/"));
    let mut base = parse("https");
    if plain || base.as_ref().is_ok_and(is_loopback) {
        base = parse("http");
    }
    base.map_err(|cause| FetchError::Unreachable {
        origin: host.to_owned(),
        cause: cause.to_string(),
    })
}
