//! The snapshotter: containerd's snapshots service, with layers that are mounted before they are
//! downloaded.

pub mod control;
pub mod labels;
pub mod lazy;
pub mod lines;
pub mod mount_process;
pub mod mounts;
pub mod service;
pub mod snapshots;
pub mod store;
pub mod usage;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures_util::stream;
use tokio::net::UnixListener;
use tonic::transport::Server;

use crate::proto::services::snapshots::v1::snapshots_server::SnapshotsServer;
use service::Service;
use snapshots::Snapshotter;

/// Where clients look for the socket of a snapshotter of this kind.
pub const ADDRESS: &str = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock";
/// Where such a snapshotter keeps its state.
pub const ROOT: &str = "/var/lib/containerd-stargz-grpc";

/// How the daemon ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Lazy layers stay mounted, for whoever uses them and for the daemon that comes next.
    KeepMounts,
    /// Everything is unmounted.
    Everything,
}

/// Serves snapshots on a unix socket until `end` is done.
///
/// # Errors
/// When the socket or the root directory cannot be used.
pub async fn serve(
    snapshotter: Arc<Snapshotter>,
    address: &Path,
    end: impl Future<Output = End> + Send + 'static,
) -> Result<()> {
    snapshotter.begin().await.context("cannot serve lazy layers")?;
    let (say_end, ended) = tokio::sync::oneshot::channel();
    let end = async move {
        let _ = say_end.send(end.await);
    };
    let listener = listen(address, "; stop it, or choose another socket with --address")?;
    tokio::spawn(control::serve(Arc::clone(&snapshotter)));
    tracing::info!(address = %address.display(), "serving snapshots");
    let connections = stream::unfold(listener, |listener| async move {
        let connection = listener.accept().await.map(|(connection, _)| connection);
        Some((connection, listener))
    });
    let service = SnapshotsServer::new(Service(Arc::clone(&snapshotter)));
    let served =
        Server::builder().add_service(service).serve_with_incoming_shutdown(connections, end).await;
    // Nobody connects to a socket that nobody serves.
    if let Err(error) = fs::remove_file(address) {
        tracing::warn!(address = %address.display(), %error, "cannot remove the socket");
    }
    snapshotter.end(ended.await.unwrap_or(End::KeepMounts)).await;
    served.context("serving snapshots failed")
}

/// Listens on a socket that only its owner may use, taking the place of one that nobody serves.
/// `advice` says what to do where somebody does.
///
/// # Errors
/// When somebody serves it, or it cannot be made.
pub fn listen(address: &Path, advice: &str) -> Result<UnixListener> {
    if StdUnixStream::connect(address).is_ok() {
        bail!("{} is served by another process{advice}", address.display());
    }
    if let Some(dir) = address.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }
    match fs::remove_file(address) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", address.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(address)
        .with_context(|| format!("cannot listen on {}", address.display()))?;
    fs::set_permissions(address, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
