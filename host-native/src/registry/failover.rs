//! Asking the hosts of a repository one after the other, and remembering who had the answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use reqwest::header::HeaderValue;
use reqwest::{Method, Response, StatusCode, Url};
use tokio::time::timeout;

use super::Repository;
use super::auth::Login;
use super::client::Call;
use super::endpoint::{Capabilities, Endpoint};
use super::rate::Urgency;
use crate::byte_range::AskedRange;
use crate::lock::lock;
use crate::source::FetchError;

/// How long a host may be silent before another one is asked as well, where there is one.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);
/// Attempts at a mirror: there is another host to ask.
const ATTEMPTS_AT_MIRROR: u32 = 1;
/// Attempts at a remembered place before the hosts are asked from the first one.
const ATTEMPTS_AT_TARGET: u32 = 2;

/// What is asked of a repository.
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    /// What follows the name of the repository.
    pub(crate) path: &'a [&'a str],
    /// What stands in the query.
    pub(crate) query: &'a [(String, String)],
    /// What a host must be good for to be asked.
    pub(crate) wanted: Capabilities,
    pub(crate) accept: Option<HeaderValue>,
    pub(crate) range: Option<AskedRange>,
    /// Other than the client's number of attempts.
    pub(crate) attempts: Option<u32>,
    /// Whether the first answer of a host counts, of a passing condition too.
    pub(crate) verbatim: bool,
    pub(crate) urgency: Urgency,
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
    /// Whether it is where a host sent us, or a host that was not the first one.
    is_remembered: bool,
}

