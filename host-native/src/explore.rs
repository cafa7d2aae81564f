//! The browser explorer: its page, and a proxy to the registries that the page may ask.
//!
//! A page cannot ask most registries itself: they send no CORS headers, and it has no credentials.
//! So it asks this server, below `/registry/HOST/v2/`; what is on this machine is served in the
//! same way, as the registry `local`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use tokio::net::TcpListener;

mod about;
mod allow;
mod guard;
mod local;
mod page;
mod proxy;
mod range;
mod refusal;
mod target;
mod upstream;

pub use about::NamedImage;
pub use allow::AllowedRegistry;

use crate::oci::Platform;
use crate::prompt::Prompt;
use crate::reference::ImageRef;
use crate::registry::ClientOptions;
use about::{About, LOCAL};
use allow::Allowed;
use local::Local;
use page::Page;
use proxy::Proxy;
use refusal::Refusal;
use target::Target;

/// The port to serve on: a browser keeps things by it.
const PORT: u16 = 7117;
/// How long answers under way may take to end when the server stops.
const SHUTDOWN: Duration = Duration::from_secs(1);
/// Of everything that is no file of the page: whatever it holds, a browser shows nothing of it.
const NOTHING: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox";
/// On every answer.
const ALWAYS: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// What to serve, where, and what the page may ask.
#[derive(Clone, Debug)]
pub struct ExploreOptions {
    /// The image to show first.
    pub image: Option<NamedImage>,
    /// Where to listen; otherwise port 7117 of this machine, or any other if that is taken.
    pub listen: Option<SocketAddr>,
    /// The directory of the page, in place of the page in this program.
    pub assets: Option<PathBuf>,
    /// Registries that the page may ask beside that of the image and the well-known ones.
    pub allow: Vec<AllowedRegistry>,
    /// Whether registries that nobody named may be at addresses that are not public.
    pub allow_private: bool,
    /// How registries are asked. Which addresses are reached is not taken from it.
    pub client: ClientOptions,
    /// Whether the registries that are named by name are spoken to without encryption.
    pub plain_http: bool,
    /// For which platform an image is taken where a layout has several by one name.
    pub platform: Platform,
}

/// The explorer, listening.
#[derive(Debug)]
pub struct Explorer {
    listener: Prompt,
    address: SocketAddr,
    site: Arc<Site>,
}

#[derive(Debug)]
struct Site {
    about: About,
    page: Page,
    proxy: Proxy,
    local: Option<Local>,
}

impl Explorer {
    /// Begins to listen, after looking at an image on this machine.
    ///
    /// # Errors
    /// If there is no page, the image is not usable, or the address cannot be listened on.
    pub async fn start(options: ExploreOptions) -> Result<Self> {
        let page = Page::new(options.assets.as_deref())?;
        let in_registry = options.image.as_ref().and_then(|named| match &named.image {
            ImageRef::Registry(reference) => Some(reference),
            _ => None,
        });
        let allowed = Allowed::new(in_registry, &options.allow);
        let local = match &options.image {
            Some(named) if in_registry.is_none() => {
                let local = Local::open(&named.image, &options.platform).await;
                Some(local.with_context(|| format!("cannot open {}", named.text))?)
            }
            _ => None,
        };
        let about = About::new(options.image.as_ref(), local.as_ref(), &allowed);
        let proxy = Proxy::new(allowed, &options);
        let listener = listen(options.listen).await?;
        let address = listener.local_addr()?;
        let site = Arc::new(Site { about, page, proxy, local });
        Ok(Self { listener: Prompt(listener), address, site })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to open in a browser on this machine.
    #[must_use]
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("http://{address}/{}", self.site.about.fragment())
    }

    /// Serves until `stop` is there, and then for a second at most what is under way.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let app = Router::new()
            .fallback(answer)
            .with_state(self.site)
            .into_make_service_with_connect_info::<Ends>();
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let until = async {
            stop.await;
            // Nobody listens when the server failed before.
            let _ = stopping.send(());
        };
        let server = axum::serve(self.listener, app).with_graceful_shutdown(until);
        let late = async {
            match stopped.await {
                Ok(()) => tokio::time::sleep(SHUTDOWN).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            served = server => Ok(served?),
            () = late => Ok(()),
        }
    }
}

async fn listen(address: Option<SocketAddr>) -> Result<TcpListener> {
    if let Some(address) = address {
        let listener = TcpListener::bind(address).await;
        return listener
            .with_context(|| format!("cannot listen on {address}; choose another with --listen"));
    }
    match TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            tracing::info!("port {PORT} is taken");
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
        }
        bound => bound,
    }
    .context("cannot listen on 127.0.0.1; choose another address with --listen")
}

/// The address at which a connection reached this machine.
#[derive(Clone, Copy, Debug)]
struct Ends {
    here: Option<SocketAddr>,
}

impl Connected<IncomingStream<'_, Prompt>> for Ends {
    fn connect_info(stream: IncomingStream<'_, Prompt>) -> Self {
        Self { here: stream.io().local_addr().ok() }
    }
}

async fn answer(
    State(site): State<Arc<Site>>,
    ConnectInfo(ends): ConnectInfo<Ends>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let answer = site.answer(ends, &head).await;
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let policy = headers.entry(CONTENT_SECURITY_POLICY);
    policy.or_insert(HeaderValue::from_static(NOTHING));
    if head.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

impl Site {
    async fn answer(&self, ends: Ends, head: &Parts) -> Result<Response, Refusal> {
        guard::check(ends.here, head)?;
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let message = format!("{} is not for this server: it only shows things", head.method);
            let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "LAZYSTAR_METHOD", message);
            return Err(refusal.with(ALLOW, "GET, HEAD"));
        }
        let path = head.uri.path();
        if let Some(rest) = path.strip_prefix("/registry/") {
            let target = Target::parse(rest)?;
            return match &self.local {
                Some(local) if target.registry == LOCAL => local.answer(&target, head).await,
                _ => self.proxy.answer(&target, head).await,
            };
        }
        if path == "/lazystar.json" {
            return Ok(self.about.answer());
        }
        self.page.answer(path, &head.headers).await
    }
}

/// Sets a header whose value may not be one, which it then is not.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Has a browser ask again each time.
fn never_old(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}
