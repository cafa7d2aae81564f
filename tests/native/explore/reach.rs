//! Which addresses are asked.

use std::fs;
use std::net::IpAddr;

use bytes::Bytes;
use lazystar::registry::{Hosts, Mirror};
use lazystar_tests::fault_registry::{Fault, FaultRegistry};

use super::explore;

#[tokio::test(flavor = "multi_thread")]
async fn registries_that_nobody_named_are_not_asked() {
    let registry = FaultRegistry::start(Fault::Ok).await.unwrap();
    let host = registry.address();
    let explorer = explore("alpine", |_| {}).await;
    for path in ["v2/", "v2/_catalog", "v2/team/app/manifests/v1"] {
        let line = format!("GET /registry/{host}/{path}");
        let (status, code, message) = explorer.refusal(&line, &[]).await;
        assert_eq!((status, &*code), (403, "LAZYSTAR_NOT_ALLOWED"));
        assert!(message.contains(&format!("--allow {host}")), "{message}");
    }
    assert_eq!(registry.counts().registry, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_registries_are_those_of_the_public_internet() {
    let registry = FaultRegistry::start(Fault::Ok).await.unwrap();
    registry.add("tags/list", "application/json", Bytes::from("{}"));
    let (host, port) = (registry.address(), registry.address().port());
    let any = explore("", |options| options.allow = vec!["*".parse().unwrap()]).await;
    let mut hosts = vec![
        host.to_string(),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("127.1:{port}"),
        format!("0.0.0.0:{port}"),
        format!("10.0.0.1:{port}"),
        "169.254.169.254".to_owned(),
    ];
    // Names that lead here, such as ip6-localhost: what they lead to is known when it is connected to.
    let text = fs::read_to_string("/etc/hosts").unwrap_or_default();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let is_near = |address: &str| {
            address.parse::<IpAddr>().is_ok_and(|address| match address {
                IpAddr::V4(address) => address.is_loopback() || address.is_private(),
                IpAddr::V6(address) => address.is_loopback(),
            })
        };
        if words.next().is_some_and(is_near) {
            hosts.extend(words.map(|name| format!("{}:{port}", name.to_lowercase())));
        }
    }
    for named in hosts {
        let line = format!("GET /registry/{named}/v2/team/app/tags/list");
        let (status, code, message) = any.refusal(&line, &[]).await;
        assert_eq!((status, &*code), (403, "LAZYSTAR_PRIVATE_ADDRESS"), "{named}: {message}");
        assert!(message.contains("--allow "), "{message}");
    }
    assert_eq!(registry.counts().registry, 0);

    let private = explore("", |options| {
        options.allow = vec!["*".parse().unwrap()];
        options.allow_private = true;
    });
    let named = explore("", |options| options.allow = vec![host.to_string().parse().unwrap()]);
    for explorer in [private.await, named.await] {
        let answer = explorer.get(&format!("/registry/{host}/v2/team/app/tags/list"), &[]).await;
        assert_eq!((answer.status, &*answer.text()), (200, "{}"));
    }
    assert_eq!(registry.counts().registry, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_registry_leads_to_a_private_address() {
    let registry = FaultRegistry::start(Fault::Redirect).await.unwrap();
    let digest = registry.add_blob(Bytes::from("a blob"));
    let (host, storage) = (registry.address(), registry.storage().to_string());
    let path = format!("/registry/{host}/v2/team/app/blobs/{digest}");
    let image = format!("{host}/team/app:v1");
    let explorer = explore(&image, |_| {}).await;
    let (status, code, message) = explorer.refusal(&format!("GET {path}"), &[]).await;
    assert_eq!((status, &*code), (403, "LAZYSTAR_PRIVATE_ADDRESS"));
    assert!(message.contains(&format!("--allow {storage}")), "{message}");
    assert_eq!(registry.counts().storage, 0);

    let named = explore(&image, |options| options.allow = vec![storage.parse().unwrap()]).await;
    let private = explore(&image, |options| options.allow_private = true).await;
    for (explorer, requests) in [(named, 1), (private, 2)] {
        for _ in 0..3 {
            let answer = explorer.get(&path, &["range: bytes=2-5"]).await;
            assert_eq!((answer.status, &*answer.text()), (206, "blob"));
        }
        // Where the blob is was asked once.
        assert_eq!(registry.counts().registry, requests + 1);
    }
    assert_eq!(registry.counts().leaked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_where_the_configuration_says() {
    let mirror = FaultRegistry::start(Fault::Ok).await.unwrap();
    mirror.add("tags/list", "application/json", Bytes::from("of the mirror"));
    let mirrored = Mirror {
        host: mirror.address().to_string(),
        insecure: true,
        patience: None,
        headers: Vec::new(),
    };
    let mirrors = [("ghcr.io".to_owned(), vec![mirrored])].into();
    let explorer = explore("", |options| {
        options.client.hosts = Hosts { mirrors, ..Hosts::default() };
    })
    .await;
    let answer = explorer.get("/registry/ghcr.io/v2/team/app/tags/list", &[]).await;
    assert_eq!((answer.status, &*answer.text()), (200, "of the mirror"));
    assert_eq!(mirror.asked()[0].target, "/v2/team/app/tags/list?ns=ghcr.io");
}
