//! Reading a layer: which bytes to fetch, what to decode, who waits for what.

mod plan;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
pub use plan::FetchPolicy;

use crate::fetch::{Assembly, FetchFailure, FetchId, FetchRequest, Priority};
use crate::range::ByteRange;
use crate::toc::{ChunkIndex, Toc};
use crate::verify::{ChunkFault, Member, MemberJob};
use plan::Readahead;

/// The number of a read; a layer makes them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// Which chunks a host already has, verified. Answers may change from absent to present at any
/// time, and from present to absent between calls.
pub trait Presence {
    /// Whether the bytes of `chunk` need not be fetched.
    fn has(&self, chunk: ChunkIndex) -> bool;
}

/// One layer that is being read.
///
/// It holds no content. A read names a range of the flat space and is done when every chunk of
/// that range is verified and stored by the host. Methods come in four families: getters,
/// commands ([`read`](Self::read), [`cancel`](Self::cancel), [`advance`](Self::advance)), inputs
/// (`handle_*`) and the output ([`poll_output`](Self::poll_output)).
///
/// **Drain rule.** After every command or input, call `poll_output` until it returns `None`,
/// carry out what it asks, and only then wait. The loop of every host is:
///
/// 1. wait for one of: a read, a cancellation, bytes, a failure, a decoded member;
/// 2. give it to the layer;
/// 3. drain the outputs: start what [`Output::Fetch`] asks, run [`Output::Decode`] on any thread,
///    store what it verified and report it with [`handle_decoded`](Self::handle_decoded), answer
///    who waits for [`Output::Done`];
/// 4. go on with 1.
///
/// Every `Fetch` is answered by all of its bytes or by a failure, unless it is abandoned first.
/// Answers to unknown, finished or abandoned requests are ignored. The result of a read depends
/// on the blob, the TOC and the range alone, never on order, splits or presence.
///
/// Work in a call is proportional to the chunks or bytes that it names.
pub struct Layer {
    toc: Arc<Toc>,
    policy: FetchPolicy,
    ahead: Readahead,
    reads: HashMap<ReadId, Read, FixedState>,
    /// By where they start in the blob.
    members: BTreeMap<u64, PendingMember>,
    fetches: HashMap<FetchId, PendingFetch, FixedState>,
    outputs: VecDeque<Output>,
    next_read: u64,
    next_fetch: u64,
}

/// What a layer wants of its host.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// Fetch bytes of the blob.
    Fetch(FetchRequest),
    /// A reader now waits for a fetch that was asked for at [`Priority::Prefetch`].
    Raise(FetchId),
    /// Nobody wants this fetch any more.
    Abandon(FetchId),
    /// Decode and verify a member.
    Decode(MemberJob),
    /// A read came to its end: the range is stored, or why it is not.
    Done {
        /// Which read.
        read: ReadId,
        /// How it ended.
        result: Result<(), ReadError>,
    },
}

/// Bytes of one member that were requested and have not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The request that they are part of.
    pub fetch: FetchId,
    /// Where the member starts in the blob.
    pub member: u64,
    /// Where they are in the blob.
    pub range: ByteRange,
}

/// Why a read failed. The layer itself goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// A chunk of the range is not what the TOC says.
    Chunk(ChunkFault),
    /// The bytes could not be had or kept.
    Fetch(FetchFailure),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk(fault) => fault.fmt(f),
            Self::Fetch(failure) => failure.fmt(f),
        }
    }
}

impl core::error::Error for ReadError {}

struct Read {
    flat: Range<u64>,
    members: Vec<u64>,
    /// How many of its members are not stored yet.
    waiting: usize,
}

struct PendingMember {
    /// Where its bytes come from; `None` once they are all there and being decoded.
    source: Option<(FetchId, Assembly)>,
    readers: Vec<ReadId>,
}

struct PendingFetch {
    range: ByteRange,
    priority: Priority,
    /// How many of its members lack bytes.
    waiting: usize,
}

impl Layer {
    /// A layer with the given table of contents.
    #[must_use]
    pub fn new(toc: Arc<Toc>, policy: FetchPolicy) -> Self {
        Self {
            toc,
            policy,
            ahead: Readahead::default(),
            reads: HashMap::default(),
            members: BTreeMap::new(),
            fetches: HashMap::default(),
            outputs: VecDeque::new(),
            next_read: 0,
            next_fetch: 0,
        }
    }

    /// The table of contents.
    #[must_use]
    pub fn toc(&self) -> &Arc<Toc> {
        &self.toc
    }

    /// Changes how requests are cut, for those that come after.
    pub fn set_policy(&mut self, policy: FetchPolicy) {
        self.policy = policy;
    }

