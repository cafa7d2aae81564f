//! What there is, sent as the fault has it.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Version};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use lazystar_core::Digest;

use super::{Fault, Shared, locked, status, with};

/// What is between the parts of [`Fault::Multipart`].
const BOUNDARY: &str = "part-of-it";

impl Shared {
    /// What has this name, or the part of it that was asked for.
    pub(super) fn content(&self, fault: Fault, first: bool, name: &str, head: &Parts) -> Response {
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
