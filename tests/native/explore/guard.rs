use lazystar_tests::fault_registry::{Fault, FaultRegistry};

use super::explore;

#[tokio::test(flavor = "multi_thread")]
async fn only_the_page_of_this_server_may_ask() {
    let registry = FaultRegistry::start(Fault::Ok).await.unwrap();
    let registry_path = format!("/registry/{}/v2/team/app/tags/list", registry.address());
    let explorer = explore(&format!("{}/team/app:v1", registry.address()), |_| {}).await;
    let here = format!("http://{}", explorer.address);
    let port = explorer.address.port();
    for path in ["/", "/lazystar.json", &registry_path] {
        let line = format!("GET {path}");
        for host in ["evil.example", &format!("evil.example:{port}"), "10.0.0.1", "", "127.0.0.1.x"]
        {
            let (status, code, message) =
                explorer.refusal(&line, &[&format!("host: {host}")]).await;
            assert_eq!((status, &*code), (403, "LAZYSTAR_HOST"), "{host}: {message}");
        }
        let doubled = explorer.refusal(&line, &["host: 127.0.0.1", "host: evil.example"]).await;
        assert_eq!(doubled.0, 403);
        for headers in [
            vec!["origin: http://evil.example"],
            vec!["origin: null"],
            vec!["origin: http://127.0.0.1:1"],
            vec!["origin: https://evil.example", "sec-fetch-site: same-origin"],
            vec!["sec-fetch-site: cross-site"],
            vec!["sec-fetch-site: same-site"],
            vec!["sec-fetch-site: cross-site", "sec-fetch-mode: navigate"],
        ] {
            let (status, code, message) = explorer.refusal(&line, &headers).await;
            assert_eq!((status, &*code), (403, "LAZYSTAR_ORIGIN"), "{headers:?}: {message}");
        }
    }
    assert_eq!(registry.counts().registry, 0);
    for headers in [
        vec![],
        vec!["sec-fetch-site: none"],
        vec!["sec-fetch-site: same-origin"],
        vec![&*format!("origin: {here}"), "sec-fetch-site: same-origin"],
        vec!["host: localhost:7000", "origin: http://localhost:7000"],
        vec!["host: [::1]:7117"],
    ] {
        assert_eq!(explorer.get("/", &headers).await.status, 200, "{headers:?}");
    }
    // A name for the server that is not in its Host.
    let absolute = explorer.ask("GET http://evil.example/", &["host: 127.0.0.1"]).await;
    assert_eq!(absolute.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_written() {
    let registry = FaultRegistry::start(Fault::Ok).await.unwrap();
    let explorer = explore(&format!("{}/team/app:v1", registry.address()), |_| {}).await;
    let host = registry.address();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        for path in ["/", "/lazystar.json", &format!("/registry/{host}/v2/team/app/manifests/v1")] {
            let answer = explorer.ask(&format!("{method} {path}"), &["content-length: 0"]).await;
            assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method}");
            assert_eq!(super::refusal(&answer).1, "LAZYSTAR_METHOD");
        }
    }
    assert_eq!(registry.counts().registry, 0);
}
