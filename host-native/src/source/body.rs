//! The answer to a request for a range, resumed where it breaks off.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{ETAG, HeaderValue};
use tokio::time::{Instant, sleep, timeout};

use super::FetchError;
use super::range::{Carried, check_sent, part_head};
use super::registry::{Inner, Opened};
use super::whole::WholeBlob;
use crate::registry::{Endpoint, SILENCE, Urgency, origin_of};

/// What is left of a range, and what it comes from.
pub(super) struct Body {
    blob: Arc<Inner>,
    urgency: Urgency,
    feed: Option<Feed>,
    start: u64,
    at: u64,
    end: u64,
    /// Whether this is the transfer of a whole blob, which no other such transfer helps.
    is_whole: bool,
    /// By whom and with which ETag the range was begun.
    begun: Option<(String, HeaderValue)>,
    /// When bytes last arrived.
    progress: Instant,
    /// Resumptions since then.
    fruitless: u32,
    /// All resumptions.
    resumed: u32,
}

enum Feed {
    Answer(Box<Answered>),
    Whole(Arc<WholeBlob>),
}

/// An answer from a host.
struct Answered {
    origin: String,
    endpoint: Arc<Endpoint>,
    response: Response,
    /// Bytes before those that are wanted.
    skip: u64,
    /// What came of the head of the first part, and what is between parts.
    head: Option<(BytesMut, String)>,
}

impl Body {
    /// The body of `start..end`, which `opened` begins.
    pub(super) fn new(
        blob: &Arc<Inner>,
        (start, end): (u64, u64),
        opened: Opened,
        urgency: Urgency,
    ) -> Self {
        let mut body = Self::empty(blob, (start, end), urgency);
        // The first answer changes nothing.
        let _ = body.take(opened);
        body
    }

    /// The transfer of a whole blob, which `opened` begins.
    pub(super) fn of_whole(blob: &Arc<Inner>, opened: Opened) -> Self {
        let end = blob.size();
        Self { is_whole: true, ..Self::new(blob, (0, end), opened, Urgency::default()) }
    }

    /// A range of a blob that is coming as a whole.
    pub(super) fn from_whole(
        blob: &Arc<Inner>,
        (start, end): (u64, u64),
        whole: Arc<WholeBlob>,
    ) -> Self {
        let feed = Some(Feed::Whole(whole));
        Self { feed, ..Self::empty(blob, (start, end), Urgency::default()) }
    }

