//! Sending requests: connections, deadlines, retries, counters.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use prometheus::IntCounter;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, RANGE, RETRY_AFTER,
};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::time::{Instant, sleep, timeout};

use super::auth::{Login, Tokens};
use super::connections::Connections;
use super::health::Health;
use super::plans::Plans;
use super::ranges::Ranges;
use super::rate::{Rates, Urgency};
use super::reach::NotPublic;
use super::transport::Transport;
use super::{ClientOptions, cause_of, origin_of};
use crate::byte_range::AskedRange;
use crate::source::{FetchError, is_transient_status};

/// Largest body of an answer that is read only to keep its connection.
const DRAIN: u64 = 16 << 10;

/// A client for all registries. Clones are cheap and share connections, tokens and counters.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    options: ClientOptions,
    plans: Arc<Plans>,
    tokens: Tokens,
    health: Health,
    ranges: Ranges,
    rates: Rates,
    connections: Connections,
    requests: AtomicU64,
    bytes: AtomicU64,
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
    pub(super) accept: Option<HeaderValue>,
    pub(super) range: Option<AskedRange>,
    pub(super) body: Bytes,
    /// Further headers.
    pub(super) headers: HeaderMap,
    /// The connections to use.
    pub(super) transport: Transport,
    pub(super) urgency: Urgency,
    /// Other than the client's number of attempts.
    pub(super) attempts: Option<u32>,
    /// Other than the client's patience for the head of an answer.
    pub(super) patience: Option<Duration>,
    /// Whether it is not repeated where there is no connection.
    pub(super) one_dial: bool,
    /// Whether the first answer counts, of a passing condition too.
    pub(super) verbatim: bool,
    /// Whether it goes to a host that this machine's configuration names, wherever that is.
    pub(super) configured: bool,
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
            body: Bytes::new(),
            headers: HeaderMap::new(),
            transport: Transport::default(),
            urgency: Urgency::default(),
            attempts: None,
            patience: None,
            one_dial: false,
            verbatim: false,
            configured: false,
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
            plans: Arc::new(Plans::new(options.hosts.clone())),
            connections: Connections::new(options.connect_timeout, options.reach.clone()),
            options,
            tokens: Tokens::default(),
            health: Health::default(),
            ranges: Ranges::default(),
            rates: Rates::default(),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
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

    pub(super) fn health(&self) -> &Health {
        &self.0.health
    }

    pub(super) fn ranges(&self) -> &Ranges {
        &self.0.ranges
    }

    pub(super) fn plans(&self) -> &Arc<Plans> {
        &self.0.plans
    }

    /// Requests a second that a host is asked for at most, if it set a limit.
    pub(crate) fn limit(&self, host: &str) -> Option<f64> {
        self.0.rates.of(host)
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
                Ok(response)
                    if !call.verbatim && is_transient_status(response.status().as_u16()) =>
                {
                    let origin = origin_of(response.url());
                    (
                        FetchError::Status { origin, code: response.status().as_u16() },
                        retry_after(&response),
                    )
                }
                Err(error @ FetchError::Unreachable { .. }) if call.one_dial => return Err(error),
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
        let client = self.0.connections.to(call).await?;
        let mut request = client.request(call.method.clone(), call.url.clone());
        // A compressed answer would have other ranges than the blob.
        request = request.headers(call.headers.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(accept) = &call.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(range) = &call.range {
            request = request.header(RANGE, range.to_string());
        }
        if let Some(authorization) = authorization {
            // In place of one that was configured.
            let value = [(AUTHORIZATION, authorization.clone())].into_iter().collect();
            request = request.headers(value);
        }
        if !call.body.is_empty() {
            request = request.body(call.body.clone());
        }
        if !self.0.rates.admit(&origin, &call.urgency, deadline).await {
            return Err(FetchError::Status { origin, code: 429 });
        }
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        call.sent.iter().for_each(IntCounter::inc);
        let patience = call.patience.unwrap_or_else(|| self.options().head_timeout);
        let patience = patience.min(deadline.saturating_duration_since(Instant::now()));
        match timeout(patience, request.send()).await {
            Ok(Ok(response)) => {
                let refused = (response.status() == StatusCode::TOO_MANY_REQUESTS).then(|| {
                    let longest = self.options().longest_pause;
                    retry_after(&response).unwrap_or_default().min(longest)
                });
                self.0.rates.answered(&origin, refused);
                Ok(response)
            }
            Ok(Err(error)) if error.is_timeout() => {
                let after = call.transport.dial_timeout();
                let after = after.unwrap_or_else(|| self.options().connect_timeout);
                Err(FetchError::Timeout { origin, after })
            }
            Ok(Err(error)) => Err(match NotPublic::of(&error) {
                Some(NotPublic(address)) => FetchError::NotPublic { origin, address: *address },
                None => FetchError::Unreachable { origin, cause: cause_of(error) },
            }),
            Err(_) => Err(FetchError::Timeout { origin, after: patience }),
        }
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

/// The pause that an answer asks for.
fn retry_after(response: &Response) -> Option<Duration> {
    let slow_down = matches!(
        response.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let value = response.headers().get(RETRY_AFTER).filter(|_| slow_down)?;
    parse_retry_after(value.to_str().ok()?, SystemTime::now())
}

/// Reads `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_seconds_or_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700);
        let seconds = |text| parse_retry_after(text, now).map(|pause| pause.as_secs());
        assert_eq!(seconds(" 7 "), Some(7));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(77));
        assert_eq!(seconds("Sat, 06 Nov 1993 08:49:37 GMT"), Some(0));
        for bad in ["", "-1", "soon", "1.5", "99999999999999999999"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