    /// Asks for a range of the flat space to be fetched, verified and stored.
    pub fn read(
        &mut self,
        flat: Range<u64>,
        priority: Priority,
        presence: &impl Presence,
    ) -> ReadId {
        let id = ReadId(self.next_read);
        self.next_read += 1;
        let members = self.missing_members(flat.clone(), presence);
        let mut new = Vec::new();
        for member in &members {
            match self.members.get_mut(member) {
                Some(pending) => {
                    pending.readers.push(id);
                    if let Some((fetch, _)) = pending.source
                        && priority == Priority::Demand
                    {
                        self.raise(fetch);
                    }
                }
                None => new.push(*member),
            }
        }
        if priority == Priority::Demand && !new.is_empty() {
            self.extend(&mut new, presence);
        }
        let waiting = members.len();
        for member in &new {
            let readers =
                if members.binary_search(member).is_ok() { Vec::from([id]) } else { Vec::new() };
            self.members.insert(*member, PendingMember { source: None, readers });
        }
        self.fetch(&new, priority);
        if waiting == 0 {
            self.outputs.push_back(Output::Done { read: id, result: Ok(()) });
        } else {
            self.reads.insert(id, Read { flat, members, waiting });
        }
        id
    }

    /// Gives up a read, which then has no [`Output::Done`]. What nobody else waits for is
    /// abandoned.
    pub fn cancel(&mut self, read: ReadId) {
        let Some(Read { members, .. }) = self.reads.remove(&read) else { return };
        let mut fetches = Vec::new();
        for member in members {
            let Some(pending) = self.members.get_mut(&member) else { continue };
            pending.readers.retain(|reader| *reader != read);
            fetches.extend(pending.source.as_ref().map(|(fetch, _)| *fetch));
        }
        fetches.dedup();
        for id in fetches {
            let Some(range) = self.fetches.get(&id).map(|fetch| fetch.range) else { continue };
            let wanted = self.members_from(id, range).any(|(_, member)| !member.readers.is_empty());
            if !wanted {
                self.drop_fetch(id, range);
                self.outputs.push_back(Output::Abandon(id));
            }
        }
    }

    /// The flat offset whose reading should be reported with [`advance`](Self::advance): somebody
    /// reads on and on, and what was fetched ahead for them is about to be used up.
    #[must_use]
    pub fn readahead_mark(&self) -> Option<u64> {
        self.ahead.mark()
    }

    /// Fetches further ahead, because the [`readahead_mark`](Self::readahead_mark) was reached.
    pub fn advance(&mut self, presence: &impl Presence) {
        let new = self.ahead.advance(&self.toc, &self.policy, |toc, member| {
            !self.members.contains_key(&member) && is_missing(toc, member, presence)
        });
        for member in &new {
            self.members.insert(*member, PendingMember { source: None, readers: Vec::new() });
        }
        self.fetch(&new, Priority::Prefetch);
    }

    /// Takes bytes of the blob from `at` on that answer request `id`.
    pub fn handle_fetched(&mut self, id: FetchId, at: u64, bytes: &[u8]) {
        if self.fetches.contains_key(&id) {
            self.take(Some(id), at, bytes);
        }
    }

    /// Takes bytes of the blob from `at` on, whichever requests they answer. For hosts that
    /// [know what is missing](Self::missing), not what was requested.
    pub fn handle_bytes(&mut self, at: u64, bytes: &[u8]) {
        self.take(None, at, bytes);
    }

