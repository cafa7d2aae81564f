//! Following redirects by hand.

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Response, StatusCode};

use super::auth::{Login, Vouched};
use super::client::{Call, drain};
use super::{Client, origin_of};
use crate::source::FetchError;

/// Redirects followed for one request: registry, storage, and some in between.
const MAX_HOPS: usize = 5;

impl Client {
    /// Follows redirects from `call`. Credentials go to the registry itself only, configured
    /// headers to the first place only; the range goes everywhere.
    pub(super) async fn walk(
        &self,
        mut call: Call,
        login: Login<'_>,
    ) -> Result<Response, FetchError> {
        let mut vouched = None;
        for _ in 0..=MAX_HOPS {
            let own = login.endpoint.is_own(&call.url).then_some(login);
            let mut response = self.send(&call, own).await?;
            vouched = vouched.or_else(|| response.extensions().get::<Vouched>().copied());
            if let Some(vouched) = vouched {
                response.extensions_mut().insert(vouched);
            }
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
            call.configured = login.endpoint.configures(&next);
            call.url = next;
            call.headers = HeaderMap::new();
        }
        let why = format!("it redirects more than {MAX_HOPS} times");
        Err(FetchError::Protocol { origin: origin_of(&call.url), why })
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
