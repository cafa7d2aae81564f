//! Following redirects by hand, and remembering where they led.

use std::sync::{Mutex, PoisonError};

use reqwest::header::LOCATION;
use reqwest::{Response, StatusCode, Url};

use super::client::{Call, drain};
use super::{Repository, origin_of};
use crate::source::FetchError;

/// Redirects followed for one request: registry, storage, and some in between.
const MAX_HOPS: usize = 5;
/// Attempts at a remembered place before the registry is asked for another.
const ATTEMPTS_AT_TARGET: u32 = 2;

/// Where a registry last redirected requests for a blob to.
#[derive(Default)]
pub(crate) struct Target(Mutex<Option<Url>>);

impl Target {
    fn get(&self) -> Option<Url> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, url: Url) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(url);
    }

    /// Forgets `url`, unless somebody has already found another place.
    fn forget(&self, url: &Url) {
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if target.as_ref() == Some(url) {
            *target = None;
        }
    }
}

impl Repository {
    /// Sends `call` to where `target` says, or to the registry and on to where that leads.
    ///
    /// Addresses in storage expire, so one that is refused is asked of the registry again.
    pub(crate) async fn follow(
        &self,
        call: &Call,
        target: &Target,
    ) -> Result<Response, FetchError> {
        if let Some(url) = target.get() {
            let there =
                Call { url: url.clone(), attempts: Some(ATTEMPTS_AT_TARGET), ..call.clone() };
            match self.walk(there).await {
                Ok(response) if !is_expired(response.status()) => return Ok(response),
                Ok(response) => drain(response).await,
                Err(error) => tracing::debug!("asking the registry for another place: {error}"),
            }
            target.forget(&url);
        }
        let response = self.walk(call.clone()).await?;
        if response.status().is_success() && *response.url() != call.url {
            target.set(response.url().clone());
        }
        Ok(response)
    }

    /// Follows redirects from `call`. Credentials go to the registry itself only; the range goes
    /// everywhere.
    async fn walk(&self, mut call: Call) -> Result<Response, FetchError> {
        for _ in 0..=MAX_HOPS {
            let own = self.is_own(&call.url).then_some(self);
            let response = self.client().send(&call, own).await?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let origin = origin_of(&call.url);
            let broken =
                |why: &str| FetchError::Protocol { origin: origin.clone(), why: why.to_owned() };
            let location =
                response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let location = location.ok_or_else(|| broken("it redirects to nowhere"))?;
            let next = call
                .url
                .join(location)
                .map_err(|_| broken("it redirects to something that is no URL"))?;
            if !matches!(next.scheme(), "http" | "https") || !next.has_host() {
                return Err(broken("it redirects to something that is not on the web"));
            }
            drain(response).await;
            call.url = next;
        }
        let why = format!("it redirects more than {MAX_HOPS} times");
        Err(FetchError::Protocol { origin: origin_of(&call.url), why })
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// How storage says that an address is no longer good: it differs from one to the next.
fn is_expired(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 403 | 404 | 410)
}
