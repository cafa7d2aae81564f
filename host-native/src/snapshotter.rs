//! The snapshotter: containerd's snapshots service, with layers that are mounted before they are
//! downloaded.

pub mod control;
pub mod cri;
pub mod dirs;
pub mod labels;
pub mod lazy;
pub mod lines;
pub mod lookup;
pub mod mount_process;
pub mod mounts;
pub mod record;
pub mod service;
pub mod snapshots;
pub mod store;
pub mod usage;

use std::fs;
use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::stream::{self, Stream};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::Server;

use crate::proto::services::snapshots::v1::snapshots_server::SnapshotsServer;
use crate::socket::{listen, refuse_served};
use crate::systemd;
use crate::user_dirs;
use cri::ImageProxy;
use service::Service;
use snapshots::Snapshotter;

/// The name of what this stands in for, after which its directories are called.
const NAME: &str = "containerd-stargz-grpc";

/// Where clients look for the socket: below `/run`, or below `$XDG_RUNTIME_DIR` in a user namespace.
#[must_use]
pub fn default_address() -> PathBuf {
    let base = user_dirs::of_user("XDG_RUNTIME_DIR", None);
    base.unwrap_or_else(|| PathBuf::from("/run")).join(NAME).join(format!("{NAME}.sock"))
}

/// Where state is kept: below `/var/lib`, or below `$XDG_DATA_HOME` in a user namespace.
#[must_use]
pub fn default_root() -> PathBuf {
    let base = user_dirs::of_user("XDG_DATA_HOME", Some(".local/share"));
    base.unwrap_or_else(|| PathBuf::from("/var/lib")).join(NAME)
}

/// What to do where a socket is served already.
const OTHER_SOCKET: &str = "; stop it, or choose another socket with --address";

/// How the daemon ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Lazy layers stay mounted, for whoever uses them and for the daemon that comes next.
    KeepMounts,
    /// Everything is unmounted.
    Everything,
}

/// Serves snapshots, and CRI's image service where there is one, until `end` is done: on a unix
/// socket that systemd opened, or else on one at `address`.
///
/// # Errors
/// When the socket or the root directory cannot be used.
pub async fn serve(
    snapshotter: Arc<Snapshotter>,
    images: Option<ImageProxy>,
    opened: Option<StdUnixListener>,
    address: &Path,
    end: impl Future<Output = End> + Send + 'static,
) -> Result<()> {
    // Before anything is mounted that nobody would take away again.
    if opened.is_none() {
        refuse_served(address, OTHER_SOCKET)?;
    }
    snapshotter.begin().await.context("cannot serve lazy layers")?;
    let (say_end, ended) = tokio::sync::oneshot::channel();
    let end = async move {
        let how = end.await;
        systemd::stopping();
        let _ = say_end.send(how);
    };
    let (listener, is_ours) = match opened {
        Some(opened) => (UnixListener::from_std(opened)?, false),
        None => (listen(address, OTHER_SOCKET)?, true),
    };
    let connections = connections(listener);
    tokio::spawn(control::serve(Arc::clone(&snapshotter)));
    systemd::ready();
    tracing::info!(address = %address.display(), "serving snapshots");
    let service = SnapshotsServer::new(Service(Arc::clone(&snapshotter)));
    let server = Server::builder().add_service(service);
    let server = server.add_optional_service(images);
    let served = server.serve_with_incoming_shutdown(connections, end).await;
    // Nobody connects to a socket that nobody serves; one of systemd's waits for the next daemon.
    if is_ours && let Err(error) = fs::remove_file(address) {
        tracing::warn!(address = %address.display(), %error, "cannot remove the socket");
    }
    snapshotter.end(ended.await.unwrap_or(End::KeepMounts)).await;
    served.context("serving snapshots failed")
}

/// Serves CRI's image service on a unix socket of its own.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve_images(images: ImageProxy, address: &Path) -> Result<()> {
    let connections = connections(listen(address, OTHER_SOCKET)?);
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
