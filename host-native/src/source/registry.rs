//! Blobs in registries: one range request at a time, checked, and resumed where it breaks off.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lazystar_core::Digest;
use reqwest::header::{CONTENT_ENCODING, CONTENT_RANGE, HeaderMap};
use reqwest::{Method, Response, StatusCode};
use tokio::time::{Instant, timeout};

use super::FetchError;
use crate::oci::Descriptor;
use crate::registry::{Answer, Endpoint, Question, Repository, Target, check, origin_of};

/// A blob and where its repository last said that it is.
pub(super) struct RegistryBlob(Arc<Inner>);

struct Inner {
    repository: Repository,
    digest: Digest,
    size: u64,
    target: Target,
}

impl RegistryBlob {
    pub(super) fn new(repository: &Repository, descriptor: &Descriptor) -> Self {
        Self(Arc::new(Inner {
            repository: repository.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
            target: Target::default(),
        }))
    }

    pub(super) fn size(&self) -> u64 {
        self.0.size
    }

    pub(super) fn digest(&self) -> Digest {
        self.0.digest
    }

    pub(super) fn name(&self) -> String {
        format!("{}@{}", self.0.repository, self.0.digest)
    }

    pub(super) async fn fetch(&self, range: Range<u64>) -> Result<Body, FetchError> {
        let Answer { response, endpoint } = self.0.open(range.clone()).await?;
        Ok(Body {
            blob: Arc::clone(&self.0),
            origin: origin_of(response.url()),
            endpoint,
            response: Some(response),
            start: range.start,
            at: range.start,
            end: range.end,
            progress: Instant::now(),
            fruitless: 0,
            resumed: 0,
        })
    }
}

impl Inner {
    /// Asks for `range` and checks that the answer is that range.
    async fn open(&self, range: Range<u64>) -> Result<Answer, FetchError> {
        let digest = self.digest.to_string();
        let question = Question {
            method: Method::GET,
            path: &["blobs", &digest],
            accept: None,
            range: Some(range.clone()),
            attempts: None,
        };
        let what = || format!("blob {digest} in {}", self.repository);
        let accept = |response, endpoint: &Endpoint| {
            let response = check(response, endpoint, &what, &range)?;
            check_range(&response, &range, self.size)?;
            Ok(response)
        };
        self.repository.ask(&question, &self.target, accept).await
    }

    /// Has the rest of a range asked of others, if there are any.
    fn leave(&self, endpoint: &Endpoint, error: &FetchError) {
        self.repository.put_to_rest(endpoint, error);
        self.target.leave(endpoint);
    }
}

/// Checks by its head that `response` carries exactly `range` of a blob of `size` bytes.
fn check_range(response: &Response, range: &Range<u64>, size: u64) -> Result<(), FetchError> {
    let origin = || origin_of(response.url());
    let wrong = |why: String| Err(FetchError::WrongRange { origin: origin(), why });
    let length = range.end - range.start;
    let coding = response.headers().get(CONTENT_ENCODING);
    if let Some(coding) =
        coding.filter(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return wrong(format!("it is compressed with {coding:?}, which was not asked for"));
    }
    let declared = response.content_length();
    let whole = response.status() == StatusCode::OK;
    match content_range(response.headers()) {
        // Some proxies say 200 but send the range; others send everything when a blob is new to
        // them, which is right only if everything was asked for.
        None if whole && *range == (0..size) => {}
        None if whole => return Err(FetchError::RangeIgnored { origin: origin() }),
        None => return wrong("it does not say which bytes it sends (Content-Range)".to_owned()),
        Some(Err(text)) => return wrong(format!("Content-Range {text:?} cannot be read")),
        Some(Ok((sent, total))) => {
            if whole && declared != Some(length) {
                return Err(FetchError::RangeIgnored { origin: origin() });
            }
            if sent != *range {
                return wrong(format!("it sends bytes {sent:?} where {range:?} were asked for"));
            }
            if let Some(total) = total.filter(|total| *total != size) {
                return wrong(format!("its blob has {total} bytes where the image says {size}"));
            }
        }
    }
    match declared {
        Some(declared) if declared != length => {
            wrong(format!("it announces {declared} bytes where {length} were asked for"))
        }
        _ => Ok(()),
    }
}

type ContentRange = (Range<u64>, Option<u64>);

