//! Which hosts are asked for what is in a repository, in which order, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::endpoint::{Capabilities, Endpoint, Plan, Scheme};
use super::hosts_file::{Address, Entry};
use super::is_loopback;
use super::transport::{Transport, TransportSettings};
use crate::metrics::{METRICS, Source};
use crate::reference::RegistryRef;
use crate::source::FetchError;

/// How long a mirror may take unless it says otherwise: there is another host to ask, and a client
/// that waits for a layer has 30 s of patience.
const MIRROR_PATIENCE: Duration = Duration::from_secs(10);
/// The directories that containerd reads.
const DIRECTORIES: [&str; 2] = ["/etc/containerd/certs.d", "/etc/docker/certs.d"];

/// Where hosts and mirrors are configured, and how patient to be with them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hosts {
    /// The mirrors of each host, as references write it, best first. They are asked before those
    /// that `directories` list.
    pub mirrors: BTreeMap<String, Vec<Mirror>>,
    /// Directories with a `hosts.toml` for each host, as containerd's `config_path` lists them.
    /// They are read anew all the time.
    pub directories: Vec<PathBuf>,
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

impl Hosts {
    /// The directories that containerd reads unless it is told otherwise.
    #[must_use]
    pub fn usual_directories() -> Vec<PathBuf> {
        DIRECTORIES.map(PathBuf::from).to_vec()
    }

    /// The plan for the host of `reference`, with what a directory lists for it.
    ///
    /// # Errors
    /// If one of its hosts cannot stand in a URL.
    pub(super) fn plan(
        &self,
        reference: &RegistryRef,
        plain_http: bool,
        listed: &[Entry],
    ) -> Result<Plan, FetchError> {
        let own = reference.host();
        let mirrors = self.mirrors.get(own).map(Vec::as_slice).unwrap_or_default();
        let mut plan = Vec::with_capacity(mirrors.len() + listed.len());
        for mirror in mirrors {
            plan.push(self.of_mirror(mirror, reference)?);
        }
        let last = listed.len().saturating_sub(1);
        for (at, entry) in listed.iter().enumerate() {
            plan.push(self.of_entry(entry, at == last, reference, plain_http)?);
        }
        Ok(Plan(plan.into_iter().map(Arc::new).collect()))
    }

    fn of_mirror(&self, mirror: &Mirror, reference: &RegistryRef) -> Result<Endpoint, FetchError> {
        let (own, is_own) = (reference.host(), is_same(&mirror.host, reference));
        Ok(Endpoint {
            host: if is_own { own.to_owned() } else { mirror.host.clone() },
            base: mirror.base()?,
            scheme: Scheme::Stated,
            capabilities: Capabilities::ALL,
            // A mirror may be the host itself, with headers or patience of its own.
            is_mirror: true,
            metrics: METRICS.host(&mirror.host, Source::Mirror),
            headers: mirror.header_map().map_err(|cause| unusable(&mirror.host, cause))?,
            patience: Some(mirror.patience.or(self.patience).unwrap_or(MIRROR_PATIENCE)),
            transport: Transport::default(),
            is_configured: true,
            namespace: (!is_own).then(|| own.to_owned()),
        })
    }

    fn of_entry(
        &self,
        entry: &Entry,
        is_server: bool,
        reference: &RegistryRef,
        plain_http: bool,
    ) -> Result<Endpoint, FetchError> {
        let own = reference.host();
        let mut transport = entry.transport.clone();
        let address = match &entry.address {
            Some(address) => address.clone(),
            None => default_address(reference, plain_http, &mut transport),
        };
        let is_own = is_same(&address.host, reference);
        let has_tls = !transport.ca.is_empty()
            || !transport.client.is_empty()
            || transport.skip_verify.is_some();
        // Somebody configured TLS for a host that is said to do without: both are tried, unless its
        // port leaves no doubt.
        let either = !address.secure && has_tls && port_of(&address.host) != Some("80");
        let secure = address.secure || either;
        Ok(Endpoint {
            host: if is_own { own.to_owned() } else { address.host.clone() },
            base: base(&address.host, secure, &address.path)?,
            scheme: if either { Scheme::either() } else { Scheme::Stated },
            capabilities: entry.capabilities,
            is_mirror: !is_server,
            metrics: METRICS.host(
                if is_own { own } else { &address.host },
                if is_server { Source::Registry } else { Source::Mirror },
            ),
            headers: header_map(&entry.headers).map_err(|cause| unusable(&address.host, cause))?,
            patience: if is_server {
                self.patience
            } else {
                Some(self.patience.unwrap_or(MIRROR_PATIENCE))
            },
            transport: Transport::new(transport),
            is_configured: entry.address.is_some(),
            namespace: (!is_own).then(|| own.to_owned()),
        })
    }
}

/// Where the host of a reference is itself. On this machine it may speak TLS or not, and then with
/// whatever certificate.
fn default_address(
    reference: &RegistryRef,
    plain_http: bool,
    transport: &mut TransportSettings,
) -> Address {
    let host = reference.endpoint().to_owned();
    let port = port_of(&host);
    let mut secure = !plain_http;
    if is_localhost(reference) && !plain_http {
        secure = matches!(port, None | Some("443"));
        if port != Some("80") {
            transport.skip_verify = Some(true);
        }
    }
    Address { secure, host, path: "/v2".to_owned() }
}

fn is_localhost(reference: &RegistryRef) -> bool {
    let name = reference.hostname().trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback())
}

fn port_of(host: &str) -> Option<&str> {
    let (_, port) = host.rsplit_once(':')?;
    port.bytes().all(|byte| byte.is_ascii_digit()).then_some(port)
}

/// Whether a host is the one that `reference` names, and no stand-in for it.
fn is_same(host: &str, reference: &RegistryRef) -> bool {
    host == reference.host() || host == reference.endpoint()
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
        if self.host.contains(['/', '?', '#', '@']) || self.base().is_err() {
            return Err(format!(
                "{:?} is not the host of a mirror: write its name, and a port where it has one, without a scheme or a path",
                self.host
            ));
        }
        self.header_map().map(|_| ())
    }

    fn base(&self) -> Result<Url, FetchError> {
        let secure = base(&self.host, true, "/v2")?;
        if self.insecure || is_loopback(&secure) {
            base(&self.host, false, "/v2")
        } else {
            Ok(secure)
        }
    }

    fn header_map(&self) -> Result<HeaderMap, String> {
        header_map(&self.headers)
    }
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let wrong = |what| format!("the {what} of the header {name:?} cannot be sent");
        let key = HeaderName::try_from(name).map_err(|_| wrong("name"))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| wrong("value"))?;
        value.set_sensitive(true);
        map.append(key, value);
    }
    Ok(map)
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

fn base(host: &str, secure: bool, path: &str) -> Result<Url, FetchError> {
    let scheme = if secure { "https" } else { "http" };
    Url::parse(&format!("{scheme}://{host}{path}/"))
        .map_err(|cause| unusable(host, cause.to_string()))
}

fn unusable(host: &str, cause: String) -> FetchError {
    FetchError::Unreachable { origin: host.to_owned(), cause }
}
