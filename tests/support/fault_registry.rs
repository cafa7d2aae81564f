//! A registry that misbehaves in one stated way.
//!
//! It runs two servers on the loopback interface: the registry, which also issues tokens, and a
//! storage host that some modes redirect to.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use lazystar_core::Digest;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The user that [`Fault::Basic`] and [`Fault::Bearer`] let in.
pub const USER: &str = "alice";
/// Her password.
pub const PASSWORD: &str = "correct-horse-battery";
/// The refresh token that [`Fault::Bearer`] takes in place of a password.
pub const IDENTITY_TOKEN: &str = "identity-of-alice";
/// What each token that is issued starts with.
pub const TOKEN_PREFIX: &str = "issued-token-";

/// How a registry misbehaves, or what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    Ok,
    /// Has nothing.
    NotFound,
    /// 401 without saying how to log in.
    Unauthorized,
    /// 401 with a challenge that cannot be read.
    MalformedChallenge,
    /// Wants a token, which anybody gets.
    BearerAnonymous,
    /// Wants a token, which [`USER`] gets.
    Bearer,
    /// Wants a token; each is accepted twice and then answered with this status.
    BearerExpires(u16),
    /// Wants the password of [`USER`].
    Basic,
    /// 416 for everything.
    RangeNotSatisfiable,
    /// 200 and the whole blob.
    IgnoresRange,
    /// 200, but the right range and Content-Range.
    WrongStatus,
    /// 206 with a Content-Range that starts one byte later.
    WrongContentRange,
    /// 206 with a Content-Range whose total is too large.
    WrongTotal,
    /// 206 without Content-Range.
    NoContentRange,
    /// 206 without Content-Length (chunked), and more bytes than asked for.
    TooLong,
    /// The connection ends in the middle of each body.
    Cuts,
    /// The connection ends after 10 bytes of each body.
    CutsShort,
    /// The connection ends in the middle of the first body.
    CutsOnce,
    /// The first body is chunked and ends early, but properly.
    EndsEarlyOnce,
    /// 503, always.
    Unavailable,
    /// 503 twice.
    UnavailableTwice,
    /// 429 once, with `Retry-After` of an hour.
    TooManyRequests,
    /// The answer never comes.
    Silent,
    /// The body stops for ever in the middle.
    Stalls,
    /// The first body stops for ever in the middle.
    StallsOnce,
    /// Body bytes come slowly, but they come.
    Slow,
    /// Redirects to the storage host, which refuses requests with credentials.
    Redirect,
    /// As [`Fault::Redirect`], behind [`Fault::BearerAnonymous`].
    BearerRedirect,
    /// As [`Fault::Redirect`], and each address is accepted twice, then answered with this status.
    RedirectExpires(u16),
    /// Redirects to itself, for ever.
    RedirectLoop,
    /// Redirects to something that is no web address.
    RedirectElsewhere,
    /// HEAD is not known.
    NoHead,
}

/// What was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests to the registry, those for tokens not counted.
    pub registry: u64,
    /// Requests for tokens.
    pub token: u64,
    /// Requests to the storage host.
    pub storage: u64,
    /// Requests to the storage host that carried credentials.
    pub leaked: u64,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Whether it came to the storage host.
    pub of_storage: bool,
    /// Path and query.
    pub target: String,
    /// Headers.
    pub headers: HeaderMap,
}

