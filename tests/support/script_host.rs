//! A host without I/O: it plays a registry and a cache to core's state machines, as unkindly as it
//! is told to. What it does depends on its arguments alone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use lazystar_core::codec::PortableCodec;
use lazystar_core::fetch::{FetchFailure, FetchId, FetchRequest, Priority};
use lazystar_core::layer::{FetchPolicy, Layer, Output, Presence, ReadError, ReadId};
use lazystar_core::open::{OpenError, OpenOptions, OpenOutput, Opener};
use lazystar_core::toc::{ChunkIndex, NodeId, Toc};
use lazystar_core::verify::MemberJob;

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// In one piece, one request after the other.
    Whole,
    /// One byte at a time.
    Bytes,
    /// In small pieces, the last one first.
    Reversed,
    /// Every piece twice, the second time with what is around it.
    Duplicated,
    /// A piece of this request, a piece of that one.
    Interleaved,
    /// Not at all.
    Failing(FetchFailure),
    /// In random pieces and order, decoding late, all of it decided by the seed.
    Random(u64),
}

/// Every way of answering that brings the bytes.
pub const GOOD_ANSWERS: [Answers; 8] = [
    Answers::Whole,
    Answers::Bytes,
    Answers::Reversed,
    Answers::Duplicated,
    Answers::Interleaved,
    Answers::Random(1),
    Answers::Random(2),
    Answers::Random(3),
];

/// Numbers that look random (xorshift64*), the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers by this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`, or 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end.max(1)
    }
}

/// Opens a blob.
///
/// # Errors
/// What the opener says.
///
/// # Panics
/// When the opener asks for bytes outside the blob, or never ends.
pub fn open(
    blob: &[u8],
    external_toc: Option<&[u8]>,
    options: OpenOptions,
    answers: Answers,
) -> Result<Toc, OpenError> {
    let mut opener = Opener::new(blob.len() as u64, options);
    let mut requests = 0;
    while let Some(output) = opener.poll_output() {
        requests += 1;
        assert!(requests <= 3, "an opener that asks again and again");
        match (output, external_toc) {
            (OpenOutput::ExternalToc, Some(json)) => opener.handle_external_toc(Ok(json)),
            (OpenOutput::ExternalToc, None) => opener.handle_external_toc(Err(FetchFailure::Gone)),
            (OpenOutput::Fetch(request), _) => {
                if let Answers::Failing(failure) = answers {
                    opener.handle_fetch_failed(request.id, failure);
                    continue;
                }
                opener.handle_fetched(FetchId(u64::MAX), request.range.start, b"not asked for");
                for piece in pieces(request.range.into(), answers) {
                    opener.handle_fetched(request.id, piece.start, slice(blob, &piece));
                }
            }
        }
    }
    assert!(opener.is_done(), "every request was answered, yet it waits");
    opener.finish()
}

fn slice<'a>(blob: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    &blob[usize::try_from(range.start).expect("fits")..usize::try_from(range.end).expect("fits")]
}

