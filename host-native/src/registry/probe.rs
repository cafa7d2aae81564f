//! What hosts do when they are asked: for a person who wants to know, not for reading images.

use std::time::Duration;

use bytes::Bytes;
use lazystar_core::Digest;
use reqwest::header::{CONTENT_RANGE, HeaderMap, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::auth::Login;
use super::challenge::Challenge;
use super::client::{Call, collect};
use super::{Endpoint, Repository, origin_of};
use crate::oci::{Document, MAX_MANIFEST};
use crate::reference::RegistryRef;
use crate::source::FetchError;

/// Requests of which the quickest answer is the latency.
const ROUNDS: u32 = 3;
/// Headers in which registries say how many requests they take.
const LIMITS: [&str; 4] =
    ["ratelimit-limit", "ratelimit-remaining", "x-ratelimit-limit", "x-ratelimit-remaining"];

/// A host of a repository, and what it did.
#[derive(Debug)]
pub(crate) struct Probe {
    /// Its address and all that is configured for it.
    pub(crate) host: String,
    /// Whether it stands in for another host.
    pub(crate) is_mirror: bool,
    /// What it answered to being there.
    pub(crate) answer: Result<Greeting, FetchError>,
    /// What it answered to a request for the second byte of a blob, if one is known.
    pub(crate) blob: Option<Result<BlobAnswer, FetchError>>,
}

/// How a host greets.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// Which way to log in it asked for, before anything was shown to it.
    pub(crate) wants: Option<String>,
    /// The status of the answer to who we are.
    pub(crate) status: u16,
    /// Whether the keychain has something for it.
    pub(crate) has_credential: bool,
    pub(crate) version: String,
    /// From a request to the head of its answer, over a connection that stands.
    pub(crate) latency: Duration,
    /// What it says of its limits.
    pub(crate) limits: Vec<String>,
    /// The limit that was learned from its refusals, in requests a second.
    pub(crate) learned: Option<f64>,
}

