//! CRI's image service, passed on to containerd, so that the credentials that Kubernetes pulls with
//! are known when layers are mounted.
//!
//! Requests and answers pass through as they are, whatever version of CRI they are of; of two of
//! them a copy is read.

use std::convert::Infallible;
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::containerd::ContainerdError;
use crate::keychain::{Credential, CriCredentials};
use crate::proto::runtime::v1 as api;
use crate::reference::RegistryRef;

/// Largest request that is read. Those of Kubernetes have some KiB.
const MAX_REQUEST: usize = 4 << 20;
/// How long a connection to the service behind may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long that may take to say which image an id is of.
const PATIENCE: Duration = Duration::from_secs(2);

/// The image service in front of another.
#[derive(Clone, Debug)]
pub struct ImageProxy {
    behind: Channel,
    credentials: Arc<CriCredentials>,
}

impl ImageProxy {
    /// A proxy of the service behind the socket `address`, keeping what it learns in `credentials`.
    ///
    /// # Errors
    /// When the address cannot be one.
    pub fn new(address: &Path, credentials: CriCredentials) -> Result<Self, ContainerdError> {
        let address = address.display().to_string();
        let endpoint = Endpoint::from_shared(format!("unix://{address}"));
        let endpoint = endpoint
            .map_err(|error| ContainerdError::Unreachable { address, cause: error.to_string() })?;
        let behind = endpoint.connect_timeout(CONNECT).connect_lazy();
        Ok(Self { behind, credentials: Arc::new(credentials) })
    }

    async fn pass_on(
        mut self,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status> {
        let request = match request.uri().path() {
            "/runtime.v1.ImageService/PullImage" => {
                let (request, message) = read(request).await?;
                if let Some(Ok(pull)) = message.map(api::PullImageRequest::decode) {
                    self.pulled(pull);
                }
                request
            }
            "/runtime.v1.ImageService/RemoveImage" => {
                let (request, message) = read(request).await?;
                if let Some(Ok(removal)) = message.map(api::RemoveImageRequest::decode) {
                    self.removed(removal).await;
                }
                request
            }
            _ => request,
        };
        let answer = async {
            poll_fn(|context| self.behind.poll_ready(context)).await?;
            self.behind.call(request).await
        };
        answer.await.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            let message = format!("the CRI image service does not answer: {cause}");
            Status::new(Code::Unavailable, message)
        })
    }

    fn pulled(&self, request: api::PullImageRequest) {
        let name = request.image.unwrap_or_default().image;
        let Ok(image) = name.parse::<RegistryRef>() else { return };
        let credential = request.auth.and_then(|auth| credential(&auth, &image));
        self.remember(&image, credential);
    }

    async fn removed(&self, request: api::RemoveImageRequest) {
        let name = request.image.unwrap_or_default().image;
        let mut images: Vec<RegistryRef> = name.parse().into_iter().collect();
        // Kubernetes removes images by id, which parses as a name, too.
        let mut service = api::image_service_client::ImageServiceClient::new(self.behind.clone());
        let image = Some(api::ImageSpec { image: name, ..api::ImageSpec::default() });
        let asked = service.image_status(api::ImageStatusRequest { image });
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, asked).await {
            let found = answer.into_inner().image.unwrap_or_default();
            let names = found.repo_tags.iter().chain(&found.repo_digests);
            images.extend(names.filter_map(|name| name.parse().ok()));
        }
        for image in images {
            self.remember(&image, None);
        }
    }

    fn remember(&self, image: &RegistryRef, credential: Option<Credential>) {
        if let Err(error) = self.credentials.remember(image, credential) {
            tracing::warn!(%image, "cannot keep the credential of a pull: {error}");
        }
    }
}

impl NamedService for ImageProxy {
    const NAME: &'static str = "runtime.v1.ImageService";
}

impl Service<http::Request<Body>> for ImageProxy {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            Ok(this.pass_on(request).await.unwrap_or_else(|status| status.into_http()))
        })
    }
}

