//! Parts of what is served.

use std::ops::Range;

use axum::http::header::{CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, StatusCode};

use super::refusal::Refusal;
use crate::byte_range::AskedRange;

/// The part that a client asks for.
pub(super) fn asked(headers: &HeaderMap) -> Result<Option<AskedRange>, Refusal> {
    let mut values = headers.get_all(RANGE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let range = value.to_str().ok().and_then(AskedRange::parse);
    match range.filter(|_| values.next().is_none()) {
        Some(range) => Ok(Some(range)),
        None => Err(Refusal::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "LAZYSTAR_RANGE",
            "only one range of bytes can be asked for at a time, as `bytes=0-99`",
        )),
    }
}

/// Which bytes that are of something with `size` bytes.
pub(super) fn within(asked: &AskedRange, size: u64) -> Result<Range<u64>, Refusal> {
    asked.within(size).ok_or_else(|| {
        let message = format!("{asked} is not within the blob, which has {size} bytes");
        let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "LAZYSTAR_RANGE", message);
        refusal.with(CONTENT_RANGE, &format!("bytes */{size}"))
    })
}

/// The value of `Content-Range`.
pub(super) fn sent(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}
