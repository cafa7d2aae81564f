//! Registries over the OCI distribution protocol: requests, authentication, redirects, retries.
//!
//! A [`Client`] is made once per process. It keeps connections, tokens and counters; a
//! [`Repository`] is one repository seen through it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Method, Response, StatusCode, Url};

mod auth;
mod challenge;
mod client;
mod client_certificates;
mod connections;
mod endpoint;
mod failover;
mod health;
mod hosts;
mod hosts_file;
mod options;
mod plans;
mod probe;
mod ranges;
mod rate;
mod reach;
mod redirect;
mod transport;
mod upload;

pub use client::{Client, Statistics};
pub use hosts::{Hosts, Mirror};
pub use options::{ClientOptions, Outage};
pub use reach::Reach;

pub(crate) use auth::Vouched;
pub(crate) use client::collect;
pub(crate) use connections::client_builder;
pub(crate) use endpoint::{Capabilities, Endpoint};
pub(crate) use failover::{Answer, Question, SILENCE, Target};
pub(crate) use probe::{BlobAnswer, Greeting, Probe};
pub(crate) use rate::Urgency;
pub(crate) use transport::{Pem, TransportSettings};
pub(crate) use upload::{PIECE, Pusher, Upload};

use endpoint::Plan;

use crate::reference::RegistryRef;
use crate::source::FetchError;

/// One repository of a registry. Clones are cheap.
#[derive(Clone)]
pub struct Repository(Arc<Inner>);

struct Inner {
    client: Client,
    reference: RegistryRef,
    plain_http: bool,
}

impl Repository {
    /// The repository of `reference`. Sends no request.
    ///
    /// Which hosts it is asked of is what the client's [`Hosts`] say, at any time. Registries on
    /// this machine (`localhost`, `127.0.0.1`, `[::1]`) are spoken to by HTTP or TLS, whichever
    /// they know; others by plain HTTP only if `plain_http` or their configuration says so.
    ///
    /// # Errors
    /// If the host of the reference, or of a mirror, cannot stand in a URL.
    pub fn new(
        client: &Client,
        reference: &RegistryRef,
        plain_http: bool,
    ) -> Result<Self, FetchError> {
        client.plans().plan(reference, plain_http)?;
        let (client, reference) = (client.clone(), reference.clone());
        Ok(Self(Arc::new(Inner { client, reference, plain_http })))
    }

    /// The hosts that are asked for what is in the repository, as things are now: their addresses
    /// and all that is configured for them, secrets left out.
    ///
    /// # Errors
    /// If their configuration cannot be used.
    pub async fn hosts(&self) -> Result<Vec<String>, FetchError> {
        Ok(self.plan().await?.endpoints().iter().map(ToString::to_string).collect())
    }

    async fn plan(&self) -> Result<Plan, FetchError> {
        let Inner { client, reference, plain_http } = &*self.0;
        let plans = client.plans();
        if let Some(plan) = plans.current(reference, *plain_http) {
            return Ok(plan);
        }
        let (plans, reference, plain_http) = (Arc::clone(plans), reference.clone(), *plain_http);
        let read = move || plans.plan(&reference, plain_http);
        tokio::task::spawn_blocking(read).await.map_err(|error| FetchError::Unreachable {
            origin: self.to_string(),
            cause: error.to_string(),
        })?
    }

    fn name(&self) -> &str {
        self.0.reference.repository()
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
    ) -> Result<Answer, FetchError> {
        let is_digest = reference.contains(':');
        let question = Question {
            method,
            path: &["manifests", reference],
            query: &[],
            wanted: if is_digest { Capabilities::PULL } else { Capabilities::RESOLVE },
            accept: Some(HeaderValue::from_static(crate::oci::media::ACCEPT_MANIFEST)),
            range: None,
            attempts: Some(attempts),
            verbatim: false,
            urgency: Urgency::default(),
        };
        let what = || format!("manifest {reference} in {self}");
        self.ask(&question, &Target::default(), |response, endpoint| {
            check(response, endpoint, &what, &(0..0))
        })
        .await
    }
}

/// Turns the statuses that mean failure into errors.
pub(crate) fn check(
    response: Response,
    endpoint: &Endpoint,
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
            login: endpoint.host.clone(),
        },
        StatusCode::RANGE_NOT_SATISFIABLE => {
            FetchError::RangeNotSatisfiable { origin, start: range.start, end: range.end }
        }
        status => FetchError::Status { origin, code: status.as_u16() },
    })
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.reference.host(), self.name())
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

/// The innermost cause of a failure, without the URL, whose query may be a signature.
fn cause_of(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
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
