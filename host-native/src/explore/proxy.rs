//! Asking registries for the page: with our credentials, and by our rules.
//!
//! Of what the page sends, `Accept`, `Range`, and the place in a list are passed on, and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::header::{ACCEPT, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use lazystar_core::Digest;
use reqwest::Url;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::allow::Allowed;
use super::refusal::Refusal;
use super::target::{Asked, Target};
use super::upstream::{Seen, Upstream};
use super::{ExploreOptions, range};
use crate::lock::lock;
use crate::oci::media;
use crate::reference::RegistryRef;
use crate::registry::{
    Capabilities, Client, ClientOptions, Endpoint, Question, Reach, Repository, Urgency, check,
};

/// Requests to registries that are under way at the same time, their bodies included.
const AT_ONCE: usize = 32;
/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// How long a registry may take in all: somebody sits before the page.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long requests are held back that a registry wants later. The page hears of the rest.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Connections that are tried for one request.
const ATTEMPTS: u32 = 2;
/// Blobs whose place is remembered.
const REMEMBERED: usize = 1024;

/// What asks registries.
#[derive(Debug)]
pub(super) struct Proxy {
    allowed: Allowed,
    client: Client,
    plain_http: bool,
    turns: Arc<Semaphore>,
    /// Where blobs are, by their repositories: most registries send one elsewhere.
    seen: Mutex<HashMap<(String, Digest), Arc<Seen>>>,
}

impl Proxy {
    pub(super) fn new(allowed: Allowed, options: &ExploreOptions) -> Self {
        let usual = options.client.clone();
        let client = Client::new(ClientOptions {
            reach: if options.allow_private { Reach::Anywhere } else { allowed.reach() },
            head_timeout: usual.head_timeout.min(PATIENCE),
            total_timeout: usual.total_timeout.min(PATIENCE),
            longest_pause: usual.longest_pause.min(LONGEST_PAUSE),
            ..usual
        });
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { allowed, client, plain_http: options.plain_http, turns, seen: Mutex::default() }
    }

    /// What the registry answers.
    pub(super) async fn answer(&self, target: &Target, head: &Parts) -> Result<Response, Refusal> {
        let bad = |code, error: &dyn ToString| {
            Refusal::new(StatusCode::BAD_REQUEST, code, error.to_string())
        };
        let mut reference = RegistryRef::of_host(&target.registry)
            .map_err(|error| bad("LAZYSTAR_REGISTRY", &error))?;
        self.allowed.check(&reference)?;
        if let Some(repository) = target.asked.repository() {
            reference = reference
                .with_repository(repository)
                .map_err(|error| bad("LAZYSTAR_REPOSITORY", &error))?;
        }
        let digest = match &target.asked {
            Asked::Blob { digest, .. } => Some(digest),
            Asked::Manifest { reference: name, .. } if name.contains(':') => Some(name),
            Asked::Manifest { reference: name, .. } => {
                reference.with_tag(name).map_err(|error| bad("LAZYSTAR_TAG", &error))?;
                None
            }
            _ => None,
        };
        let digest = digest.map(|digest| digest.parse::<Digest>()).transpose();
        let not_digest = "what follows sha256: must be 64 lower-case hex digits";
        let digest = digest.map_err(|_| bad("LAZYSTAR_DIGEST", &not_digest))?;
        let is_blob = matches!(target.asked, Asked::Blob { .. });
        let seen = digest.filter(|_| is_blob).map(|digest| self.seen(&reference, digest));
        let seen = seen.unwrap_or_default();
        let range = if is_blob { range::asked(&head.headers)? } else { None };

        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let message = format!(
                "{AT_ONCE} requests to registries are under way already; try again, and close other pages of the explorer"
            );
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Err(Refusal::new(status, "LAZYSTAR_BUSY", message).with(RETRY_AFTER, "1"));
        };

        let plain_http = self.plain_http && self.allowed.is_named(reference.host());
        let repository = Repository::new(&self.client, &reference, plain_http)?;
        let digest_text = digest.map(|digest| digest.to_string()).unwrap_or_default();
        let path: &[&str] = match &target.asked {
            Asked::Api => &[""],
            Asked::Catalog => &["_catalog"],
            Asked::Tags { .. } => &["tags", "list"],
            Asked::Manifest { reference, .. } => &["manifests", reference],
            Asked::Blob { .. } => &["blobs", &digest_text],
        };
        let question = Question {
            method: head.method.clone(),
            path,
            query: &place_in_list(&target.asked, head.uri.query().unwrap_or_default()),
            wanted: if digest.is_some() { Capabilities::PULL } else { Capabilities::RESOLVE },
            accept: accept(&target.asked, &head.headers),
            range: range.clone(),
            attempts: Some(ATTEMPTS),
            verbatim: true,
            urgency: Urgency::default(),
        };
        let what = || format!("what was asked for in {repository}");
        let take = |response: reqwest::Response, endpoint: &Endpoint| {
            // Of a mirror only what is of use counts. Storage is no registry, and has other errors.
            if endpoint.is_mirror || !endpoint.is_own(response.url()) {
                return check(response, endpoint, &what, &(0..0));
            }
            Ok(response)
        };
        let answer = repository.ask(&question, &seen.target, take).await?;
        let upstream = Upstream {
            answer,
            target,
            registry: &reference,
            is_head: head.method == axum::http::Method::HEAD,
            digest,
            range,
            client: &self.client,
        };
        upstream.respond(&seen, turn).await
    }

    /// What is known of where a blob is.
    fn seen(&self, repository: &RegistryRef, digest: Digest) -> Arc<Seen> {
        let key = (format!("{}/{}", repository.host(), repository.repository()), digest);
        let mut seen = lock(&self.seen);
        if seen.len() >= REMEMBERED && !seen.contains_key(&key) {
            seen.clear();
        }
        Arc::clone(seen.entry(key).or_default())
    }
}

/// The part of a list that is asked for.
fn place_in_list(asked: &Asked, query: &str) -> Vec<(String, String)> {
    if !matches!(asked, Asked::Tags { .. } | Asked::Catalog) {
        return Vec::new();
    }
    let Ok(url) = Url::parse(&format!("http://list/?{query}")) else { return Vec::new() };
    let known = url.query_pairs().filter(|(name, _)| matches!(&**name, "n" | "last"));
    known.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// What the page takes. A registry that is told that everything is fine may send what is fit for
/// clients of long ago.
fn accept(asked: &Asked, headers: &HeaderMap) -> Option<HeaderValue> {
    let stated: Vec<_> =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let stated = Some(stated.join(", ")).filter(|stated| !stated.is_empty() && stated != "*/*");
    match (stated, asked) {
        (Some(stated), _) => HeaderValue::try_from(stated).ok(),
        (None, Asked::Manifest { .. }) => Some(HeaderValue::from_static(media::ACCEPT_MANIFEST)),
        (None, _) => None,
    }
}
