//! containerd's snapshots service: requests to calls, errors to status codes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::record::{Kind, Labels, Record, SnapshotError};
use super::snapshots::{Prepared, Snapshotter};
use crate::filter::Filters;
use crate::proto::services::snapshots::v1 as api;

/// How long any call may take: longer than measuring what a large build wrote.
const DEADLINE: Duration = Duration::from_secs(300);
/// Snapshots in one message of a list.
const BATCH: usize = 100;

/// The service.
#[derive(Debug)]
pub struct Service(pub Arc<Snapshotter>);

type Reply<T> = Result<Response<T>, Status>;
type Batches = Pin<Box<dyn Stream<Item = Result<api::ListSnapshotsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl api::snapshots_server::Snapshots for Service {
    async fn prepare(
        &self,
        request: Request<api::PrepareSnapshotRequest>,
    ) -> Reply<api::PrepareSnapshotResponse> {
        let it = request.into_inner();
        match within(self.0.prepare(&it.key, &it.parent, sorted(it.labels))).await? {
            Prepared::Active(mounts) => Ok(Response::new(api::PrepareSnapshotResponse { mounts })),
            // By this the client knows that it need not fetch the layer.
            Prepared::Lazy => Err(Status::already_exists("the snapshot is there, lazily")),
        }
    }

    async fn view(
        &self,
        request: Request<api::ViewSnapshotRequest>,
    ) -> Reply<api::ViewSnapshotResponse> {
        let it = request.into_inner();
        let mounts = within(self.0.view(&it.key, &it.parent, sorted(it.labels))).await?;
        Ok(Response::new(api::ViewSnapshotResponse { mounts }))
    }

    async fn mounts(&self, request: Request<api::MountsRequest>) -> Reply<api::MountsResponse> {
        let mounts = within(self.0.mounts(&request.into_inner().key)).await?;
        Ok(Response::new(api::MountsResponse { mounts }))
    }

    async fn commit(&self, request: Request<api::CommitSnapshotRequest>) -> Reply<()> {
        let it = request.into_inner();
        self.blocking(move |snapshots| {
            snapshots.commit(&it.key, &it.name, &it.parent, sorted(it.labels))
        })
        .await
    }

    async fn remove(&self, request: Request<api::RemoveSnapshotRequest>) -> Reply<()> {
        let it = request.into_inner();
        self.blocking(move |snapshots| snapshots.remove(&it.key)).await
    }

    async fn stat(
        &self,
        request: Request<api::StatSnapshotRequest>,
    ) -> Reply<api::StatSnapshotResponse> {
        let key = request.into_inner().key;
        let record = self.0.stat(&key)?;
        Ok(Response::new(api::StatSnapshotResponse { info: Some(info(&key, record)) }))
    }

    async fn update(
        &self,
        request: Request<api::UpdateSnapshotRequest>,
    ) -> Reply<api::UpdateSnapshotResponse> {
        let it = request.into_inner();
        let wanted =
            it.info.ok_or_else(|| Status::invalid_argument("an update needs a snapshot"))?;
        let paths = it.update_mask.map(|mask| mask.paths).unwrap_or_default();
        let change = Change::new(sorted(wanted.labels), &paths)?;
        self.blocking(move |snapshots| {
            let record = snapshots.relabel(&wanted.name, |labels| change.apply(labels))?;
            Ok(api::UpdateSnapshotResponse { info: Some(info(&wanted.name, record)) })
        })
        .await
    }

    type ListStream = Batches;

    async fn list(&self, request: Request<api::ListSnapshotsRequest>) -> Reply<Batches> {
        let filters = Filters::parse(&request.into_inner().filters)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let found = self
            .blocking(move |snapshots| {
                let mut found = Vec::new();
                snapshots.walk(|key, record| {
                    if filters.matches(|path| field(key, &record, path)) {
                        found.push(info(key, record));
                    }
                })?;
                Ok(found)
            })
            .await?
            .into_inner();
        let batches: Vec<_> = found
            .chunks(BATCH)
            .map(|batch| Ok(api::ListSnapshotsResponse { info: batch.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(stream::iter(batches))))
    }

    async fn usage(&self, request: Request<api::UsageRequest>) -> Reply<api::UsageResponse> {
        let usage = within(self.0.usage(&request.into_inner().key)).await?;
        let number = |value| i64::try_from(value).unwrap_or(i64::MAX);
        let (size, inodes) = (number(usage.size), number(usage.inodes));
        Ok(Response::new(api::UsageResponse { size, inodes }))
    }

    async fn cleanup(&self, _: Request<api::CleanupRequest>) -> Reply<()> {
        self.blocking(Snapshotter::cleanup).await
    }
}

impl Service {
    /// Runs what waits for the disk where it holds up nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshotter) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Reply<T> {
        let snapshots = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&snapshots));
        let done = async { done.await.map_err(SnapshotError::died)? };
        within(done).await.map(Response::new)
    }
}

