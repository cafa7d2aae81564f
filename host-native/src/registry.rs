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
mod failover;
mod hosts;
mod options;
mod redirect;

pub use client::{Client, Statistics};
pub use hosts::{Hosts, Mirror};
pub use options::ClientOptions;

pub(crate) use client::collect;
pub(crate) use failover::{Answer, Question, Target};
pub(crate) use hosts::Endpoint;

use hosts::Plan;

use crate::reference::RegistryRef;
use crate::source::FetchError;

/// One repository of a registry. Clones are cheap.
#[derive(Clone)]
pub struct Repository(Arc<Inner>);

struct Inner {
    client: Client,
    name: String,
    plan: Plan,
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
        let plan = client.options().hosts.plan(reference, plain_http)?;
        let name = reference.repository().to_owned();
        Ok(Self(Arc::new(Inner { client: client.clone(), name, plan })))
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
        let question = Question {
            method,
            path: &["manifests", reference],
            accept: Some(crate::oci::media::ACCEPT_MANIFEST),
            range: None,
            attempts: Some(attempts),
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
        write!(f, "{}/{}", self.0.plan.origin().host, self.0.name)
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