/// A running registry. Dropping it stops it.
#[derive(Debug)]
pub struct FaultRegistry {
    shared: Arc<Shared>,
    servers: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Shared {
    fault: Mutex<Fault>,
    address: SocketAddr,
    storage: SocketAddr,
    content: Mutex<BTreeMap<String, (String, Bytes)>>,
    counts: [AtomicU64; 4],
    asked: Mutex<Vec<Asked>>,
    used_up: AtomicBool,
    failures: AtomicU64,
    /// Tokens issued, and how often the last was used; the same for addresses in storage.
    issued: AtomicU64,
    uses: AtomicU64,
    signed: AtomicU64,
    signature_uses: AtomicU64,
}

impl FaultRegistry {
    /// Starts a registry that has nothing yet.
    pub async fn start(fault: Fault) -> io::Result<Self> {
        let registry = TcpListener::bind("127.0.0.1:0").await?;
        let storage = TcpListener::bind("127.0.0.1:0").await?;
        let shared = Arc::new(Shared {
            fault: Mutex::new(fault),
            address: registry.local_addr()?,
            storage: storage.local_addr()?,
            content: Mutex::default(),
            counts: Default::default(),
            asked: Mutex::default(),
            used_up: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            issued: AtomicU64::new(0),
            uses: AtomicU64::new(0),
            signed: AtomicU64::new(0),
            signature_uses: AtomicU64::new(0),
        });
        let serve = |listener, router: Router| {
            tokio::spawn(async move {
                let _ = axum::serve(listener, router).await;
            })
        };
        let front = Router::new().fallback(at_registry).with_state(Arc::clone(&shared));
        let back = Router::new().fallback(at_storage).with_state(Arc::clone(&shared));
        let servers = [serve(registry, front), serve(storage, back)];
        Ok(Self { shared, servers })
    }

    /// Where the registry listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Makes it misbehave otherwise.
    pub fn set(&self, fault: Fault) {
        *locked(&self.shared.fault) = fault;
    }

    /// Adds a blob.
    pub fn add_blob(&self, bytes: Bytes) -> Digest {
        let digest = Digest::of(&bytes);
        let entry = ("application/octet-stream".to_owned(), bytes);
        locked(&self.shared.content).insert(format!("blobs/{digest}"), entry);
        digest
    }

