//! The snapshotter: containerd's snapshots service, with layers that are mounted before they are
//! downloaded.

pub mod cri;
pub mod labels;
pub mod lazy;
pub mod lookup;
pub mod mounts;
pub mod service;
pub mod snapshots;
pub mod store;
pub mod usage;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures_util::stream::{self, Stream};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::Server;

use crate::proto::services::snapshots::v1::snapshots_server::SnapshotsServer;
use cri::ImageProxy;
use service::Service;
use snapshots::Snapshotter;

/// Where clients look for the socket of a snapshotter of this kind.
pub const ADDRESS: &str = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock";
/// Where such a snapshotter keeps its state.
pub const ROOT: &str = "/var/lib/containerd-stargz-grpc";

/// Serves snapshots, and CRI's image service where there is one, on a unix socket until `end` is
/// done; then unmounts everything.
///
/// # Errors
/// When the socket or the root directory cannot be used.
pub async fn serve(
    snapshotter: Arc<Snapshotter>,
    images: Option<ImageProxy>,
    address: &Path,
    end: impl Future<Output = ()>,
) -> Result<()> {
    snapshotter.restore().context("cannot mount again what was mounted")?;
    let connections = connections(listen(address)?);
    tracing::info!(address = %address.display(), "serving snapshots");
    let service = SnapshotsServer::new(Service(Arc::clone(&snapshotter)));
    let server = Server::builder().add_service(service).add_optional_service(images);
    let served = server.serve_with_incoming_shutdown(connections, end).await;
    // Nobody connects to a socket that nobody serves.
    if let Err(error) = fs::remove_file(address) {
        tracing::warn!(address = %address.display(), %error, "cannot remove the socket");
    }
    tokio::task::spawn_blocking(move || snapshotter.close()).await?;
    served.context("serving snapshots failed")
}

/// Serves CRI's image service on a unix socket of its own.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve_images(images: ImageProxy, address: &Path) -> Result<()> {
    let connections = connections(listen(address)?);
    tracing::info!(address = %address.display(), "serving CRI's image service");
    let server = Server::builder().add_service(images);
    server.serve_with_incoming(connections).await.context("serving CRI's image service failed")
}

fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    stream::unfold(listener, |listener| async move {
        let connection = listener.accept().await.map(|(connection, _)| connection);
        Some((connection, listener))
    })
}

/// Listens on a socket, taking the place of one that nobody serves.
fn listen(address: &Path) -> Result<UnixListener> {
    if StdUnixStream::connect(address).is_ok() {
        bail!(
            "{} is served by another process; stop it, or choose another socket with --address",
            address.display()
        );
    }
    if let Some(dir) = address.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }
    match fs::remove_file(address) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", address.display()));
        }
        _ => {}
    }
    UnixListener::bind(address).with_context(|| format!("cannot listen on {}", address.display()))
}
