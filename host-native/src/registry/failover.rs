//! Asking the hosts of a repository one after the other, and remembering who had the answer.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, Response, Url};
use tokio::time::Instant;

use super::auth::Login;
use super::client::Call;
use super::{Endpoint, Repository};
use crate::source::FetchError;

/// How long a mirror that failed is asked after all others.
const REST: Duration = Duration::from_secs(30);
/// Attempts at a mirror: there is another host to ask.
const ATTEMPTS_AT_MIRROR: u32 = 1;
/// Attempts at a remembered place before the hosts are asked from the first one.
const ATTEMPTS_AT_TARGET: u32 = 2;

/// What is asked of a repository.
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    /// What follows the name of the repository.
    pub(crate) path: &'a [&'a str],
    pub(crate) accept: Option<&'static str>,
    pub(crate) range: Option<Range<u64>>,
    /// Other than the client's number of attempts.
    pub(crate) attempts: Option<u32>,
}

/// An answer, and whose it is.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) endpoint: Arc<Endpoint>,
}

/// Where a blob was found last, if that is not where one would look first.
#[derive(Default)]
pub(crate) struct Target(Mutex<Option<Place>>);

#[derive(Clone)]
struct Place {
    endpoint: Arc<Endpoint>,
    url: Url,
}

/// Mirrors that failed, and until when they rest.
#[derive(Default)]
pub(super) struct Resting(Mutex<HashMap<Url, Instant>>);

impl Repository {
    /// Asks the hosts of the plan until one gives what `accept` takes.
    ///
    /// The error is that of the host which references name: what mirrors had to say is logged.
    pub(crate) async fn ask(
        &self,
        question: &Question<'_>,
        target: &Target,
        accept: impl Fn(Response, &Endpoint) -> Result<Response, FetchError>,
    ) -> Result<Answer, FetchError> {
        if let Some(Place { endpoint, url }) = target.get() {
            // Addresses in storage expire, and hosts fail: both have others to ask.
            let attempts = Some(ATTEMPTS_AT_TARGET);
            match self.ask_at(&url, &endpoint, question, attempts, &accept).await {
                Ok(response) => return Ok(Answer { response, endpoint }),
                Err(error) => tracing::debug!("asking for another place: {error}"),
            }
            target.forget(&url);
        }
        let resting = self.client().resting();
        let endpoints = self.0.plan.endpoints();
        let (later, now): (Vec<_>, Vec<_>) =
            endpoints.iter().partition(|endpoint| resting.has(endpoint));
        let mut failure = None;
        for endpoint in now.into_iter().chain(later) {
            let url = endpoint.url(&self.0.name, question.path);
            let attempts =
                if endpoint.is_mirror { Some(ATTEMPTS_AT_MIRROR) } else { question.attempts };
            let error = match self.ask_at(&url, endpoint, question, attempts, &accept).await {
                Ok(response) => {
                    let place =
                        Place { endpoint: Arc::clone(endpoint), url: response.url().clone() };
                    let is_first = Arc::ptr_eq(endpoint, &endpoints[0]);
                    if place.url != url || !is_first {
                        target.set(place);
                    }
                    return Ok(Answer { response, endpoint: Arc::clone(endpoint) });
                }
                Err(error) => error,
            };
            if endpoint.is_mirror {
                self.put_to_rest(endpoint, &error);
                failure.get_or_insert(error);
            } else {
                failure = Some(error);
            }
        }
        // A plan is never empty.
        Err(failure.unwrap_or_else(|| FetchError::Unreachable {
            origin: self.to_string(),
            cause: "it has no host".to_owned(),
        }))
    }

    /// Lets a mirror rest that did not do what it should, so that others are asked before it.
    pub(crate) fn put_to_rest(&self, endpoint: &Endpoint, error: &FetchError) {
        let has_not_got_it = matches!(
            error,
            FetchError::NotFound { .. }
                | FetchError::Denied { .. }
                | FetchError::RangeNotSatisfiable { .. }
        );
        if !endpoint.is_mirror || has_not_got_it {
            tracing::debug!("asking the next host: {error}");
            return;
        }
        if self.client().resting().add(endpoint) {
            tracing::warn!(mirror = endpoint.host, "asking other hosts for {REST:?}: {error}");
        }
    }

    async fn ask_at(
        &self,
        url: &Url,
        endpoint: &Endpoint,
        question: &Question<'_>,
        attempts: Option<u32>,
        accept: &impl Fn(Response, &Endpoint) -> Result<Response, FetchError>,
    ) -> Result<Response, FetchError> {
        let is_own = endpoint.is_own(url);
        let call = Call {
            accept: question.accept,
            range: question.range.clone(),
            headers: if is_own { endpoint.headers.clone() } else { HeaderMap::new() },
            attempts,
            patience: endpoint.patience,
            sent: Some(endpoint.metrics.requests.clone()),
            ..Call::new(question.method.clone(), url.clone())
        };
        let login = Login { endpoint, repository: &self.0.name };
        accept(self.client().walk(call, login).await?, endpoint)
    }
}

impl Target {
    /// Forgets whatever is remembered of a host.
    pub(crate) fn leave(&self, endpoint: &Endpoint) {
        self.lock().take_if(|place| place.endpoint.base == endpoint.base);
    }

    fn get(&self) -> Option<Place> {
        self.lock().clone()
    }

    fn set(&self, place: Place) {
        *self.lock() = Some(place);
    }

    /// Forgets `url`, unless somebody has already found another place.
    fn forget(&self, url: &Url) {
        self.lock().take_if(|place| place.url == *url);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resting {
    fn has(&self, endpoint: &Endpoint) -> bool {
        self.lock().get(&endpoint.base).is_some_and(|until| *until > Instant::now())
    }

    /// Whether the mirror was awake before.
    fn add(&self, endpoint: &Endpoint) -> bool {
        let now = Instant::now();
        let before = self.lock().insert(endpoint.base.clone(), now + REST);
        before.is_none_or(|until| until <= now)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Url, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
