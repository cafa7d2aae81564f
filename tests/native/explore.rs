//! The explorer's server: the page, the proxy and its rules, images of this machine.

mod guard;
mod local;
mod page;
mod proxy;
mod reach;

use std::fs;
use std::net::SocketAddr;

use lazystar::explore::{ExploreOptions, Explorer};
use lazystar::keychain::Keychain;
use lazystar::oci::Platform;
use lazystar_tests::http::{Answer, ask};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// An explorer that serves; ends with its owner.
struct Running {
    address: SocketAddr,
    url: String,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
    _page: TempDir,
}

/// What an explorer without an image is started with, and the directory of its page.
fn options() -> (ExploreOptions, TempDir) {
    let page = tempfile::tempdir().unwrap();
    fs::write(page.path().join("index.html"), "<!doctype html><title>page</title>").unwrap();
    let options = ExploreOptions {
        image: None,
        listen: Some("127.0.0.1:0".parse().unwrap()),
        assets: Some(page.path().to_owned()),
        allow: Vec::new(),
        allow_private: false,
        client: crate::client(Keychain::Anonymous).options().clone(),
        plain_http: false,
        platform: Platform::host(),
    };
    (options, page)
}

/// An explorer of `image`, or of none where that is empty.
async fn explore(image: &str, change: impl FnOnce(&mut ExploreOptions)) -> Running {
    let (mut options, page) = options();
    options.image = (!image.is_empty()).then(|| image.parse().unwrap());
    change(&mut options);
    let explorer = Explorer::start(options).await.unwrap();
    let (address, url) = (explorer.address(), explorer.url());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let until = async { drop(stopped.await) };
        explorer.serve(until).await.unwrap();
    });
    Running { address, url, stop: Some(stop), server, _page: page }
}

impl Running {
    async fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.ask(&format!("GET {path}"), headers).await
    }

    async fn ask(&self, line: &str, headers: &[&str]) -> Answer {
        ask(self.address, line, headers).await.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The status of a refusal, its code and what it says.
    async fn refusal(&self, line: &str, headers: &[&str]) -> (u16, String, String) {
        refusal(&self.ask(line, headers).await)
    }
}

fn refusal(answer: &Answer) -> (u16, String, String) {
    assert_eq!(answer.header("content-type"), "application/json", "{}", answer.text());
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let of = |name: &str| body["errors"][0][name].as_str().unwrap_or_default().to_owned();
    (answer.status, of("code"), of("message"))
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_when_it_is_told() {
    let mut explorer = explore("", |_| {}).await;
    // A connection that is open and asks nothing does not hold it up for long.
    let idle = tokio::net::TcpStream::connect(explorer.address).await.unwrap();
    assert_eq!(explorer.get("/", &[]).await.status, 200);
    explorer.stop.take().unwrap().send(()).unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), &mut explorer.server).await;
    ended.expect("in time").unwrap();
    drop(idle);
    assert!(tokio::net::TcpStream::connect(explorer.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn has_a_port_of_its_own_and_another_when_that_is_taken() {
    let explorer = async || explore("", |options| options.listen = None).await;
    // Whoever has the port of this machine, the second one gets another.
    let (one, two) = (explorer().await, explorer().await);
    assert_ne!(one.address.port(), two.address.port());
    for explorer in [&one, &two] {
        assert!(explorer.address.ip().is_loopback());
        assert_eq!(explorer.get("/", &[]).await.status, 200);
        assert_eq!(explorer.url, format!("http://{}/", explorer.address));
    }
    let taken = one.address;
    let (mut options, _page) = options();
    options.listen = Some(taken);
    let error = format!("{:#}", Explorer::start(options).await.unwrap_err());
    assert!(error.contains(&taken.to_string()) && error.contains("--listen"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_told_what_there_is() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let well_known = [
        "docker.io",
        "ghcr.io",
        "quay.io",
        "registry.k8s.io",
        "gcr.io",
        "mcr.microsoft.com",
        "public.ecr.aws",
    ];
    let explorer = explore("", |_| {}).await;
    let about = |answer: Answer| -> Value {
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-cache"));
        assert_ne!(answer.header("etag"), "");
        serde_json::from_slice(&answer.body).unwrap()
    };
    let told = about(explorer.get("/lazystar.json", &[]).await);
    assert_eq!(told["proxy"], "/registry/");
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(told["image"], Value::Null);
    assert_eq!(told["registries"], serde_json::json!(well_known));

    let cases = [
        ("alpine", "docker.io", "library/alpine", "latest", ":latest"),
        ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000", "a/b", "v1", ":v1"),
        (&format!("ghcr.io/a/b:v1@{digest}"), "ghcr.io", "a/b", &digest, &format!("@{digest}")),
    ];
    for (image, registry, repository, reference, end) in cases {
        let explorer = explore(image, |_| {}).await;
        let told = about(explorer.get("/lazystar.json", &[]).await);
        let first = serde_json::json!({
            "name": image, "registry": registry, "repository": repository, "reference": reference,
        });
        assert_eq!(told["image"], first);
        assert_eq!(told["registries"][0], registry);
        let url = format!("http://{}/#/r/{registry}/{repository}{end}", explorer.address);
        assert_eq!(explorer.url, url);
    }

    let any = explore("", |options| options.allow = vec!["*".parse().unwrap()]).await;
    assert_eq!(about(any.get("/lazystar.json", &[]).await)["registries"], "*");
    let named = ["r.example:5000".parse().unwrap(), "ghcr.io".parse().unwrap()];
    let named = explore("", |options| options.allow = named.to_vec()).await;
    let told = about(named.get("/lazystar.json", &[]).await);
    let hosts = told["registries"].as_array().unwrap();
    assert_eq!((hosts.len(), &hosts[0]), (8, &Value::from("r.example:5000")));
}
