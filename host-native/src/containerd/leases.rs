//! Leases: what keeps containerd from collecting what is not referred to yet.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Containerd, ContainerdError, PATIENCE, Result};
use crate::proto::services::leases::v1 as api;

/// Says until when a lease holds, should nobody end it.
const EXPIRES: &str = "containerd.io/gc.expire";
/// How long that is: as long as other clients say.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// A lease; what is made through [`Lease::containerd`] is kept until it ends.
#[derive(Debug)]
pub struct Lease {
    containerd: Containerd,
    id: String,
}

impl Containerd {
    /// Takes a lease.
    ///
    /// # Errors
    /// When containerd gives none.
    pub async fn lease(&self) -> Result<Lease> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("lazystar-{}-{}", std::process::id(), now.as_nanos());
        let until = i64::try_from((now + LIFE).as_secs()).unwrap_or(i64::MAX);
        let labels = [(EXPIRES.to_owned(), lazystar_core::time::rfc3339(until))].into();
        let request = api::CreateRequest { id: id.clone(), labels };
        let what = "grant a lease";
        let asked =
            async { api::leases_client::LeasesClient::new(self.scoped()).create(request).await };
        self.call(what, PATIENCE, asked).await?;
        let mut containerd = self.clone();
        let value = id.parse().map_err(|_| ContainerdError::Namespace(id.clone()))?;
        containerd.scope.lease = Some(value);
        Ok(Lease { containerd, id })
    }
}

impl Lease {
    /// containerd, under this lease.
    #[must_use]
    pub const fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    /// Ends the lease. One that is not ended does so by itself, a day later.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn end(self) -> Result<()> {
        let request = api::DeleteRequest { id: self.id, sync: false };
        let asked = async {
            let scoped = self.containerd.scoped();
            api::leases_client::LeasesClient::new(scoped).delete(request).await
        };
        self.containerd.call("end a lease", PATIENCE, asked).await.map(drop)
    }
}
