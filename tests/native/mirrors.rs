//! Mirrors are asked first, in order; whatever is wrong with one, the next host is asked.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lazystar::image::{Image, OpenOptions};
use lazystar::keychain::{Credential, Keychain};
use lazystar::oci::Descriptor;
use lazystar::registry::{Client, ClientOptions, Hosts, Mirror, Repository};
use lazystar::source::{Blob, FetchError};
use lazystar_tests::fault_registry::{Fault, FaultRegistry, PASSWORD, USER};

use crate::sample::Sample;

const SIZE: usize = 50_000;

fn content() -> Bytes {
    (0..SIZE).map(|at| (at * 31 % 251) as u8).collect()
}

fn mirror(registry: &FaultRegistry) -> Mirror {
    Mirror {
        host: registry.address().to_string(),
        insecure: false,
        patience: Some(Duration::from_millis(500)),
        headers: Vec::new(),
    }
}

fn hosts(of: &str, mirrors: Vec<Mirror>) -> Hosts {
    Hosts { mirrors: [(of.to_owned(), mirrors)].into(), ..Hosts::default() }
}

async fn registry(fault: Fault) -> FaultRegistry {
    let registry = FaultRegistry::start(fault).await.unwrap();
    registry.add_blob(content());
    registry
}

/// The blob in the repository of `host`.
fn blob(host: &str, mirrors: Vec<Mirror>, keychain: Keychain) -> Blob {
    let client = crate::client_with(keychain, hosts(host, mirrors));
    let reference = format!("{host}/team/app:v1").parse().unwrap();
    let repository = Repository::new(&client, &reference, false).unwrap();
    Blob::registry(&repository, &descriptor())
}

fn alice_at(host: &str) -> Keychain {
    let password = Credential::Password { user: USER.to_owned(), password: PASSWORD.to_owned() };
    Keychain::fixed(host, password)
}

#[tokio::test]
async fn are_asked_in_order_and_the_one_with_the_blob_is_remembered() {
    let (origin, empty, full) =
        (registry(Fault::Ok).await, registry(Fault::NotFound).await, registry(Fault::Ok).await);
    let gone = Mirror { host: "127.0.0.1:1".to_owned(), ..mirror(&empty) };
    let host = origin.address().to_string();
    let mirrors = vec![gone, mirror(&empty), mirror(&full)];
    let blob = blob(&host, mirrors, Keychain::Anonymous);
    for at in 0..5 {
        assert_eq!(blob.fetch_all(at..at + 9).await.unwrap(), content().slice(at as usize..)[..9]);
    }
    assert_eq!(origin.counts().registry, 0);
    assert_eq!((empty.counts().registry, full.counts().registry), (1, 5));
    let query = format!("?ns={}", host.replace(':', "%3A"));
    assert!(full.asked().iter().all(|asked| asked.target.ends_with(&query)), "{:?}", full.asked());
    let figures = lazystar::metrics::render();
    for (name, host, source, value) in [
        ("requests", full.address().to_string(), "mirror", 5),
        ("bytes", full.address().to_string(), "mirror", 45),
        ("requests", empty.address().to_string(), "mirror", 1),
        ("bytes", empty.address().to_string(), "mirror", 0),
        ("requests", host, "registry", 0),
    ] {
        let line = format!("lazystar_{name}_total{{host=\"{host}\",source=\"{source}\"}} {value}");
        assert!(figures.lines().any(|it| it == line), "{line} is not in\n{figures}");
    }
}

#[tokio::test]
async fn whatever_one_does_wrong_the_registry_itself_is_asked() {
    let faults = [
        Fault::NotFound,
        Fault::Unauthorized,
        Fault::MalformedChallenge,
        Fault::Bearer,
        Fault::RangeNotSatisfiable,
        Fault::IgnoresRange,
        Fault::WrongContentRange,
        Fault::WrongTotal,
        Fault::NoContentRange,
        Fault::Cuts,
        Fault::CutsShort,
        Fault::Always(503),
        Fault::TooManyRequests,
        Fault::Silent,
        Fault::Stalls,
        Fault::RedirectLoop,
        Fault::RedirectElsewhere,
    ];
    for fault in faults {
        let (origin, bad) = (registry(Fault::Ok).await, registry(fault).await);
        let host = origin.address().to_string();
        let blob = blob(&host, vec![mirror(&bad)], Keychain::Anonymous);
        let started = Instant::now();
        assert_eq!(blob.fetch_all(10..40_000).await.unwrap(), content().slice(10..40_000));
        assert!(started.elapsed() < Duration::from_secs(2), "{fault:?} {:?}", started.elapsed());
        assert!(bad.counts().registry > 0, "{fault:?}");
        assert!(origin.asked().iter().all(|asked| !asked.target.contains("ns=")));
    }
}

