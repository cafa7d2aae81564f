//! What an answer to a request for a range carries.

use std::ops::Range;

use reqwest::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderMap};
use reqwest::{Response, StatusCode};

use super::FetchError;
use crate::registry::origin_of;

/// Longest head of a part of a multipart answer.
const MAX_HEAD: usize = 4 << 10;
/// Longest boundary between parts (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// What an answer carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// The range, and nothing else.
    Range,
    /// The whole blob.
    Whole,
    /// The range as the first of parts with this boundary between them.
    Part(String),
}

/// Finds out by its head whether `response` carries `range` of a blob of `size` bytes, and how.
pub(super) fn carried(
    response: &Response,
    range: &Range<u64>,
    size: u64,
) -> Result<Carried, FetchError> {
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
    let is_ok = response.status() == StatusCode::OK;
    let announces = |expected: u64, carried: Carried| match declared {
        Some(declared) if declared != expected => {
            wrong(format!("it announces {declared} bytes where {expected} were to come"))
        }
        _ => Ok(carried),
    };
    match content_range(response.headers()) {
        // Caches send everything when a blob is new to them, and some servers know no ranges.
        None if is_ok && *range == (0..size) => announces(size, Carried::Range),
        None if is_ok => announces(size, Carried::Whole),
        None => match boundary(response.headers()) {
            Some(boundary) => Ok(Carried::Part(boundary)),
            None => wrong("it does not say which bytes it sends (Content-Range)".to_owned()),
        },
        Some(Err(text)) => wrong(format!("Content-Range {text:?} cannot be read")),
        Some(Ok((sent, total))) => {
            // Some proxies say 200 but send the range.
            if is_ok && declared == Some(size) && *range != (0..size) {
                return Ok(Carried::Whole);
            }
            match check_sent((&sent, total), range, size) {
                Ok(()) => announces(length, Carried::Range),
                Err(why) => wrong(why),
            }
        }
    }
}

/// Checks what `Content-Range` says of what is sent.
pub(super) fn check_sent(
    (sent, total): (&Range<u64>, Option<u64>),
    range: &Range<u64>,
    size: u64,
) -> Result<(), String> {
    if sent != range {
        return Err(format!("it sends bytes {sent:?} where {range:?} were asked for"));
    }
    match total.filter(|total| *total != size) {
        Some(total) => Err(format!("its blob has {total} bytes where the image says {size}")),
        None => Ok(()),
    }
}

pub(crate) type ContentRange = (Range<u64>, Option<u64>);

/// Reads `Content-Range: bytes 0-99/1000` (RFC 9110, section 14.4); the total may be `*`.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<Result<ContentRange, String>> {
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

/// The boundary between the parts of a `multipart/byteranges` answer.
fn boundary(headers: &HeaderMap) -> Option<String> {
    parse_boundary(headers.get(CONTENT_TYPE)?.to_str().ok()?)
}

fn parse_boundary(text: &str) -> Option<String> {
    let mut parts = text.split(';');
    let media_type = parts.next()?.trim();
    if !media_type.eq_ignore_ascii_case("multipart/byteranges") {
        return None;
    }
    parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        let sane = (1..=MAX_BOUNDARY).contains(&value.len()) && value.bytes().all(|b| b >= b' ');
        (name.trim().eq_ignore_ascii_case("boundary") && sane).then(|| value.to_owned())
    })
}

/// Reads the head of the first part of a multipart body (RFC 9110, section 14.6) from its start:
/// how long it is, and which bytes follow. `None` if more is needed.
///
/// # Errors
/// If it is not the head of a part.
pub(super) fn part_head(
    body: &[u8],
    boundary: &str,
) -> Result<Option<(usize, ContentRange)>, &'static str> {
    let Some(end) = find(body, b"\r\n\r\n") else {
        return if body.len() > MAX_HEAD { Err("its part has no head") } else { Ok(None) };
    };
    let head = std::str::from_utf8(&body[..end]).map_err(|_| "the head of its part is no text")?;
    let mut lines = head.split("\r\n").skip_while(|line| line.is_empty());
    let start = lines.next().and_then(|line| line.strip_prefix("--"));
    if start.map(str::trim_end) != Some(boundary) {
        return Err("its part does not begin with the boundary");
    }
    let range = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-range").then(|| parse_content_range(value))
    });
    let range = range.flatten().ok_or("its part does not say which bytes it has")?;
    Ok(Some((end + 4, range)))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let within = &bytes[..bytes.len().min(MAX_HEAD)];
    within.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn reads_the_head_of_the_first_part() {
        let body = b"\r\n--x-1\r\nContent-Type: a/b\r\ncontent-range: bytes 5-9/20\r\n\r\nhello\r\n--x-1--";
        for cut in 0..body.len() {
            let read = part_head(&body[..cut], "x-1").expect("it is one");
            match read {
                None => assert!(cut < 60),
                Some((length, range)) => {
                    assert_eq!(range, (5..10, Some(20)));
                    assert!(b"hello".starts_with(&body[length..cut.min(length + 5)]));
                }
            }
        }
        for (bad, boundary) in
            [(&body[..], "y"), (b"--y\r\n\r\n", "y"), (b"junk\r\n\r\n", "y"), (&[b'x'; 5000], "y")]
        {
            assert!(part_head(bad, boundary).is_err());
        }
        assert_eq!(
            parse_boundary("multipart/byteranges; boundary=\"a b\""),
            Some("a b".to_owned())
        );
        for bad in [
            "multipart/byteranges",
            "multipart/mixed; boundary=a",
            "multipart/byteranges; boundary=",
        ] {
            assert_eq!(parse_boundary(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_content_range_is_read_or_refused(text in "(bytes )?[0-9*/ -]{0,30}|.{0,60}") {
            if let Some((range, total)) = parse_content_range(&text) {
                prop_assert!(range.start < range.end);
                prop_assert!(total.is_none_or(|total| range.end <= total));
            }
        }

        #[test]
        fn content_ranges_are_read_as_written(start in 0..1_u64 << 60, len in 1..1_u64 << 60, more in 0..9_u64) {
            let (end, total) = (start + len, start + len + more);
            let text = format!("bytes {start}-{}/{total}", end - 1);
            prop_assert_eq!(parse_content_range(&text), Some((start..end, Some(total))));
        }

        #[test]
        fn any_part_is_read_or_refused(
            body in prop::collection::vec(prop_oneof![
                Just("--b"), Just("\r\n"), Just("Content-Range: bytes 1-2/3"), Just(":"), Just("x"),
            ], 0..12),
            content_type in "(multipart/byteranges; *boundary=)?.{0,80}",
        ) {
            let body = body.concat().into_bytes();
            if let Ok(Some((length, (range, _)))) = part_head(&body, "b") {
                prop_assert!(length <= body.len() && range.start < range.end);
            }
            let boundary = parse_boundary(&content_type);
            prop_assert!(boundary.is_none_or(|it| !it.is_empty() && it.len() <= MAX_BOUNDARY));
        }
    }
}
