//! Connections to hosts, kept for as long as they may be used again.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{ClientBuilder, Url};

use super::transport::Transport;
use super::{cause_of, is_loopback, origin_of};
use crate::source::FetchError;

/// Idle connections kept to a host: as many as fetches run at once for one layer.
const IDLE_CONNECTIONS: usize = 16;
/// HTTP/2 windows. At 100 ms round trip a stream of 4 MiB windows carries 40 MB/s.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Connections to all hosts that have no settings of their own.
pub(super) struct Connections {
    connect_timeout: Duration,
    /// Reading the system's certificates takes some milliseconds, so it waits for the first need.
    tls: OnceLock<Result<reqwest::Client, String>>,
    plain: OnceLock<Result<reqwest::Client, String>>,
    loopback: OnceLock<Result<reqwest::Client, String>>,
}

impl Connections {
    pub(super) fn new(connect_timeout: Duration) -> Self {
        let (tls, plain, loopback) = Default::default();
        Self { connect_timeout, tls, plain, loopback }
    }

    /// What sends a request to `url`.
    pub(super) fn to(
        &self,
        url: &Url,
        transport: &Transport,
    ) -> Result<reqwest::Client, FetchError> {
        let near = is_loopback(url);
        // Nobody is a proxy to this machine.
        let builder = || if near { self.builder().no_proxy() } else { self.builder() };
        let build = |builder: ClientBuilder| builder.build().map_err(cause_of);
        let client =
            transport.client(near, builder).unwrap_or_else(|| match (url.scheme(), near) {
                ("http", true) => self.loopback.get_or_init(|| build(builder().tls_certs_only([]))),
                ("http", false) => self.plain.get_or_init(|| build(builder().tls_certs_only([]))),
                _ => self.tls.get_or_init(|| build(self.builder())),
            });
        client.clone().map_err(|cause| FetchError::Unreachable {
            origin: origin_of(url),
            cause: format!(
                "cannot set up TLS: {cause}; check its certificates, and your system's ca-certificates"
            ),
        })
    }

    fn builder(&self) -> ClientBuilder {
        client_builder()
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(self.connect_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tcp_nodelay(true)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
    }
}

/// A client that follows no redirects.
pub(crate) fn client_builder() -> ClientBuilder {
    // Fails only if somebody installed a provider before, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("lazystar/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
}