#[tokio::test]
async fn one_that_fails_rests_for_all_blobs() {
    let (origin, bad) = (registry(Fault::Ok).await, registry(Fault::Silent).await);
    let more = origin.add_blob(Bytes::from_static(b"another blob"));
    let host = origin.address().to_string();
    let client = crate::client_with(Keychain::Anonymous, hosts(&host, vec![mirror(&bad)]));
    let reference = format!("{host}/team/app:v1").parse().unwrap();
    let repository = Repository::new(&client, &reference, false).unwrap();
    for digest in [lazystar_core::Digest::of(&content()), more] {
        let size = if digest == more { 12 } else { SIZE as u64 };
        let descriptor = Descriptor { digest, size, ..descriptor() };
        Blob::registry(&repository, &descriptor).fetch_all(0..9).await.unwrap();
    }
    assert_eq!((bad.counts().registry, origin.counts().registry), (1, 2));
    // When the registry itself is away, there is no harm in asking a mirror that rests.
    bad.set(Fault::Ok);
    origin.set(Fault::NotFound);
    let blob = Blob::registry(&repository, &descriptor());
    assert_eq!(blob.fetch_all(0..9).await.unwrap(), content().slice(0..9));
}

#[tokio::test]
async fn one_that_dies_in_the_middle_of_a_read_is_left() {
    let (origin, dying) = (registry(Fault::Ok).await, registry(Fault::Stalls).await);
    let host = origin.address().to_string();
    let blob = blob(&host, vec![mirror(&dying)], Keychain::Anonymous);
    let mut stream = blob.fetch(0..SIZE as u64).await.unwrap();
    let mut got = Vec::new();
    let mut served = 0;
    while let Some(bytes) = stream.next().await {
        got.extend_from_slice(&bytes.unwrap());
        if origin.counts().registry == 0 {
            served = got.len();
        }
    }
    assert_eq!(got, content());
    assert_eq!(served, SIZE / 2, "the mirror served the first half, the registry the rest");
    assert_eq!((dying.counts().registry, origin.counts().registry), (1, 1));
    assert_eq!(blob.fetch_all(3..5).await.unwrap(), content().slice(3..5));
    assert_eq!((dying.counts().registry, origin.counts().registry), (1, 2));
}

/// The blob as a client sees it whose patience is the usual one.
fn usual_blob(host: &str, mirrors: Vec<Mirror>) -> Blob {
    let hosts = hosts(host, mirrors);
    let client =
        Client::new(ClientOptions { keychain: Keychain::Anonymous, hosts, ..Default::default() });
    let reference = format!("{host}/team/app:v1").parse().unwrap();
    let repository = Repository::new(&client, &reference, false).unwrap();
    Blob::registry(&repository, &descriptor())
}

fn descriptor() -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest: lazystar_core::Digest::of(&content()),
        size: SIZE as u64,
        annotations: Default::default(),
        platform: None,
        urls: Vec::new(),
    }
}

/// With the patience that everybody has who configures none.
#[tokio::test]
async fn a_silent_one_costs_less_than_two_seconds() {
    for fault in [Fault::Silent, Fault::Stalls] {
        let (origin, silent) = (registry(Fault::Ok).await, registry(fault).await);
        let host = origin.address().to_string();
        let unconfigured = Mirror { patience: None, ..mirror(&silent) };
        let blob = usual_blob(&host, vec![unconfigured]);
        let mut stream = None;
        let mut got = Vec::new();
        let mut longest = Duration::ZERO;
        loop {
            let started = Instant::now();
            let stream = match &mut stream {
                Some(stream) => stream,
                none => none.insert(blob.fetch(5..40_000).await.unwrap()),
            };
            let next = stream.next().await;
            longest = longest.max(started.elapsed());
            let Some(next) = next else { break };
            got.extend_from_slice(&next.unwrap());
        }
        assert_eq!(got, content().slice(5..40_000), "{fault:?}");
        assert!(longest < Duration::from_secs(2), "{fault:?}: {longest:?} without a byte");
        assert_eq!((silent.counts().registry, origin.counts().registry), (1, 1), "{fault:?}");
        // It rests: the next read loses no time.
        let started = Instant::now();
        blob.fetch_all(0..9).await.unwrap();
        assert!(started.elapsed() < Duration::from_millis(500), "{fault:?}");
        assert_eq!(silent.counts().registry, 1, "{fault:?}");
    }
}

