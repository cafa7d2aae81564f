//! Taking content to a registry (OCI distribution specification, "Pushing").

use std::sync::Arc;

use bytes::Bytes;
use lazystar_core::Digest;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::auth::Login;
use super::client::{Call, collect, drain};
use super::endpoint::Endpoint;
use super::{Repository, check, origin_of};
use crate::source::FetchError;

/// Bytes of a blob that are sent at once, and kept until the registry has them.
pub(crate) const PIECE: usize = 8 << 20;
/// Largest answer that is looked at for what a registry has against something.
const MAX_REASON: u64 = 64 << 10;

/// A repository that content is taken to: only the host that references name, never a mirror.
#[derive(Clone)]
pub(crate) struct Pusher {
    repository: Repository,
    endpoint: Arc<Endpoint>,
}

/// A blob on its way.
pub(crate) struct Upload {
    pusher: Pusher,
    url: Url,
    /// Bytes that the registry has.
    at: u64,
}

impl Repository {
    /// This repository, to be written to.
    ///
    /// # Errors
    /// If its host cannot be reached or may not be pushed to.
    pub(crate) async fn pusher(&self) -> Result<Pusher, FetchError> {
        let plan = self.plan().await?;
        let mut own = plan.endpoints().iter().rev();
        let endpoint = own.find(|it| !it.is_mirror && it.capabilities.push);
        let endpoint = endpoint.ok_or_else(|| FetchError::Unreachable {
            origin: self.to_string(),
            cause: "hosts.toml says that its host is not pushed to".to_owned(),
        })?;
        let pusher = Pusher { repository: self.clone(), endpoint: Arc::clone(endpoint) };
        pusher.find_scheme().await?;
        Ok(pusher)
    }
}

impl Pusher {
    /// Finds out by which protocol the host is spoken to, where that is not stated.
    async fn find_scheme(&self) -> Result<(), FetchError> {
        let url = self.endpoint.base();
        let Some(other) = self.endpoint.other_scheme(&url) else { return Ok(()) };
        let mut failure = None;
        for url in [url, other] {
            let call = Call { one_dial: true, ..self.endpoint.call(Method::GET, url.clone()) };
            match self.send(call).await {
                Ok(response) if response.status() == StatusCode::BAD_REQUEST => {}
                Ok(response) => {
                    drain(response).await;
                    self.endpoint.speaks(&url);
                    return Ok(());
                }
                Err(error @ FetchError::Unreachable { .. }) => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Whether the repository has a blob.
    pub(crate) async fn has_blob(&self, digest: Digest) -> Result<bool, FetchError> {
        let url = self.url(&["blobs", &digest.to_string()]);
        let response = self.send(self.endpoint.call(Method::HEAD, url)).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let what = || format!("blob {digest} in {}", self.repository);
        check(response, &self.endpoint, &what, &(0..0)).map(|_| true)
    }

    /// Has the registry take a blob from another of its repositories. Says whether it did.
    pub(crate) async fn mount(&self, digest: Digest, from: &str) -> Result<bool, FetchError> {
        let mut url = self.url(&["blobs", "uploads", ""]);
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        let response = self.send(self.endpoint.call(Method::POST, url)).await?;
        match response.status() {
            StatusCode::CREATED => Ok(true),
            // It began an upload instead, which nobody needs: it ends by itself.
            StatusCode::ACCEPTED => Ok(false),
            // A repository that we may not read is no reason to fail.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refused(response, "to take a blob from another repository").await),
        }
    }

    /// Begins to send a blob.
    pub(crate) async fn begin(&self) -> Result<Upload, FetchError> {
        let url = self.url(&["blobs", "uploads", ""]);
        let response = self.send(self.endpoint.call(Method::POST, url.clone())).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.refused(response, "an upload").await);
        }
        let url = next_place(&response, &url)?;
        drain(response).await;
        Ok(Upload { pusher: self.clone(), url, at: 0 })
    }

    /// Puts a manifest or index under a tag or its digest.
    pub(crate) async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), FetchError> {
        let call = Call {
            body: bytes,
            ..self.endpoint.call(Method::PUT, self.url(&["manifests", reference]))
        };
        let response = self.send(with_header(call, CONTENT_TYPE, media_type)).await?;
        if response.status() != StatusCode::CREATED && response.status() != StatusCode::OK {
            return Err(self.refused(response, &format!("manifest {reference}")).await);
        }
        drain(response).await;
        Ok(())
    }

    fn url(&self, path: &[&str]) -> Url {
        self.endpoint.url(self.repository.name(), path)
    }

    async fn send(&self, call: Call) -> Result<Response, FetchError> {
        let login = Login { endpoint: &self.endpoint, repository: self.repository.name() };
        self.repository.client().walk(call, login).await
    }

