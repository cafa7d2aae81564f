//! Snapshots of any of containerd's snapshotters, and layers applied to them.

use std::collections::BTreeMap;

use lazystar_core::Digest;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::{Containerd, LONG, PATIENCE, Result, Scope, images};
use crate::oci::Descriptor;
use crate::proto::services::diff::v1 as diff;
use crate::proto::services::snapshots::v1 as api;
use crate::proto::types::Mount;

/// What came of preparing a snapshot.
#[derive(Debug)]
pub enum Prepared {
    /// The snapshot that was asked for is there already, or stands in lazily.
    There,
    /// An active snapshot, to be filled and committed.
    Active(Vec<Mount>),
}

/// The digest of what was unpacked; `None` if the differ does not tell.
pub type Applied = Option<Digest>;

impl Containerd {
    fn snapshots(
        &self,
    ) -> api::snapshots_client::SnapshotsClient<InterceptedService<Channel, Scope>> {
        api::snapshots_client::SnapshotsClient::new(self.scoped())
            .max_decoding_message_size(super::MAX_MESSAGE)
    }

    /// Prepares the snapshot `key` on `parent`.
    ///
    /// # Errors
    /// When the snapshotter refuses.
    pub async fn prepare(
        &self,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Prepared> {
        let request = api::PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels.into_iter().collect(),
        };
        let what = format!("prepare a snapshot of {snapshotter}");
        let asked = async { self.snapshots().prepare(request).await };
        match self.call(&what, LONG, asked).await {
            Ok(answer) => Ok(Prepared::Active(answer.into_inner().mounts)),
            Err(error) if error.already_exists() => Ok(Prepared::There),
            Err(error) => Err(error),
        }
    }

    /// The labels of a snapshot; `None` if there is none.
    ///
    /// # Errors
    /// When the snapshotter does not tell.
    pub async fn snapshot(
        &self,
        snapshotter: &str,
        key: &str,
    ) -> Result<Option<BTreeMap<String, String>>> {
        let request =
            api::StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let what = format!("find a snapshot of {snapshotter}");
        let asked = async { self.snapshots().stat(request).await };
        match self.call(&what, PATIENCE, asked).await {
            Ok(answer) => {
                let info = answer.into_inner().info.unwrap_or_default();
                Ok(Some(info.labels.into_iter().collect()))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Commits the active snapshot `key` under `name`; that it is there already is fine.
    ///
    /// # Errors
    /// When the snapshotter refuses.
    pub async fn commit(
        &self,
        snapshotter: &str,
        name: &str,
        key: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<()> {
        let request = api::CommitSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: labels.into_iter().collect(),
            parent: String::new(),
        };
        let what = format!("commit a snapshot of {snapshotter}");
        let asked = async { self.snapshots().commit(request).await };
        match self.call(&what, LONG, asked).await {
            Err(error) if error.already_exists() => self.remove_snapshot(snapshotter, key).await,
            done => done.map(drop),
        }
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// When the snapshotter refuses.
    pub async fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<()> {
        let request =
            api::RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let what = format!("remove a snapshot of {snapshotter}");
        let asked = async { self.snapshots().remove(request).await };
        self.call(&what, LONG, asked).await.map(drop)
    }

    /// Unpacks a layer of the content store into what `mounts` show.
    ///
    /// # Errors
    /// When containerd cannot.
    pub async fn apply(&self, layer: &Descriptor, mounts: Vec<Mount>) -> Result<Applied> {
        let request = diff::ApplyRequest { diff: Some(images::message(layer)), mounts };
        let what = format!("unpack the layer {}", layer.digest);
        let asked =
            async { diff::diff_client::DiffClient::new(self.scoped()).apply(request).await };
        // Disks are slow, and layers large: 4 MB/s is the least that is waited for.
        let patience = LONG + std::time::Duration::from_secs(layer.size / (4 << 20));
        let answer = self.call(&what, patience, asked).await?.into_inner();
        Ok(answer.applied.and_then(|applied| applied.digest.parse().ok()))
    }
}
