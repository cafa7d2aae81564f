//! A registry that takes uploads, and fails at them in one stated way.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use lazystar_core::Digest;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushFault {
    /// Not at all.
    Ok,
    /// 503 to the piece of this number, of all pieces of all blobs, of which it took the first half.
    HalfAPiece(usize),
    /// 500 to every piece from this number on.
    PiecesFrom(usize),
    /// 400 with a reason, to every manifest.
    Manifests,
    /// 403 to whoever writes.
    Denied,
}

/// A registry in memory.
#[derive(Debug)]
pub struct PushRegistry {
    address: SocketAddr,
    state: Arc<Mutex<Content>>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Content {
    fault: PushFault,
    /// By repository and digest.
    blobs: BTreeMap<(String, String), Bytes>,
    /// By repository and tag or digest: media type and bytes.
    manifests: BTreeMap<(String, String), (String, Bytes)>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// Uploads that were ever begun.
    begun: u64,
    pieces: usize,
    log: Vec<String>,
}

impl PushRegistry {
    /// Starts it on the loopback interface.
    ///
    /// # Errors
    /// If there is no port for it.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(Content {
            fault: PushFault::Ok,
            blobs: BTreeMap::new(),
            manifests: BTreeMap::new(),
            uploads: BTreeMap::new(),
            begun: 0,
            pieces: 0,
            log: Vec::new(),
        }));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let server = tokio::spawn(async move {
            // The test sees that nobody answers.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { address, state, server })
    }

    /// Its `host:port`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Fails in this way from now on; pieces are counted anew.
    pub fn set(&self, fault: PushFault) {
        let mut state = self.content();
        state.fault = fault;
        state.pieces = 0;
    }

    /// What a tag points at, if there is one.
    #[must_use]
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Bytes> {
        let key = (repository.to_owned(), reference.to_owned());
        self.content().manifests.get(&key).map(|(_, bytes)| bytes.clone())
    }

    /// What was asked of it since this was called last: method, path and, where it matters, more.
    #[must_use]
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.content().log)
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for PushRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(state): State<Arc<Mutex<Content>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    state.log.push(format!("{} {}", parts.method, parts.uri));
    let path = parts.uri.path().to_owned();
    let query: BTreeMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace("%3A", ":").replace("%2F", "/")))
        .collect();
    let path = path.strip_prefix("/v2/").unwrap_or_default();
    if path.is_empty() {
        return plain(StatusCode::OK);
    }
    if state.fault == PushFault::Denied && !matches!(parts.method, Method::GET | Method::HEAD) {
        return plain(StatusCode::FORBIDDEN);
    }
    for part in ["/blobs/uploads/", "/blobs/", "/manifests/"] {
        if let Some((repository, rest)) = path.split_once(part) {
            let (repository, rest) = (repository.to_owned(), rest.to_owned());
            return match part {
                "/blobs/uploads/" => state.upload(&parts.method, &repository, &rest, &query, body),
                "/blobs/" => state.blob(&repository, &rest, &parts.headers, &parts.method),
                _ => state.manifest(&parts.method, repository, rest, &parts.headers, body),
            };
        }
    }
    plain(StatusCode::NOT_FOUND)
}

