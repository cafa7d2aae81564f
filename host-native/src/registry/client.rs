//! Sending requests: connections, deadlines, retries, counters.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prometheus::IntCounter;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, RANGE, RETRY_AFTER,
};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::time::{Instant, sleep, timeout};

use super::auth::{Login, Tokens};
use super::failover::Resting;
use super::{ClientOptions, is_loopback, origin_of};
use crate::source::{FetchError, is_transient_status};

/// Idle connections kept to a host: as many as fetches run at once for one layer.
const IDLE_CONNECTIONS: usize = 16;
/// HTTP/2 windows. At 100 ms round trip a stream of 4 MiB windows carries 40 MB/s.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest body of an answer that is read only to keep its connection.
const DRAIN: u64 = 16 << 10;

/// A client for all registries. Clones are cheap and share connections, tokens and counters.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    options: ClientOptions,
    tokens: Tokens,
    resting: Resting,
    requests: AtomicU64,
    bytes: AtomicU64,
    /// Reading the system's certificates takes some milliseconds, so it waits for the first need.
    tls: OnceLock<Result<reqwest::Client, String>>,
    plain: OnceLock<Result<reqwest::Client, String>>,
    loopback: OnceLock<Result<reqwest::Client, String>>,
}

/// What a client did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests sent: all of them, retries and those for tokens too.
    pub requests: u64,
    /// Bytes received in the bodies of manifests and blobs.
    pub bytes: u64,
}

/// A request as it is repeated until it succeeds.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Option<&'static str>,
    pub(super) range: Option<Range<u64>>,
    /// Form fields of a POST.
    pub(super) form: Option<String>,
    /// Further headers.
    pub(super) headers: HeaderMap,
    /// Other than the client's number of attempts.
    pub(super) attempts: Option<u32>,
    /// Other than the client's patience for the head of an answer.
    pub(super) patience: Option<Duration>,
    /// Counts each time that it is sent.
    pub(super) sent: Option<IntCounter>,
}

impl Call {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            accept: None,
            range: None,
            form: None,
            headers: HeaderMap::new(),
            attempts: None,
            patience: None,
            sent: None,
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new(ClientOptions::default())
    }
}