    fn take(&mut self, id: Option<FetchId>, at: u64, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len() as u64);
        let first = self.members.range(..=at).next_back().map_or(at, |(member, _)| *member);
        for (member, pending) in self.members.range_mut(first..end.max(first)) {
            let Some((source, assembly)) = &mut pending.source else { continue };
            let source = *source;
            if id.is_some_and(|id| id != source) {
                continue;
            }
            assembly.put(at, bytes);
            if assembly.is_complete()
                && let Some((_, assembly)) = pending.source.take()
            {
                if let Some(fetch) = self.fetches.get_mut(&source) {
                    fetch.waiting -= 1;
                    if fetch.waiting == 0 {
                        self.fetches.remove(&source);
                    }
                }
                let job = MemberJob::new(Arc::clone(&self.toc), *member, assembly.into_bytes());
                self.outputs.push_back(Output::Decode(job));
            }
        }
    }

    /// What has not come of what was requested, in the order of the blob.
    pub fn missing(&self) -> impl Iterator<Item = Missing> {
        self.members.iter().flat_map(|(member, pending)| {
            pending.source.iter().flat_map(|(fetch, assembly)| {
                assembly.missing().map(|range| Missing { fetch: *fetch, member: *member, range })
            })
        })
    }

    /// Takes the news that the rest of request `id` will not come.
    pub fn handle_fetch_failed(&mut self, id: FetchId, failure: FetchFailure) {
        let Some(range) = self.fetches.get(&id).map(|fetch| fetch.range) else { return };
        for reader in self.drop_fetch(id, range) {
            self.end_read(reader, Err(ReadError::Fetch(failure)));
        }
    }

    /// Takes a decoded member, once the host has stored what was verified of it or failed to.
    pub fn handle_decoded(&mut self, member: &Member, stored: Result<(), FetchFailure>) {
        let Some(pending) = self.members.remove(&member.start()) else { return };
        for reader in pending.readers {
            let Some(read) = self.reads.get_mut(&reader) else { continue };
            let fault = member.faults().find(|(index, _)| {
                let chunk = self.toc.chunk(*index).map(|chunk| chunk.flat_range());
                chunk
                    .is_some_and(|chunk| chunk.start < read.flat.end && read.flat.start < chunk.end)
            });
            read.waiting -= 1;
            let left = read.waiting;
            match (stored, fault) {
                (Err(failure), _) => self.end_read(reader, Err(ReadError::Fetch(failure))),
                (Ok(()), Some((_, fault))) => self.end_read(reader, Err(ReadError::Chunk(fault))),
                (Ok(()), None) if left == 0 => self.end_read(reader, Ok(())),
                (Ok(()), None) => {}
            }
        }
    }

    /// What the layer wants next; `None` when it waits for inputs.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn missing_members(&self, flat: Range<u64>, presence: &impl Presence) -> Vec<u64> {
        let mut members = Vec::new();
        for index in self.toc.chunks_in(flat) {
            let index = ChunkIndex(index);
            let Some(chunk) = self.toc.chunk(index) else { continue };
            let known = members.last() == Some(&chunk.member);
            if !known && !chunk.is_hole() && !presence.has(index) {
                members.push(chunk.member);
            }
        }
        members
    }

    fn extend(&mut self, members: &mut Vec<u64>, presence: &impl Presence) {
        let pending = &self.members;
        self.ahead.extend(&self.toc, &self.policy, members, |toc, member| {
            !pending.contains_key(&member) && is_missing(toc, member, presence)
        });
    }

    /// Requests members that are in the table of pending ones without a source.
    fn fetch(&mut self, members: &[u64], priority: Priority) {
        for span in plan::spans(&self.toc, members, &self.policy) {
            let id = FetchId(self.next_fetch);
            self.next_fetch += 1;
            for member in &members[span.members.clone()] {
                if let Some(pending) = self.members.get_mut(member) {
                    let assembly = Assembly::new(self.toc.member_span(*member));
                    pending.source = Some((id, assembly));
                }
            }
            let waiting = span.members.len();
            self.fetches.insert(id, PendingFetch { range: span.range, priority, waiting });
            self.outputs.push_back(Output::Fetch(FetchRequest { id, range: span.range, priority }));
        }
    }

    fn raise(&mut self, id: FetchId) {
        if let Some(fetch) = self.fetches.get_mut(&id)
            && fetch.priority < Priority::Demand
        {
            fetch.priority = Priority::Demand;
            self.outputs.push_back(Output::Raise(id));
        }
    }

    fn members_from(
        &self,
        id: FetchId,
        range: ByteRange,
    ) -> impl Iterator<Item = (&u64, &PendingMember)> {
        let members = self.members.range(Range::<u64>::from(range));
        members
            .filter(move |(_, member)| member.source.as_ref().is_some_and(|(from, _)| *from == id))
    }

    /// Forgets a fetch and the members that it has not completed; returns who waits for them.
    fn drop_fetch(&mut self, id: FetchId, range: ByteRange) -> Vec<ReadId> {
        self.fetches.remove(&id);
        let members: Vec<_> = self.members_from(id, range).map(|(member, _)| *member).collect();
        let pending = members.iter().filter_map(|member| self.members.remove(member));
        let mut readers: Vec<_> = pending.flat_map(|it| it.readers).map(|ReadId(id)| id).collect();
        readers.sort_unstable();
        readers.dedup();
        readers.into_iter().map(ReadId).collect()
    }

    fn end_read(&mut self, read: ReadId, result: Result<(), ReadError>) {
        if self.reads.remove(&read).is_some() {
            self.outputs.push_back(Output::Done { read, result });
        }
    }
}

/// Whether any chunk of a member is neither a hole nor present.
fn is_missing(toc: &Toc, member: u64, presence: &impl Presence) -> bool {
    toc.member_chunks(member).any(|index| {
        let index = ChunkIndex(index);
        toc.chunk(index).is_some_and(|chunk| !chunk.is_hole()) && !presence.has(index)
    })
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer")
            .field("toc", &self.toc)
            .field("reads", &self.reads.len())
            .field("members", &self.members.len())
            .field("fetches", &self.fetches.len())
            .finish_non_exhaustive()
    }
}
