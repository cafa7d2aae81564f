//! Every way in which a registry misbehaves gives the right bytes or the right error, in time.

use std::time::Duration;

use bytes::Bytes;
use lazystar::keychain::{Credential, Keychain};
use lazystar::oci::Descriptor;
use lazystar::reference::RegistryRef;
use lazystar::registry::{Client, Repository};
use lazystar::source::{Blob, FetchError};
use lazystar_core::Digest;
use lazystar_tests::fault_registry::{
    Counts, Fault, FaultRegistry, IDENTITY_TOKEN, PASSWORD, USER,
};
use tokio::time::timeout;

/// No case may take longer, whatever the registry does.
const DEADLINE: Duration = Duration::from_secs(10);
const SIZE: usize = 100_000;

fn content() -> Bytes {
    (0..SIZE).map(|at| (at * 31 % 251) as u8).collect()
}

fn descriptor(digest: Digest, size: usize) -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest,
        size: size as u64,
        annotations: Default::default(),
        platform: None,
        urls: Vec::new(),
    }
}

/// A blob in a registry with `fault`.
async fn blob_at(fault: Fault, keychain: Keychain) -> (FaultRegistry, Client, Blob) {
    let registry = FaultRegistry::start(fault).await.unwrap();
    let digest = registry.add_blob(content());
    let client = crate::client(keychain);
    let reference: RegistryRef = format!("{}/team/app:v1", registry.address()).parse().unwrap();
    let repository = Repository::new(&client, &reference, false).unwrap();
    let blob = Blob::registry(&repository, &descriptor(digest, SIZE));
    (registry, client, blob)
}

fn alice(registry_host: &str) -> Keychain {
    Keychain::fixed(
        registry_host,
        Credential::Password { user: USER.to_owned(), password: PASSWORD.to_owned() },
    )
}

/// Fetches a range and the counts that it took.
async fn fetch(fault: Fault, range: std::ops::Range<u64>) -> (Result<Bytes, FetchError>, Counts) {
    let (registry, client, blob) = blob_at(fault, Keychain::Anonymous).await;
    let result = timeout(DEADLINE, blob.fetch_all(range))
        .await
        .unwrap_or_else(|_| panic!("{fault:?} took too long"));
    let counts = registry.counts();
    assert_eq!(
        client.statistics().requests,
        counts.registry + counts.token + counts.storage,
        "{fault:?}"
    );
    (result, counts)
}

#[tokio::test]
async fn gives_the_right_bytes_in_spite_of() {
    let cases = [
        // fault, requests to the registry, for tokens, to storage
        (Fault::Ok, 1, 0, 0),
        (Fault::WrongStatus, 1, 0, 0),
        (Fault::TooLong, 1, 0, 0),
        (Fault::BearerAnonymous, 2, 1, 0),
        (Fault::UnavailableTwice, 3, 0, 0),
        (Fault::TooManyRequests, 2, 0, 0),
        (Fault::CutsOnce, 2, 0, 0),
        (Fault::EndsEarlyOnce, 2, 0, 0),
        (Fault::StallsOnce, 2, 0, 0),
        (Fault::Slow, 1, 0, 0),
        (Fault::Redirect, 1, 0, 1),
        (Fault::BearerRedirect, 2, 1, 1),
        (Fault::RedirectExpires(403), 1, 0, 1),
    ];
    for (fault, registry, token, storage) in cases {
        let (result, counts) = fetch(fault, 1000..51_000).await;
        let bytes = result.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert!(bytes == content().slice(1000..51_000), "{fault:?}: wrong bytes");
        assert_eq!(counts, Counts { registry, token, storage, leaked: 0 }, "{fault:?}");
    }
}

