//! What becomes of a registry's answer on its way to the page.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LINK, RETRY_AFTER,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use lazystar_core::Digest;
use prometheus::IntCounter;
use reqwest::Url;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::refusal::Refusal;
use super::target::{Asked, Target as Wanted};
use super::{range, set};
use crate::byte_range::AskedRange;
use crate::oci::{MAX_MANIFEST, check_digest};
use crate::reference::RegistryRef;
use crate::registry::{Answer, Client, Target, Vouched, collect, origin_of};
use crate::source::{FetchError, content_range};

/// Largest list of tags or repositories.
const MAX_LIST: u64 = 8 << 20;
/// Largest account of an error.
const MAX_ERROR: u64 = 64 << 10;
/// What is passed on as it is; of the others something is made.
const PASSED: [HeaderName; 3] =
    [ETAG, RETRY_AFTER, HeaderName::from_static("docker-content-digest")];

/// Where a blob is, and whether it took a credential to get there.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) target: Target,
    vouched: AtomicBool,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}

/// An answer, and what it answers.
pub(super) struct Upstream<'a> {
    pub(super) answer: Answer,
    pub(super) target: &'a Wanted,
    pub(super) registry: &'a RegistryRef,
    pub(super) is_head: bool,
    /// The digest of what was asked for, if it was asked for by that.
    pub(super) digest: Option<Digest>,
    pub(super) range: Option<AskedRange>,
    pub(super) client: &'a Client,
}

impl Upstream<'_> {
    /// The answer for the page; `turn` is given back when its body has ended.
    pub(super) async fn respond(
        self,
        seen: &Seen,
        turn: OwnedSemaphorePermit,
    ) -> Result<Response, Refusal> {
        let upstream = &self.answer.response;
        let status = upstream.status();
        let mut headers = HeaderMap::new();
        for name in PASSED {
            if let Some(value) = upstream.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        if let Some(link) = self.link() {
            headers.insert(LINK, link);
        }
        let is_vouched =
            self.answer.endpoint.has_secrets() || upstream.extensions().get::<Vouched>().is_some();
        if is_vouched {
            seen.vouched.store(true, Ordering::Relaxed);
        }
        let caching = match (seen.vouched.load(Ordering::Relaxed), self.digest) {
            (true, _) => "no-store",
            (false, Some(_)) if status.is_success() => "private, max-age=31536000, immutable",
            (false, _) => "no-cache",
        };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
        headers.insert(CONTENT_TYPE, self.media_type());
        let body = match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT if self.is_head => {
                let length = upstream.headers().get(CONTENT_LENGTH);
                length.into_iter().for_each(|it| drop(headers.insert(CONTENT_LENGTH, it.clone())));
                let range = upstream.headers().get(CONTENT_RANGE);
                range.into_iter().for_each(|it| drop(headers.insert(CONTENT_RANGE, it.clone())));
                Body::empty()
            }
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => match &self.target.asked {
                Asked::Blob { .. } => return self.blob(headers, turn),
                Asked::Manifest { .. } => {
                    let bytes = collect(self.client, self.answer.response, MAX_MANIFEST).await?;
                    if let Some(digest) = self.digest {
                        check_digest("manifest", &bytes, digest).map_err(|error| {
                            Refusal::new(StatusCode::BAD_GATEWAY, "LAZYSTAR_FORGED", error)
                        })?;
                    }
                    Body::from(bytes)
                }
                Asked::Api | Asked::Catalog | Asked::Tags { .. } => {
                    let bytes = collect(self.client, self.answer.response, MAX_LIST).await?;
                    Body::from(bytes)
                }
            },
            _ => return self.failure(status, headers).await,
        };
        Ok((status, headers, body).into_response())
    }

    /// A type that no browser takes for a document, a script or a style.
    fn media_type(&self) -> HeaderValue {
        let stated = self.answer.response.headers().get(CONTENT_TYPE);
        let is_harmless = |value: &&HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            text.starts_with("application/vnd.") || text.starts_with("application/json")
        };
        let of_blob = matches!(self.target.asked, Asked::Blob { .. });
        let stated = stated.filter(is_harmless).filter(|_| !of_blob);
        stated.cloned().unwrap_or(HeaderValue::from_static("application/octet-stream"))
    }

    /// The next part of a list, by the way that this one was got.
    fn link(&self) -> Option<HeaderValue> {
        let response = &self.answer.response;
        let text = response.headers().get(LINK)?.to_str().ok()?;
        let (target, rest) = text.trim().strip_prefix('<')?.split_once('>')?;
        let url: Url = response.url().join(target).ok()?;
        let (_, path) = url.path().split_once("/v2/")?;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let registry = self.registry.host();
        HeaderValue::try_from(format!("</registry/{registry}/v2/{path}{query}>{rest}")).ok()
    }

    /// What the registry says of an error, if it says so in its own way.
    async fn failure(
        self,
        status: StatusCode,
        mut headers: HeaderMap,
    ) -> Result<Response, Refusal> {
        #[derive(Deserialize)]
        struct Account {
            #[serde(rename = "errors")]
            _errors: Vec<IgnoredAny>,
        }
        let origin = origin_of(self.answer.response.url());
        let body = collect(self.client, self.answer.response, MAX_ERROR).await.unwrap_or_default();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = match serde_json::from_slice::<Account>(&body) {
            Ok(_) => body,
            Err(_) => {
                let message = format!("{origin} answers with status {}", status.as_u16());
                let error = serde_json::json!({ "code": "LAZYSTAR_STATUS", "message": message });
                serde_json::json!({ "errors": [error] }).to_string().into()
            }
        };
        Ok((status, headers, Body::from(body)).into_response())
    }

    /// A blob, or the part of it that was asked for.
    fn blob(self, mut headers: HeaderMap, turn: OwnedSemaphorePermit) -> Result<Response, Refusal> {
        let response = self.answer.response;
        let carried = Carried::of(&response, self.range.as_ref())?;
        let mut status = StatusCode::OK;
        if let (Some(part), Some(total)) = (&carried.part, carried.total) {
            status = StatusCode::PARTIAL_CONTENT;
            set(&mut headers, CONTENT_RANGE, &range::sent(part, total));
        }
        if let Some(left) = carried.left {
            set(&mut headers, CONTENT_LENGTH, &left.to_string());
        }
        let flow = Flow {
            skip: carried.skip,
            left: carried.left,
            sent: 0,
            patience: self.client.options().chunk_timeout,
            client: self.client.clone(),
            counted: self.answer.endpoint.metrics.bytes.clone(),
            response,
            _turn: turn,
        };
        let body = Body::from_stream(stream::try_unfold(flow, Flow::next));
        Ok((status, headers, body).into_response())
    }
}

