//! A client of the snapshots service, and what a container runtime does with its mounts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use hyper_util::rt::TokioIo;
use lazystar::proto::services::snapshots::v1 as api;
use lazystar::proto::types::Mount;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_bind_recursive,
    mount_remount, move_mount, unmount,
};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::files::{Listing, list};

/// What keeps containerd from collecting a snapshot.
pub(crate) const ROOT_LABEL: &str = "containerd.io/gc.root";

/// A snapshotter behind a socket.
pub(crate) struct Client {
    socket: PathBuf,
    snapshotter: &'static str,
}

type Namespaced = fn(Request<()>) -> Result<Request<()>, Status>;
type Service = api::snapshots_client::SnapshotsClient<InterceptedService<Channel, Namespaced>>;

/// Labels of a call.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

fn labels(more: Labels<'_>) -> HashMap<String, String> {
    let all = more.iter().copied().chain([(ROOT_LABEL, "2026-01-01T00:00:00Z")]);
    all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

impl Client {
    pub(crate) fn new(socket: PathBuf, snapshotter: &'static str) -> Self {
        Self { socket, snapshotter }
    }

    fn name(&self) -> String {
        self.snapshotter.to_owned()
    }

    async fn service(&self) -> Service {
        let socket = self.socket.clone();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await.expect("it listens");
        let namespaced: Namespaced = |mut request| {
            request
                .metadata_mut()
                .insert("containerd-namespace", MetadataValue::from_static("suite"));
            Ok(request)
        };
        Service::new(InterceptedService::new(channel, namespaced))
    }

    pub(crate) async fn prepare(
        &self,
        key: &str,
        parent: &str,
        more: Labels<'_>,
    ) -> Result<Vec<Mount>, Status> {
        let (snapshotter, key, parent) = (self.name(), key.to_owned(), parent.to_owned());
        let request =
            api::PrepareSnapshotRequest { snapshotter, key, parent, labels: labels(more) };
        Ok(self.service().await.prepare(request).await?.into_inner().mounts)
    }

    pub(crate) async fn view(
        &self,
        key: &str,
        parent: &str,
        more: Labels<'_>,
    ) -> Result<Vec<Mount>, Status> {
        let (snapshotter, key, parent) = (self.name(), key.to_owned(), parent.to_owned());
        let request = api::ViewSnapshotRequest { snapshotter, key, parent, labels: labels(more) };
        Ok(self.service().await.view(request).await?.into_inner().mounts)
    }

    pub(crate) async fn mounts(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let request = api::MountsRequest { snapshotter: self.name(), key: key.to_owned() };
        Ok(self.service().await.mounts(request).await?.into_inner().mounts)
    }

    pub(crate) async fn commit(
        &self,
        name: &str,
        key: &str,
        more: Labels<'_>,
    ) -> Result<(), Status> {
        let (snapshotter, name, key) = (self.name(), name.to_owned(), key.to_owned());
        let parent = String::new();
        let request =
            api::CommitSnapshotRequest { snapshotter, name, key, labels: labels(more), parent };
        self.service().await.commit(request).await.map(|_| ())
    }

    pub(crate) async fn remove(&self, key: &str) -> Result<(), Status> {
        let request = api::RemoveSnapshotRequest { snapshotter: self.name(), key: key.to_owned() };
        self.service().await.remove(request).await.map(|_| ())
    }

    pub(crate) async fn cleanup(&self) -> Result<(), Status> {
        let request = api::CleanupRequest { snapshotter: self.name() };
        match self.service().await.cleanup(request).await {
            // containerd cleans up after its own snapshotters by itself.
            Err(status) if status.code() != Code::Unimplemented => Err(status),
            _ => Ok(()),
        }
    }

    pub(crate) async fn stat(&self, key: &str) -> Result<api::Info, Status> {
        let request = api::StatSnapshotRequest { snapshotter: self.name(), key: key.to_owned() };
        let answer = self.service().await.stat(request).await?.into_inner();
        Ok(answer.info.expect("an answer says something"))
    }

    pub(crate) async fn usage(&self, key: &str) -> Result<(i64, i64), Status> {
        let request = api::UsageRequest { snapshotter: self.name(), key: key.to_owned() };
        let usage = self.service().await.usage(request).await?.into_inner();
        Ok((usage.size, usage.inodes))
    }

    pub(crate) async fn update(
        &self,
        info: api::Info,
        paths: &[&str],
    ) -> Result<api::Info, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request =
            api::UpdateSnapshotRequest { snapshotter: self.name(), info: Some(info), update_mask };
        let answer = self.service().await.update(request).await?.into_inner();
        Ok(answer.info.expect("an answer says something"))
    }

    /// The snapshots that match one of `filters`, by name.
    pub(crate) async fn list(&self, filters: &[&str]) -> Result<Vec<api::Info>, Status> {
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let request = api::ListSnapshotsRequest { snapshotter: self.name(), filters };
        let mut answers = self.service().await.list(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(batch) = answers.message().await? {
            all.extend(batch.info);
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Makes a committed snapshot `name` of what `change` does on top of `parent`.
    pub(crate) async fn layer(&self, name: &str, parent: &str, change: impl Fn(&Path)) {
        let key = format!("{name}-active");
        let mounts = self.prepare(&key, parent, &[]).await.expect("it can be prepared");
        change(Mounted::new(&mounts).path());
        self.commit(name, &key, &[]).await.expect("it can be committed");
    }

    /// What a committed snapshot shows.
    pub(crate) async fn listing(&self, name: &str) -> Listing {
        let key = format!("{name}-seen");
        let mounts = self.view(&key, name, &[]).await.expect("it can be viewed");
        let listing = list(Mounted::new(&mounts).path());
        self.remove(&key).await.expect("a view can be removed");
        listing
    }

    /// Removes snapshots, the topmost first, and lets go of their space.
    pub(crate) async fn remove_all(&self, keys: &[&str]) {
        for key in keys {
            self.remove(key).await.unwrap_or_else(|error| panic!("{key}: {error}"));
        }
        self.cleanup().await.expect("it can be cleaned up");
    }
}

/// The code that a call failed with.
pub(crate) fn code<T>(result: Result<T, Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// Mounts of a snapshot, on a directory of their own.
pub(crate) struct Mounted(TempDir);

impl Mounted {
    pub(crate) fn new(mounts: &[Mount]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for mount in mounts {
            match mount.r#type.as_str() {
                "bind" => bind(mount, dir.path()),
                "overlay" => overlay(mount, dir.path()),
                other => panic!("cannot mount {other}"),
            }
        }
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::empty());
    }
}

fn bind(mount: &Mount, dir: &Path) {
    mount_bind_recursive(&mount.source, dir).expect("it can be bound");
    if mount.options.iter().any(|option| option == "ro") {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        mount_remount(dir, flags, "").expect("it can be made read-only");
    }
}

/// Hands over lower directories one at a time, since the options of 128 layers do not fit into a page.
fn overlay(mount: &Mount, dir: &Path) {
    let config = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).expect("the kernel has overlayfs");
    for option in &mount.options {
        match option.split_once('=') {
            Some(("lowerdir", below)) => {
                for one in below.split(':') {
                    fsconfig_set_string(&config, "lowerdir+", one).expect("a layer is a directory");
                }
            }
            Some((name, value)) => {
                fsconfig_set_string(&config, name, value).expect("overlayfs knows the option");
            }
            None => {
                fsconfig_set_flag(&config, option.as_str()).expect("overlayfs knows the option")
            }
        }
    }
    if !mount.options.iter().any(|option| option.starts_with("upperdir=")) {
        fsconfig_set_flag(&config, "ro").expect("overlayfs can be read-only");
    }
    fsconfig_create(&config).expect("overlayfs takes the layers");
    let mounted = fsmount(&config, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mounted.expect("it mounts"), "", rustix::fs::CWD, dir, flags).expect("it mounts");
}

/// A key that no other has.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
