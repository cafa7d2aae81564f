//! Connections to hosts, kept for as long as they may be used again.

use std::sync::OnceLock;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{ClientBuilder, Url};

use super::client::Call;
use super::reach::{Reach, check_known, check_written, guarded};
use super::transport::Way;
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
    reach: Reach,
    /// Reading the system's certificates takes some milliseconds, so it waits for the first need.
    tls: OnceLock<Result<reqwest::Client, String>>,
    plain: OnceLock<Result<reqwest::Client, String>>,
    loopback: OnceLock<Result<reqwest::Client, String>>,
    guarded: OnceLock<Result<reqwest::Client, String>>,
    /// The proxies that the environment names.
    proxies: OnceLock<Matcher>,
}

impl Connections {
    pub(super) fn new(connect_timeout: Duration, reach: Reach) -> Self {
        let (tls, plain, loopback, guarded, proxies) = Default::default();
        Self { connect_timeout, reach, tls, plain, loopback, guarded, proxies }
    }

    /// What sends `call`.
    pub(super) async fn to(&self, call: &Call) -> Result<reqwest::Client, FetchError> {
        let url = &call.url;
        let way = self.way(call).await?;
        let builder = || match way {
            // Nobody is a proxy to this machine.
            Way::Near => self.builder().no_proxy(),
            Way::Far => self.builder(),
            Way::Guarded => guarded(self.builder()),
        };
        let build = |builder: ClientBuilder| builder.build().map_err(cause_of);
        let client =
            call.transport.client(way, builder).unwrap_or_else(|| match (url.scheme(), way) {
                (_, Way::Guarded) => self.guarded.get_or_init(|| build(builder())),
                ("http", Way::Near) => {
                    self.loopback.get_or_init(|| build(builder().tls_certs_only([])))
                }
                ("http", Way::Far) => {
                    self.plain.get_or_init(|| build(builder().tls_certs_only([])))
                }
                _ => self.tls.get_or_init(|| build(self.builder())),
            });
        client.clone().map_err(|cause| FetchError::Unreachable {
            origin: origin_of(url),
            cause: format!(
                "cannot set up TLS: {cause}; check its certificates, and your system's ca-certificates"
            ),
        })
    }

    async fn way(&self, call: &Call) -> Result<Way, FetchError> {
        let url = &call.url;
        if !call.configured && !self.reach.includes(url) {
            check_written(url)?;
            if !self.is_through_proxy(call) {
                return Ok(Way::Guarded);
            }
            check_known(url).await?;
        }
        Ok(if is_loopback(url) { Way::Near } else { Way::Far })
    }

    fn is_through_proxy(&self, call: &Call) -> bool {
        let proxies = self.proxies.get_or_init(Matcher::from_system);
        let intercepted =
            |url: &Url| Some(proxies.intercept(&url.as_str().parse().ok()?).is_some());
        call.transport.has_proxy() || intercepted(&call.url) == Some(true)
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
