//! `reader`: parts of files, verified, in the order that was asked for.
//!
//! Core fetches and decodes whatever it is asked for and keeps nothing. Here a window moves over what
//! is to be read: the chunks in it are asked for together, kept when they are verified, given out in
//! order, and dropped.

mod window;

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use lazystar_core::codec::PortableCodec;
use lazystar_core::fetch::{FetchId, Priority};
use lazystar_core::layer::{FetchPolicy, Layer, Missing, Output, ReadId};
use lazystar_core::toc::ChunkIndex;
use lazystar_core::verify::{MemberJob, verify};
use lazystar_core::{ByteRange, Digest, Toc};

use crate::bindings::exports::lazystar::engine::layers::{Data, GuestReader, Need, ReadStep, Span};
use crate::bindings::exports::lazystar::engine::types::{ErrorCode, Subject};
use crate::convert;
use window::{Piece, State, Window};

/// The most content that a call gives.
const MAX_DATA: u32 = 1 << 20;
/// Chunks this far apart are asked for in different reads: core looks at all that lie between.
const RUN_GAP: u32 = 64;

/// The resource `reader`.
pub(crate) struct FileReader(RefCell<Reading>);

struct Reading {
    toc: Arc<Toc>,
    layer: Layer,
    policy: FetchPolicy,
    codec: PortableCodec,
    window: Window,
    member_limit: u64,
    /// Members that came and are not decoded yet.
    jobs: Vec<MemberJob>,
    /// Reads of the layer, and the chunks for which they were made.
    reads: Vec<(ReadId, Vec<ChunkIndex>)>,
}

impl FileReader {
    pub(crate) fn new(toc: Arc<Toc>, member_limit: u64, spans: Vec<Span>) -> Self {
        // The host says what it wants: nothing is fetched ahead or around it.
        let policy = FetchPolicy { min_span: 0, max_ahead: 0, ..FetchPolicy::default() };
        Self(RefCell::new(Reading {
            layer: Layer::new(Arc::clone(&toc), policy),
            codec: PortableCodec::default(),
            window: Window::new(spans),
            toc,
            policy,
            member_limit,
            jobs: Vec::new(),
            reads: Vec::new(),
        }))
    }
}

impl Reading {
    fn poll(&mut self, max_bytes: u32) -> Result<ReadStep, ErrorCode> {
        let max = if max_bytes == 0 { MAX_DATA } else { max_bytes.min(MAX_DATA) };
        loop {
            self.window.fill(&self.toc);
            let Some(piece) = self.window.front() else { return Ok(ReadStep::Done) };
            let Some(chunk) = piece.chunk else { return Ok(self.give(piece, max)) };
            match self.window.state(chunk) {
                Some(State::Here(_)) => return Ok(self.give(piece, max)),
                Some(State::Fault(error)) => {
                    let error = error.clone();
                    // Whoever polls again wants to try again.
                    self.window.set(chunk, State::Wanted);
                    return Err(error);
                }
                Some(State::Wanted) => self.ask(),
                Some(State::Asked) | None => match self.job_for(chunk) {
                    Some(job) => self.decode(&job),
                    None => return self.needs().map(ReadStep::Need),
                },
            }
        }
    }

    /// Gives what is left of the first piece, which is a hole or here.
    fn give(&mut self, piece: Piece, max: u32) -> ReadStep {
        let len = piece.len.min(max);
        let bytes = match piece.chunk.and_then(|chunk| self.window.state(chunk)) {
            Some(State::Here(bytes)) => {
                let (start, end) = (piece.skip as usize, (piece.skip + len) as usize);
                bytes.get(start..end).map(<[u8]>::to_vec).unwrap_or_default()
            }
            _ => vec![0; len as usize],
        };
        self.window.advance(len);
        ReadStep::Data(Data {
            span: piece.span,
            offset: piece.offset,
            bytes,
            assurance: convert::assurance(self.toc.assurance()),
        })
    }

