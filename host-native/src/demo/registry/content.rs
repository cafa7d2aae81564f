//! What a request asks for, and where it is in the layout.

use std::io::SeekFrom;
use std::path::Path;

use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use lazystar_core::Digest;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::AsyncSeekExt;

use crate::byte_range::AskedRange;
use crate::image::{REF_NAME, blob_path};
use crate::oci::{Descriptor, Index, MAX_MANIFEST, media};

/// An answer but for its body's bytes.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) found: Option<Found>,
    pub(super) message: String,
}

/// A file at the first byte to send, and how many to send.
pub(super) struct Found {
    pub(super) file: File,
    pub(super) length: u64,
}

/// Finds what `request` asks for in the layout `dir`.
pub(super) async fn find(dir: &Path, request: &Parts) -> Answer {
    let head = match request.method {
        Method::GET => false,
        Method::HEAD => true,
        _ => return error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
    };
    let path = request.uri.path();
    let Some(path) = path.strip_prefix("/v2/").or_else(|| (path == "/v2").then_some("")) else {
        return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    };
    if path.is_empty() {
        return Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            found: None,
            message: "{}".to_owned(),
        };
    }
    let mut parts = path.rsplitn(3, '/');
    let (name, kind, repository) = (parts.next(), parts.next(), parts.next());
    let Some((name, kind)) =
        name.zip(kind).filter(|_| repository.is_some_and(|name| !name.is_empty()))
    else {
        return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    };
    let digest = name.parse::<Digest>();
    match (kind, digest) {
        ("manifests", Err(_)) => match tagged(dir, name).await {
            Some(entry) => serve(dir, entry.digest, &entry.media_type, request, head).await,
            None => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        },
        ("manifests", Ok(digest)) => match manifest_type(dir, digest).await {
            Some(media_type) => serve(dir, digest, &media_type, request, head).await,
            None => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        },
        ("blobs", Ok(digest)) => {
            serve(dir, digest, "application/octet-stream", request, head).await
        }
        ("blobs", Err(_)) => error(StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
        _ => error(StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
    }
}

/// Opens a blob at the range that the request asks for.
async fn serve(
    dir: &Path,
    digest: Digest,
    media_type: &str,
    request: &Parts,
    head: bool,
) -> Answer {
    let Ok(mut file) = File::open(blob_path(dir, digest)).await else {
        return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
    };
    let Ok(metadata) = file.metadata().await else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN");
    };
    let size = metadata.len();
    let mut headers = HeaderMap::new();
    set(&mut headers, ACCEPT_RANGES, "bytes");
    set(&mut headers, ETAG, &format!("\"{digest}\""));
    set(&mut headers, HeaderName::from_static("docker-content-digest"), &digest.to_string());
    let asked =
        request.headers.get(RANGE).and_then(|range| AskedRange::parse(range.to_str().ok()?));
    let (status, range) = match asked.map(|asked| asked.within(size)) {
        None => (StatusCode::OK, 0..size),
        Some(Some(range)) => {
            set(
                &mut headers,
                CONTENT_RANGE,
                &format!("bytes {}-{}/{size}", range.start, range.end - 1),
            );
            (StatusCode::PARTIAL_CONTENT, range)
        }
        Some(None) => {
            let mut answer = error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID");
            set(&mut answer.headers, CONTENT_RANGE, &format!("bytes */{size}"));
            return answer;
        }
    };
    set(&mut headers, CONTENT_TYPE, media_type);
    set(&mut headers, CONTENT_LENGTH, &(range.end - range.start).to_string());
    if file.seek(SeekFrom::Start(range.start)).await.is_err() {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN");
    }
    let found = (!head).then_some(Found { file, length: range.end - range.start });
    Answer { status, headers, found, message: String::new() }
}

/// The entry of `index.json` with this tag.
async fn tagged(dir: &Path, tag: &str) -> Option<Descriptor> {
    let index: Index =
        serde_json::from_slice(&tokio::fs::read(dir.join("index.json")).await.ok()?).ok()?;
    let named =
        |entry: &&Descriptor| entry.annotations.get(REF_NAME).is_some_and(|name| name == tag);
    let mut entry = index.manifests.iter().find(named)?.clone();
    if entry.media_type.is_empty() {
        entry.media_type = media::OCI_MANIFEST.to_owned();
    }
    Some(entry)
}

/// The type of a manifest as it says itself; nothing if it is something else.
async fn manifest_type(dir: &Path, digest: Digest) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let path = blob_path(dir, digest);
    if tokio::fs::metadata(&path).await.ok()?.len() > MAX_MANIFEST {
        return None;
    }
    let shape: Shape = serde_json::from_slice(&tokio::fs::read(path).await.ok()?).ok()?;
    match shape {
        Shape { manifests: None, layers: None, .. } => None,
        Shape { media_type: Some(media_type), .. } => Some(media_type),
        Shape { manifests: Some(_), .. } => Some(media::OCI_INDEX.to_owned()),
        Shape { .. } => Some(media::OCI_MANIFEST.to_owned()),
    }
}

fn error(status: StatusCode, code: &str) -> Answer {
    let mut headers = HeaderMap::new();
    set(&mut headers, CONTENT_TYPE, "application/json");
    let message = format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#);
    Answer { status, headers, found: None, message }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