/// Reads a request, and gives it back with a copy of its message, unless that is compressed.
async fn read(
    request: http::Request<Body>,
) -> Result<(http::Request<Body>, Option<Bytes>), Status> {
    let (head, body) = request.into_parts();
    let bytes = axum::body::to_bytes(axum::body::Body::new(body), MAX_REQUEST).await;
    let bytes = bytes.map_err(|error| {
        Status::new(Code::ResourceExhausted, format!("the request cannot be read: {error}"))
    })?;
    let message = message(&bytes);
    let body = Body::new(axum::body::Body::from(bytes));
    Ok((http::Request::from_parts(head, body), message))
}

/// The message of a gRPC request: a flag for compression, four bytes of length, the message.
fn message(bytes: &Bytes) -> Option<Bytes> {
    let (head, rest) = bytes.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let whole = usize::try_from(length).is_ok_and(|length| length == rest.len());
    (head[0] == 0 && whole).then(|| bytes.slice(5..))
}

/// What Kubernetes says about who pulls, as far as it is meant for the host of `image`.
fn credential(auth: &api::AuthConfig, image: &RegistryRef) -> Option<Credential> {
    let server = auth.server_address.as_str();
    let server = server.split_once("://").map_or(server, |(_, rest)| rest);
    let server = server.split('/').next().unwrap_or_default();
    let hub = image.host() == "docker.io" && server == "index.docker.io";
    if !server.is_empty() && server != image.host() && server != image.endpoint() && !hub {
        return None;
    }
    if !auth.username.is_empty() {
        let (user, password) = (auth.username.clone(), auth.password.clone());
        return Some(Credential::Password { user, password });
    }
    if !auth.identity_token.is_empty() {
        return Some(Credential::IdentityToken(auth.identity_token.clone()));
    }
    let decoded = String::from_utf8(STANDARD.decode(&auth.auth).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    let (user, password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
    Some(Credential::Password { user, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_in_all_their_forms() {
        let image: RegistryRef = "r.example:5000/a:1".parse().expect("a reference");
        let auth = |auth: api::AuthConfig| credential(&auth, &image);
        let password = |user: &str, password: &str| {
            Some(Credential::Password { user: user.into(), password: password.into() })
        };
        let of = api::AuthConfig::default;
        let plain = api::AuthConfig { username: "me".into(), password: "p:w".into(), ..of() };
        assert_eq!(auth(plain.clone()), password("me", "p:w"));
        let encoded = api::AuthConfig { auth: STANDARD.encode("me:p:w\0"), ..of() };
        assert_eq!(auth(encoded), password("me", "p:w"));
        let token = api::AuthConfig { identity_token: "t".into(), ..of() };
        assert_eq!(auth(token), Some(Credential::IdentityToken("t".into())));
        for (server, meant) in [
            ("https://r.example:5000/v2/", true),
            ("r.example:5000", true),
            ("other.example", false),
        ] {
            let plain = api::AuthConfig { server_address: server.into(), ..plain.clone() };
            assert_eq!(auth(plain.clone()).is_some(), meant, "{server}");
            assert!(!format!("{plain:?}").contains("p:w"));
        }
        for bad in ["", "%", &STANDARD.encode("no colon"), &STANDARD.encode([0xff, b':'])] {
            assert_eq!(auth(api::AuthConfig { auth: (*bad).to_owned(), ..of() }), None, "{bad:?}");
        }
    }

    #[test]
    fn messages_are_taken_out_of_their_frames() {
        let frame = |bytes: &'static [u8]| message(&Bytes::from_static(bytes));
        assert_eq!(frame(b"\0\0\0\0\x02ab"), Some(Bytes::from_static(b"ab")));
        for none in
            [&b""[..], b"\0\0\0\0", b"\x01\0\0\0\x02ab", b"\0\0\0\0\x03ab", b"\0\xff\xff\xff\xffab"]
        {
            assert_eq!(frame(none), None, "{none:?}");
        }
    }
}
