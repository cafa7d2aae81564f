//! An embedded, read-only registry: serves an OCI layout directory on the loopback interface, if
//! wanted with the latency and bandwidth of a network.
//!
//! It answers for every repository name, so `127.0.0.1:PORT/demo:TAG` names the image `TAG` of the
//! layout. Blobs are streamed from disk; single byte ranges are honoured.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use axum::serve::IncomingStream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod content;
mod shape;

use crate::prompt::Prompt;
use content::{Answer, Found};
use shape::Link;

/// How long open connections may take to end when the registry stops.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// What to serve, and how slowly.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// The OCI layout directory; it may change while it is served.
    pub layout: PathBuf,
    /// The round trip time: each request takes one, the first of a connection one more.
    pub latency: Duration,
    /// Bytes per second for all connections together; nothing means as fast as possible.
    pub bandwidth: Option<u64>,
}

/// What a registry did since it started or was last asked to forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests answered.
    pub requests: u64,
    /// Bytes of bodies sent.
    pub bytes: u64,
    /// Connections on which a request came.
    pub connections: u64,
}

/// A running registry. Dropping it stops it.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    layout: PathBuf,
    latency: Duration,
    link: Link,
    requests: AtomicU64,
    bytes: AtomicU64,
    connections: AtomicU64,
}

impl Registry {
    /// Starts serving on `127.0.0.1` at a port that the system chooses.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(options: RegistryOptions) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let listener = Prompt(listener);
        let shared = Arc::new(Shared {
            layout: options.layout,
            latency: options.latency,
            link: Link::new(options.bandwidth),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let (stop, mut stopped) = watch::channel(false);
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared))
            .into_make_service_with_connect_info::<Connection>();
        let server = tokio::spawn(async move {
            let until = async move {
                // An error means that the handle is gone, which ends the service too.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(until).await {
                tracing::warn!("the demo registry stopped: {error}");
            }
        });
        Ok(Self { address, shared, stop, server })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The reference of the image that the layout calls `tag`.
    #[must_use]
    pub fn reference(&self, tag: &str) -> String {
        format!("{}/demo:{tag}", self.address)
    }

    /// What it did so far.
    #[must_use]
    pub fn served(&self) -> Served {
        Served {
            requests: self.shared.requests.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            connections: self.shared.connections.load(Ordering::Relaxed),
        }
    }

    /// Sets what it did so far to nothing.
    pub fn reset(&self) {
        for counter in [&self.shared.requests, &self.shared.bytes, &self.shared.connections] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Stops: accepts nothing more, and waits shortly for answers under way.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        if tokio::time::timeout(SHUTDOWN, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A connection, and whether a request came on it.
#[derive(Clone, Debug, Default)]
struct Connection(Arc<AtomicBool>);

impl Connected<IncomingStream<'_, Prompt>> for Connection {
    fn connect_info(_: IncomingStream<'_, Prompt>) -> Self {
        Self::default()
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let fresh = !connection.0.swap(true, Ordering::Relaxed);
    if fresh {
        shared.connections.fetch_add(1, Ordering::Relaxed);
    }
    if !shared.latency.is_zero() {
        tokio::time::sleep(shared.latency * if fresh { 2 } else { 1 }).await;
    }
    let answer = content::find(&shared.layout, &request.into_parts().0).await;
    respond(&shared, answer)
}

fn respond(shared: &Arc<Shared>, answer: Answer) -> Response {
    let mut response = Response::new(match answer.found {
        Some(Found { file, length }) => {
            Body::from_stream(shape::stream(Arc::clone(shared), file, length))
        }
        None => Body::from(answer.message),
    });
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

impl Shared {
    fn sent(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
}
