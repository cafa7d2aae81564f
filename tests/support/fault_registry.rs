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
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Version};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use lazystar_core::Digest;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;

use crate::certificates::TlsListener;

/// The user that [`Fault::Basic`] and [`Fault::Bearer`] let in.
pub const USER: &str = "alice";
/// Her password.
pub const PASSWORD: &str = "correct-horse-battery";
/// The refresh token that [`Fault::Bearer`] takes in place of a password.
pub const IDENTITY_TOKEN: &str = "identity-of-alice";
/// What each token that is issued starts with.
pub const TOKEN_PREFIX: &str = "issued-token-";

/// What is between the parts of [`Fault::Multipart`].
const BOUNDARY: &str = "part-of-it";

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
    /// 200 and the whole blob, with a Content-Range as if it were what was asked for.
    IgnoresRangeAndLies,
    /// 200 and the whole blob, whose first transfer breaks off in the middle.
    IgnoresRangeAndCuts,
    /// 200 and the whole blob the first time, as from a cache that has to fetch it; then ranges.
    ColdCache,
    /// 206 whose only part is in a multipart body.
    Multipart,
    /// 206 whose multipart body has another range.
    WrongMultipart,
    /// 206 over HTTP/1.0: the end of the connection is the end of the body.
    Http10,
    /// 206 without Content-Length (chunked).
    Chunked,
    /// 206 with fewer bytes than were asked for, as Content-Length says.
    TooShort,
    /// The connection ends in the middle of the first body; the blob then has another ETag.
    EtagChanges,
    /// The connection ends in the middle of the first body; the blob keeps its ETag.
    EtagStays,
    /// This status, always.
    Always(u16),
    /// Takes this many requests in each second, and answers 429 to the others.
    Limited(u64),
    /// The head of each answer takes this many milliseconds.
    SlowHead(u64),
    /// Wants a token; each is good for this many seconds.
    BearerShort(u64),
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
    /// 503 twice.
    UnavailableTwice,
    /// 429 once, with `Retry-After` of an hour.
    TooManyRequests,
    /// 429 once, with a date long ago in `Retry-After`.
    TooManyRequestsDate,
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
            | Fault::BearerShort(_)
            | Fault::BearerExpires(_) => {
                let issued =
                    format!("Bearer {TOKEN_PREFIX}{}", self.issued.load(Ordering::Relaxed));
                let mut known = sent == Some(&issued);
                if let Fault::BearerShort(seconds) = fault {
                    known &= locked(&self.issued_at).elapsed().as_secs() < seconds;
                }
                if let (true, Fault::BearerExpires(code)) = (known, fault)
                    && self.uses.fetch_add(1, Ordering::Relaxed) >= 2
                {
                    return Some(status(code));
                }
                let challenge = format!(
                    r#"Bearer realm="{}://{}/token",service="fault registry",scope="repository:team/app:pull""#,
                    if self.is_tls { "https" } else { "http" },
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
        *locked(&self.issued_at) = Instant::now();
        let name = if oauth { "access_token" } else { "token" };
        let life = match *locked(&self.fault) {
            Fault::BearerShort(seconds) => seconds,
            _ => 300,
        };
        Response::new(Body::from(format!(
            r#"{{"{name}":"{TOKEN_PREFIX}{number}","expires_in":{life}}}"#
        )))
    }

    /// Whether no more than `most` requests came in this second.
    fn is_within(&self, most: u64) -> bool {
        let now = self.started.elapsed().as_secs();
        let mut second = locked(&self.second);
        *second = if second.0 == now { (now, second.1 + 1) } else { (now, 1) };
        second.1 <= most
    }

    fn content(&self, fault: Fault, first: bool, name: &str, head: &Parts) -> Response {
        let Some((media_type, bytes)) = locked(&self.content).get(name).cloned() else {
            return status(404);
        };
        let size = bytes.len() as u64;
        let asked = asked_range(&head.headers).filter(|_| match fault {
            Fault::IgnoresRange | Fault::IgnoresRangeAndCuts => false,
            Fault::ColdCache => !first,
            _ => true,
        });
        let range = asked.clone().unwrap_or(0..size);
        if range.end > size {
            return status(416);
        }
        let part = bytes.slice(range.start as usize..range.end as usize);
        let part = if fault == Fault::IgnoresRangeAndLies { bytes.clone() } else { part };
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
            let is_ok = matches!(fault, Fault::WrongStatus | Fault::IgnoresRangeAndLies);
            *response.status_mut() =
                if is_ok { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
            let says_nothing =
                matches!(fault, Fault::NoContentRange | Fault::Multipart | Fault::WrongMultipart);
            if !says_nothing {
                response = with(response, CONTENT_RANGE.as_str(), &content_range);
            }
        }
        let in_parts = matches!(fault, Fault::Multipart | Fault::WrongMultipart) && asked.is_some();
        let media_type = if in_parts {
            format!("multipart/byteranges; boundary={BOUNDARY}")
        } else {
            media_type
        };
        response = with(response, "content-type", &media_type);
        match fault {
            Fault::EtagChanges if first => response = with(response, "etag", "\"before\""),
            Fault::EtagChanges | Fault::EtagStays => response = with(response, "etag", "\"after\""),
            Fault::Http10 => *response.version_mut() = Version::HTTP_10,
            _ => {}
        }
        response = with(response, "docker-content-digest", &Digest::of(&bytes).to_string());
        let middle = length.div_ceil(2);
        let (body, declared) = match fault {
            Fault::Chunked | Fault::Http10 => {
                (Body::from_stream(stream::iter([Ok::<_, io::Error>(part)])), None)
            }
            Fault::TooShort => (Body::from(part.slice(..middle)), Some(middle)),
            Fault::Multipart | Fault::WrongMultipart if in_parts => {
                let shift = u64::from(fault == Fault::WrongMultipart);
                let head = format!(
                    "--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\
                     Content-Range: bytes {}-{}/{size}\r\n\r\n",
                    range.start + shift,
                    range.end - 1 + shift
                );
                let tail = format!("\r\n--{BOUNDARY}--\r\n");
                let body = [head.as_bytes(), &part, tail.as_bytes()].concat();
                let length = body.len();
                (Body::from(body), Some(length))
            }
            Fault::TooLong => {
                (Body::from_stream(stream::iter([Ok::<_, io::Error>(part), Ok(bytes)])), None)
            }
            Fault::EndsEarlyOnce if first => {
                (Body::from_stream(stream::iter([Ok::<_, io::Error>(part.slice(..middle))])), None)
            }
            Fault::Cuts => (cut(part.slice(..middle)), Some(length)),
            Fault::CutsShort => (cut(part.slice(..length.min(10) - 1)), Some(length)),
            Fault::CutsOnce
            | Fault::EtagChanges
            | Fault::EtagStays
            | Fault::IgnoresRangeAndCuts
                if first =>
            {
                (cut(part.slice(..middle)), Some(length))
            }
            Fault::Stalls => (stall(part.slice(..middle)), Some(length)),
            Fault::StallsOnce if first => (stall(part.slice(..middle)), Some(length)),
            Fault::Slow => (slow(part), Some(length)),
            _ => (Body::from(part), Some(length)),
        };
        if let Some(declared) = declared {
            response = with(response, CONTENT_LENGTH.as_str(), &declared.to_string());
        }
        if head.method != Method::HEAD {
            *response.body_mut() = counted(body, Arc::clone(&self.bytes));
        }
        response
    }
}

/// Counts what is taken of a body.
fn counted(body: Body, bytes: Arc<AtomicU64>) -> Body {
    Body::from_stream(body.into_data_stream().inspect_ok(move |piece| {
        bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }))
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
