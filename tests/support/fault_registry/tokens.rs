//! Who may ask what.

use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::Body;
use axum::http::Method;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Fault, IDENTITY_TOKEN, PASSWORD, Shared, TOKEN_PREFIX, USER, locked, status, with};

impl Shared {
    /// The refusal of a request without the right credentials.
    pub(super) fn refusal(&self, fault: Fault, head: &Parts) -> Option<Response> {
        let sent = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        match fault {
            Fault::Basic if sent != Some(&basic()) => Some(with(
                status(401),
                "www-authenticate",
                r#"Basic realm="a registry, with a comma""#,
            )),
            Fault::Bearer
            | Fault::BearerAnonymous
            | Fault::BearerRedirect
            | Fault::BearerShort(_)
            | Fault::BearerExpires(_) => {
                let issued =
                    format!("Bearer {TOKEN_PREFIX}{}", self.issued.load(Ordering::Relaxed));
                let mut known = sent == Some(&issued);
                if let Fault::BearerShort(seconds) = fault {
                    known &= locked(&self.issued_at).elapsed().as_secs() < seconds;
                }
                if let (true, Fault::BearerExpires(code)) = (known, fault)
                    && self.uses.fetch_add(1, Ordering::Relaxed) >= 2
                {
                    return Some(status(code));
                }
                let challenge = format!(
                    r#"Bearer realm="{}://{}/token",service="fault registry",scope="repository:team/app:pull""#,
                    if self.is_tls { "https" } else { "http" },
                    self.address
                );
                (!known).then(|| with(status(401), "www-authenticate", &challenge))
            }
            _ => None,
        }
    }

    /// A token for whoever may have one.
    pub(super) fn token(&self, head: &Parts, body: &[u8]) -> Response {
        let body = String::from_utf8_lossy(body);
        let query =
            if head.method == Method::POST { &*body } else { head.uri.query().unwrap_or_default() };
        let has = |field: &str| query.split('&').any(|have| have == field);
        if !has("service=fault+registry") || !has("scope=repository%3Ateam%2Fapp%3Apull") {
            return status(400);
        }
        let sent = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let oauth =
            has("grant_type=refresh_token") && has(&format!("refresh_token={IDENTITY_TOKEN}"));
        if *locked(&self.fault) == Fault::Bearer && !oauth && sent != Some(&basic()) {
            return status(401);
        }
        self.uses.store(0, Ordering::Relaxed);
        let number = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        *locked(&self.issued_at) = Instant::now();
        let name = if oauth { "access_token" } else { "token" };
        let life = match *locked(&self.fault) {
            Fault::BearerShort(seconds) => seconds,
            _ => 300,
        };
        Response::new(Body::from(format!(
            r#"{{"{name}":"{TOKEN_PREFIX}{number}","expires_in":{life}}}"#
        )))
    }
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")))
}