#[tokio::test]
async fn one_that_is_well_again_is_asked_again() {
    let (origin, flappy) = (registry(Fault::Ok).await, registry(Fault::Always(503)).await);
    let host = origin.address().to_string();
    let client = crate::client_with(Keychain::Anonymous, hosts(&host, vec![mirror(&flappy)]));
    let reference = format!("{host}/team/app:v1").parse().unwrap();
    let repository = Repository::new(&client, &reference, false).unwrap();
    // Of one blob it is remembered who had it; each of these is new.
    let fetch = async || Blob::registry(&repository, &descriptor()).fetch_all(0..9).await.unwrap();
    for _ in 0..3 {
        fetch().await;
    }
    assert_eq!((flappy.counts().registry, origin.counts().registry), (1, 3));
    flappy.set(Fault::Ok);
    let ill = Instant::now();
    while flappy.counts().registry < 2 {
        fetch().await;
        assert!(ill.elapsed() < Duration::from_secs(8), "it rests for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fetch().await;
    assert_eq!(flappy.counts().registry, 3);
}

#[tokio::test]
async fn headers_go_to_the_mirror_and_nowhere_else() {
    let (origin, redirecting) = (registry(Fault::Ok).await, registry(Fault::Redirect).await);
    let host = origin.address().to_string();
    let headers =
        vec![("X-Team".to_owned(), "a".to_owned()), ("x-team".to_owned(), "b".to_owned())];
    let with_headers = Mirror { headers, ..mirror(&redirecting) };
    let blob = blob(&host, vec![with_headers], Keychain::Anonymous);
    for _ in 0..2 {
        blob.fetch_all(0..9).await.unwrap();
    }
    redirecting.set(Fault::NotFound);
    blob.fetch_all(0..9).await.unwrap_or_else(|error| panic!("the storage still has it: {error}"));
    redirecting.set(Fault::RedirectExpires(403));
    for _ in 0..4 {
        blob.fetch_all(0..9).await.unwrap();
    }
    let asked = redirecting.asked();
    assert!(asked.iter().any(|asked| asked.of_storage) && asked.iter().any(|it| !it.of_storage));
    for asked in asked {
        let values: Vec<_> = asked.headers.get_all("x-team").iter().collect();
        let expected: &[&str] = if asked.of_storage { &[] } else { &["a", "b"] };
        assert_eq!(values, expected, "{}", asked.target);
    }
    redirecting.stop();
    drop(redirecting);
    let more = origin.asked();
    assert!(more.iter().all(|asked| !asked.headers.contains_key("x-team")));
}

#[tokio::test]
async fn credentials_are_those_of_the_host_that_is_asked() {
    let (origin, private) = (registry(Fault::Ok).await, registry(Fault::Basic).await);
    let host = origin.address().to_string();
    let with = alice_at(&private.address().to_string());
    let of_mirror = blob(&host, vec![mirror(&private)], with);
    of_mirror.fetch_all(0..9).await.unwrap();
    assert_eq!(origin.counts().registry, 0);
    private.reset();
    let of_origin = blob(&host, vec![mirror(&private)], alice_at(&host));
    of_origin.fetch_all(0..9).await.unwrap();
    assert_eq!(origin.counts().registry, 1);
    assert!(private.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
}

#[tokio::test]
async fn the_error_is_that_of_the_registry_itself() {
    let (origin, bad) = (registry(Fault::NotFound).await, registry(Fault::Unauthorized).await);
    let host = origin.address().to_string();
    let blob = blob(&host, vec![mirror(&bad)], Keychain::Anonymous);
    match blob.fetch_all(0..9).await {
        Err(FetchError::NotFound { origin: who, .. }) => assert_eq!(who, host),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_image_of_docker_hub_comes_from_its_mirror_alone() {
    let mirror_of_hub = FaultRegistry::start(Fault::BearerRedirect).await.unwrap();
    let sample = Sample::new();
    sample.push(&mirror_of_hub, "v1");
    let mirrors = hosts("docker.io", vec![mirror(&mirror_of_hub)]);
    let options = OpenOptions {
        client: crate::client_with(Keychain::Anonymous, mirrors),
        platform: "linux/riscv64".parse().unwrap(),
        ..OpenOptions::default()
    };
    let image = Image::open(&"team/app:v1".parse().unwrap(), &options).await.unwrap();
    assert_eq!(image.layers[1].blob.fetch_all(0..9).await.unwrap(), sample.layers[1].slice(..9));
    image.config().await.unwrap();
    let asked = mirror_of_hub.asked();
    let of_api: Vec<_> = asked.iter().filter(|asked| asked.target.starts_with("/v2/")).collect();
    assert!(of_api.len() >= 4);
    assert!(of_api.iter().all(|asked| asked.target.ends_with("?ns=docker.io")), "{of_api:?}");
    assert_eq!(mirror_of_hub.counts().leaked, 0);
}
