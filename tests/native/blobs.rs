//! Blobs: who is shown what, what is remembered, what costs no request.

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

pub(crate) const SIZE: usize = 100_000;

pub(crate) fn content() -> Bytes {
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
pub(crate) async fn blob_at(fault: Fault, keychain: Keychain) -> (FaultRegistry, Client, Blob) {
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

/// No reader waits for a token: a new one is there before the old one ends.
#[tokio::test]
async fn a_token_in_use_is_renewed_before_its_end() {
    let (registry, _, blob) = blob_at(Fault::BearerShort(2), Keychain::Anonymous).await;
    blob.fetch_all(0..9).await.unwrap();
    assert_eq!(registry.sent().refusals, 1);
    let started = std::time::Instant::now();
    while started.elapsed() < std::time::Duration::from_secs(4) {
        blob.fetch_all(0..9).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(registry.sent().refusals, 1, "a token was refused");
    let tokens = registry.counts().token;
    assert!((3..=5).contains(&tokens), "{tokens} tokens");
}

/// The one who may is not the first one in the keychain.
#[tokio::test]
async fn each_credential_is_tried() {
    let host_of = |registry: &FaultRegistry| registry.address().to_string();
    for fault in [Fault::Basic, Fault::Bearer] {
        let registry = FaultRegistry::start(fault).await.unwrap();
        let digest = registry.add_blob(content());
        let host = host_of(&registry);
        let other = |user: &str| {
            let password = Credential::Password { user: user.into(), password: "wrong".into() };
            Keychain::fixed(&host, password)
        };
        let several = [other("bob"), other("carol"), alice(&host), other("dave")];
        let client = crate::client(Keychain::Several(several.into()));
        let reference: RegistryRef = format!("{host}/team/app").parse().unwrap();
        let repository = Repository::new(&client, &reference, false).unwrap();
        let blob = Blob::registry(&repository, &descriptor(digest, SIZE));
        for _ in 0..3 {
            assert_eq!(blob.fetch_all(5..10).await.unwrap(), content().slice(5..10), "{fault:?}");
        }
        let refusals = registry.sent().refusals;
        assert!(refusals <= 3, "{fault:?}: {refusals} refusals");
    }
}

/// A password that is changed on the disk counts with the next refusal.
#[tokio::test]
async fn a_changed_password_is_picked_up() {
    use base64::Engine;
    let registry = FaultRegistry::start(Fault::Basic).await.unwrap();
    let digest = registry.add_blob(content());
    let host = registry.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let login = |password: &str| {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
        let config = serde_json::json!({ "auths": { &*host: { "auth": auth } } });
        std::fs::write(&file, config.to_string()).unwrap();
    };
    login("an old one");
    let client = crate::client(Keychain::DockerConfig(file.clone()));
    let reference: RegistryRef = format!("{host}/team/app").parse().unwrap();
    let repository = Repository::new(&client, &reference, false).unwrap();
    let blob = Blob::registry(&repository, &descriptor(digest, SIZE));
    assert!(matches!(blob.fetch_all(5..10).await, Err(FetchError::Denied { .. })));
    login(PASSWORD);
    assert_eq!(blob.fetch_all(5..10).await.unwrap(), content().slice(5..10));
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
    let (registry, _, blob) = blob_at(Fault::Cuts, Keychain::Anonymous).await;
    assert!(blob.fetch_all(0..200).await.unwrap() == content().slice(..200));
    assert_eq!(registry.counts().registry, 8);
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
