//! Every way in which a registry misbehaves gives the right bytes or the right error, in time, and
//! no byte twice. A row is a test.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lazystar::keychain::Keychain;
use lazystar::source::FetchError;
use lazystar_tests::fault_registry::{Counts, Fault};
use tokio::time::timeout;

use crate::blobs::{SIZE, blob_at, content};

/// No row may take longer, whatever the registry does.
const DEADLINE: Duration = Duration::from_secs(10);
const RANGE: Range<u64> = 1000..51_000;
/// How many bytes are asked for.
const ASKED: u64 = RANGE.end - RANGE.start;
const WHOLE: u64 = SIZE as u64;

type Check = fn(&FetchError) -> bool;

/// Requests for a range to the registry, for tokens, to storage; and the most bytes that it sends.
async fn right(fault: Fault, requests: (u64, u64, u64), most: u64) {
    let (registry, client, blob) = blob_at(fault, Keychain::Anonymous).await;
    let result = timeout(DEADLINE, blob.fetch_all(RANGE)).await.expect("in time");
    let bytes = result.unwrap_or_else(|error| panic!("{error}"));
    assert!(bytes == content().slice(RANGE.start as usize..RANGE.end as usize), "wrong bytes");
    let counts = registry.counts();
    let (registry_requests, token, storage) = requests;
    assert_eq!(counts, Counts { registry: registry_requests, token, storage, leaked: 0 });
    assert_eq!(client.statistics().requests, counts.registry + counts.token + counts.storage);
    settle(&registry).await;
    assert!(registry.sent().bytes <= most, "{} bytes", registry.sent().bytes);

    // Many at once, who know nothing of the registry yet.
    let (registry, _, blob) = blob_at(fault, Keychain::Anonymous).await;
    let step = ASKED / 10;
    let ranges = (0..10).map(|at| RANGE.start + at * step..RANGE.start + (at + 1) * step);
    let fetches = ranges.map(|range| {
        let (blob, part) =
            (blob.clone(), content().slice(range.start as usize..range.end as usize));
        async move { (timeout(DEADLINE, blob.fetch_all(range)).await.expect("in time"), part) }
    });
    for (result, part) in futures_util::future::join_all(fetches).await {
        assert!(result.unwrap_or_else(|error| panic!("{error}")) == part, "wrong bytes");
    }
    settle(&registry).await;
    assert!(registry.sent().bytes <= most, "{} bytes for many", registry.sent().bytes);
    assert_eq!(registry.counts().leaked, 0);
}