impl Client {
    /// A client that has sent nothing.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self(Arc::new(Inner {
            options,
            tokens: Tokens::default(),
            resting: Resting::default(),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            tls: OnceLock::new(),
            plain: OnceLock::new(),
            loopback: OnceLock::new(),
        }))
    }

    /// What this client was made with.
    #[must_use]
    pub fn options(&self) -> &ClientOptions {
        &self.0.options
    }

    /// What this client did so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            requests: self.0.requests.load(Ordering::Relaxed),
            bytes: self.0.bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn count_bytes(&self, count: u64) {
        self.0.bytes.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(super) fn resting(&self) -> &Resting {
        &self.0.resting
    }

    /// Sends `call` until it is answered with anything but a passing condition, with what `login`
    /// has to show. Redirects are not followed.
    pub(super) async fn send(
        &self,
        call: &Call,
        login: Option<Login<'_>>,
    ) -> Result<Response, FetchError> {
        let options = self.options();
        let deadline = Instant::now() + options.total_timeout;
        let mut attempt = 0;
        loop {
            let answer = match login {
                Some(login) => self.exchange_as(call, login, deadline).await,
                None => self.exchange(call, None, deadline).await,
            };
            let (failure, asked) = match answer {
                Ok(response) if is_transient_status(response.status().as_u16()) => {
                    let origin = origin_of(response.url());
                    (
                        FetchError::Status { origin, code: response.status().as_u16() },
                        retry_after(&response),
                    )
                }
                Err(error) if error.is_transient() => (error, None),
                settled => return settled,
            };
            attempt += 1;
            let pause =
                options.pause(attempt).max(asked.unwrap_or_default().min(options.longest_pause));
            if attempt >= call.attempts.unwrap_or(options.attempts)
                || Instant::now() + pause >= deadline
            {
                return Err(failure);
            }
            tracing::debug!(attempt, ?pause, "trying again: {failure}");
            sleep(pause).await;
        }
    }

    /// Sends `call` once.
    pub(super) async fn exchange(
        &self,
        call: &Call,
        authorization: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Response, FetchError> {
        let origin = origin_of(&call.url);
        let mut request = self.http(&call.url)?.request(call.method.clone(), call.url.clone());
        // A compressed answer would have other ranges than the blob.
        request = request.headers(call.headers.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(accept) = call.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(range) = &call.range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        if let Some(authorization) = authorization {
            // In place of one that was configured.
            let value = [(AUTHORIZATION, authorization.clone())].into_iter().collect();
            request = request.headers(value);
        }
        if let Some(form) = &call.form {
            request = request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form.clone());
        }
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        call.sent.iter().for_each(IntCounter::inc);
        let patience = call.patience.unwrap_or_else(|| self.options().head_timeout);
        let patience = patience.min(deadline.saturating_duration_since(Instant::now()));
        match timeout(patience, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_timeout() => {
                Err(FetchError::Timeout { origin, after: self.options().connect_timeout })
            }
            Ok(Err(error)) => Err(FetchError::Unreachable { origin, cause: cause_of(error) }),
            Err(_) => Err(FetchError::Timeout { origin, after: patience }),
        }
    }

    fn http(&self, url: &Url) -> Result<&reqwest::Client, FetchError> {
        let builder = || {
            // Fails only if somebody installed a provider before, which then serves as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
            reqwest::Client::builder()
                .user_agent(concat!("lazystar/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .connect_timeout(self.options().connect_timeout)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .tcp_nodelay(true)
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW)
        };
        let build = |builder: reqwest::ClientBuilder| builder.build().map_err(cause_of);
        let client = match (url.scheme(), is_loopback(url)) {
            ("http", true) => {
                self.0.loopback.get_or_init(|| build(builder().no_proxy().tls_certs_only([])))
            }
            ("http", false) => self.0.plain.get_or_init(|| build(builder().tls_certs_only([]))),
            _ => self.0.tls.get_or_init(|| build(builder())),
        };
        client.as_ref().map_err(|cause| FetchError::Unreachable {
            origin: origin_of(url),
            cause: format!("cannot set up TLS: {cause}; install your system's ca-certificates"),
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn collect(
    client: &Client,
    mut response: Response,
    limit: u64,
) -> Result<Bytes, FetchError> {
    let origin = origin_of(response.url());
    let patience = client.options().chunk_timeout;
    let deadline = Instant::now() + client.options().total_timeout;
    let expected = response.content_length();
    let too_large = || FetchError::Protocol {
        origin: origin.clone(),
        why: format!("it sends more than {limit} bytes"),
    };
    if expected.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    loop {
        let patience = patience.min(deadline.saturating_duration_since(Instant::now()));
        match timeout(patience, response.chunk()).await {
            Ok(Ok(Some(bytes))) if body.len() as u64 + bytes.len() as u64 > limit => {
                return Err(too_large());
            }
            Ok(Ok(Some(bytes))) => body.extend_from_slice(&bytes),
            Ok(Ok(None)) => return Ok(body.freeze()),
            Ok(Err(_)) => {
                let got = body.len() as u64;
                return Err(FetchError::Truncated {
                    origin,
                    got,
                    expected: expected.unwrap_or(got + 1),
                });
            }
            Err(_) => return Err(FetchError::Timeout { origin, after: patience }),
        }
    }
}

/// Reads what is left of a short answer, so that its connection can be used again.
pub(super) async fn drain(response: Response) {
    if response.content_length().is_some_and(|length| length <= DRAIN) {
        let _ = timeout(Duration::from_secs(1), response.bytes()).await;
    }
}

/// The pause that an answer asks for, in seconds; dates are too rarely used to be worth a parser.
fn retry_after(response: &Response) -> Option<Duration> {
    let slow_down = matches!(
        response.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let seconds = response.headers().get(RETRY_AFTER).filter(|_| slow_down)?;
    seconds.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The innermost causes of a failure, without the URL, whose query may be a signature.
fn cause_of(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
