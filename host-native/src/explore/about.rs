//! What the page is told of this server: `lazystar.json`, and the part of the URL after `#`.

use std::str::FromStr;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::response::Response;
use lazystar_core::Digest;
use serde::Serialize;
use serde_json::json;

use super::allow::Allowed;
use super::local::Local;
use super::{never_old, set};
use crate::reference::{ImageRef, ReferenceError};

/// What images of this machine are served as: a registry that no registry can be called.
pub(super) const LOCAL: &str = "local";
/// The repository that the image is in there.
pub(super) const REPOSITORY: &str = "image";

/// An image and what somebody wrote to name it.
#[derive(Clone, Debug)]
pub struct NamedImage {
    /// What was written.
    pub text: String,
    /// What that means.
    pub image: ImageRef,
}

impl FromStr for NamedImage {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Ok(Self { text: text.to_owned(), image: text.parse()? })
    }
}

/// What the page is told.
#[derive(Debug)]
pub(super) struct About {
    json: String,
    fragment: String,
}

/// The image to show first, as the page asks for it.
#[derive(Debug, Serialize)]
struct First {
    name: String,
    registry: String,
    repository: String,
    reference: String,
}

impl First {
    fn of(named: &NamedImage, local: Option<&Local>) -> Self {
        let name = named.text.clone();
        let (registry, repository, reference) = match &named.image {
            ImageRef::Registry(image) => {
                let digest = image.digest().map(|digest| digest.to_string());
                let reference = digest.or_else(|| image.tag().map(str::to_owned));
                (image.host(), image.repository(), reference.unwrap_or_default())
            }
            _ => {
                let reference = local.map(|local| local.reference().to_owned());
                (LOCAL, REPOSITORY, reference.unwrap_or_default())
            }
        };
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        Self { name, registry, repository, reference }
    }

    fn fragment(&self) -> String {
        let joined_by = if self.reference.contains(':') { '@' } else { ':' };
        format!("#/r/{}/{}{joined_by}{}", self.registry, self.repository, self.reference)
    }
}

impl About {
    pub(super) fn new(
        image: Option<&NamedImage>,
        local: Option<&Local>,
        allowed: &Allowed,
    ) -> Self {
        let first = image.map(|named| First::of(named, local));
        let fragment = first.as_ref().map(First::fragment).unwrap_or_default();
        let json = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "proxy": "/registry/",
            "registries": allowed.shown(),
            "image": first,
        });
        Self { json: json.to_string(), fragment }
    }

    /// What follows the address of the server, to show the image.
    pub(super) fn fragment(&self) -> &str {
        &self.fragment
    }

    /// `lazystar.json`.
    pub(super) fn answer(&self) -> Response {
        let mut response = Response::new(Body::from(self.json.clone()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        set(headers, ETAG, &format!("\"{}\"", Digest::of(self.json.as_bytes()).hex()));
        never_old(headers);
        response
    }
}
