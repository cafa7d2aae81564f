//! A registry that misbehaves in one stated way.
//!
//! It runs two servers on the loopback interface: the registry, which also issues tokens, and a
//! storage host that some modes redirect to.

mod content;
mod fault;
mod tokens;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Version};
use axum::response::Response;
use bytes::Bytes;
use lazystar_core::Digest;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;

pub use fault::Fault;

use crate::certificates::TlsListener;

/// The user that [`Fault::Basic`] and [`Fault::Bearer`] let in.
pub const USER: &str = "alice";
/// Her password.
pub const PASSWORD: &str = "correct-horse-battery";
/// The refresh token that [`Fault::Bearer`] takes in place of a password.
pub const IDENTITY_TOKEN: &str = "identity-of-alice";
/// What each token that is issued starts with.
pub const TOKEN_PREFIX: &str = "issued-token-";

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

/// What is counted beside requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes in bodies of blobs and manifests, as far as they were taken.
    pub bytes: u64,
    /// Refusals: 401, 403 and 429.
    pub refusals: u64,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Whether it came to the storage host.
    pub of_storage: bool,
    /// How it was asked.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The version of HTTP.
    pub version: Version,
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
    bytes: Arc<AtomicU64>,
    refusals: AtomicU64,
    /// Whether it is spoken to with TLS.
    is_tls: bool,
    /// The second in which requests are counted, and how many there were.
    second: Mutex<(u64, u64)>,
    started: Instant,
    /// When the last token was issued.
    issued_at: Mutex<Instant>,
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
        Self::start_as(fault, None).await
    }

    /// As [`FaultRegistry::start`], spoken to with TLS.
    pub async fn start_tls(fault: Fault, tls: Arc<ServerConfig>) -> io::Result<Self> {
        Self::start_as(fault, Some(tls)).await
    }

    async fn start_as(fault: Fault, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let registry = TcpListener::bind("127.0.0.1:0").await?;
        let storage = TcpListener::bind("127.0.0.1:0").await?;
        let shared = Arc::new(Shared {
            fault: Mutex::new(fault),
            address: registry.local_addr()?,
            storage: storage.local_addr()?,
            content: Mutex::default(),
            counts: Default::default(),
            bytes: Arc::default(),
            refusals: AtomicU64::new(0),
            is_tls: tls.is_some(),
            second: Mutex::default(),
            started: Instant::now(),
            issued_at: Mutex::new(Instant::now()),
            asked: Mutex::default(),
            used_up: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            issued: AtomicU64::new(0),
            uses: AtomicU64::new(0),
            signed: AtomicU64::new(0),
            signature_uses: AtomicU64::new(0),
        });
        let front = Router::new().fallback(at_registry).with_state(Arc::clone(&shared));
        let back = Router::new().fallback(at_storage).with_state(Arc::clone(&shared));
        let serve = |listener, router| tokio::spawn(served(axum::serve(listener, router)));
        let front = match tls {
            Some(tls) => {
                let listener = TlsListener::new(registry, tls);
                tokio::spawn(served(axum::serve(listener, front)))
            }
            None => serve(registry, front),
        };
        let servers = [front, serve(storage, back)];
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

    /// Adds what is at a path below the repository.
    pub fn add(&self, path: &str, media_type: &str, bytes: Bytes) {
        locked(&self.shared.content).insert(path.to_owned(), (media_type.to_owned(), bytes));
    }

    /// Where blobs are redirected to.
    pub fn storage(&self) -> SocketAddr {
        self.shared.storage
    }

    /// What was asked so far.
    pub fn counts(&self) -> Counts {
        let [registry, token, storage, leaked] =
            [0, 1, 2, 3].map(|at: usize| self.shared.counts[at].load(Ordering::Relaxed));
        Counts { registry, token, storage, leaked }
    }

    /// What was sent so far.
    pub fn sent(&self) -> Sent {
        let bytes = self.shared.bytes.load(Ordering::Relaxed);
        Sent { bytes, refusals: self.shared.refusals.load(Ordering::Relaxed) }
    }

    /// Each request so far, those for tokens too.
    pub fn asked(&self) -> Vec<Asked> {
        locked(&self.shared.asked).clone()
    }

    /// Behaves as for the first request with the next one.
    pub fn be_new(&self) {
        self.shared.used_up.store(false, Ordering::Relaxed);
    }

    /// Forgets what was asked.
    pub fn reset(&self) {
        locked(&self.shared.asked).clear();
        self.shared.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        self.shared.bytes.store(0, Ordering::Relaxed);
        self.shared.refusals.store(0, Ordering::Relaxed);
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

async fn served(server: impl IntoFuture<Output = io::Result<()>>) {
    // It never ends by itself.
    let _ = server.await;
}

async fn at_registry(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let response = answer(&shared, request).await;
    if matches!(response.status().as_u16(), 401 | 403 | 429) {
        shared.refusals.fetch_add(1, Ordering::Relaxed);
    }
    response
}

async fn answer(shared: &Arc<Shared>, request: Request) -> Response {
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
        Fault::Always(code) => return status(code),
        Fault::Limited(most) if !shared.is_within(most) => {
            return with(status(429), "retry-after", "1");
        }
        Fault::SlowHead(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
        Fault::TooManyRequestsDate if first => {
            return with(status(429), "retry-after", "Sun, 06 Nov 1994 08:49:37 GMT");
        }
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
        let asked = Asked {
            of_storage,
            method: head.method.clone(),
            target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            version: head.version,
            headers: head.headers.clone(),
        };
        locked(&self.asked).push(asked);
    }

    /// Whether no more than `most` requests came in this second.
    fn is_within(&self, most: u64) -> bool {
        let now = self.started.elapsed().as_secs();
        let mut second = locked(&self.second);
        *second = if second.0 == now { (now, second.1 + 1) } else { (now, 1) };
        second.1 <= most
    }
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