impl Repository {
    /// Asks the hosts of the plan until one gives what `accept` takes. A host that is silent for a
    /// while is not waited for alone.
    ///
    /// The error is that of the host which references name: what mirrors had to say is logged.
    pub(crate) async fn ask(
        &self,
        question: &Question<'_>,
        target: &Target,
        accept: impl Fn(Response, &Endpoint) -> Result<Response, FetchError> + Sync,
    ) -> Result<Answer, FetchError> {
        let plan = self.plan().await?;
        let hosts = self.client().health().order(&plan, question.wanted);
        let fresh = |endpoint: &Arc<Endpoint>| {
            let mut url = endpoint.url(self.name(), question.path);
            if !question.query.is_empty() {
                url.query_pairs_mut().extend_pairs(question.query);
            }
            Place { url, endpoint: Arc::clone(endpoint), is_remembered: false }
        };
        let mut places: VecDeque<_> = hosts.iter().map(fresh).collect();
        if let Some(place) = target.get() {
            if plan.has(&place.endpoint) {
                places.retain(|it| !Arc::ptr_eq(&it.endpoint, &place.endpoint));
                places.push_front(place);
            } else {
                target.forget(&place.url);
            }
        }
        let first = hosts.first().map(|host| fresh(host).url);
        let mut failure = None;
        // Who was asked and has not answered, and who of them was waited for too long.
        let mut waiting: Vec<Arc<Endpoint>> = Vec::new();
        let mut slow: Vec<Arc<Endpoint>> = Vec::new();
        let mut asked = FuturesUnordered::new();
        let ask = |place: Place| async {
            let result = self.ask_at(&place, question, &accept).await;
            (place, result)
        };
        loop {
            if asked.is_empty() {
                let Some(place) = places.pop_front() else { break };
                waiting.push(Arc::clone(&place.endpoint));
                asked.push(ask(place));
            }
            let patience = if places.is_empty() { Duration::MAX } else { SILENCE };
            let Ok(next) = timeout(patience, asked.next()).await else {
                slow.clone_from(&waiting);
                if let Some(place) = places.pop_front() {
                    waiting.push(Arc::clone(&place.endpoint));
                    asked.push(ask(place));
                }
                continue;
            };
            let Some((place, result)) = next else { continue };
            for list in [&mut waiting, &mut slow] {
                list.retain(|it| !Arc::ptr_eq(it, &place.endpoint));
            }
            match result {
                Ok(response) => {
                    self.client().health().worked(&place.endpoint);
                    for late in slow {
                        let origin = late.host.clone();
                        self.put_to_rest(&late, &FetchError::Timeout { origin, after: SILENCE });
                    }
                    let (endpoint, url) = (place.endpoint, response.url().clone());
                    if !place.is_remembered && first.as_ref() != Some(&url) {
                        let endpoint = Arc::clone(&endpoint);
                        target.set(Place { endpoint, url, is_remembered: true });
                    }
                    return Ok(Answer { response, endpoint });
                }
                Err(error) if place.is_remembered => {
                    // Addresses in storage expire, and hosts fail: both have others to ask.
                    tracing::debug!("asking for another place: {error}");
                    target.forget(&place.url);
                    let order = hosts.iter().position(|it| Arc::ptr_eq(it, &place.endpoint));
                    let order = order.unwrap_or(0).min(places.len());
                    places.insert(order, fresh(&place.endpoint));
                }
                Err(error) if place.endpoint.is_mirror => {
                    self.put_to_rest(&place.endpoint, &error);
                    failure.get_or_insert(error);
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| FetchError::Unreachable {
            origin: self.to_string(),
            cause: "none of its hosts is capable of this, by what hosts.toml says".to_owned(),
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
        if let Some(rest) = self.client().health().failed(endpoint) {
            tracing::warn!(mirror = endpoint.host, "asking other hosts for {rest:?}: {error}");
        }
    }

    async fn ask_at(
        &self,
        place: &Place,
        question: &Question<'_>,
        accept: &(impl Fn(Response, &Endpoint) -> Result<Response, FetchError> + Sync),
    ) -> Result<Response, FetchError> {
        let Place { endpoint, url, is_remembered } = place;
        let attempts = match (is_remembered, endpoint.is_mirror) {
            (true, _) => Some(ATTEMPTS_AT_TARGET),
            (false, true) => Some(ATTEMPTS_AT_MIRROR),
            (false, false) => question.attempts,
        };
        let call = |url: &Url| Call {
            accept: question.accept.clone(),
            range: question.range.clone(),
            attempts,
            verbatim: question.verbatim,
            urgency: question.urgency.clone(),
            ..endpoint.call(question.method.clone(), url.clone())
        };
        let login = Login { endpoint, repository: self.name() };
        if let Some(other) = endpoint.other_scheme(url) {
            let mut refused = None;
            for url in [url, &other] {
                let call = Call { one_dial: true, ..call(url) };
                match self.client().walk(call, login).await {
                    // What a server of the other protocol answers.
                    Ok(response) if response.status() == StatusCode::BAD_REQUEST => {
                        refused.get_or_insert(response);
                    }
                    Err(FetchError::Unreachable { .. }) => {}
                    result => {
                        if matches!(result, Ok(_) | Err(FetchError::Status { .. })) {
                            endpoint.speaks(url);
                        }
                        return accept(result?, endpoint);
                    }
                }
            }
            if let Some(response) = refused {
                return accept(response, endpoint);
            }
        }
        let result = self.client().walk(call(url), login).await;
        if matches!(result, Err(FetchError::Unreachable { .. })) {
            endpoint.is_away();
        }
        accept(result?, endpoint)
    }
}

impl Target {
    /// Forgets whatever is remembered of a host.
    pub(crate) fn leave(&self, endpoint: &Arc<Endpoint>) {
        lock(&self.0).take_if(|place| Arc::ptr_eq(&place.endpoint, endpoint));
    }

    fn get(&self) -> Option<Place> {
        lock(&self.0).clone()
    }

    fn set(&self, place: Place) {
        *lock(&self.0) = Some(place);
    }

    /// Forgets `url`, unless somebody has already found another place.
    fn forget(&self, url: &Url) {
        lock(&self.0).take_if(|place| place.url == *url);
    }
}
