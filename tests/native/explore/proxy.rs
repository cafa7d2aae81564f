//! What goes to registries, and what comes back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use lazystar::keychain::{Credential, Keychain};
use lazystar::oci::media;
use lazystar_core::Digest;
use lazystar_tests::fault_registry::{Fault, FaultRegistry, PASSWORD, TOKEN_PREFIX, USER};
use tokio::net::TcpListener;

use super::{Running, explore};
use crate::blobs::content;
use crate::sample::Sample;

async fn with(fault: Fault) -> (FaultRegistry, Running) {
    let registry = FaultRegistry::start(fault).await.unwrap();
    let explorer = explore(&format!("{}/team/app:v1", registry.address()), |_| {}).await;
    (registry, explorer)
}

fn path(registry: &FaultRegistry, rest: &str) -> String {
    format!("/registry/{}/v2/team/app/{rest}", registry.address())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_passes_through() {
    let (registry, explorer) = with(Fault::Ok).await;
    let sample = Sample::new();
    sample.push(&registry, "v1");
    let of = |rest: &str| path(&registry, rest);
    let by_tag = explorer.get(&of("manifests/v1"), &["accept: application/x, a/b"]).await;
    assert_eq!((by_tag.status, by_tag.body == sample.index), (200, true));
    assert_eq!(by_tag.header("content-type"), media::OCI_INDEX);
    assert_eq!(by_tag.header("cache-control"), "no-cache");
    let digest = Digest::of(&sample.index).to_string();
    assert_eq!(by_tag.header("docker-content-digest"), digest);
    let head = explorer.ask(&format!("HEAD {}", of("manifests/v1")), &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), sample.index.len().to_string());
    let escaped = of(&format!("manifests/{digest}")).replace("sha256:", "sha256%3A");
    let by_digest = explorer.get(&escaped, &[]).await;
    assert_eq!((by_digest.status, by_digest.body == sample.index), (200, true));
    assert_eq!(by_digest.header("cache-control"), "private, max-age=31536000, immutable");
    // Whatever the page says beside, the registry hears nothing of it.
    let asked = registry.asked();
    assert_eq!(asked[0].headers["accept"], "application/x, a/b");
    assert_eq!(asked[1].headers["accept"], media::ACCEPT_MANIFEST);
    registry.reset();
    let layer = Digest::of(&sample.layers[1]);
    let headers = [
        "cookie: a=b",
        "authorization: Bearer of-the-page",
        "x-mine: yes",
        "user-agent: a browser",
        "accept-language: de",
        "range: bytes=100-199",
    ];
    let part = explorer.get(&of(&format!("blobs/{layer}?x=y")), &headers).await;
    assert_eq!((part.status, part.body == sample.layers[1][100..200]), (206, true));
    assert_eq!(part.header("content-range"), "bytes 100-199/300000");
    assert_eq!(part.header("content-length"), "100");
    assert_eq!(part.header("content-type"), "application/octet-stream");
    let asked = registry.asked();
    let [asked] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(asked.target, format!("/v2/team/app/blobs/{layer}"));
    let mut names: Vec<_> = asked.headers.keys().map(ToString::to_string).collect();
    names.sort();
    assert_eq!(names, ["accept", "accept-encoding", "host", "range", "user-agent"]);
    assert_eq!(asked.headers["accept"], "*/*");
    assert!(asked.headers["user-agent"].to_str().unwrap().starts_with("lazystar/"));
    let whole = explorer.get(&of(&format!("blobs/{layer}")), &[]).await;
    assert_eq!((whole.status, whole.body == sample.layers[1]), (200, true));
    let head = explorer.ask(&format!("HEAD {}", of(&format!("blobs/{layer}"))), &[]).await;
    assert_eq!((head.status, head.header("content-length")), (200, "300000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_come_right_or_not_at_all() {
    let size = content().len();
    let cases = [("bytes=1000-50999", 1000..51_000), ("bytes=90000-", 90_000..size)];
    for fault in [
        Fault::Ok,
        Fault::IgnoresRange,
        Fault::IgnoresRangeAndLies,
        Fault::WrongStatus,
        Fault::Chunked,
        Fault::Http10,
        Fault::TooLong,
        Fault::Slow,
    ] {
        let (registry, explorer) = with(fault).await;
        let digest = registry.add_blob(content());
        let path = path(&registry, &format!("blobs/{digest}"));
        // The registry of the tests knows no open ranges, and then sends everything: so much that it
        // has to say how much.
        let says_length =
            !matches!(fault, Fault::Chunked | Fault::Http10 | Fault::TooLong | Fault::Slow);
        let cases = if says_length { &cases[..] } else { &cases[..1] };
        for (asked, range) in cases {
            let part = explorer.get(&path, &[&format!("range: {asked}")]).await;
            assert_eq!(part.status, 206, "{fault:?} {}", part.text());
            assert!(part.body == content()[range.clone()], "{fault:?} {asked}");
            let stated = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            assert_eq!(part.header("content-range"), stated, "{fault:?}");
            assert_eq!(part.header("content-length"), range.len().to_string(), "{fault:?}");
        }
    }
    for fault in [
        Fault::WrongContentRange,
        Fault::NoContentRange,
        Fault::Multipart,
        Fault::RedirectLoop,
        Fault::RedirectElsewhere,
    ] {
        let (registry, explorer) = with(fault).await;
        let digest = registry.add_blob(content());
        let line = format!("GET {}", path(&registry, &format!("blobs/{digest}")));
        let (status, code, message) = explorer.refusal(&line, &["range: bytes=10-19"]).await;
        assert_eq!((status, &*code), (502, "LAZYSTAR_PROTOCOL"), "{fault:?}");
        assert!(message.contains("127.0.0.1:"), "{message}");
    }
    // What breaks off does so for the page, too.
    for fault in [Fault::Cuts, Fault::Stalls, Fault::TooShort] {
        let (registry, explorer) = with(fault).await;
        let digest = registry.add_blob(content());
        let path = path(&registry, &format!("blobs/{digest}"));
        let part = explorer.get(&path, &["range: bytes=1000-50999"]).await;
        let is_whole = part.status == 206 && part.body.len() == 50_000;
        assert!(!is_whole, "{fault:?}");
    }
    let (registry, explorer) = with(Fault::IgnoresRange).await;
    let digest = registry.add_blob(content());
    let line = format!("GET {}", path(&registry, &format!("blobs/{digest}")));
    let (status, code, _) = explorer.refusal(&line, &[&format!("range: bytes={size}-")]).await;
    assert_eq!((status, &*code), (416, "LAZYSTAR_RANGE"));
    for bad in ["bytes=0-1,5-6", "bytes=9-1", "lines=1-2"] {
        let (status, ..) = explorer.refusal(&line, &[&format!("range: {bad}")]).await;
        assert_eq!(status, 416, "{bad}");
    }
}

fn alice(registry: &FaultRegistry) -> Keychain {
    let (user, password) = (USER.to_owned(), PASSWORD.to_owned());
    let credential = Credential::Password { user, password };
    Keychain::fixed(&registry.address().to_string(), credential)
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_stay_on_this_side() {
    for fault in [Fault::Basic, Fault::Bearer, Fault::BearerAnonymous, Fault::BearerRedirect] {
        let registry = FaultRegistry::start(fault).await.unwrap();
        let sample = Sample::new();
        sample.push(&registry, "v1");
        let is_alice = matches!(fault, Fault::Basic | Fault::Bearer);
        let keychain = if is_alice { alice(&registry) } else { Keychain::Anonymous };
        let explorer = explore(&format!("{}/team/app:v1", registry.address()), |options| {
            options.client.keychain = keychain;
            options.allow_private = true;
        })
        .await;
        let layer = format!("blobs/{}", Digest::of(&sample.layers[0]));
        let manifest = format!("manifests/{}", Digest::of(&sample.index));
        for rest in [&*layer, &manifest, "manifests/v1", &layer] {
            let answer = explorer.get(&path(&registry, rest), &[]).await;
            assert_eq!(answer.status, 200, "{fault:?} {rest}: {}", answer.text());
            let is_kept = answer.header("cache-control") != "no-store";
            assert_eq!(is_kept, !is_alice, "{fault:?} {rest}");
            let raw = String::from_utf8_lossy(&answer.raw);
            for secret in [PASSWORD, TOKEN_PREFIX, "authorization", "Bearer", "Basic", "signature"]
            {
                assert!(!raw.to_lowercase().contains(&secret.to_lowercase()), "{fault:?}: {raw}");
            }
            assert_eq!(answer.header("set-cookie"), "");
            assert_eq!(answer.header("location"), "");
        }
        assert_eq!(registry.counts().leaked, 0);
    }
    // Without a credential it is the registry's refusal, without what it wants to hear.
    let (registry, explorer) = with(Fault::Basic).await;
    registry.add_blob(content());
    let answer = explorer.get(&path(&registry, "manifests/v1"), &[]).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, ""));
    let (registry, explorer) = with(Fault::Bearer).await;
    let (status, code, message) =
        explorer.refusal(&format!("GET {}", path(&registry, "manifests/v1")), &[]).await;
    assert_eq!((status, &*code), (401, "LAZYSTAR_DENIED"));
    assert!(message.contains("docker login"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_registries_are_passed_on() {
    for code in [404, 403, 429, 500, 503] {
        let (registry, explorer) = with(Fault::Always(code)).await;
        let line = format!("GET {}", path(&registry, "manifests/v1"));
        let (status, ours, message) = explorer.refusal(&line, &[]).await;
        assert_eq!((status, &*ours), (code, "LAZYSTAR_STATUS"));
        assert!(message.contains(&code.to_string()), "{message}");
        assert_eq!(registry.counts().registry, 1, "{code} is no reason to ask again");
    }
    let (registry, explorer) = with(Fault::TooManyRequests).await;
    let answer = explorer.get(&path(&registry, "manifests/v1"), &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "3600"));
    let (registry, explorer) = with(Fault::Silent).await;
    let line = format!("GET {}", path(&registry, "manifests/v1"));
    let (status, code, _) = explorer.refusal(&line, &[]).await;
    assert_eq!((status, &*code), (504, "LAZYSTAR_TIMEOUT"));
    let (registry, explorer) = with(Fault::Ok).await;
    let line = format!("GET {}", path(&registry, "manifests/v1"));
    registry.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (status, code, message) = explorer.refusal(&line, &[]).await;
    assert_eq!((status, &*code), (502, "LAZYSTAR_UNREACHABLE"), "{message}");
    assert!(message.contains(&registry.address().to_string()), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_for_an_image_goes_nowhere() {
    let (registry, explorer) = with(Fault::Ok).await;
    let host = registry.address();
    for (rest, status) in [
        ("v2/team/app/blobs/uploads/", 404),
        ("v2/team/app/blobs/sha256:1", 400),
        ("v2/team/app/blobs/latest", 400),
        ("v2/team/app/manifests/-x", 400),
        ("v2/team/app/manifests/sha512:00", 400),
        ("v2/Team/app/manifests/v1", 400),
        ("v2/team/../app/manifests/v1", 400),
        ("v2/team%2f..%2fapp/manifests/v1", 400),
        ("v2/team/app@x/manifests/v1", 400),
        ("v2/team/app:x/tags/list", 400),
        ("v2/team/app/tags/other", 404),
        ("v1/", 404),
        ("token", 404),
    ] {
        let line = format!("GET /registry/{host}/{rest}");
        assert_eq!(explorer.refusal(&line, &[]).await.0, status, "{rest}");
    }
    for named in ["", "x", "..", "user@127.0.0.1", "127.0.0.1:99999", "a b.c", "https:%2f%2fx.y"] {
        let line = format!("GET /registry/{}/v2/", named.replace(' ', "%20"));
        assert!(matches!(explorer.refusal(&line, &[]).await.0, 400 | 404), "{named}");
    }
    assert_eq!(registry.counts().registry, 0);
}

/// A registry that does with a request what it is told.
async fn odd(
    answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let state = (Arc::new(answer), Arc::clone(&asked));
    type Shared<F> = (Arc<F>, Arc<Mutex<Vec<String>>>);
    async fn handle<F: Fn(&Request) -> Response>(
        State((answer, asked)): State<Shared<F>>,
        request: Request,
    ) -> Response {
        asked.lock().unwrap().push(request.uri().to_string());
        answer(&request)
    }
    let app = Router::new().fallback(handle).with_state(state);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, asked)
}

fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_go_on_where_they_ended() {
    let (host, asked) = odd(|request| {
        let link = r#"</v2/a/b/tags/list?last=v2&n=2>; rel="next""#;
        match request.uri().path() {
            "/v2/" => response(200, &[("content-type", "application/json")], "{}"),
            "/v2/_catalog" => {
                response(200, &[("content-type", "application/json")], r#"{"repositories":[]}"#)
            }
            _ => response(
                200,
                &[("content-type", "application/json; charset=utf-8"), ("link", link)],
                r#"{"name":"a/b","tags":["v1","v2"]}"#,
            ),
        }
    })
    .await;
    let explorer = explore(&format!("{host}/a/b:v1"), |_| {}).await;
    let base = format!("/registry/{host}/v2/");
    let first = explorer.get(&format!("{base}a/b/tags/list?n=2&evil=1"), &[]).await;
    assert_eq!(first.text(), r#"{"name":"a/b","tags":["v1","v2"]}"#);
    assert_eq!(first.header("content-type"), "application/json; charset=utf-8");
    let next = format!("{base}a/b/tags/list?last=v2&n=2");
    assert_eq!(first.header("link"), format!("<{next}>; rel=\"next\""));
    assert_eq!(explorer.get(&next, &[]).await.status, 200);
    assert_eq!(explorer.get(&base, &[]).await.text(), "{}");
    let catalog = explorer.get(&format!("{base}_catalog?n=5&last=a%2Fb"), &[]).await;
    assert_eq!(catalog.text(), r#"{"repositories":[]}"#);
    assert_eq!(
        *asked.lock().unwrap(),
        [
            "/v2/a/b/tags/list?n=2",
            "/v2/a/b/tags/list?last=v2&n=2",
            "/v2/",
            "/v2/_catalog?n=5&last=a%2Fb"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_from_a_registry_is_a_page() {
    let account = r#"{"errors":[{"code":"DENIED","message":"pay first"}]}"#;
    let (host, _) = odd(move |request| {
        let html = [("content-type", "text/html"), ("set-cookie", "a=b"), ("x-other", "1")];
        match request.uri().path() {
            "/v2/a/manifests/denied" => response(403, &html, account),
            "/v2/a/manifests/broken" => response(418, &html, "<script>alert(1)</script>"),
            _ => response(200, &html, "<script>alert(1)</script>"),
        }
    })
    .await;
    let explorer = explore(&format!("{host}/a:v1"), |_| {}).await;
    let digest = Digest::of(b"<script>alert(1)</script>");
    for (rest, status) in [
        ("manifests/v1", 200),
        ("manifests/denied", 403),
        ("manifests/broken", 418),
        (&*format!("blobs/{digest}"), 200),
        ("tags/list", 200),
    ] {
        let answer = explorer.get(&format!("/registry/{host}/v2/a/{rest}"), &[]).await;
        assert_eq!(answer.status, status, "{rest}");
        let media_type = answer.header("content-type");
        assert!(
            matches!(media_type, "application/octet-stream" | "application/json"),
            "{rest}: {media_type}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("sandbox"), "{policy}");
        assert_eq!((answer.header("set-cookie"), answer.header("x-other")), ("", ""));
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
        match rest {
            "manifests/denied" => assert_eq!(answer.text(), account),
            "manifests/broken" => assert!(!answer.text().contains("script"), "{}", answer.text()),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_forged_is_refused() {
    let (host, _) = odd(|request| {
        let json = [("content-type", "application/json")];
        match request.uri().path().ends_with("/tags/list") {
            true => response(200, &json, vec![b' '; (8 << 20) + 1]),
            false if request.uri().path().ends_with("large") => {
                response(200, &json, vec![b' '; (4 << 20) + 1])
            }
            false => response(200, &json, "{}"),
        }
    })
    .await;
    let explorer = explore(&format!("{host}/a:v1"), |_| {}).await;
    let base = format!("GET /registry/{host}/v2/a");
    for rest in ["tags/list", "manifests/large"] {
        let (status, code, _) = explorer.refusal(&format!("{base}/{rest}"), &[]).await;
        assert_eq!((status, &*code), (502, "LAZYSTAR_PROTOCOL"), "{rest}");
    }
    let digest = Digest::of(b"something else");
    let (status, code, message) =
        explorer.refusal(&format!("{base}/manifests/{digest}"), &[]).await;
    assert_eq!((status, &*code), (502, "LAZYSTAR_FORGED"));
    assert!(message.contains(&digest.to_string()), "{message}");
}

/// Requests that are under way are limited, bodies included.
#[tokio::test(flavor = "multi_thread")]
async fn many_requests_take_turns() {
    let now = Arc::new(Mutex::new((0_usize, 0_usize)));
    let counted = Arc::clone(&now);
    let (host, _) = odd(move |_| {
        let mut both = counted.lock().unwrap();
        both.0 += 1;
        both.1 = both.1.max(both.0);
        let counted = Arc::clone(&counted);
        let body = futures_util::stream::once(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            counted.lock().unwrap().0 -= 1;
            Ok::<_, std::io::Error>(Bytes::from("{}"))
        });
        response(200, &[], Body::from_stream(body))
    })
    .await;
    let explorer = explore(&format!("{host}/a:v1"), |_| {}).await;
    let path = format!("/registry/{host}/v2/a/blobs/{}", Digest::of(b"{}"));
    let all = (0..80).map(|_| explorer.get(&path, &[]));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!((answer.status, &*answer.text()), (200, "{}"));
    }
    let (left, most) = *now.lock().unwrap();
    assert!(left == 0 && (16..=32).contains(&most), "{most} at the same time");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_turned_away() {
    let (host, asked) = odd(|request| match request.uri().path() {
        "/v2/" => response(200, &[], "{}"),
        _ => {
            let never = futures_util::stream::pending::<std::io::Result<Bytes>>();
            response(200, &[], Body::from_stream(never))
        }
    })
    .await;
    let explorer = explore(&format!("{host}/a:v1"), |options| {
        options.client.chunk_timeout = Duration::from_secs(60);
    })
    .await;
    let line = format!("GET /registry/{host}/v2/a/blobs/{}", Digest::of(b"{}"));
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (address, line) = (explorer.address, line.clone());
        held.spawn(async move { lazystar_tests::http::ask(address, &line, &[]).await.map(drop) });
    }
    while asked.lock().unwrap().len() < 32 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let base = format!("/registry/{host}/v2/");
    let answer = explorer.get(&base, &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "1"));
    assert_eq!(super::refusal(&answer).1, "LAZYSTAR_BUSY");
    // Who goes away gives his turn back.
    held.shutdown().await;
    assert_eq!(explorer.get(&base, &[]).await.status, 200);
}
