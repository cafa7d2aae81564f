//! Ways to misbehave.

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
    /// Wants a token, which [`USER`](super::USER) gets.
    Bearer,
    /// Wants a token; each is accepted twice and then answered with this status.
    BearerExpires(u16),
    /// Wants the password of [`USER`](super::USER).
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