/// How a range of a blob comes.
#[derive(Debug)]
pub(crate) struct BlobAnswer {
    /// Where it comes from, if that is another place.
    pub(crate) from: Option<String>,
    pub(crate) status: u16,
    pub(crate) content_range: Option<String>,
    pub(crate) version: String,
    pub(crate) limits: Vec<String>,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Vec<String>,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Repository {
    /// An image of this host: the first that it lists, where it lists any.
    pub(crate) async fn any_image(&self) -> Option<RegistryRef> {
        let plan = self.plan().await.ok()?;
        let endpoint = plan.endpoints().last()?;
        let login = Login { endpoint, repository: self.name() };
        let list = async |path: &str| -> Option<Bytes> {
            let url = endpoint.base().join(path).ok()?;
            let response = self.client().send(&call(endpoint, url), Some(login)).await.ok()?;
            let is_ok = response.status() == StatusCode::OK;
            if is_ok { collect(self.client(), response, MAX_MANIFEST).await.ok() } else { None }
        };
        let listed: Catalog = serde_json::from_slice(&list("_catalog?n=20").await?).ok()?;
        for name in listed.repositories {
            let Some(tags) = list(&format!("{name}/tags/list?n=1")).await else { continue };
            let Ok(Tags { tags: Some(tags) }) = serde_json::from_slice(&tags) else { continue };
            let Some(tag) = tags.first() else { continue };
            return format!("{}/{name}:{tag}", self.0.reference.host()).parse().ok();
        }
        None
    }

    /// A blob of the image `tag`.
    ///
    /// # Errors
    /// If its manifest cannot be had.
    pub(crate) async fn any_blob(&self, tag: &str) -> Result<Option<Digest>, FetchError> {
        let mut wanted = tag.to_owned();
        for _ in 0..3 {
            let answer = self.manifest(Method::GET, &wanted, 2).await?;
            let bytes = collect(self.client(), answer.response, MAX_MANIFEST).await?;
            match Document::parse(&bytes, "") {
                Ok(Document::Manifest(manifest)) => {
                    let blob = manifest.layers.first().unwrap_or(&manifest.config);
                    return Ok(Some(blob.digest));
                }
                Ok(Document::Index(index)) if !index.manifests.is_empty() => {
                    wanted = index.manifests[0].digest.to_string();
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Asks each host, and for a range of `blob` if there is one.
    ///
    /// # Errors
    /// If the configuration of the hosts cannot be used.
    pub(crate) async fn probe(&self, blob: Option<Digest>) -> Result<Vec<Probe>, FetchError> {
        let mut probes = Vec::new();
        for endpoint in self.plan().await?.endpoints() {
            let login = Login { endpoint, repository: self.name() };
            let answer = self.greet(login).await;
            let blob = match blob {
                Some(blob) if answer.is_ok() => Some(self.range_of(blob, login).await),
                _ => None,
            };
            let (host, is_mirror) = (endpoint.to_string(), endpoint.is_mirror);
            probes.push(Probe { host, is_mirror, answer, blob });
        }
        Ok(probes)
    }

    async fn greet(&self, login: Login<'_>) -> Result<Greeting, FetchError> {
        let (client, endpoint) = (self.client(), login.endpoint);
        let deadline = || Instant::now() + client.options().head_timeout;
        let mut base = endpoint.base();
        let ask =
            async |url: &Url| client.exchange(&call(endpoint, url.clone()), None, deadline()).await;
        let mut first = ask(&base).await;
        if let Some(other) = endpoint.other_scheme(&base) {
            let refused = match &first {
                Ok(response) => response.status() == StatusCode::BAD_REQUEST,
                Err(error) => matches!(error, FetchError::Unreachable { .. }),
            };
            if refused && let Ok(response) = ask(&other).await {
                (base, first) = (other, Ok(response));
            }
        }
        let first = first?;
        endpoint.speaks(&base);
        let wants = wanted(&first);
        let known = call(endpoint, base);
        let mut latency = Duration::MAX;
        let mut last = first;
        for _ in 0..ROUNDS {
            let asked = Instant::now();
            last = client.exchange_as(&known, login, deadline()).await?;
            latency = latency.min(asked.elapsed());
        }
        let keychain = &client.options().keychain;
        let credentials = keychain.credentials(&endpoint.host, login.repository).await;
        Ok(Greeting {
            wants,
            status: last.status().as_u16(),
            has_credential: !credentials.is_empty(),
            version: version_of(&last),
            latency,
            limits: limits_of(last.headers()),
            learned: client.limit(&origin_of(last.url())),
        })
    }

    async fn range_of(&self, blob: Digest, login: Login<'_>) -> Result<BlobAnswer, FetchError> {
        let url = login.endpoint.url(self.name(), &["blobs", &blob.to_string()]);
        let call = Call { range: Some((1..2).into()), ..call(login.endpoint, url) };
        let first = self.client().send(&call, Some(login)).await?;
        let location = first.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let from = location.and_then(|location| call.url.join(location).ok());
        let limits = limits_of(first.headers());
        let response = match from {
            Some(_) => self.client().walk(call, login).await?,
            None => first,
        };
        let content_range = response.headers().get(CONTENT_RANGE);
        Ok(BlobAnswer {
            from: from.map(|url| origin_of(&url)),
            status: response.status().as_u16(),
            content_range: content_range.and_then(|it| it.to_str().ok()).map(str::to_owned),
            version: version_of(&response),
            limits,
        })
    }
}

fn call(endpoint: &Endpoint, url: Url) -> Call {
    Call { attempts: Some(1), ..endpoint.call(Method::GET, url) }
}

/// The way to log in that an answer asks for, without what may be a secret.
fn wanted(response: &Response) -> Option<String> {
    if response.status() != StatusCode::UNAUTHORIZED {
        return None;
    }
    let headers = response.headers().get_all(WWW_AUTHENTICATE);
    let headers = headers.iter().filter_map(|header| header.to_str().ok());
    Some(match Challenge::choose(headers) {
        Ok(Some(Challenge::Basic)) => "a name and a password (Basic)".to_owned(),
        Ok(Some(Challenge::Bearer { realm, service, .. })) => {
            let realm = response.url().join(&realm);
            let server =
                realm.map_or_else(|_| "an unusable address".to_owned(), |it| origin_of(&it));
            let service = service.map(|service| format!(" for {service}")).unwrap_or_default();
            format!("a token of {server}{service} (Bearer)")
        }
        Ok(None) => "something that it does not name".to_owned(),
        Err(_) => "something in a malformed challenge".to_owned(),
    })
}

fn version_of(response: &Response) -> String {
    format!("{:?}", response.version())
}

fn limits_of(headers: &HeaderMap) -> Vec<String> {
    let found = LIMITS.iter().filter_map(|name| Some((name, headers.get(*name)?.to_str().ok()?)));
    found.map(|(name, value)| format!("{name} {value}")).collect()
}
