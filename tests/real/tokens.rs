//! A token server that a real registry trusts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, SigningKey};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::registry::ISSUER;

/// Life of a token, in seconds.
const LIFE: u64 = 300;

/// A token server; ends with its owner.
pub(crate) struct TokenServer {
    _runtime: Runtime,
    shared: Arc<Shared>,
    address: String,
    bundle: PathBuf,
}

struct Shared {
    key: KeyPair,
    certificate: String,
    authorization: String,
    issued: AtomicU64,
}

impl TokenServer {
    /// A server for one user, whose certificate is written to `dir`.
    pub(crate) fn start(dir: &Path, user: &str, password: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(Vec::new()).expect("no names");
        let certificate = params.self_signed(&key).expect("it can be signed");
        let bundle = dir.join("tokens.pem");
        fs::write(&bundle, certificate.pem()).expect("the rig is writable");
        let shared = Arc::new(Shared {
            certificate: STANDARD.encode(certificate.der()),
            key,
            authorization: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            issued: AtomicU64::new(0),
        });
        let runtime = Runtime::new().expect("threads");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let router = Router::new().route("/token", get(token)).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { _runtime: runtime, shared, address, bundle }
    }

    /// Where tokens are asked for.
    pub(crate) fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// The certificate of what it signs with.
    pub(crate) fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// Tokens issued so far.
    pub(crate) fn issued(&self) -> u64 {
        self.shared.issued.load(Ordering::Relaxed)
    }
}

async fn token(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if shown != Some(&shared.authorization) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let query = query.unwrap_or_default();
    let scope = query.split('&').find_map(|field| field.strip_prefix("scope=")).unwrap_or_default();
    let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    let parts: Vec<_> = scope.split(':').collect();
    let access = match parts[..] {
        [kind, name, actions] => serde_json::json!([
            { "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }
        ]),
        _ => serde_json::json!([]),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let number = shared.issued.fetch_add(1, Ordering::Relaxed);
    let header = serde_json::json!({ "typ": "JWT", "alg": "ES256", "x5c": [shared.certificate] });
    let claims = serde_json::json!({
        "iss": ISSUER, "sub": "lazy", "aud": "rig", "exp": now + LIFE, "nbf": now - 10, "iat": now,
        "jti": number.to_string(), "access": access,
    });
    let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature =
        shared.key.sign(signed.as_bytes()).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let signature = URL_SAFE_NO_PAD.encode(fixed(&signature));
    Ok(serde_json::json!({ "token": format!("{signed}.{signature}"), "expires_in": LIFE })
        .to_string())
}

/// An ECDSA signature as tokens have it, two numbers of 32 bytes, from its DER form.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::new();
    // SEQUENCE { INTEGER r, INTEGER s }, all of them short.
    let mut rest = &der[2..];
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let number = &number[number.len().saturating_sub(32)..];
        numbers.extend(std::iter::repeat_n(0, 32 - number.len()).chain(number.iter().copied()));
        rest = after;
    }
    numbers
}
