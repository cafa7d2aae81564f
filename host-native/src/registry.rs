//! Registries over the OCI distribution protocol: requests, authentication, redirects, retries.
//!
//! A [`Client`] is made once per process. It keeps connections, tokens and counters; a
//! [`Repository`] is one repository seen through it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode, Url};

mod auth;
mod challenge;
mod client;
mod options;
mod redirect;

pub use client::{Client, Statistics};
pub use options::ClientOptions;

pub(crate) use client::{Call, collect};
pub(crate) use redirect::Target;

use crate::reference::RegistryRef;
use crate::source::FetchError;

/// One repository of a registry. Clones are cheap.
#[derive(Clone)]
pub struct Repository(Arc<Inner>);

struct Inner {
    client: Client,
    /// The host as references write it; credentials are stored under it.
    host: String,
    name: String,
    base: Url,
}

impl Repository {
    /// The repository of `reference`. Sends no request.
    ///
    /// Registries on this machine (`localhost`, `127.0.0.1`, `[::1]`) are spoken to over plain
    /// HTTP; others only if `plain_http` says so.
    ///
    /// # Errors
    /// If the host of the reference cannot stand in a URL.
    pub fn new(
        client: &Client,
        reference: &RegistryRef,
        plain_http: bool,
    ) -> Result<Self, FetchError> {
        let endpoint = reference.endpoint();
        let parse = |scheme: &str| Url::parse(&format!("{scheme}://{endpoint}/v2/"));
        let mut base = parse("https");
        if plain_http || base.as_ref().is_ok_and(is_loopback) {
            base = parse("http");
        }
        let base = base.map_err(|cause| FetchError::Unreachable {
            origin: endpoint.to_owned(),
            cause: cause.to_string(),
        })?;
        Ok(Self(Arc::new(Inner {
            client: client.clone(),
            host: reference.host().to_owned(),
            name: reference.repository().to_owned(),
            base,
        })))
    }

    /// The client that this repository is seen through.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Asks for a manifest by tag or digest.
    pub(crate) async fn manifest(
        &self,
        method: Method,
        reference: &str,
        attempts: u32,
    ) -> Result<Response, FetchError> {
        let url = self.url(&["manifests", reference]);
        let call = Call {
            accept: Some(crate::oci::media::ACCEPT_MANIFEST),
            attempts: Some(attempts),
            ..Call::new(method, url)
        };
        let response = self.follow(&call, &Target::default()).await?;
        self.check(response, &|| format!("manifest {reference} in {self}"), &(0..0))
    }

    /// The URL of something in this repository.
    pub(crate) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.0.base.clone();
        // The base is http or https, which always has path segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(self.0.name.split('/')).extend(path);
        }
        url
    }

    /// Turns the statuses that mean failure into errors.
    pub(crate) fn check(
        &self,
        response: Response,
        what: &dyn Fn() -> String,
        range: &Range<u64>,
    ) -> Result<Response, FetchError> {
        let origin = origin_of(response.url());
        Err(match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
            StatusCode::NOT_FOUND => FetchError::NotFound { origin, what: what() },
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => FetchError::Denied {
                origin,
                what: what(),
                status: status.as_u16(),
                login: self.0.host.clone(),
            },
            StatusCode::RANGE_NOT_SATISFIABLE => {
                FetchError::RangeNotSatisfiable { origin, start: range.start, end: range.end }
            }
            status => FetchError::Status { origin, code: status.as_u16() },
        })
    }

    /// Whether `url` is served by this registry itself, so that it may see credentials.
    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.0.base.origin()
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.host, self.0.name)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({self})")
    }
}

/// The host and port of a URL: all of it that may stand in messages.
pub(crate) fn origin_of(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => "nobody".to_owned(),
    }
}

/// Whether a URL leads to this machine by its name.
fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// `duration`, changed at random by up to a quarter, so that many clients do not retry in step.
fn jittered(duration: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish() % 512;
    duration.mul_f64(0.75 + random as f64 / 1024.0)
}