impl Content {
    fn upload(
        &mut self,
        method: &Method,
        repository: &str,
        id: &str,
        query: &BTreeMap<String, String>,
        body: Bytes,
    ) -> Response {
        let place = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}");
        if method == Method::POST {
            if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from"))
                && let Some(blob) = self.blobs.get(&(from.clone(), digest.clone())).cloned()
            {
                self.blobs.insert((repository.to_owned(), digest.clone()), blob);
                return plain(StatusCode::CREATED);
            }
            self.begun += 1;
            let id = format!("u{}", self.begun);
            self.uploads.insert(id.clone(), Vec::new());
            return at(StatusCode::ACCEPTED, &place(&id), None);
        }
        if method == Method::PATCH {
            self.pieces += 1;
            let piece = self.pieces;
            let Some(upload) = self.uploads.get_mut(id) else {
                return plain(StatusCode::NOT_FOUND);
            };
            match self.fault {
                PushFault::HalfAPiece(number) if number == piece => {
                    upload.extend_from_slice(&body[..body.len() / 2]);
                    return plain(StatusCode::SERVICE_UNAVAILABLE);
                }
                PushFault::PiecesFrom(number) if piece >= number => {
                    return plain(StatusCode::INTERNAL_SERVER_ERROR);
                }
                _ => {}
            }
            upload.extend_from_slice(&body);
            return at(StatusCode::ACCEPTED, &place(id), Some(upload.len()));
        }
        let Some(upload) = self.uploads.get(id) else { return plain(StatusCode::NOT_FOUND) };
        if method == Method::GET {
            return at(StatusCode::NO_CONTENT, &place(id), Some(upload.len()));
        }
        let stated = query.get("digest").cloned().unwrap_or_default();
        if stated != Digest::of(upload).to_string() {
            return refused("DIGEST_INVALID");
        }
        let blob = self.uploads.remove(id).unwrap_or_default();
        self.blobs.insert((repository.to_owned(), stated), blob.into());
        plain(StatusCode::CREATED)
    }

    fn blob(
        &self,
        repository: &str,
        digest: &str,
        headers: &HeaderMap,
        method: &Method,
    ) -> Response {
        let Some(blob) = self.blobs.get(&(repository.to_owned(), digest.to_owned())) else {
            return plain(StatusCode::NOT_FOUND);
        };
        let range = headers.get("range").and_then(|range| {
            let (from, to) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
            Some(from.parse::<usize>().ok()?..to.parse::<usize>().ok()? + 1)
        });
        let (status, body, content_range) = match range.filter(|range| range.end <= blob.len()) {
            Some(range) => (
                StatusCode::PARTIAL_CONTENT,
                blob.slice(range.clone()),
                Some(format!("bytes {}-{}/{}", range.start, range.end - 1, blob.len())),
            ),
            None => (StatusCode::OK, blob.clone(), None),
        };
        let mut response = Response::builder().status(status);
        if let Some(range) = content_range {
            response = response.header("content-range", range);
        }
        let body = if method == Method::HEAD { Bytes::new() } else { body };
        response.body(Body::from(body)).expect("the parts are sound")
    }

    fn manifest(
        &mut self,
        method: &Method,
        repository: String,
        reference: String,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response {
        if method == Method::PUT {
            if self.fault == PushFault::Manifests {
                return refused("MANIFEST_INVALID");
            }
            let media_type = headers.get("content-type").and_then(|it| it.to_str().ok());
            let stored = (media_type.unwrap_or_default().to_owned(), body.clone());
            let digest = Digest::of(&body).to_string();
            self.manifests.insert((repository.clone(), digest), stored.clone());
            self.manifests.insert((repository, reference), stored);
            return plain(StatusCode::CREATED);
        }
        match self.manifests.get(&(repository, reference)) {
            Some((media_type, bytes)) => Response::builder()
                .header("content-type", media_type)
                .header("docker-content-digest", Digest::of(bytes).to_string())
                .body(Body::from(if method == Method::HEAD { Bytes::new() } else { bytes.clone() }))
                .expect("the parts are sound"),
            None => plain(StatusCode::NOT_FOUND),
        }
    }
}

fn plain(status: StatusCode) -> Response {
    Response::builder().status(status).body(Body::empty()).expect("the parts are sound")
}

fn refused(code: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"not like this"}}]}}"#);
    let response = Response::builder().status(StatusCode::BAD_REQUEST);
    response.body(Body::from(body)).expect("the parts are sound")
}

fn at(status: StatusCode, place: &str, length: Option<usize>) -> Response {
    let mut response = Response::builder().status(status).header("location", place);
    if let Some(length) = length {
        response = response.header("range", format!("0-{}", length.saturating_sub(1)));
    }
    response.body(Body::empty()).expect("the parts are sound")
}