/// The pieces that a range is answered in.
fn pieces(range: Range<u64>, answers: Answers) -> Vec<Range<u64>> {
    let cut = |len: u64| {
        let starts = (range.start..range.end).step_by(usize::try_from(len).expect("fits"));
        starts.map(|start| start..(start + len).min(range.end)).collect::<Vec<_>>()
    };
    match answers {
        Answers::Whole | Answers::Failing(_) => vec![range],
        Answers::Bytes => cut(1),
        Answers::Interleaved => cut(11),
        Answers::Reversed => cut(7).into_iter().rev().collect(),
        Answers::Duplicated => {
            let wider = |piece: Range<u64>| {
                let start = piece.start.saturating_sub(3).max(range.start);
                [piece.clone(), start..(piece.end + 5).min(range.end)]
            };
            cut(13).into_iter().flat_map(wider).collect()
        }
        Answers::Random(seed) => {
            let mut random = Random::new(seed ^ range.start);
            let mut pieces = cut(1 + random.below(40));
            for _ in 0..pieces.len() / 3 {
                let again = pieces[random.below(pieces.len() as u64) as usize].clone();
                pieces.push(again);
            }
            for at in (1..pieces.len()).rev() {
                pieces.swap(at, random.below(at as u64 + 1) as usize);
            }
            pieces
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
struct Answering {
    request: FetchRequest,
    /// The last one goes first.
    left: Vec<Range<u64>>,
}

#[derive(Debug)]
struct Present(Vec<bool>);

impl Presence for Present {
    fn has(&self, chunk: ChunkIndex) -> bool {
        self.0[chunk.0 as usize]
    }
}

/// A layer, and a host that reads it.
#[derive(Debug)]
pub struct ScriptHost {
    /// The machine under test.
    pub layer: Layer,
    /// Its TOC.
    pub toc: Arc<Toc>,
    /// The blob as the registry has it; may be damaged between calls.
    pub blob: Vec<u8>,
    /// How requests are answered from now on.
    pub answers: Answers,
    /// Every request that was made.
    pub fetched: Vec<FetchRequest>,
    /// Every fetch that became urgent.
    pub raised: Vec<FetchId>,
    /// Every fetch that was given up.
    pub abandoned: Vec<FetchId>,
    /// How each read ended.
    pub ended: BTreeMap<ReadId, Result<(), ReadError>>,
    present: Present,
    flat: Vec<u8>,
    answering: Vec<Answering>,
    jobs: Vec<MemberJob>,
    codec: PortableCodec,
    random: Random,
}

impl ScriptHost {
    /// A host with an empty cache.
    ///
    /// # Panics
    /// When the flat space does not fit into memory.
    #[must_use]
    pub fn new(toc: Toc, blob: &[u8], policy: FetchPolicy, answers: Answers) -> Self {
        Self::of(Arc::new(toc), blob, policy, answers)
    }

    /// As [`new`](Self::new), of a TOC that others use too.
    ///
    /// # Panics
    /// When the flat space does not fit into memory.
    #[must_use]
    pub fn of(toc: Arc<Toc>, blob: &[u8], policy: FetchPolicy, answers: Answers) -> Self {
        Self {
            layer: Layer::new(Arc::clone(&toc), policy),
            blob: blob.to_vec(),
            answers,
            fetched: Vec::new(),
            raised: Vec::new(),
            abandoned: Vec::new(),
            ended: BTreeMap::new(),
            present: Present(vec![false; toc.chunks().len()]),
            flat: vec![0; usize::try_from(toc.flat_size()).expect("fits")],
            answering: Vec::new(),
            jobs: Vec::new(),
            codec: PortableCodec::default(),
            random: Random::new(match answers {
                Answers::Random(seed) => seed,
                _ => 0,
            }),
            toc,
        }
    }

    /// Starts a read and does what the layer then asks for, except answering.
    pub fn start(&mut self, flat: Range<u64>, priority: Priority) -> ReadId {
        let id = self.layer.read(flat, priority, &self.present);
        self.drain();
        id
    }

    /// Gives up a read.
    pub fn cancel(&mut self, read: ReadId) {
        self.layer.cancel(read);
        self.drain();
    }

    /// Says that the readahead mark was reached.
    pub fn advance(&mut self) {
        self.layer.advance(&self.present);
        self.drain();
    }

    /// Fails one of the requests that are being answered.
    pub fn fail(&mut self, which: u64, failure: FetchFailure) {
        if !self.answering.is_empty() {
            let which = which % self.answering.len() as u64;
            let id = self.answering.remove(which as usize).request.id;
            self.layer.handle_fetch_failed(id, failure);
            self.drain();
        }
    }

    /// Lets the cache forget a chunk.
    pub fn forget(&mut self, chunk: u64) {
        if !self.present.0.is_empty() {
            let chunk = (chunk % self.present.0.len() as u64) as usize;
            self.present.0[chunk] = false;
            let range = self.toc.chunks()[chunk].flat_range();
            self.flat[range.start as usize..range.end as usize].fill(0);
        }
    }

    /// Whether a chunk is in the cache.
    #[must_use]
    pub fn has(&self, chunk: u32) -> bool {
        self.present.has(ChunkIndex(chunk))
    }

    /// How many requests are being answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.answering.len()
    }

    /// Brings one piece of an answer or decodes one member; `false` when there is nothing to do.
    /// `choice` says which, where the way of answering leaves that open.
    ///
    /// # Panics
    /// When the layer breaks a rule of its interface.
    pub fn step(&mut self, choice: u64) -> bool {
        let is_random = matches!(self.answers, Answers::Random(_));
        let (jobs, answers) = (self.jobs.len() as u64, self.answering.len() as u64);
        if jobs + answers == 0 {
            return false;
        }
        let pick = if is_random { choice % (jobs + answers) } else { 0 };
        if pick < jobs {
            let job = self.jobs.swap_remove(pick as usize);
            let member = job.run(&mut self.codec);
            for chunk in member.verified() {
                let at = chunk.flat() as usize;
                self.flat[at..at + chunk.bytes().len()].copy_from_slice(chunk.bytes());
                self.present.0[chunk.index().0 as usize] = true;
            }
            self.layer.handle_decoded(&member, Ok(()));
        } else if let Answers::Failing(failure) = self.answers {
            self.fail(0, failure);
        } else {
            self.answer((pick - jobs) as usize);
        }
        self.drain();
        true
    }

    fn answer(&mut self, which: usize) {
        let answering = &mut self.answering[which];
        let id = answering.request.id;
        match answering.left.pop() {
            Some(piece) => {
                let bytes = slice(&self.blob, &piece);
                self.layer.handle_fetched(id, piece.start, bytes);
                if self.answers == Answers::Interleaved {
                    self.answering.rotate_left(1);
                }
            }
            None => {
                self.answering.remove(which);
            }
        }
    }

    /// Goes on until nothing is left to do.
    ///
    /// # Panics
    /// When that does not happen.
    pub fn run(&mut self) {
        let budget = 1000 + 100 * self.blob.len();
        for _ in 0..budget {
            let choice = self.random.below(u64::from(u32::MAX));
            if !self.step(choice) {
                return;
            }
        }
        panic!("the layer is still busy after {budget} steps");
    }

    /// Reads a range of a file.
    ///
    /// # Errors
    /// Why the range cannot be read.
    ///
    /// # Panics
    /// When the read never ends.
    pub fn read_at(&mut self, node: NodeId, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
        let flat = self.flat_of(node, range);
        let id = self.start(flat.clone(), Priority::Demand);
        self.run();
        self.ended.remove(&id).expect("every read ends")?;
        Ok(self.content(flat))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(&mut self, node: NodeId) -> Result<Vec<u8>, ReadError> {
        self.read_at(node, 0..u64::MAX)
    }

    /// Where a range of a file is in the flat space; what lies behind the file's end is cut off.
    #[must_use]
    pub fn flat_of(&self, node: NodeId, range: Range<u64>) -> Range<u64> {
        let file = self.toc.flat_range(node);
        let position = |at: u64| file.start.saturating_add(at).min(file.end);
        position(range.start)..position(range.end)
    }

    /// What the cache holds.
    #[must_use]
    pub fn content(&self, flat: Range<u64>) -> Vec<u8> {
        self.flat[flat.start as usize..flat.end as usize].to_vec()
    }

    /// The drain rule.
    fn drain(&mut self) {
        while let Some(output) = self.layer.poll_output() {
            match output {
                Output::Fetch(request) => {
                    assert!(!request.range.is_empty(), "a request for nothing");
                    assert!(request.range.end <= self.blob.len() as u64, "outside the blob");
                    let mut left = pieces(request.range.into(), self.answers);
                    left.reverse();
                    self.fetched.push(request);
                    self.answering.push(Answering { request, left });
                }
                Output::Raise(id) => {
                    assert!(self.is_in_flight(id), "raised, though not in flight");
                    self.raised.push(id);
                }
                Output::Abandon(id) => {
                    assert!(self.is_in_flight(id), "abandoned, though not in flight");
                    self.abandoned.push(id);
                    self.answering.retain(|it| it.request.id != id);
                }
                Output::Decode(job) => self.jobs.push(job),
                Output::Done { read, result } => {
                    let again = self.ended.insert(read, result);
                    assert!(again.is_none(), "a read that ended twice");
                }
            }
        }
    }

    fn is_in_flight(&self, id: FetchId) -> bool {
        self.answering.iter().any(|it| it.request.id == id)
    }
}