    /// The body of `start..end`, of which nobody has begun.
    fn empty(blob: &Arc<Inner>, (start, end): (u64, u64), urgency: Urgency) -> Self {
        Self {
            blob: Arc::clone(blob),
            urgency,
            feed: None,
            start,
            at: start,
            end,
            is_whole: false,
            begun: None,
            progress: Instant::now(),
            fruitless: 0,
            resumed: 0,
        }
    }

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
        let client = self.blob.repository().client().clone();
        let options = client.options();
        loop {
            let mut left = None;
            let mut silent = false;
            match &mut self.feed {
                Some(Feed::Whole(whole)) => {
                    let next = whole.next(self.at..self.end).await;
                    if next.is_err() {
                        self.blob.forget_whole(whole);
                    }
                    return next;
                }
                Some(Feed::Answer(answer)) => {
                    // Where there is another host to ask, nobody waits long for a silent one.
                    let patience = match answer.endpoint.is_mirror {
                        true => options.chunk_timeout.min(SILENCE),
                        false => options.chunk_timeout,
                    };
                    match timeout(patience, answer.response.chunk()).await {
                        Ok(Ok(Some(bytes))) => {
                            let bytes = self.accept(bytes)?;
                            if bytes.is_empty() {
                                continue;
                            }
                            return Ok(bytes);
                        }
                        // Both the end and an error before the last byte: the connection was lost.
                        Ok(Ok(None) | Err(_)) => {}
                        Err(_) => silent = true,
                    }
                    left = Some(Arc::clone(&answer.endpoint));
                }
                None => {}
            }
            let error = self.lost(silent);
            self.feed = None;
            if self.resumed >= options.resumptions
                || self.fruitless >= options.attempts
                || self.progress.elapsed() >= options.total_timeout
            {
                return Err(error);
            }
            if let Some(endpoint) = left
                && endpoint.is_mirror
                && (silent || self.resumed > 0)
            {
                self.blob.leave(&endpoint, &error);
            }
            tracing::debug!(at = self.at, "answer broke off; asking for the rest: {error}");
            if self.fruitless > 0 {
                sleep(options.pause(self.fruitless)).await;
            }
            self.resumed += 1;
            self.fruitless += 1;
            let opened = self.blob.open(self.at..self.end, &self.urgency).await?;
            if opened.carried == Carried::Whole && !self.is_whole {
                let whole = self.blob.keep_whole(opened)?;
                self.feed = Some(Feed::Whole(whole));
            } else {
                self.take(opened)?;
            }
        }
    }

    /// Goes on with an answer.
    fn take(&mut self, opened: Opened) -> Result<(), FetchError> {
        let Opened { response, endpoint, carried } = opened;
        let origin = origin_of(response.url());
        let etag = response.headers().get(ETAG).filter(|it| it.as_bytes().starts_with(b"\""));
        match (&self.begun, etag) {
            // Other hosts have other names for the same bytes.
            (Some((by, begun)), Some(etag)) if *by == origin && begun != etag => {
                return Err(FetchError::Changed { origin });
            }
            (None, Some(etag)) => self.begun = Some((origin.clone(), etag.clone())),
            _ => {}
        }
        let (skip, head) = match carried {
            Carried::Range => (0, None),
            Carried::Whole => (self.at, None),
            Carried::Part(boundary) => (0, Some((BytesMut::new(), boundary))),
        };
        let answer = Answered { origin, endpoint, response, skip, head };
        self.feed = Some(Feed::Answer(Box::new(answer)));
        Ok(())
    }

    fn lost(&self, silent: bool) -> FetchError {
        let origin = match &self.feed {
            Some(Feed::Answer(answer)) => answer.origin.clone(),
            _ => self.blob.repository().to_string(),
        };
        if silent {
            return FetchError::Timeout { origin, after: self.progress.elapsed() };
        }
        let (got, expected) = (self.at - self.start, self.end - self.start);
        FetchError::Truncated { origin, got, expected }
    }

    /// Takes what arrived, but no more than was asked for: how an answer is cut into pieces must
    /// not decide whether too much of it is noticed.
    fn accept(&mut self, mut bytes: Bytes) -> Result<Bytes, FetchError> {
        self.blob.repository().client().count_bytes(bytes.len() as u64);
        self.progress = Instant::now();
        let Some(Feed::Answer(answer)) = &mut self.feed else { return Ok(bytes) };
        answer.endpoint.metrics.bytes.inc_by(bytes.len() as u64);
        if let Some((head, boundary)) = &mut answer.head {
            head.extend_from_slice(&bytes);
            let wrong = |why: &str| {
                Err(FetchError::WrongRange { origin: answer.origin.clone(), why: why.to_owned() })
            };
            let (length, (sent, total)) = match part_head(head, boundary) {
                Ok(None) => return Ok(Bytes::new()),
                Ok(Some(found)) => found,
                Err(why) => return wrong(why),
            };
            let wanted = self.at..self.end;
            if let Err(why) = check_sent((&sent, total), &wanted, self.blob.size()) {
                return wrong(&why);
            }
            bytes = head.split_off(length).freeze();
            answer.head = None;
        }
        let skipped = answer.skip.min(bytes.len() as u64);
        answer.skip -= skipped;
        // It fits: it is no more than there is.
        bytes = bytes.slice(skipped as usize..);
        let wanted = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        bytes.truncate(wanted);
        if !bytes.is_empty() {
            self.fruitless = 0;
        }
        Ok(bytes)
    }
}