    /// Asks the layer for every chunk in the window that is wanted.
    fn ask(&mut self) {
        let mut runs: Vec<Vec<ChunkIndex>> = Vec::new();
        for (index, file) in self.window.wanted() {
            let Some(chunk) = self.toc.chunk(index) else { continue };
            if self.toc.member_span(chunk.member).len() > self.member_limit {
                let subject = alloc::format!("compressed bytes in a member of file {}", file.0);
                let error = convert::limit_exceeded(subject, self.member_limit);
                self.window.set(index, State::Fault(error));
                continue;
            }
            match runs.last_mut().filter(|run| {
                run.last().is_some_and(|last| index.0.saturating_sub(last.0) <= RUN_GAP)
            }) {
                Some(run) => run.push(index),
                None => runs.push(Vec::from([index])),
            }
        }
        for run in runs {
            let ends = run.first().zip(run.last());
            let chunks = ends.and_then(|(a, b)| self.toc.chunk(*a).zip(self.toc.chunk(*b)));
            let Some((first, last)) = chunks else { continue };
            let flat = first.flat..last.flat_range().end;
            let read = self.layer.read(flat, Priority::Demand, &self.window);
            run.iter().for_each(|chunk| self.window.set(*chunk, State::Asked));
            self.reads.push((read, run));
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.layer.poll_output() {
            match output {
                Output::Decode(job) => self.jobs.push(job),
                // What a read brought is seen by the chunks.
                Output::Done { read, .. } => self.reads.retain(|(id, _)| *id != read),
                // The layer knows what is missing.
                Output::Fetch(_) | Output::Raise(_) | Output::Abandon(_) => {}
            }
        }
    }

    /// Decodes a member and keeps what the window wants of it.
    fn decode(&mut self, job: &MemberJob) {
        let member = job.run(&mut self.codec);
        for chunk in member.verified() {
            if matches!(self.window.state(chunk.index()), Some(State::Asked)) {
                self.window.set(chunk.index(), State::Here(chunk.bytes().to_vec()));
            }
        }
        for (index, fault) in member.faults() {
            if let (Some(State::Asked), Some(file)) =
                (self.window.state(index), self.window.file(index))
            {
                self.window.set(index, State::Fault(convert::chunk_fault(&fault, file)));
            }
        }
        self.layer.handle_decoded(&member, Ok(()));
        self.drain();
    }

    /// The member that holds a chunk, if its bytes are here.
    fn job_for(&mut self, chunk: ChunkIndex) -> Option<MemberJob> {
        let member = self.toc.chunk(chunk)?.member;
        let place = self.jobs.iter().position(|job| job.member() == member)?;
        Some(self.jobs.swap_remove(place))
    }

    /// What is missing, with the chunks that it is for.
    fn needs(&self) -> Result<Vec<Need>, ErrorCode> {
        let mut chunks = self.window.asked().filter_map(|index| self.toc.chunk(index)).peekable();
        let mut needs: Vec<(FetchId, ByteRange, Vec<String>)> = Vec::new();
        for Missing { fetch, member, range } in self.layer.missing() {
            let near = needs.last_mut().filter(|(last, last_range, _)| {
                *last == fetch && range.start - last_range.end <= self.policy.gap
            });
            let digests = if let Some((_, last_range, digests)) = near {
                last_range.end = range.end;
                digests
            } else {
                needs.push((fetch, range, Vec::new()));
                let Some((_, _, digests)) = needs.last_mut() else { continue };
                digests
            };
            while let Some(chunk) = chunks.next_if(|chunk| chunk.member <= member) {
                let here = chunk.member == member;
                digests.extend(chunk.digest().filter(|_| here).map(|digest| digest.to_string()));
            }
        }
        if needs.is_empty() {
            return Err(ErrorCode::Other(String::from("a chunk is in no request")));
        }
        let need = |(_, range, chunks)| Need { blob_range: convert::byte_range(range), chunks };
        Ok(needs.into_iter().map(need).collect())
    }

    fn supply(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ErrorCode> {
        convert::supplied(offset, bytes, self.toc.blob_size())?;
        self.layer.handle_bytes(offset, bytes);
        self.drain();
        Ok(())
    }

    fn supply_chunk(&mut self, digest: &str, bytes: &[u8]) -> Result<(), ErrorCode> {
        let expected = digest.parse::<Digest>();
        let expected = expected.map_err(|error| ErrorCode::Protocol(error.to_string()))?;
        let is_it = |index: &ChunkIndex| {
            self.toc.chunk(*index).and_then(|chunk| chunk.digest()) == Some(expected)
        };
        let same: Vec<_> = self.window.asked().filter(is_it).collect();
        if same.is_empty() {
            return Err(ErrorCode::Protocol(alloc::format!("{expected} was not asked for")));
        }
        for index in same {
            let Some(chunk) = verify(&self.toc, index, bytes) else {
                let subject = self.window.file(index);
                let subject = subject.map_or(Subject::Document, |file| Subject::File(file.0));
                return Err(convert::digest_mismatch(subject, expected, Digest::of(bytes), None));
            };
            self.window.set(index, State::Here(chunk.bytes().to_vec()));
        }
        let window = &self.window;
        let layer = &mut self.layer;
        self.reads.retain(|(read, chunks)| {
            let wanted =
                chunks.iter().any(|chunk| matches!(window.state(*chunk), Some(State::Asked)));
            if !wanted {
                layer.cancel(*read);
            }
            wanted
        });
        self.drain();
        Ok(())
    }
}

impl GuestReader for FileReader {
    fn poll(&self, max_bytes: u32) -> Result<ReadStep, ErrorCode> {
        self.0.borrow_mut().poll(max_bytes)
    }

    fn supply(&self, offset: u64, bytes: Vec<u8>) -> Result<(), ErrorCode> {
        self.0.borrow_mut().supply(offset, &bytes)
    }

    fn supply_chunk(&self, digest: String, bytes: Vec<u8>) -> Result<(), ErrorCode> {
        self.0.borrow_mut().supply_chunk(&digest, &bytes)
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileReader")
    }
}
