//! containerd, as a client of its API over its unix socket.
//!
//! Every call names the namespace that it is about, and has a deadline.

mod content;
mod images;
mod leases;
mod snapshots;
mod source;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

pub use content::{Ingest, Stored};
pub use images::ImageRecord;
pub use leases::Lease;
pub use snapshots::{Applied, Prepared};
pub use source::source_labels;

/// Where containerd listens when nobody says otherwise.
pub const ADDRESS: &str = "/run/containerd/containerd.sock";
/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one call may take, if it is one that containerd answers from its own records.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one call may take that makes or removes snapshots: the snapshotter may ask a registry.
const LONG: Duration = Duration::from_secs(180);
/// Largest message; containerd's own limit.
const MAX_MESSAGE: usize = 16 << 20;

/// Why containerd did not do something.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// Nobody listens on its socket.
    #[error("containerd does not answer on {address}: {cause}; start it, or name its socket")]
    Unreachable {
        /// The socket.
        address: String,
        /// What the connection attempt says.
        cause: String,
    },
    /// It did not answer in time.
    #[error("containerd did not {what} within {} s", after.as_secs())]
    Timeout {
        /// What was asked for.
        what: String,
        /// How long it had.
        after: Duration,
    },
    /// It refused.
    #[error("containerd cannot {what}: {}", status.message())]
    Refused {
        /// What was asked for.
        what: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// A namespace that cannot stand in a header.
    #[error("{0:?} is not a namespace of containerd: letters, digits and . _ - make one")]
    Namespace(String),
    /// The content is not what its digest says.
    #[error("containerd's content store: {0}")]
    Content(#[from] crate::oci::DocumentError),
}

impl ContainerdError {
    /// Whether containerd has no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    /// Whether containerd has such a thing already.
    #[must_use]
    pub fn already_exists(&self) -> bool {
        self.code() == Some(Code::AlreadyExists)
    }

    /// Whether somebody else is doing the same.
    fn is_busy(&self) -> bool {
        self.code() == Some(Code::Unavailable)
    }

    fn code(&self) -> Option<Code> {
        if let Self::Refused { status, .. } = self { Some(status.code()) } else { None }
    }
}

/// The result of a call.
pub type Result<T, E = ContainerdError> = std::result::Result<T, E>;

/// A connection to containerd, seen in one namespace. Clones are cheap and share the connection,
/// which is made when it is first needed and again when it was lost.
#[derive(Clone)]
pub struct Containerd {
    channel: Channel,
    address: String,
    scope: Scope,
}

impl Containerd {
    /// The containerd behind the socket `address`, in `namespace`. Sends nothing.
    ///
    /// # Errors
    /// When the namespace cannot be one.
    pub fn new(address: &Path, namespace: &str) -> Result<Self> {
        let path = std::path::absolute(address).unwrap_or_else(|_| address.to_owned());
        let address = path.display().to_string();
        let endpoint = Endpoint::from_shared(format!("unix://{address}"));
        let unusable = |cause: tonic::transport::Error| ContainerdError::Unreachable {
            address: address.clone(),
            cause: cause.to_string(),
        };
        let channel = endpoint.map_err(unusable)?.connect_timeout(CONNECT).connect_lazy();
        Ok(Self { channel, address, scope: Scope::of(namespace)? })
    }

    /// The same containerd, in another namespace.
    ///
    /// # Errors
    /// When the namespace cannot be one.
    pub fn in_namespace(&self, namespace: &str) -> Result<Self> {
        Ok(Self { scope: Scope::of(namespace)?, ..self.clone() })
    }

    /// A stub, in this namespace and under the lease, if there is one.
    fn scoped(&self) -> InterceptedService<Channel, Scope> {
        InterceptedService::new(self.channel.clone(), self.scope.clone())
    }

    /// Waits for the answer to a call, to `what` in words that follow "cannot".
    async fn call<T>(
        &self,
        what: &str,
        patience: Duration,
        call: impl Future<Output = std::result::Result<T, Status>>,
    ) -> Result<T> {
        match tokio::time::timeout(patience, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(self.failure(what, status)),
            Err(_) => Err(ContainerdError::Timeout { what: what.to_owned(), after: patience }),
        }
    }

    fn failure(&self, what: &str, status: Status) -> ContainerdError {
        // What a channel says when it has no connection; what containerd itself says has no source.
        let mut cause = std::error::Error::source(&status);
        if status.code() == Code::Unavailable && cause.is_some() {
            let mut text = status.message().to_owned();
            while let Some(inner) = cause {
                text = inner.to_string();
                cause = inner.source();
            }
            return ContainerdError::Unreachable { address: self.address.clone(), cause: text };
        }
        ContainerdError::Refused { what: what.to_owned(), status: Box::new(status) }
    }
}

impl fmt::Debug for Containerd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Containerd({}, {:?})", self.address, self.scope.namespace)
    }
}

/// What every call carries: its namespace, and the lease that keeps what it makes.
#[derive(Clone, Debug)]
struct Scope {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Scope {
    fn of(namespace: &str) -> Result<Self> {
        let wrong = || ContainerdError::Namespace(namespace.to_owned());
        if namespace.is_empty() {
            return Err(wrong());
        }
        Ok(Self { namespace: namespace.parse().map_err(|_| wrong())?, lease: None })
    }
}

impl Interceptor for Scope {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            metadata.insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

/// `path` of a field mask for a label.
fn label_path(key: &str) -> String {
    format!("labels.{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn says_that_nobody_listens() {
        let dir = tempfile::tempdir().expect("a directory");
        let containerd = Containerd::new(&dir.path().join("sock"), "default").expect("a name");
        let error = containerd.image("x").await.expect_err("nobody is there");
        assert!(matches!(error, ContainerdError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("sock"), "{error}");
    }

    #[tokio::test]
    async fn refuses_namespaces_that_are_none() {
        for bad in ["", "a\nb"] {
            assert!(Containerd::new(Path::new("/x"), bad).is_err(), "{bad:?}");
        }
    }
}
