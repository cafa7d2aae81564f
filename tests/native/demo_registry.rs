//! The embedded registry serves layouts, at the speed that is stated.

use std::time::{Duration, Instant};

use lazystar::demo::registry::{Registry, RegistryOptions, Served};
use lazystar::image::{Image, OpenOptions};
use lazystar::keychain::Keychain;

use crate::sample::Sample;

async fn open(options: RegistryOptions, sample: &Sample) -> (Registry, Image) {
    let registry = Registry::start(options).await.unwrap();
    let options = OpenOptions {
        client: crate::client(Keychain::Anonymous),
        platform: "linux/riscv64".parse().unwrap(),
        ..OpenOptions::default()
    };
    let image = Image::open(&registry.reference("v1").parse().unwrap(), &options).await.unwrap();
    assert_eq!(image.documents.last().unwrap().1, sample.manifest);
    (registry, image)
}

#[tokio::test]
async fn serves_a_layout() {
    let (sample, dir) = (Sample::new(), tempfile::tempdir().unwrap());
    sample.write(dir.path(), "v1");
    let options = RegistryOptions { layout: dir.path().to_owned(), ..RegistryOptions::default() };
    let (registry, image) = open(options, &sample).await;
    registry.reset();
    for range in [0..300_000, 5..6, 299_999..300_000] {
        let part = sample.layers[1].slice(range.start as usize..range.end as usize);
        assert!(image.layers[1].blob.fetch_all(range).await.unwrap() == part);
    }
    assert_eq!(registry.served(), Served { requests: 3, bytes: 300_002, connections: 0 });
    let address = registry.address();
    registry.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn answers_as_the_protocol_asks() {
    let (sample, dir) = (Sample::new(), tempfile::tempdir().unwrap());
    sample.write(dir.path(), "v1");
    let options = RegistryOptions { layout: dir.path().to_owned(), ..RegistryOptions::default() };
    let registry = Registry::start(options).await.unwrap();
    let layer = lazystar_core::Digest::of(&sample.layers[1]);
    let cases = [
        ("GET /v2/", "", "200", "{}"),
        ("HEAD /v2/any/name/manifests/v1", "", "200", "docker-content-digest: sha256:"),
        ("GET /v2/demo/manifests/v2", "", "404", "MANIFEST_UNKNOWN"),
        (&format!("GET /v2/demo/manifests/{layer}"), "", "404", "MANIFEST_UNKNOWN"),
        (&format!("HEAD /v2/demo/blobs/{layer}"), "", "200", "content-length: 300000"),
        (
            &format!("GET /v2/demo/blobs/{layer}"),
            "range: bytes=1-3\r\n",
            "206",
            "content-range: bytes 1-3/300000",
        ),
        (&format!("GET /v2/demo/blobs/{layer}"), "range: bytes=-4\r\n", "206", "content-length: 4"),
        (
            &format!("GET /v2/demo/blobs/{layer}"),
            "range: bytes=300000-\r\n",
            "416",
            "content-range: bytes */300000",
        ),
        ("GET /v2/demo/blobs/sha256:../../index.json", "", "404", "errors"),
        ("GET /v2/demo/blobs/sha256:..%2f..", "", "400", "DIGEST_INVALID"),
        ("POST /v2/demo/blobs/uploads/", "content-length: 0\r\n", "405", "errors"),
        ("GET /", "", "404", "errors"),
    ];
    for (line, headers, status, part) in cases {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(registry.address()).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
        assert!(answer.contains(part), "{line}: {answer}");
    }
}

#[tokio::test]
async fn is_as_slow_as_stated() {
    let (sample, dir) = (Sample::new(), tempfile::tempdir().unwrap());
    sample.write(dir.path(), "v1");
    let latency = Duration::from_millis(40);
    let layout = dir.path().to_owned();
    let (registry, image) =
        open(RegistryOptions { layout, latency, bandwidth: Some(1_000_000) }, &sample).await;
    registry.reset();
    let blob = &image.layers[1].blob;
    let start = Instant::now();
    blob.fetch_all(0..10).await.unwrap();
    let warm = start.elapsed();
    assert!(warm >= latency, "{warm:?}");
    // Two connections, one of them new, share the link: 200 kB take 0.2 s, not 0.1 s.
    let start = Instant::now();
    let (a, b) = tokio::join!(blob.fetch_all(0..100_000), blob.fetch_all(100_000..200_000));
    assert!(a.is_ok() && b.is_ok());
    assert!(start.elapsed() >= latency + Duration::from_millis(190), "{:?}", start.elapsed());
    assert_eq!(registry.served(), Served { requests: 3, bytes: 200_010, connections: 1 });
}
