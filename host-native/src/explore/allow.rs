//! Which registries the page may ask.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::refusal::Refusal;
use crate::reference::{ReferenceError, RegistryRef};
use crate::registry::Reach;

/// Registries that anybody may pull from.
const WELL_KNOWN: [&str; 7] = [
    "docker.io",
    "ghcr.io",
    "quay.io",
    "registry.k8s.io",
    "gcr.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
];

/// What `--allow` names: a registry, or with `*` all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedRegistry {
    /// All registries.
    Any,
    /// This one, wherever it is.
    Named(RegistryRef),
}

impl FromStr for AllowedRegistry {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        match text {
            "*" => Ok(Self::Any),
            host => RegistryRef::of_host(host).map(Self::Named),
        }
    }
}

/// Which registries the page may ask.
#[derive(Debug)]
pub(super) struct Allowed {
    any: bool,
    /// Those that were named, the first one first.
    named: Vec<RegistryRef>,
}

impl Allowed {
    /// The registry of `image` if there is one, those of `allow`, and the well-known ones.
    pub(super) fn new(image: Option<&RegistryRef>, allow: &[AllowedRegistry]) -> Self {
        let others = allow.iter().filter_map(|it| match it {
            AllowedRegistry::Any => None,
            AllowedRegistry::Named(registry) => Some(registry),
        });
        let named = image.into_iter().chain(others).cloned().collect();
        Self { any: allow.contains(&AllowedRegistry::Any), named }
    }

    /// Refuses a registry that the page may not ask.
    pub(super) fn check(&self, registry: &RegistryRef) -> Result<(), Refusal> {
        let host = registry.host();
        if self.any || self.is_named(host) || WELL_KNOWN.contains(&host) {
            return Ok(());
        }
        let message = format!(
            "the explorer was not allowed to ask {host}: start it with `lazystar explore --allow {host}`"
        );
        Err(Refusal::new(StatusCode::FORBIDDEN, "LAZYSTAR_NOT_ALLOWED", message))
    }

    /// Whether somebody named the registry, and so knows where it is.
    pub(super) fn is_named(&self, host: &str) -> bool {
        self.named.iter().any(|it| it.host() == host)
    }

    /// What a client may connect to.
    pub(super) fn reach(&self) -> Reach {
        let hosts = self.named.iter().flat_map(|it| [it.host(), it.endpoint()]);
        Reach::Public(Arc::new(hosts.map(str::to_owned).collect()))
    }

    /// What the page is told.
    pub(super) fn shown(&self) -> Value {
        if self.any {
            return json!("*");
        }
        let mut seen = BTreeSet::new();
        let hosts = self.named.iter().map(RegistryRef::host).chain(WELL_KNOWN);
        hosts.filter(|host| seen.insert(*host)).collect()
    }
}
