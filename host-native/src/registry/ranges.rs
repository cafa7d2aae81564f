//! Which hosts give ranges of blobs, by what they answered.

use std::collections::HashMap;
use std::sync::Mutex;

use reqwest::Url;

use super::Repository;
use super::endpoint::{Capabilities, Endpoint};
use crate::lock::lock;

/// Whether ranges were given, by where the API of a host begins and the name of a repository.
#[derive(Default)]
pub(super) struct Ranges(Mutex<HashMap<(Url, String), bool>>);

impl Repository {
    /// Whether the host that is asked first gives ranges of what is in the repository; `None` while
    /// it was not asked for any.
    pub(crate) fn gives_ranges(&self) -> Option<bool> {
        let plan = self.client().plans().current(&self.0.reference, self.0.plain_http)?;
        let first = self.client().health().order(&plan, Capabilities::PULL).into_iter().next()?;
        let key = (first.base.clone(), self.name().to_owned());
        lock(&self.client().ranges().0).get(&key).copied()
    }

    /// Remembers how a host answered a request for a range.
    pub(crate) fn note_ranges(&self, endpoint: &Endpoint, given: bool) {
        let key = (endpoint.base.clone(), self.name().to_owned());
        lock(&self.client().ranges().0).insert(key, given);
    }
}