#[tokio::test]
async fn says_whose_fault_it_is() {
    type Check = fn(&FetchError) -> bool;
    let cases: [(Fault, u64, Check); 15] = [
        (Fault::NotFound, 1, |error| matches!(error, FetchError::NotFound { .. })),
        (Fault::Unauthorized, 1, |error| matches!(error, FetchError::Denied { status: 401, .. })),
        (Fault::MalformedChallenge, 1, |error| matches!(error, FetchError::Protocol { .. })),
        (Fault::Bearer, 1, |error| matches!(error, FetchError::Denied { status: 401, .. })),
        (Fault::Basic, 1, |error| matches!(error, FetchError::Denied { status: 401, .. })),
        (Fault::RangeNotSatisfiable, 1, |error| {
            matches!(error, FetchError::RangeNotSatisfiable { start: 1000, end: 51_000, .. })
        }),
        (Fault::WrongContentRange, 1, |error| matches!(error, FetchError::WrongRange { .. })),
        (Fault::WrongTotal, 1, |error| matches!(error, FetchError::WrongRange { .. })),
        (Fault::NoContentRange, 1, |error| matches!(error, FetchError::WrongRange { .. })),
        (Fault::CutsShort, 9, |error| {
            matches!(error, FetchError::Truncated { got: 81, expected: 50_000, .. })
        }),
        (Fault::Unavailable, 4, |error| matches!(error, FetchError::Status { code: 503, .. })),
        (Fault::Silent, 4, |error| matches!(error, FetchError::Timeout { .. })),
        (Fault::Stalls, 9, |error| matches!(error, FetchError::Timeout { .. })),
        (Fault::RedirectLoop, 6, |error| matches!(error, FetchError::Protocol { .. })),
        (Fault::RedirectElsewhere, 1, |error| matches!(error, FetchError::Protocol { .. })),
    ];
    let all = cases.map(|(fault, requests, check)| async move {
        let (result, counts) = fetch(fault, 1000..51_000).await;
        let Err(error) = result else { panic!("{fault:?} gave bytes") };
        assert!(check(&error), "{fault:?}: {error:?}");
        assert_eq!(counts.registry, requests, "{fault:?}: {error}");
        let message = error.to_string();
        assert!(message.contains("127.0.0.1:"), "{message}");
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_can_still_send_the_whole_blob() {
    let (result, _) = fetch(Fault::IgnoresRange, 0..SIZE as u64).await;
    assert!(result.unwrap() == content());
}

#[tokio::test]
async fn an_unreachable_host_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let reference: RegistryRef = format!("{address}/team/app").parse().unwrap();
    let repository =
        Repository::new(&crate::client(Keychain::Anonymous), &reference, false).unwrap();
    let blob = Blob::registry(&repository, &descriptor(Digest::of(b""), 10));
    let error = blob.fetch_all(0..10).await.unwrap_err();
    assert!(
        matches!(&error, FetchError::Unreachable { origin, .. } if *origin == address.to_string()),
        "{error:?}"
    );
    assert!(error.is_transient());
    // Over TLS, too; the name never resolves (RFC 6761).
    let reference: RegistryRef = "lazystar.invalid/team/app".parse().unwrap();
    let repository =
        Repository::new(&crate::client(Keychain::Anonymous), &reference, false).unwrap();
    let error = Blob::registry(&repository, &descriptor(Digest::of(b""), 10))
        .fetch_all(0..10)
        .await
        .unwrap_err();
    assert!(error.is_transient() && !error.to_string().contains("TLS"), "{error}");
}

#[tokio::test]
async fn logs_in_with_what_the_keychain_has() {
    for fault in [Fault::Basic, Fault::Bearer] {
        let registry = FaultRegistry::start(fault).await.unwrap();
        let digest = registry.add_blob(content());
        let host = registry.address().to_string();
        let identity = Keychain::fixed(&host, Credential::IdentityToken(IDENTITY_TOKEN.to_owned()));
        let wrong = Keychain::fixed(
            &host,
            Credential::Password { user: "bob".into(), password: "wrong".into() },
        );
        let cases = [(alice(&host), true), (wrong, false), (identity, fault == Fault::Bearer)];
        for (keychain, welcome) in cases {
            let reference: RegistryRef = format!("{host}/team/app").parse().unwrap();
            let repository =
                Repository::new(&crate::client(keychain.clone()), &reference, false).unwrap();
            let result =
                Blob::registry(&repository, &descriptor(digest, SIZE)).fetch_all(5..10).await;
            match result {
                Ok(bytes) => {
                    assert!(welcome && bytes == content().slice(5..10), "{fault:?} {keychain:?}")
                }
                Err(error) => {
                    assert!(
                        !welcome && matches!(error, FetchError::Denied { .. }),
                        "{fault:?} {keychain:?} {error}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn one_token_serves_many_requests() {
    let (registry, _, blob) = blob_at(Fault::BearerAnonymous, Keychain::Anonymous).await;
    let fetches = (0..20).map(|at| blob.fetch_all(at * 100..at * 100 + 50));
    for result in futures_util::future::join_all(fetches).await {
        result.unwrap();
    }
    assert_eq!(registry.counts().token, 1);
    let before = registry.counts().registry;
    blob.fetch_all(0..10).await.unwrap();
    assert_eq!(registry.counts(), Counts { registry: before + 1, token: 1, storage: 0, leaked: 0 });
}

#[tokio::test]
async fn an_expired_token_is_replaced() {
    for code in [401, 403] {
        let (registry, _, blob) = blob_at(Fault::BearerExpires(code), Keychain::Anonymous).await;
        for at in 0..6 {
            let bytes = blob
                .fetch_all(at..at + 10)
                .await
                .unwrap_or_else(|error| panic!("{code} at {at}: {error}"));
            assert_eq!(bytes, content().slice(at as usize..at as usize + 10));
        }
        assert_eq!(registry.counts().token, 3, "{code}");
    }
}

#[tokio::test]
async fn a_redirect_is_followed_once_until_it_expires() {
    for code in [400, 401, 403, 404] {
        let (registry, _, blob) = blob_at(Fault::RedirectExpires(code), Keychain::Anonymous).await;
        for at in 0..6 {
            let bytes = blob
                .fetch_all(at..at + 10)
                .await
                .unwrap_or_else(|error| panic!("{code} at {at}: {error}"));
            assert_eq!(bytes, content().slice(at as usize..at as usize + 10));
        }
        // Each address serves two requests, and a third that is refused finds the next one.
        assert_eq!(
            registry.counts(),
            Counts { registry: 3, token: 0, storage: 8, leaked: 0 },
            "{code}"
        );
    }
}

#[tokio::test]
async fn a_transfer_with_progress_survives_many_losses() {
    let (result, counts) = fetch(Fault::Cuts, 0..200).await;
    assert!(result.unwrap() == content().slice(..200));
    assert_eq!(counts.registry, 8);
}

#[tokio::test]
async fn ranges_outside_the_blob_cost_no_request() {
    let (registry, _, blob) = blob_at(Fault::Ok, Keychain::Anonymous).await;
    assert_eq!(blob.fetch_all(7..7).await.unwrap(), Bytes::new());
    let beyond = blob.fetch_all(0..SIZE as u64 + 1).await;
    assert!(matches!(beyond, Err(FetchError::RangeNotSatisfiable { .. })));
    assert_eq!(registry.counts().registry, 0);
}

#[tokio::test]
async fn a_file_gives_its_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| at as u8).collect();
    std::fs::write(&path, &large).unwrap();
    let blob = Blob::file(&path).unwrap();
    assert_eq!(blob.size(), Some(3_000_000));
    assert_eq!(blob.fetch_all(10..2_900_001).await.unwrap(), large[10..2_900_001]);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let cut = blob.fetch_all(90..200).await;
    assert!(matches!(cut, Ok(_) | Err(FetchError::Truncated { .. })));
    assert!(matches!(Blob::file(dir.path()), Err(FetchError::Io { .. })));
}
