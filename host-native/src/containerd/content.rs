//! The content store: manifests, configurations and layers by digest.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use lazystar_core::Digest;
use prost_types::FieldMask;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::{Containerd, MAX_MESSAGE, PATIENCE, Result, Scope, label_path};
use crate::oci::{check_digest, check_size};
use crate::proto::services::content::v1 as api;

/// How long to wait before asking again whether somebody still stores a blob.
const BUSY: Duration = Duration::from_millis(200);
/// How fast somebody does that at least who is waited for, in bytes a second.
const SLOWEST: u64 = 1 << 20;

type Client = api::content_client::ContentClient<
    tonic::service::interceptor::InterceptedService<Channel, Scope>,
>;

/// What the store says of a blob that it has.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it arrived, in seconds since 1970.
    pub created: i64,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

impl Stored {
    /// Content under digests other than SHA-256 is none of ours.
    fn of(info: api::Info) -> Option<Self> {
        Some(Self {
            digest: info.digest.parse().ok()?,
            size: u64::try_from(info.size).ok()?,
            created: info.created_at.map_or(0, |at| at.seconds),
            labels: info.labels,
        })
    }
}

impl Containerd {
    fn content(&self) -> Client {
        Client::new(self.scoped()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// What the store says of a blob; `None` if it has it not.
    ///
    /// # Errors
    /// When containerd does not tell.
    pub async fn stored(&self, digest: Digest) -> Result<Option<Stored>> {
        let request = api::InfoRequest { digest: digest.to_string() };
        let asked = async { self.content().info(request).await };
        match self.call("look into its content store", PATIENCE, asked).await {
            Ok(answer) => Ok(answer.into_inner().info.and_then(Stored::of)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All blobs that match `filter`.
    ///
    /// # Errors
    /// When containerd does not tell.
    pub async fn list(&self, filter: &str) -> Result<Vec<Stored>> {
        let request = api::ListContentRequest { filters: vec![filter.to_owned()] };
        let asked = async {
            let mut batches = self.content().list(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(batch) = batches.message().await? {
                all.extend(batch.info.into_iter().filter_map(Stored::of));
            }
            Ok(all)
        };
        self.call("list its content store", PATIENCE, asked).await
    }

    /// A document of at most `limit` bytes, verified.
    ///
    /// # Errors
    /// When it is not there, too large, or not what its digest says.
    pub async fn document(&self, digest: Digest, limit: u64) -> Result<Bytes> {
        let what = "document";
        let request = api::ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let asked = async {
            let mut parts = self.content().read(request).await?.into_inner();
            let mut bytes = BytesMut::new();
            while let Some(part) = parts.message().await? {
                bytes.extend_from_slice(&part.data);
                if bytes.len() as u64 > limit {
                    break;
                }
            }
            Ok(bytes.freeze())
        };
        let bytes = self.call(&format!("read {digest}"), PATIENCE, asked).await?;
        check_size(what, bytes.len() as u64, limit)?;
        check_digest(what, &bytes, digest)?;
        Ok(bytes)
    }

    /// Gives a blob labels beside those that it has.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn label(&self, digest: Digest, labels: BTreeMap<String, String>) -> Result<()> {
        let update_mask = FieldMask { paths: labels.keys().map(|key| label_path(key)).collect() };
        let labels = labels.into_iter().collect();
        let info = api::Info { digest: digest.to_string(), labels, ..api::Info::default() };
        let request = api::UpdateRequest { info: Some(info), update_mask: Some(update_mask) };
        let asked = async { self.content().update(request).await };
        self.call(&format!("label {digest}"), PATIENCE, asked).await.map(drop)
    }

    /// Stores a document with `labels`; if it is there, it is given them.
    ///
    /// # Errors
    /// When containerd does not take it.
    pub async fn store(&self, bytes: &Bytes, labels: BTreeMap<String, String>) -> Result<()> {
        let digest = Digest::of(bytes);
        match self.ingest(digest, bytes.len() as u64).await? {
            Some(mut ingest) => {
                let from = usize::try_from(ingest.offset()).unwrap_or(usize::MAX);
                ingest.write(bytes.slice(from.min(bytes.len())..)).await?;
                ingest.commit(labels).await
            }
            None => self.label(digest, labels).await,
        }
    }

    /// Begins to store a blob, or goes on where that was left; `None` if it is there. Waits for
    /// whoever is storing the same one.
    ///
    /// # Errors
    /// When containerd does not take it, or somebody else takes too long.
    pub async fn ingest(&self, digest: Digest, size: u64) -> Result<Option<Ingest>> {
        let until = Instant::now() + PATIENCE + Duration::from_secs(size / SLOWEST);
        loop {
            match self.try_ingest(digest, size).await {
                Err(error) if error.is_busy() && Instant::now() < until => sleep(BUSY).await,
                begun => return begun,
            }
        }
    }

    async fn try_ingest(&self, digest: Digest, size: u64) -> Result<Option<Ingest>> {
        let what = format!("store {digest}");
        let first = api::WriteContentRequest {
            action: api::WriteAction::Stat.into(),
            r#ref: format!("lazystar-{digest}"),
            total: number(size),
            expected: digest.to_string(),
            ..api::WriteContentRequest::default()
        };
        let (requests, waiting) = mpsc::channel(1);
        let asked = async {
            // The channel has room for one.
            let _ = requests.try_send(first.clone());
            let stream = stream::unfold(waiting, |mut waiting| async move {
                Some((waiting.recv().await?, waiting))
            });
            let mut answers = self.content().write(stream).await?.into_inner();
            Ok((answers.message().await?, answers))
        };
        let begun = match self.call(&what, PATIENCE, asked).await {
            Err(error) if error.already_exists() => return Ok(None),
            begun => begun?,
        };
        let (status, answers) = begun;
        let offset = status.map_or(0, |status| u64::try_from(status.offset).unwrap_or(0));
        let (containerd, there) = (self.clone(), false);
        Ok(Some(Ingest { containerd, what, first, requests, answers, offset, digest, there }))
    }
}

/// A blob that is being stored. Dropped before its commit, what arrived stays for the next attempt.
#[derive(Debug)]
pub struct Ingest {
    containerd: Containerd,
    what: String,
    first: api::WriteContentRequest,
    requests: mpsc::Sender<api::WriteContentRequest>,
    answers: Streaming<api::WriteContentResponse>,
    offset: u64,
    digest: Digest,
    /// Somebody else has stored the blob meanwhile.
    there: bool,
}

impl Ingest {
    /// How much of the blob the store has.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether somebody else has stored the blob meanwhile, so that its bytes are not wanted.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.there
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// When containerd does not take them.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        /// containerd's limit is 16 MiB for the whole message.
        const PIECE: usize = 4 << 20;
        let mut rest = bytes;
        while !rest.is_empty() && !self.there {
            let data = rest.split_to(rest.len().min(PIECE));
            let length = data.len() as u64;
            let action = api::WriteAction::Write.into();
            self.send(api::WriteContentRequest { action, data: data.into(), ..self.next() })
                .await?;
            self.offset += length;
        }
        Ok(())
    }

    /// Ends the blob: containerd checks size and digest, and keeps it with `labels`.
    ///
    /// # Errors
    /// When it is not what its digest says; what arrived is thrown away then.
    pub async fn commit(mut self, labels: BTreeMap<String, String>) -> Result<()> {
        if !self.there {
            let action = api::WriteAction::Commit.into();
            let labels = labels.clone().into_iter().collect();
            self.send(api::WriteContentRequest { action, labels, ..self.next() }).await?;
        }
        if self.there { self.containerd.label(self.digest, labels).await } else { Ok(()) }
    }

    /// Throws away what arrived so far.
    ///
    /// # Errors
    /// When containerd cannot.
    pub async fn restart(&mut self) -> Result<()> {
        self.offset = 0;
        let action = api::WriteAction::Write.into();
        self.send(api::WriteContentRequest { action, ..self.next() }).await
    }

    fn next(&self) -> api::WriteContentRequest {
        api::WriteContentRequest { offset: number(self.offset), ..self.first.clone() }
    }

    async fn send(&mut self, request: api::WriteContentRequest) -> Result<()> {
        let (requests, answers) = (&self.requests, &mut self.answers);
        let asked = async {
            if requests.send(request).await.is_err() {
                // Why it ended is what the stream of answers says.
                tracing::debug!("containerd ended a write");
            }
            answers.message().await?.ok_or_else(|| Status::new(Code::Aborted, "it broke off"))
        };
        match self.containerd.call(&self.what, PATIENCE, asked).await {
            Err(error) if error.already_exists() => self.there = true,
            answered => drop(answered?),
        }
        Ok(())
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
