//! What there is to know of a snapshot, and why a call on snapshots fails.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::labels::LayerSource;

/// What a snapshot is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Read-only and not a parent.
    View,
    /// Being written.
    Active,
    /// Finished; may be a parent.
    Committed,
}

/// Labels, sorted by key.
pub type Labels = BTreeMap<String, String>;

/// What is known of a snapshot.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    /// The number that names its directory; never given out twice.
    pub id: u64,
    /// View, active or committed.
    pub kind: Kind,
    /// The key of its parent; empty for none.
    pub parent: String,
    /// Its labels.
    pub labels: Labels,
    /// When it was made, in nanoseconds since 1970.
    pub created: u64,
    /// When its labels were last changed.
    pub updated: u64,
    /// What it took when it was committed.
    pub usage: Usage,
    /// Where a lazy layer comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<LayerSource>,
}

/// Space that a snapshot takes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Usage {
    /// Bytes on the disk.
    pub size: u64,
    /// Files, directories and the like.
    pub inodes: u64,
}

/// Why a layer is not lazy.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fallback {
    /// When it was asked for, in nanoseconds since 1970.
    pub at: u64,
    /// What the client said of it.
    pub labels: Labels,
    /// Why.
    pub reason: String,
}

impl Fallback {
    /// A layer that was asked for with `labels` just now.
    #[must_use]
    pub fn new(labels: &Labels, reason: String) -> Self {
        Self { at: now(), labels: labels.clone(), reason }
    }
}

/// Why a call on snapshots fails. The service makes gRPC's codes of these.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no such snapshot.
    #[error("snapshot {0:?} does not exist: not found")]
    NotFound(String),
    /// The key is taken.
    #[error("snapshot {0:?} already exists")]
    AlreadyExists(String),
    /// The call does not fit what the snapshot is.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The call is wrong by itself.
    #[error("{0}")]
    InvalidArgument(String),
    /// A lazy layer cannot be served now.
    #[error("{0}")]
    Unavailable(String),
    /// The metadata cannot be read or written.
    #[error("the snapshotter's metadata cannot be used: {0}")]
    Store(#[from] redb::Error),
    /// A record is not readable.
    #[error("the snapshotter's metadata is damaged at {key:?}: {cause}")]
    Damaged {
        /// The snapshot.
        key: String,
        /// What is wrong.
        cause: serde_json::Error,
    },
    /// A directory cannot be used.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        cause: std::io::Error,
    },
}

impl SnapshotError {
    /// A thread that worked on a call died.
    pub(super) fn died(error: tokio::task::JoinError) -> Self {
        Self::Io { what: "a call failed unexpectedly".to_owned(), cause: error.into() }
    }
}

/// The result of a call on snapshots.
pub type Result<T, E = SnapshotError> = std::result::Result<T, E>;

/// A snapshot and all below it, the topmost first.
pub type Chain = Vec<(String, Record)>;

/// Nanoseconds since 1970.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
