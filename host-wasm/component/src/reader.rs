//! `reader`: parts of files, verified, in the order that was asked for.
//!
//! Core fetches and decodes whatever it is asked for and keeps nothing. Here a window moves over what
//! is to be read: the chunks in it are asked for together, kept when they are verified, given out in
//! order, and dropped.

mod window;

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use lazystar_core::codec::PortableCodec;
use lazystar_core::fetch::{FetchId, Priority};
use lazystar_core::layer::{FetchPolicy, Layer, Output, ReadId};
use lazystar_core::toc::ChunkIndex;
use lazystar_core::verify::{MemberJob, verify};
use lazystar_core::{ByteRange, Digest, Toc};

use crate::bindings::exports::lazystar::engine::layers::{Data, GuestReader, Need, ReadStep, Span};
use crate::bindings::exports::lazystar::engine::types::{ErrorCode, Subject};
use crate::convert;
use crate::missing::Missing;
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
    codec: PortableCodec,
    window: Window,
    member_limit: u64,
    /// Requests of the layer that are not answered in full, in the order of the blob.
    fetches: Vec<(FetchId, Missing)>,
    /// Members that came and are not decoded yet.
    jobs: VecDeque<MemberJob>,
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
            member_limit,
            fetches: Vec::new(),
            jobs: VecDeque::new(),
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
                Some(State::Asked) | None => match self.jobs.pop_front() {
                    Some(job) => self.decode(&job),
                    None if self.fetches.is_empty() => {
                        return Err(ErrorCode::Other(String::from("a chunk is in no request")));
                    }
                    None => return Ok(ReadStep::Need(self.needs())),
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
                Output::Fetch(request) => {
                    let start = request.range.start;
                    let place = self.fetches.partition_point(|(_, it)| it.start() < start);
                    self.fetches.insert(place, (request.id, Missing::all_of(request.range)));
                }
                Output::Abandon(id) => self.fetches.retain(|(fetch, _)| *fetch != id),
                Output::Decode(job) => self.jobs.push_back(job),
                // What a read brought is seen by the chunks.
                Output::Done { read, .. } => self.reads.retain(|(id, _)| *id != read),
                Output::Raise(_) => {}
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

    /// What is missing, with the chunks that it is for.
    fn needs(&self) -> Vec<Need> {
        let mut chunks = self.window.asked().peekable();
        let parts = self.fetches.iter().flat_map(|(_, missing)| missing.parts());
        parts
            .map(|part| {
                let mut digests = Vec::new();
                while let Some(chunk) = chunks.peek().and_then(|index| self.toc.chunk(*index)) {
                    if chunk.member >= part.end {
                        break;
                    }
                    let inside = self.toc.member_span(chunk.member).end > part.start;
                    digests.extend(chunk.digest().filter(|_| inside).map(|it| it.to_string()));
                    chunks.next();
                }
                Need { blob_range: convert::byte_range(*part), chunks: digests }
            })
            .collect()
    }

    fn supply(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ErrorCode> {
        let came: ByteRange = convert::supplied(offset, bytes, self.toc.blob_size())?;
        for (id, missing) in &mut self.fetches {
            missing.remove(came);
            self.layer.handle_fetched(*id, offset, bytes);
        }
        self.fetches.retain(|(_, missing)| !missing.parts().is_empty());
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