/// What of a body is to be passed on.
#[derive(Debug, PartialEq, Eq)]
struct Carried {
    skip: u64,
    /// How many bytes then; unknown is all of them.
    left: Option<u64>,
    /// Which part of the blob that is, if it is one.
    part: Option<Range<u64>>,
    /// The size of the blob.
    total: Option<u64>,
}

impl Carried {
    fn of(response: &reqwest::Response, asked: Option<&AskedRange>) -> Result<Self, Refusal> {
        let length = response.content_length();
        let Some(asked) = asked else {
            return Ok(Self { skip: 0, left: length, part: None, total: length });
        };
        let origin = origin_of(response.url());
        let wrong = |why: &str| {
            Refusal::from(FetchError::WrongRange { origin: origin.clone(), why: why.to_owned() })
        };
        let sent = match content_range(response.headers()) {
            Some(Ok(sent)) => Some(sent),
            Some(Err(_)) => return Err(wrong("its Content-Range cannot be read")),
            None => None,
        };
        match sent {
            // Some proxies say that they send a part, and send everything.
            Some((_, total)) if response.status() == StatusCode::OK && total == length => {
                Self::cut(asked, length.unwrap_or(0))
            }
            Some((part, Some(total))) => {
                if asked.within(total) != Some(part.clone()) {
                    return Err(wrong("it sends another part than was asked for"));
                }
                let left = Some(part.end - part.start);
                if length.is_some() && length != left {
                    return Err(wrong("it announces another length than that of the part"));
                }
                Ok(Self { skip: 0, left, part: Some(part), total: Some(total) })
            }
            Some((_, None)) => Err(wrong("it does not say how long the blob is")),
            None if response.status() == StatusCode::PARTIAL_CONTENT => {
                Err(wrong("it does not say which bytes it sends (Content-Range)"))
            }
            None => match length {
                Some(length) => Self::cut(asked, length),
                None => Err(wrong("it sends the whole blob without saying how long that is")),
            },
        }
    }

    /// A part of a blob that comes whole.
    fn cut(asked: &AskedRange, total: u64) -> Result<Self, Refusal> {
        let part = range::within(asked, total)?;
        let (skip, left) = (part.start, Some(part.end - part.start));
        Ok(Self { skip, left, part: Some(part), total: Some(total) })
    }
}

/// A body on its way.
struct Flow {
    response: reqwest::Response,
    skip: u64,
    left: Option<u64>,
    sent: u64,
    patience: Duration,
    client: Client,
    counted: IntCounter,
    _turn: OwnedSemaphorePermit,
}

impl Flow {
    /// The next bytes. An error breaks the connection to the page off, which then knows.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, FetchError> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            let next = timeout(self.patience, self.response.chunk()).await;
            let origin = origin_of(self.response.url());
            let mut bytes = match next {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None)) if self.left.is_none() => return Ok(None),
                Ok(_) => {
                    let (got, expected) = (self.sent, self.sent + self.left.unwrap_or(1));
                    return Err(FetchError::Truncated { origin, got, expected });
                }
                Err(_) => return Err(FetchError::Timeout { origin, after: self.patience }),
            };
            self.client.count_bytes(bytes.len() as u64);
            self.counted.inc_by(bytes.len() as u64);
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            // Both are at most the length of `bytes`.
            drop(bytes.split_to(skipped as usize));
            if let Some(left) = &mut self.left {
                bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= bytes.len() as u64;
            }
            self.sent += bytes.len() as u64;
            if !bytes.is_empty() {
                return Ok(Some((bytes, self)));
            }
        }
    }
}