async fn within<T>(work: impl Future<Output = Result<T, SnapshotError>>) -> Result<T, Status> {
    let done = tokio::time::timeout(DEADLINE, work).await;
    let late = || format!("it took longer than {} s", DEADLINE.as_secs());
    Ok(done.map_err(|_| Status::deadline_exceeded(late()))??)
}

impl From<SnapshotError> for Status {
    fn from(error: SnapshotError) -> Self {
        let text = error.to_string();
        match error {
            SnapshotError::NotFound(_) => Self::not_found(text),
            SnapshotError::AlreadyExists(_) => Self::already_exists(text),
            SnapshotError::FailedPrecondition(_) => Self::failed_precondition(text),
            SnapshotError::InvalidArgument(_) => Self::invalid_argument(text),
            SnapshotError::Unavailable(_) => Self::unavailable(text),
            SnapshotError::Store(_) | SnapshotError::Io { .. } => Self::internal(text),
            SnapshotError::Damaged { .. } => Self::data_loss(text),
        }
    }
}

/// A change of labels, as a field mask says it.
enum Change {
    All(Labels),
    Some(Vec<(String, String)>),
}

impl Change {
    fn new(labels: Labels, paths: &[String]) -> Result<Self, Status> {
        if paths.is_empty() || paths.iter().any(|path| path == "labels") {
            return Ok(Self::All(labels));
        }
        let one = |path: &String| match path.strip_prefix("labels.") {
            Some(key) => Ok((key.to_owned(), labels.get(key).cloned().unwrap_or_default())),
            None => Err(Status::invalid_argument(format!(
                "cannot update {path:?} of a snapshot; only its labels can be"
            ))),
        };
        paths.iter().map(one).collect::<Result<_, _>>().map(Self::Some)
    }

    fn apply(self, labels: &mut Labels) {
        match self {
            Self::All(all) => *labels = all,
            Self::Some(some) => labels.extend(some),
        }
    }
}

fn sorted(labels: impl IntoIterator<Item = (String, String)>) -> Labels {
    labels.into_iter().collect()
}

fn field<'a>(key: &'a str, record: &'a Record, path: &[&str]) -> Option<&'a str> {
    match path {
        ["name"] => Some(key),
        ["parent"] => Some(&record.parent).filter(|parent| !parent.is_empty()).map(String::as_str),
        ["kind"] => Some(match record.kind {
            Kind::View => "view",
            Kind::Active => "active",
            Kind::Committed => "committed",
        }),
        // A label's name may have been written without quotes.
        ["labels", name @ ..] => record.labels.get(&name.join(".")).map(String::as_str),
        _ => None,
    }
}

fn info(key: &str, record: Record) -> api::Info {
    let kind = match record.kind {
        Kind::View => api::Kind::View,
        Kind::Active => api::Kind::Active,
        Kind::Committed => api::Kind::Committed,
    };
    api::Info {
        name: key.to_owned(),
        parent: record.parent,
        kind: kind.into(),
        created_at: Some(timestamp(record.created)),
        updated_at: Some(timestamp(record.updated)),
        labels: record.labels.into_iter().collect(),
    }
}

fn timestamp(nanos: u64) -> Timestamp {
    let since = Duration::from_nanos(nanos);
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0) }
}