    /// Adds a manifest, and lets `tag` name it.
    pub fn add_manifest(&self, tag: &str, media_type: &str, bytes: Bytes) -> Digest {
        let digest = Digest::of(&bytes);
        let mut content = locked(&self.shared.content);
        for name in [tag.to_owned(), digest.to_string()] {
            content.insert(format!("manifests/{name}"), (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    /// What was asked so far.
    pub fn counts(&self) -> Counts {
        let [registry, token, storage, leaked] =
            [0, 1, 2, 3].map(|at: usize| self.shared.counts[at].load(Ordering::Relaxed));
        Counts { registry, token, storage, leaked }
    }

    /// Each request so far, those for tokens too.
    pub fn asked(&self) -> Vec<Asked> {
        locked(&self.shared.asked).clone()
    }

    /// Forgets what was asked.
    pub fn reset(&self) {
        locked(&self.shared.asked).clear();
        self.shared.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// Stops listening. Connections that are open stay so, but nothing is answered on them.
    pub fn stop(&self) {
        self.set(Fault::Silent);
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for FaultRegistry {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn at_registry(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    shared.note(false, &head);
    if path == "/token" {
        shared.count(1);
        let body = axum::body::to_bytes(body, 1 << 16).await.unwrap_or_default();
        return shared.token(&head, &body);
    }
    shared.count(0);
    let fault = *locked(&shared.fault);
    let first = !shared.used_up.swap(true, Ordering::Relaxed);
    match fault {
        Fault::NotFound => return status(404),
        Fault::Unauthorized => return status(401),
        Fault::MalformedChallenge => {
            return with(status(401), "www-authenticate", "Bearer realm=\"http://x");
        }
        Fault::RangeNotSatisfiable => return status(416),
        Fault::Unavailable => return status(503),
        Fault::UnavailableTwice if shared.failures.fetch_add(1, Ordering::Relaxed) < 2 => {
            return status(503);
        }
        Fault::TooManyRequests if first => return with(status(429), "retry-after", "3600"),
        Fault::NoHead if head.method == Method::HEAD => return status(405),
        Fault::Silent => std::future::pending().await,
        Fault::RedirectLoop => return with(status(307), "location", &path),
        Fault::RedirectElsewhere => return with(status(307), "location", "file:///etc/passwd"),
        _ => {}
    }
    if let Some(refusal) = shared.refusal(fault, &head) {
        return refusal;
    }
    let Some(name) = path.strip_prefix("/v2/team/app/") else { return status(404) };
    if matches!(fault, Fault::Redirect | Fault::BearerRedirect | Fault::RedirectExpires(_))
        && name.starts_with("blobs/")
    {
        shared.signature_uses.store(0, Ordering::Relaxed);
        let signature = shared.signed.fetch_add(1, Ordering::Relaxed) + 1;
        let location = format!("http://{}/{name}?signature={signature}", shared.storage);
        return with(status(307), LOCATION.as_str(), &location);
    }
    shared.content(fault, first, name, &head)
}

async fn at_storage(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    shared.count(2);
    shared.note(true, &head);
    if head.headers.contains_key(AUTHORIZATION) {
        shared.count(3);
        return status(400);
    }
    let signature = format!("signature={}", shared.signed.load(Ordering::Relaxed));
    if head.uri.query() != Some(&signature) {
        return status(403);
    }
    if let Fault::RedirectExpires(code) = *locked(&shared.fault)
        && shared.signature_uses.fetch_add(1, Ordering::Relaxed) >= 2
    {
        return status(code);
    }
    shared.content(Fault::Ok, false, head.uri.path().trim_start_matches('/'), &head)
}

impl Shared {
    fn count(&self, which: usize) {
        self.counts[which].fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, of_storage: bool, head: &Parts) {
        let asked =
            Asked { of_storage, target: head.uri.to_string(), headers: head.headers.clone() };
        locked(&self.asked).push(asked);
    }

    /// The refusal of a request without the right credentials.
    fn refusal(&self, fault: Fault, head: &Parts) -> Option<Response> {
        let sent = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        match fault {
            Fault::Basic if sent != Some(&basic()) => Some(with(
                status(401),
                "www-authenticate",
                r#"Basic realm="a registry, with a comma""#,
            )),
            Fault::Bearer
            | Fault::BearerAnonymous
            | Fault::BearerRedirect
            | Fault::BearerExpires(_) => {
                let issued =
                    format!("Bearer {TOKEN_PREFIX}{}", self.issued.load(Ordering::Relaxed));
                let known = sent == Some(&issued);
                if let (true, Fault::BearerExpires(code)) = (known, fault)
                    && self.uses.fetch_add(1, Ordering::Relaxed) >= 2
                {
                    return Some(status(code));
                }
                let challenge = format!(
                    r#"Bearer realm="http://{}/token",service="fault registry",scope="repository:team/app:pull""#,
                    self.address
                );
                (!known).then(|| with(status(401), "www-authenticate", &challenge))
            }
            _ => None,
        }
    }

    /// A token for whoever may have one.
    fn token(&self, head: &Parts, body: &[u8]) -> Response {
        let body = String::from_utf8_lossy(body);
        let query =
            if head.method == Method::POST { &*body } else { head.uri.query().unwrap_or_default() };
        let has = |field: &str| query.split('&').any(|have| have == field);
        if !has("service=fault+registry") || !has("scope=repository%3Ateam%2Fapp%3Apull") {
            return status(400);
        }
        let sent = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let oauth =
            has("grant_type=refresh_token") && has(&format!("refresh_token={IDENTITY_TOKEN}"));
        if *locked(&self.fault) == Fault::Bearer && !oauth && sent != Some(&basic()) {
            return status(401);
        }
        self.uses.store(0, Ordering::Relaxed);
        let number = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        let name = if oauth { "access_token" } else { "token" };
        Response::new(Body::from(format!(
            r#"{{"{name}":"{TOKEN_PREFIX}{number}","expires_in":300}}"#
        )))
    }

    fn content(&self, fault: Fault, first: bool, name: &str, head: &Parts) -> Response {
        let Some((media_type, bytes)) = locked(&self.content).get(name).cloned() else {
            return status(404);
        };
        let size = bytes.len() as u64;
        let asked = asked_range(&head.headers).filter(|_| fault != Fault::IgnoresRange);
        let range = asked.clone().unwrap_or(0..size);
        if range.end > size {
            return status(416);
        }
        let part = bytes.slice(range.start as usize..range.end as usize);
        let length = part.len();
        let mut response = Response::new(Body::empty());
        let mut content_range =
            format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
        match fault {
            Fault::WrongContentRange => {
                content_range = format!("bytes {}-{}/{size}", range.start + 1, range.end)
            }
            Fault::WrongTotal => {
                content_range = format!("bytes {}-{}/{}", range.start, range.end - 1, size + 1)
            }
            _ => {}
        }
        if asked.is_some() {
            *response.status_mut() = if fault == Fault::WrongStatus {
                StatusCode::OK
            } else {
                StatusCode::PARTIAL_CONTENT
            };
            if fault != Fault::NoContentRange {
                response = with(response, CONTENT_RANGE.as_str(), &content_range);
            }
        }
        response = with(response, "content-type", &media_type);
        response = with(response, "docker-content-digest", &Digest::of(&bytes).to_string());
        let middle = length.div_ceil(2);
        let (body, declared) = match fault {
            Fault::TooLong => {
                (Body::from_stream(stream::iter([Ok::<_, io::Error>(part), Ok(bytes)])), None)
            }
            Fault::EndsEarlyOnce if first => {
                (Body::from_stream(stream::iter([Ok::<_, io::Error>(part.slice(..middle))])), None)
            }
            Fault::Cuts => (cut(part.slice(..middle)), Some(length)),
            Fault::CutsShort => (cut(part.slice(..length.min(10) - 1)), Some(length)),
            Fault::CutsOnce if first => (cut(part.slice(..middle)), Some(length)),
            Fault::Stalls => (stall(part.slice(..middle)), Some(length)),
            Fault::StallsOnce if first => (stall(part.slice(..middle)), Some(length)),
            Fault::Slow => (slow(part), Some(length)),
            _ => (Body::from(part), Some(length)),
        };
        if let Some(declared) = declared {
            response = with(response, CONTENT_LENGTH.as_str(), &declared.to_string());
        }
        if head.method != Method::HEAD {
            *response.body_mut() = body;
        }
        response
    }
}

/// Sends `bytes` and breaks off.
fn cut(bytes: Bytes) -> Body {
    Body::from_stream(stream::unfold(Some(bytes), |bytes| async {
        match bytes {
            Some(bytes) => Some((Ok(bytes), None)),
            None => {
                // Let what was sent reach the client before the connection is reset.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Err(io::Error::other("cut")), None))
            }
        }
    }))
}

/// Sends `bytes` and then nothing.
fn stall(bytes: Bytes) -> Body {
    Body::from_stream(stream::unfold(Some(bytes), |bytes| async {
        match bytes {
            Some(bytes) => Some((Ok::<_, io::Error>(bytes), None)),
            None => std::future::pending().await,
        }
    }))
}

/// Sends `bytes` in ten steps with pauses.
fn slow(bytes: Bytes) -> Body {
    Body::from_stream(stream::unfold(
        (bytes.len().div_ceil(10), bytes),
        |(step, mut left)| async move {
            if left.is_empty() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            let next = left.split_to(step.min(left.len()));
            Some((Ok::<_, io::Error>(next), (step, left)))
        },
    ))
}

fn asked_range(headers: &HeaderMap) -> Option<Range<u64>> {
    let text = headers.get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = text.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

fn status(code: u16) -> Response {
    let mut response = Response::new(Body::from("refused"));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::IM_A_TEAPOT);
    response
}

fn with(mut response: Response, name: &'static str, value: &str) -> Response {
    if let Ok(value) = value.parse() {
        response.headers_mut().insert(name, value);
    }
    response
}
