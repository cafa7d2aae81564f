//! Pull secrets of a cluster, asked of a server that answers as Kubernetes' does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lazystar::keychain::{Credential, Keychain, Kubernetes};
use lazystar_tests::certificates::{Certificates, TlsListener};
use serde_json::json;
use tokio::net::TcpListener;

const TOKEN: &str = "token-of-the-node";

/// What was asked, path and query.
type Asked = Arc<Mutex<Vec<String>>>;

/// A cluster with two pages of secrets; gives where it is.
async fn cluster(certificates: &Certificates, mutual: bool) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let router = Router::new().fallback(secrets).with_state((Arc::clone(&asked), mutual));
    let listener = TlsListener::new(listener, certificates.config(mutual));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("https://{address}"), asked)
}

async fn secrets(
    State((asked, mutual)): State<(Asked, bool)>,
    request: Request,
) -> Result<String, StatusCode> {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !mutual && shown != Some(&format!("Bearer {TOKEN}")) {
        return Err(StatusCode::FORBIDDEN);
    }
    let target = request.uri().to_string();
    asked.lock().unwrap().push(target.clone());
    let secret = |host: &str, user: &str| {
        let auth = STANDARD.encode(format!("{user}:secret-of-{user}"));
        let config = json!({ "auths": { host: { "auth": auth } } }).to_string();
        json!({ "type": "kubernetes.io/dockerconfigjson", "data": { ".dockerconfigjson": STANDARD.encode(config) } })
    };
    let page = match target.contains("continue=second") {
        false => json!({
            "metadata": { "continue": "second" },
            "items": [secret("r.example", "one"), { "data": { ".dockerconfigjson": "%" } }, { "metadata": {} }],
        }),
        true => json!({ "metadata": {}, "items": [secret("r.example/team", "two")] }),
    };
    Ok(page.to_string())
}

fn kubeconfig(dir: &Path, server: &str, cluster: &str, user: &str) -> PathBuf {
    let file = dir.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         contexts:\n- name: elsewhere\n  context: {{cluster: x, user: y}}\n\
         - name: here\n  context:\n    cluster: mine\n    user: me\n    namespace: default\n\
         clusters:\n- name: mine\n  cluster:\n    server: {server}\n    {cluster}\n\
         users:\n- name: me\n  user:\n    {user}\n"
    );
    fs::write(&file, text).unwrap();
    file
}

async fn users(kubeconfig: &Path) -> Vec<String> {
    let keychain = Keychain::Kubernetes(Arc::new(Kubernetes::new(Some(kubeconfig.to_owned()))));
    let found = keychain.credentials("r.example", "team/app").await;
    let shown = format!("{keychain:?} {found:?}");
    assert!(!shown.contains(TOKEN) && !shown.contains("secret-of"), "{shown}");
    let user = |credential| match credential {
        Credential::Password { user, .. } => user,
        Credential::IdentityToken(_) => unreachable!("there is none"),
    };
    found.into_iter().map(user).collect()
}

#[tokio::test]
async fn give_credentials_by_whatever_a_kubeconfig_says() {
    let certificates = Certificates::new();
    let dir = tempfile::tempdir().unwrap();
    let pems = certificates.write(dir.path()).unwrap();
    let (server, asked) = cluster(&certificates, false).await;
    let (mutual, _) = cluster(&certificates, true).await;
    let program = dir.path().join("give-token");
    let printed = json!({ "kind": "ExecCredential", "status": { "token": TOKEN } });
    fs::write(&program, format!("#!/bin/sh\necho '{printed}'\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();

    let in_base64 = |text: &str| STANDARD.encode(text);
    let data = format!("certificate-authority-data: {}", in_base64(&certificates.authority));
    let file = format!("certificate-authority: {}", pems.authority.display());
    let client = format!(
        "client-certificate-data: {}\n    client-key: {}",
        in_base64(&certificates.client),
        pems.client_key.display()
    );
    for (server, cluster, user, works) in [
        (&server, &*data, &*format!("token: {TOKEN}"), true),
        (&server, &file, "tokenFile: token", true),
        (
            &server,
            "insecure-skip-tls-verify: true",
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./give-token, args: [], env: null}",
            true,
        ),
        (&mutual, &data, &client, true),
        (&server, &data, "token: another", false),
        (&server, "insecure-skip-tls-verify: false", &format!("token: {TOKEN}"), false),
        (&mutual, &data, &format!("token: {TOKEN}"), false),
        (&server, &data, "exec: {command: ./not-there}", false),
        (&server, "certificate-authority-data: '%%'", &format!("token: {TOKEN}"), false),
    ] {
        let config = kubeconfig(dir.path(), server, cluster, user);
        // A path in a secret makes it the more special one only within that secret.
        let wanted: &[&str] = if works { &["one", "two"] } else { &[] };
        assert_eq!(users(&config).await, wanted, "{cluster} {user}");
    }
    let asked = asked.lock().unwrap().clone();
    let first = "/api/v1/secrets?fieldSelector=type%3Dkubernetes.io%2Fdockerconfigjson&limit=250";
    assert!(asked[0].ends_with(first), "{asked:?}");
    for broken in ["", "[", "current-context: x", "clusters: 3"] {
        fs::write(dir.path().join("kubeconfig"), broken).unwrap();
        assert_eq!(users(&dir.path().join("kubeconfig")).await, [""; 0], "{broken}");
    }
    assert_eq!(users(&dir.path().join("missing")).await, [""; 0]);
}

/// Secrets that are kept are asked for once in a while, not for each token.
#[tokio::test]
async fn are_asked_for_once_in_a_while() {
    let certificates = Certificates::new();
    let dir = tempfile::tempdir().unwrap();
    let (server, asked) = cluster(&certificates, false).await;
    let data = format!("certificate-authority-data: {}", STANDARD.encode(&certificates.authority));
    let config = kubeconfig(dir.path(), &server, &data, &format!("token: {TOKEN}"));
    let keychain = Keychain::Kubernetes(Arc::new(Kubernetes::new(Some(config))));
    for _ in 0..5 {
        assert_eq!(keychain.credentials("r.example", "team/app").await.len(), 2);
    }
    assert_eq!(asked.lock().unwrap().len(), 2, "two pages");
    assert_eq!(keychain.credentials("r.example", "other").await.len(), 1);
}