/// Reads `Content-Range: bytes 0-99/1000` (RFC 9110, section 14.4); the total may be `*`.
fn content_range(headers: &HeaderMap) -> Option<Result<ContentRange, String>> {
    let mut values = headers.get_all(CONTENT_RANGE).iter();
    let value = values.next()?;
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    if values.next().is_some() {
        return Some(Err(text));
    }
    Some(parse_content_range(&text).ok_or(text))
}

fn parse_content_range(text: &str) -> Option<ContentRange> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (span, total) = rest.trim().split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let (first, last): (u64, u64) = (number(first)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    let sane = unit.eq_ignore_ascii_case("bytes")
        && first <= last
        && total.is_none_or(|total| last < total);
    sane.then(|| Some((first..last.checked_add(1)?, total)))?
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// What is left of a range, and the answer that carries it.
pub(super) struct Body {
    blob: Arc<Inner>,
    origin: String,
    endpoint: Arc<Endpoint>,
    response: Option<Response>,
    start: u64,
    at: u64,
    end: u64,
    /// When bytes last arrived.
    progress: Instant,
    /// Resumptions since then.
    fruitless: u32,
    /// All resumptions.
    resumed: u32,
}

impl Body {
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, FetchError>> {
        if self.at == self.end {
            return None;
        }
        let next = self.advance().await;
        match &next {
            Ok(bytes) => self.at += bytes.len() as u64,
            Err(_) => self.at = self.end,
        }
        Some(next)
    }

    /// Bytes from the current answer, or from a new one where that breaks off.
    ///
    /// Safe to cancel: all state is in `self`, and a lost answer is asked for again.
    async fn advance(&mut self) -> Result<Bytes, FetchError> {
        let client = self.blob.repository.client().clone();
        let patience = client.options().chunk_timeout;
        loop {
            let silent = if let Some(response) = &mut self.response {
                match timeout(patience, response.chunk()).await {
                    Ok(Ok(Some(bytes))) if bytes.is_empty() => continue,
                    Ok(Ok(Some(bytes))) => return Ok(self.accept(bytes)),
                    // Both the end and an error before the last byte: the connection was lost.
                    Ok(Ok(None) | Err(_)) => false,
                    Err(_) => true,
                }
            } else {
                false
            };
            self.response = None;
            let give_up = self.resumed >= client.options().resumptions
                || self.fruitless >= client.options().attempts
                || self.progress.elapsed() >= client.options().total_timeout;
            let error = self.lost(silent);
            if give_up {
                return Err(error);
            }
            if self.endpoint.is_mirror && (silent || self.resumed > 0) {
                self.blob.leave(&self.endpoint, &error);
            }
            tracing::debug!(
                origin = self.origin,
                at = self.at,
                "answer broke off; asking for the rest"
            );
            if self.fruitless > 0 {
                tokio::time::sleep(client.options().pause(self.fruitless)).await;
            }
            self.resumed += 1;
            self.fruitless += 1;
            let Answer { response, endpoint } = self.blob.open(self.at..self.end).await?;
            self.origin = origin_of(response.url());
            self.endpoint = endpoint;
            self.response = Some(response);
        }
    }

    fn lost(&self, silent: bool) -> FetchError {
        let origin = self.origin.clone();
        if silent {
            return FetchError::Timeout { origin, after: self.progress.elapsed() };
        }
        let (got, expected) = (self.at - self.start, self.end - self.start);
        FetchError::Truncated { origin, got, expected }
    }

    /// Takes what arrived, but no more than was asked for: how an answer is cut into pieces must
    /// not decide whether too much of it is noticed.
    fn accept(&mut self, mut bytes: Bytes) -> Bytes {
        self.blob.repository.client().count_bytes(bytes.len() as u64);
        self.endpoint.metrics.bytes.inc_by(bytes.len() as u64);
        let wanted = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        bytes.truncate(wanted);
        self.progress = Instant::now();
        self.fruitless = 0;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_content_ranges_strictly() {
        let parse = parse_content_range;
        assert_eq!(parse("bytes 0-99/1000"), Some((0..100, Some(1000))));
        assert_eq!(parse("bytes 5-5/*"), Some((5..6, None)));
        for bad in [
            "",
            "bytes",
            "bytes 0-99",
            "bytes 9-1/10",
            "bytes 0-10/10",
            "bytes +1-2/10",
            "items 0-1/2",
            "bytes */10",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&format!("bytes 0-{}/*", u64::MAX)), None);
    }
}
