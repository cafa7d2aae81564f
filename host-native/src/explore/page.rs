//! The files of the page: those in this program, or those of a directory.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use lazystar_core::Digest;

use super::refusal::Refusal;
use super::{never_old, set};

// Of `FILES`, each with its name and content: what was built when this program was.
include!(concat!(env!("OUT_DIR"), "/explorer_page.rs"));

const INDEX: &str = "index.html";
/// What the page may do. Whatever an image holds, no script comes from anywhere else.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; \
     connect-src 'self' https: http:; img-src 'self' blob: data:; style-src 'self'; \
     font-src 'self'; manifest-src 'self'; frame-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";
/// Names of files that never change: they have the digest of their content in them.
const UNCHANGING: &str = "assets/";
/// Codings and how the names of files in them end, best first.
const CODINGS: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];

/// The files of the page.
#[derive(Debug)]
pub(super) enum Page {
    Here(BTreeMap<&'static str, &'static [u8]>),
    /// A directory, by a path without links.
    Directory(PathBuf),
}

impl Page {
    /// The page in `dir`, or that in this program.
    pub(super) fn new(dir: Option<&Path>) -> Result<Self> {
        let Some(dir) = dir else { return Self::here(FILES) };
        let real = dir.canonicalize();
        let real = real.with_context(|| format!("cannot use --assets {}", dir.display()))?;
        if !real.join(INDEX).is_file() {
            bail!(
                "{} has no {INDEX}; --assets is for the directory of a built page, as host-wasm/dist/explorer",
                dir.display()
            );
        }
        Ok(Self::Directory(real))
    }

    fn here(files: &'static [(&str, &[u8])]) -> Result<Self> {
        if !files.iter().any(|(name, _)| *name == INDEX) {
            bail!(
                "this lazystar was built without the explorer's page: run `host-wasm/explorer/build` and then `cargo build --release`, or name the directory of a page with --assets"
            );
        }
        Ok(Self::Here(files.iter().copied().collect()))
    }

    /// The file at `path` of a URL, in a coding that the client takes.
    pub(super) async fn answer(&self, path: &str, asked: &HeaderMap) -> Result<Response, Refusal> {
        let name = path.strip_prefix('/').unwrap_or(path);
        let name = if name.is_empty() { INDEX } else { name };
        let coded = CODINGS.into_iter().filter(|(coding, _)| accepts(asked, coding));
        let coded = coded.map(|(coding, ending)| (Some(coding), ending));
        let mut found = None;
        for (coding, ending) in coded.chain([(None, "")]) {
            if let Some(bytes) = self.read(&format!("{name}{ending}")).await {
                found = Some((bytes, coding));
                break;
            }
        }
        let (bytes, coding) = found.ok_or_else(|| {
            let message = format!("the page has no file {name}");
            Refusal::new(StatusCode::NOT_FOUND, "LAZYSTAR_NO_FILE", message)
        })?;
        let tag = format!("\"{}\"", Digest::of(&bytes).hex());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(name)));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        set(&mut headers, ETAG, &tag);
        if name.starts_with(UNCHANGING) {
            let for_ever = HeaderValue::from_static("public, max-age=31536000, immutable");
            headers.insert(CACHE_CONTROL, for_ever);
        } else {
            never_old(&mut headers);
        }
        let mut response = if has(asked, &tag) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            set(&mut headers, CONTENT_LENGTH, &bytes.len().to_string());
            Response::new(Body::from(bytes))
        };
        *response.headers_mut() = headers;
        Ok(response)
    }

    async fn read(&self, name: &str) -> Option<Bytes> {
        match self {
            Self::Here(files) => files.get(name).map(|bytes| Bytes::from_static(bytes)),
            Self::Directory(dir) => {
                let mut parts = Path::new(name).components();
                if !parts.all(|part| matches!(part, Component::Normal(_))) {
                    return None;
                }
                let file = tokio::fs::canonicalize(dir.join(name)).await.ok()?;
                let is_inside = file.starts_with(dir);
                let is_file = tokio::fs::metadata(&file).await.ok()?.is_file();
                if is_inside && is_file {
                    tokio::fs::read(&file).await.ok().map(Bytes::from)
                } else {
                    None
                }
            }
        }
    }
}

/// Whether the client takes `coding` (RFC 9110, section 12.5.3).
fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let weight = weight.trim().trim_start_matches("q=");
        let is_refused =
            !weight.is_empty() && weight.parse().is_ok_and(|weight: f32| weight <= 0.0);
        name.trim().eq_ignore_ascii_case(coding) && !is_refused
    })
}

/// Whether the client has what `tag` names.
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().trim_start_matches("W/") == tag)
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_a_page_says_how_to_get_one() {
        let error = Page::here(&[]).expect_err("there is none").to_string();
        for part in ["host-wasm/explorer/build", "cargo build --release", "--assets"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(Page::here(&[(INDEX, b"page")]).is_ok());
    }

    #[test]
    fn knows_which_codings_are_taken() {
        let accepts = |text: &str, coding| {
            let value = HeaderValue::from_str(text).expect("a value");
            accepts(&[(ACCEPT_ENCODING, value)].into_iter().collect(), coding)
        };
        assert!(accepts("gzip, deflate, br", "br"));
        assert!(accepts("gzip;q=0.5, BR;q=1", "br"));
        assert!(!accepts("gzip, br;q=0", "br"));
        assert!(!accepts("gzip", "br"));
        assert!(!accepts("", "gzip"));
    }
}
