//! Blobs in registries: one range request at a time, checked; whatever else comes is of use too.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use lazystar_core::Digest;
use reqwest::{Method, Response};

use super::FetchError;
use super::body::Body;
use super::range::{Carried, carried};
use super::whole::WholeBlob;
use crate::lock::lock;
use crate::oci::Descriptor;
use crate::registry::{
    Answer, Capabilities, Endpoint, Outage, Question, Repository, Target, Urgency, check,
};

/// A blob and where its repository last said that it is.
pub(super) struct RegistryBlob(Arc<Inner>);

pub(super) struct Inner {
    repository: Repository,
    digest: Digest,
    size: u64,
    target: Target,
    /// Taken while a host that may not know ranges is asked: what it sends then is for all.
    probing: tokio::sync::Mutex<()>,
    /// The blob, if it came whole although a part was asked for.
    whole: Mutex<Option<Arc<WholeBlob>>>,
}

/// An answer that was found to be of use.
pub(super) struct Opened {
    pub(super) response: Response,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) carried: Carried,
}

impl RegistryBlob {
    pub(super) fn new(repository: &Repository, descriptor: &Descriptor) -> Self {
        Self(Arc::new(Inner {
            repository: repository.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
            target: Target::default(),
            probing: tokio::sync::Mutex::default(),
            whole: Mutex::default(),
        }))
    }

    pub(super) fn size(&self) -> u64 {
        self.0.size
    }

    pub(super) fn digest(&self) -> Digest {
        self.0.digest
    }

    pub(super) fn name(&self) -> String {
        format!("{}@{}", self.0.repository, self.0.digest)
    }

    pub(super) fn outage(&self) -> Outage {
        self.0.repository.client().options().outage
    }

    pub(super) fn comes_whole(&self) -> bool {
        lock(&self.0.whole).is_some()
    }

    pub(super) fn drop_whole(&self) {
        lock(&self.0.whole).take();
    }

    pub(super) async fn fetch(
        &self,
        range: Range<u64>,
        urgency: &Urgency,
    ) -> Result<Body, FetchError> {
        let blob = &self.0;
        let ends = (range.start, range.end);
        if let Some(whole) = blob.whole() {
            return Ok(Body::from_whole(blob, ends, whole));
        }
        let ranges_work = || blob.repository.gives_ranges() == Some(true);
        // Until it is known what a host does, one request at a time finds out.
        let mut probing = None;
        if !ranges_work() {
            let turn = blob.probing.lock().await;
            if let Some(whole) = blob.whole() {
                return Ok(Body::from_whole(blob, ends, whole));
            }
            probing = Some(turn).filter(|_| !ranges_work());
        }
        let opened = blob.open(range, urgency).await?;
        if opened.carried == Carried::Whole {
            let whole = blob.keep_whole(opened)?;
            return Ok(Body::from_whole(blob, ends, whole));
        }
        drop(probing);
        Ok(Body::new(blob, ends, opened, urgency.clone()))
    }
}

impl Inner {
    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Asks for `range` and checks that the answer has it.
    pub(super) async fn open(
        &self,
        range: Range<u64>,
        urgency: &Urgency,
    ) -> Result<Opened, FetchError> {
        let digest = self.digest.to_string();
        let question = Question {
            method: Method::GET,
            path: &["blobs", &digest],
            query: &[],
            wanted: Capabilities::PULL,
            accept: None,
            range: Some(range.clone().into()),
            attempts: None,
            verbatim: false,
            urgency: urgency.clone(),
        };
        let what = || format!("blob {digest} in {}", self.repository);
        let accept = |response, endpoint: &Endpoint| {
            let response = check(response, endpoint, &what, &range)?;
            carried(&response, &range, self.size)?;
            Ok(response)
        };
        let answer = self.repository.ask(&question, &self.target, accept).await?;
        let Answer { response, endpoint } = answer;
        let carried = carried(&response, &range, self.size)?;
        if range != (0..self.size) {
            self.repository.note_ranges(&endpoint, carried != Carried::Whole);
        }
        Ok(Opened { response, endpoint, carried })
    }

    /// Keeps the blob that comes with `opened`, unless it is coming already.
    pub(super) fn keep_whole(
        self: &Arc<Self>,
        opened: Opened,
    ) -> Result<Arc<WholeBlob>, FetchError> {
        let mut whole = lock(&self.whole);
        if let Some(whole) = &*whole {
            return Ok(Arc::clone(whole));
        }
        tracing::info!(
            blob = %self.digest,
            host = opened.endpoint.host,
            "the whole blob comes where a part was asked for; keeping all of it"
        );
        let spool = self.repository.client().options().spool.clone();
        let dir = spool.unwrap_or_else(std::env::temp_dir);
        let new = WholeBlob::start(Body::of_whole(self, opened), &dir)?;
        *whole = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Forgets a blob that does not come after all.
    pub(super) fn forget_whole(&self, failed: &Arc<WholeBlob>) {
        lock(&self.whole).take_if(|it| Arc::ptr_eq(it, failed));
    }

    /// Has the rest of a range asked of others, if there are any.
    pub(super) fn leave(&self, endpoint: &Arc<Endpoint>, error: &FetchError) {
        self.repository.put_to_rest(endpoint, error);
        self.target.leave(endpoint);
    }

    fn whole(&self) -> Option<Arc<WholeBlob>> {
        lock(&self.whole).clone()
    }
}
