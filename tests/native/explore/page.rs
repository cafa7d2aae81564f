use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use lazystar::explore::Explorer;

use super::{explore, options};

const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self' https: http:; img-src 'self' blob: data:; style-src 'self'; font-src 'self'; manifest-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[tokio::test(flavor = "multi_thread")]
async fn files_come_with_what_browsers_need() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("index.html", "<!doctype html>");
    write("sw.js", "// worker");
    write("assets/app-1a2b.js", "export {}");
    write("assets/app-1a2b.js.br", "as brotli");
    write("assets/app-1a2b.js.gz", "as gzip");
    write("assets/engine-3c.wasm", "\0asm");
    write("assets/look-4d.css", "a {}");
    write("manifest.webmanifest", "{}");
    let explorer = explore("", |options| options.assets = Some(dir.path().to_owned())).await;
    for (path, media_type, is_fixed) in [
        ("/", "text/html; charset=utf-8", false),
        ("/index.html", "text/html; charset=utf-8", false),
        ("/sw.js", "text/javascript; charset=utf-8", false),
        ("/manifest.webmanifest", "application/manifest+json", false),
        ("/assets/app-1a2b.js", "text/javascript; charset=utf-8", true),
        ("/assets/engine-3c.wasm", "application/wasm", true),
        ("/assets/look-4d.css", "text/css; charset=utf-8", true),
    ] {
        let answer = explorer.get(path, &[]).await;
        assert_eq!(answer.status, 200, "{path}");
        let caching = if is_fixed { "public, max-age=31536000, immutable" } else { "no-cache" };
        for (name, value) in [
            ("content-type", media_type),
            ("cache-control", caching),
            ("content-security-policy", POLICY),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("content-length", &answer.body.len().to_string()),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
        assert_eq!(answer.header("set-cookie"), "");
        let head = explorer.ask(&format!("HEAD {path}"), &[]).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(without_date(head.headers), without_date(answer.headers.clone()));
        let tag = answer.header("etag");
        let again = explorer.get(path, &[&format!("if-none-match: \"x\", W/{tag}")]).await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, tag));
        assert_eq!(explorer.get(path, &["if-none-match: \"x\""]).await.status, 200);
    }
    for (accepted, coding, body) in [
        ("gzip, deflate, br", "br", "as brotli"),
        ("gzip, br;q=0", "gzip", "as gzip"),
        ("identity", "", "export {}"),
    ] {
        let accepted = format!("accept-encoding: {accepted}");
        let answer = explorer.get("/assets/app-1a2b.js", &[&accepted]).await;
        assert_eq!((answer.header("content-encoding"), &*answer.text()), (coding, body));
        assert_eq!(answer.header("content-type"), "text/javascript; charset=utf-8");
        assert_eq!(answer.header("vary"), "accept-encoding");
    }
    for absent in ["/other", "/assets", "/assets/", "/index.html/", "/registry", "/v2/"] {
        let (status, code, _) = explorer.refusal(&format!("GET {absent}"), &[]).await;
        assert_eq!((status, &*code), (404, "LAZYSTAR_NO_FILE"), "{absent}");
    }
}

/// The date may be a second later.
fn without_date(mut headers: BTreeMap<String, String>) -> BTreeMap<String, String> {
    headers.remove("date");
    headers
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_the_directory_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page");
    fs::create_dir_all(page.join("inside")).unwrap();
    fs::write(page.join("index.html"), "page").unwrap();
    fs::write(page.join("inside/it"), "inside").unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    symlink(dir.path().join("secret"), page.join("link")).unwrap();
    symlink(dir.path(), page.join("up")).unwrap();
    symlink("inside/it", page.join("good")).unwrap();
    let explorer = explore("", |options| options.assets = Some(page)).await;
    assert_eq!(explorer.get("/good", &[]).await.text(), "inside");
    let secret = dir.path().join("secret");
    for path in [
        "/link",
        "/up/secret",
        "/../secret",
        "/inside/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "//secret",
        &format!("/{}", secret.display()),
        "/inside",
        "/up",
    ] {
        let answer = explorer.get(path, &[]).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("secret\n") && answer.text() != "secret", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_a_page_is_refused() {
    let (mut options, _page) = options();
    let empty = tempfile::tempdir().unwrap();
    options.assets = Some(empty.path().to_owned());
    let error = Explorer::start(options.clone()).await.unwrap_err().to_string();
    assert!(error.contains("index.html"), "{error}");
    options.assets = Some(empty.path().join("nowhere"));
    let error = format!("{:#}", Explorer::start(options).await.unwrap_err());
    assert!(error.contains("nowhere"), "{error}");
}