/// What is on its way is counted when it was taken.
async fn settle(registry: &lazystar_tests::fault_registry::FaultRegistry) {
    let mut before = u64::MAX;
    while registry.sent().bytes != before {
        before = registry.sent().bytes;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// An error that names the host, after so many requests to the registry.
async fn wrong(fault: Fault, requests: u64, check: Check) {
    let (registry, client, blob) = blob_at(fault, Keychain::Anonymous).await;
    let result = timeout(DEADLINE, blob.fetch_all(RANGE)).await.expect("in time");
    let Err(error) = result else { panic!("it gave bytes") };
    assert!(check(&error), "{error:?}");
    let counts = registry.counts();
    assert_eq!(counts.registry, requests, "{error}");
    assert_eq!(client.statistics().requests, counts.registry + counts.token + counts.storage);
    let message = error.to_string();
    assert!(message.contains("127.0.0.1:"), "{message}");
    // When it behaves again, so do we.
    registry.set(Fault::Ok);
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = blob.fetch_all(RANGE).await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

macro_rules! rows {
    ($($name:ident: $row:ident($($arguments:expr),+);)+) => {
        $(#[tokio::test]
        async fn $name() {
            $row($($arguments),+).await;
        })+
    };
}

rows! {
    answers: right(Fault::Ok, (1, 0, 0), ASKED);
    says_200_to_a_range: right(Fault::WrongStatus, (1, 0, 0), ASKED);
    sends_too_much: right(Fault::TooLong, (1, 0, 0), 10 * WHOLE + ASKED);
    sends_chunks: right(Fault::Chunked, (1, 0, 0), ASKED);
    speaks_http_1_0: right(Fault::Http10, (1, 0, 0), ASKED);
    sends_parts: right(Fault::Multipart, (1, 0, 0), ASKED + 10 * 200);
    ignores_ranges: right(Fault::IgnoresRange, (1, 0, 0), WHOLE);
    ignores_ranges_and_lies: right(Fault::IgnoresRangeAndLies, (1, 0, 0), WHOLE);
    ignores_ranges_until_it_has_the_blob: right(Fault::ColdCache, (1, 0, 0), WHOLE);
    ignores_ranges_and_breaks_off: right(Fault::IgnoresRangeAndCuts, (2, 0, 0), WHOLE + WHOLE / 2);
    wants_a_token: right(Fault::BearerAnonymous, (2, 1, 0), ASKED);
    is_overloaded_for_a_while: right(Fault::UnavailableTwice, (3, 0, 0), ASKED);
    limits_requests: right(Fault::TooManyRequests, (2, 0, 0), ASKED);
    limits_requests_until_a_date: right(Fault::TooManyRequestsDate, (2, 0, 0), ASKED);
    breaks_off_once: right(Fault::CutsOnce, (2, 0, 0), ASKED);
    breaks_off_and_keeps_the_etag: right(Fault::EtagStays, (2, 0, 0), ASKED);
    has_another_blob_suddenly: right(Fault::EtagChanges, (3, 0, 0), ASKED + ASKED);
    ends_early_once: right(Fault::EndsEarlyOnce, (2, 0, 0), ASKED);
    stalls_once: right(Fault::StallsOnce, (2, 0, 0), ASKED);
    is_slow: right(Fault::Slow, (1, 0, 0), ASKED);
    is_slow_to_answer: right(Fault::SlowHead(300), (1, 0, 0), ASKED);
    redirects: right(Fault::Redirect, (1, 0, 1), ASKED);
    wants_a_token_and_redirects: right(Fault::BearerRedirect, (2, 1, 1), ASKED);

    has_nothing: wrong(Fault::NotFound, 1, |it| matches!(it, FetchError::NotFound { .. }));
    refuses: wrong(Fault::Unauthorized, 1, |it| matches!(it, FetchError::Denied { status: 401, .. }));
    refuses_without_sense: wrong(Fault::MalformedChallenge, 1, |it| matches!(it, FetchError::Protocol { .. }));
    refuses_a_token: wrong(Fault::Bearer, 1, |it| matches!(it, FetchError::Denied { status: 401, .. }));
    wants_a_password: wrong(Fault::Basic, 1, |it| matches!(it, FetchError::Denied { status: 401, .. }));
    forbids: wrong(Fault::Always(403), 1, |it| matches!(it, FetchError::Denied { status: 403, .. }));
    has_no_such_range: wrong(Fault::RangeNotSatisfiable, 1, |it| {
        matches!(it, FetchError::RangeNotSatisfiable { start: 1000, end: 51_000, .. })
    });
    sends_another_range: wrong(Fault::WrongContentRange, 1, |it| matches!(it, FetchError::WrongRange { .. }));
    sends_another_part: wrong(Fault::WrongMultipart, 1, |it| matches!(it, FetchError::WrongRange { .. }));
    has_a_blob_of_another_size: wrong(Fault::WrongTotal, 1, |it| matches!(it, FetchError::WrongRange { .. }));
    does_not_say_what_it_sends: wrong(Fault::NoContentRange, 1, |it| matches!(it, FetchError::WrongRange { .. }));
    sends_too_little: wrong(Fault::TooShort, 1, |it| matches!(it, FetchError::WrongRange { .. }));
    breaks_off_again_and_again: wrong(Fault::CutsShort, 9, |it| {
        matches!(it, FetchError::Truncated { got: 81, expected: 50_000, .. })
    });
    is_broken: wrong(Fault::Always(500), 4, |it| matches!(it, FetchError::Status { code: 500, .. }));
    has_a_broken_gateway: wrong(Fault::Always(502), 4, |it| matches!(it, FetchError::Status { code: 502, .. }));
    is_overloaded: wrong(Fault::Always(503), 4, |it| matches!(it, FetchError::Status { code: 503, .. }));
    limits_requests_for_ever: wrong(Fault::Always(429), 4, |it| matches!(it, FetchError::Status { code: 429, .. }));
    does_not_know_how: wrong(Fault::Always(501), 1, |it| matches!(it, FetchError::Status { code: 501, .. }));
    says_nothing: wrong(Fault::Silent, 4, |it| matches!(it, FetchError::Timeout { .. }));
    stalls: wrong(Fault::Stalls, 9, |it| matches!(it, FetchError::Timeout { .. }));
    redirects_for_ever: wrong(Fault::RedirectLoop, 6, |it| matches!(it, FetchError::Protocol { .. }));
    redirects_elsewhere: wrong(Fault::RedirectElsewhere, 1, |it| matches!(it, FetchError::Protocol { .. }));
}

/// A registry that takes ten requests a second is soon asked for no more.
#[tokio::test]
async fn a_limit_is_learned() {
    let (registry, client, blob) = blob_at(Fault::Limited(10), Keychain::Anonymous).await;
    // What a reader gets who waits as long as it takes.
    let fetch = async |at: u64| {
        loop {
            match blob.fetch_all(at..at + 10).await {
                Err(FetchError::Status { code: 429, .. }) => {}
                settled => return settled,
            }
        }
    };
    let started = Instant::now();
    let fetches = futures_util::future::join_all((0..40).map(fetch));
    for (at, result) in timeout(3 * DEADLINE, fetches).await.expect("in time").iter().enumerate() {
        assert_eq!(*result.as_ref().unwrap(), content().slice(at..at + 10));
    }
    // The first burst is refused before anything is known; then hardly any request is.
    let learned = registry.sent().refusals;
    println!("{learned} refusals, {:?}", started.elapsed());
    registry.reset();
    for at in 0..20 {
        fetch(at).await.unwrap();
    }
    let refusals = registry.sent().refusals;
    assert!(refusals <= 4, "{refusals} of {} refused", registry.counts().registry);
    drop(client);
}

/// Bytes of a blob that a fetch returned are never another blob's.
#[tokio::test]
async fn no_fetch_mixes_two_blobs() {
    let (registry, _, blob) = blob_at(Fault::EtagChanges, Keychain::Anonymous).await;
    let mut stream = blob.fetch(RANGE).await.unwrap();
    let mut got = Vec::new();
    let error = loop {
        match stream.next().await.expect("it does not end well") {
            Ok(bytes) => got.extend_from_slice(&bytes),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, FetchError::Changed { .. }), "{error:?}");
    assert_eq!(got.len() as u64, ASKED / 2, "the first half is of the first blob");
    assert!(error.is_transient());
    assert_eq!(registry.counts().registry, 2);
    assert_eq!(blob.fetch_all(0..5).await.unwrap(), Bytes::copy_from_slice(&content()[..5]));
}
