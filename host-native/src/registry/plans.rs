//! The plans in effect: made when a host is first asked, made anew when its configuration changes.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::Hosts;
use super::endpoint::{Capabilities, Plan};
use super::hosts_file::{self, Entry, Listed};
use super::transport::TransportSettings;
use crate::lock::lock;
use crate::reference::RegistryRef;
use crate::source::FetchError;

/// How often the configuration of a host in use is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is known of each host, by its name in references and whether it is spoken to without TLS.
pub(super) struct Plans {
    hosts: Hosts,
    known: Mutex<HashMap<(String, bool), Known>>,
}

#[derive(Clone)]
struct Known {
    plan: Plan,
    listed: Listed,
    looked: Instant,
}

impl Plans {
    pub(super) fn new(hosts: Hosts) -> Self {
        Self { hosts, known: Mutex::default() }
    }

    /// The plan for the host of `reference`, if its configuration was looked at a moment ago.
    pub(super) fn current(&self, reference: &RegistryRef, plain_http: bool) -> Option<Plan> {
        let known = lock(&self.known);
        let known = known.get(&(reference.host().to_owned(), plain_http))?;
        (Instant::now() < known.looked + INTERVAL).then(|| known.plan.clone())
    }

    /// The plan for the host of `reference`. Reads files when it was not looked at for a while.
    ///
    /// # Errors
    /// If its configuration names hosts that cannot be asked, and no earlier one is known.
    pub(super) fn plan(
        &self,
        reference: &RegistryRef,
        plain_http: bool,
    ) -> Result<Plan, FetchError> {
        let key = (reference.host().to_owned(), plain_http);
        let now = Instant::now();
        let known = {
            let mut known = lock(&self.known);
            match known.get_mut(&key) {
                Some(known) if now < known.looked + INTERVAL => return Ok(known.plan.clone()),
                // Others go on with what there is while this one looks.
                Some(known) => {
                    known.looked = now;
                    Some(known.clone())
                }
                None => None,
            }
        };
        let listed = self.read(reference.host(), known.as_ref().map(|known| &known.listed));
        if let Some(before) = &known
            && before.listed.entries == listed.entries
        {
            let plan = before.plan.clone();
            lock(&self.known).insert(key, Known { plan: plan.clone(), listed, looked: now });
            return Ok(plan);
        }
        let made = self.hosts.plan(reference, plain_http, &listed.entries);
        let plan = match (made, known) {
            (Ok(plan), Some(_)) => {
                tracing::info!(host = key.0, "its hosts were configured anew");
                plan
            }
            (Ok(plan), None) => plan,
            (Err(error), Some(known)) => {
                tracing::warn!(host = key.0, "going on with the hosts known before: {error}");
                known.plan
            }
            (Err(error), None) => return Err(error),
        };
        lock(&self.known).insert(key, Known { plan: plan.clone(), listed, looked: now });
        Ok(plan)
    }

    /// What the directories say of `host`; what they said before, where they cannot be read now.
    fn read(&self, host: &str, before: Option<&Listed>) -> Listed {
        let dir = hosts_file::directory(&self.hosts.directories, host);
        let Some(dir) = dir else { return Listed { entries: vec![itself()], broken: None } };
        let mut listed = hosts_file::load(&dir).unwrap_or_else(|error| Listed {
            entries: vec![itself()],
            broken: Some(format!("{}: {error}", dir.display())),
        });
        let Some(why) = &listed.broken else { return listed };
        let is_news = before.is_none_or(|before| before.broken != listed.broken);
        if is_news {
            let instead =
                if before.is_some() { "what it said before counts" } else { "it does not count" };
            tracing::warn!("{why}; {instead}");
        }
        if let Some(before) = before {
            listed.entries.clone_from(&before.entries);
        }
        listed
    }
}

/// The host that references name, of which nothing is configured.
fn itself() -> Entry {
    Entry {
        address: None,
        capabilities: Capabilities::ALL,
        headers: Vec::new(),
        transport: TransportSettings::default(),
    }
}