    /// Why the registry did not take something, in its own words.
    async fn refused(&self, response: Response, what: &str) -> FetchError {
        let status = response.status();
        let origin = origin_of(response.url());
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return FetchError::Denied {
                origin,
                what: format!("{} for writing", self.repository),
                status: status.as_u16(),
                login: self.endpoint.host.clone(),
            };
        }
        let said = collect(self.repository.client(), response, MAX_REASON).await;
        let said = said.ok().and_then(|body| {
            let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
            let error = &body["errors"][0];
            Some(error["message"].as_str().or_else(|| error["code"].as_str())?.to_owned())
        });
        let said = said.map(|said| format!(": {said}")).unwrap_or_default();
        FetchError::Refused { origin, what: what.to_owned(), status: status.as_u16(), said }
    }
}

impl Upload {
    /// Sends the next bytes of the blob. A connection that breaks is made anew, and goes on with what
    /// the registry does not have yet.
    pub(crate) async fn send(&mut self, piece: Bytes) -> Result<(), FetchError> {
        let (start, end) = (self.at, self.at + piece.len() as u64);
        let options = self.pusher.repository.client().options().clone();
        let mut attempt = 0;
        while self.at < end {
            let from = self.at;
            let rest = piece.slice(usize::try_from(from - start).unwrap_or(usize::MAX)..);
            let error = match self.patch(rest).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            attempt += 1;
            if !error.is_transient() || attempt >= options.attempts {
                return Err(error);
            }
            tracing::debug!(attempt, "sending a piece again: {error}");
            tokio::time::sleep(options.pause(attempt)).await;
            self.ask().await?;
            if self.at < start || self.at > end {
                // It has forgotten what it had confirmed.
                return Err(error);
            }
            if self.at > from {
                attempt = 0;
            }
        }
        Ok(())
    }

    /// Ends the blob, of which the registry then has to have exactly `digest`.
    pub(crate) async fn finish(mut self, digest: Digest) -> Result<(), FetchError> {
        self.url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let call = self.call(Method::PUT);
        let call = with_header(call, CONTENT_TYPE, "application/octet-stream");
        let sent = self.pusher.send(call).await;
        let failure = match sent {
            Ok(response) if response.status() == StatusCode::CREATED => {
                drain(response).await;
                return Ok(());
            }
            Ok(response) => self.pusher.refused(response, &format!("blob {digest}")).await,
            Err(error) => error,
        };
        // The answer to an attempt that was repeated may tell that the first one did it.
        match self.pusher.has_blob(digest).await {
            Ok(true) => Ok(()),
            _ => Err(failure),
        }
    }

    /// A request that may take as long as all attempts at others: a piece has to get there, and at the
    /// end the registry reads what it has.
    fn call(&self, method: Method) -> Call {
        let patience = self.pusher.repository.client().options().total_timeout;
        Call { patience: Some(patience), ..self.pusher.endpoint.call(method, self.url.clone()) }
    }

    async fn patch(&mut self, piece: Bytes) -> Result<(), FetchError> {
        let end = self.at + piece.len() as u64;
        let range = format!("{}-{}", self.at, end.saturating_sub(1));
        let call = Call {
            body: piece,
            // What it has after a failure has to be asked for first.
            attempts: Some(1),
            ..self.call(Method::PATCH)
        };
        let call = with_header(call, CONTENT_TYPE, "application/octet-stream");
        let response = self.pusher.send(with_header(call, CONTENT_RANGE, &range)).await?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::NO_CONTENT => {
                self.url = next_place(&response, &self.url)?;
                drain(response).await;
                self.at = end;
                Ok(())
            }
            _ => Err(self.pusher.refused(response, "a piece of a blob").await),
        }
    }

    /// Asks how much the registry has.
    async fn ask(&mut self) -> Result<(), FetchError> {
        let response =
            self.pusher.send(self.pusher.endpoint.call(Method::GET, self.url.clone())).await?;
        if !response.status().is_success() {
            return Err(self.pusher.refused(response, "to go on with an upload").await);
        }
        let has = response.headers().get(RANGE).and_then(|range| range.to_str().ok());
        // `0-N`; what has nothing says `0-0`, as what has one byte does, which is never sent.
        let last: Option<u64> = has.and_then(|has| has.rsplit('-').next()?.trim().parse().ok());
        self.at = last.filter(|last| *last > 0).map_or(0, |last| last + 1);
        if response.headers().contains_key(LOCATION) {
            self.url = next_place(&response, &self.url)?;
        }
        drain(response).await;
        Ok(())
    }
}

fn with_header(mut call: Call, name: HeaderName, value: &str) -> Call {
    if let Ok(value) = HeaderValue::try_from(value) {
        call.headers.insert(name, value);
    }
    call
}

/// Where an upload goes on.
fn next_place(response: &Response, now: &Url) -> Result<Url, FetchError> {
    let broken = |why: &str| FetchError::Protocol { origin: origin_of(now), why: why.to_owned() };
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let location = location.ok_or_else(|| broken("it does not say where an upload goes on"))?;
    let next = now.join(location);
    let next = next.ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    next.ok_or_else(|| broken("an upload goes on at something that is no URL"))
}
