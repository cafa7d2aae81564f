//! What a reader gives next, and the chunks for it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use lazystar_core::Toc;
use lazystar_core::layer::Presence;
use lazystar_core::toc::{ChunkIndex, NodeId};

use crate::bindings::exports::lazystar::engine::layers::Span;
use crate::bindings::exports::lazystar::engine::types::ErrorCode;

/// Plain bytes that are asked for together: enough for several requests side by side.
const BYTES: u64 = 8 << 20;
/// Pieces in the window; keeps what a call says of them below 1 MiB.
const PIECES: usize = 4096;

/// A part of a span that is in one chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) span: u32,
    /// Where in the file.
    pub(super) offset: u64,
    /// The chunk; `None` for a hole.
    pub(super) chunk: Option<ChunkIndex>,
    /// Where in the chunk.
    pub(super) skip: u32,
    pub(super) len: u32,
}

/// How far a chunk is on its way.
#[derive(Debug)]
pub(super) enum State {
    Wanted,
    Asked,
    Here(Vec<u8>),
    Fault(ErrorCode),
}

#[derive(Debug)]
struct Slot {
    chunk: ChunkIndex,
    state: State,
    file: NodeId,
    /// How many pieces are in it.
    users: usize,
    len: u64,
}

/// The pieces that are read next, and their chunks.
#[derive(Debug)]
pub(super) struct Window {
    spans: Vec<Span>,
    /// The span of which pieces are made next, and where in its file.
    next_span: usize,
    next_offset: Option<u64>,
    pieces: VecDeque<Piece>,
    /// Sorted. A deque, because chunks mostly come and go in their order.
    chunks: VecDeque<Slot>,
    /// Plain bytes of the chunks.
    bytes: u64,
}

impl Window {
    pub(super) fn new(spans: Vec<Span>) -> Self {
        Self {
            spans,
            next_span: 0,
            next_offset: None,
            pieces: VecDeque::new(),
            chunks: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Adds pieces once half of the window was given out, so that they are asked for in large
    /// requests.
    pub(super) fn fill(&mut self, toc: &Toc) {
        if self.bytes > BYTES / 2 || self.pieces.len() > PIECES / 2 {
            return;
        }
        let mut last_member = None;
        while self.pieces.len() < PIECES {
            let Some((piece, file)) = self.next_piece(toc) else { return };
            let chunk = piece.chunk.and_then(|index| Some((index, toc.chunk(index)?)));
            if let Some((index, chunk)) = chunk {
                // A member is decoded once for all that is wanted of it.
                let len = u64::from(chunk.len);
                let fits = self.bytes == 0 || self.bytes.saturating_add(len) <= BYTES;
                let place = self.place(index);
                if place.is_err() && !fits && last_member != Some(chunk.member) {
                    return;
                }
                last_member = Some(chunk.member);
                if let Err(place) = place {
                    self.bytes += len;
                    let state = State::Wanted;
                    self.chunks.insert(place, Slot { chunk: index, state, file, users: 0, len });
                }
                if let Some(slot) = self.slot(index) {
                    slot.users += 1;
                }
            }
            self.next_offset = Some(piece.offset + u64::from(piece.len));
            self.pieces.push_back(piece);
        }
    }

    /// The piece that comes after those in the window; skips what is empty.
    fn next_piece(&mut self, toc: &Toc) -> Option<(Piece, NodeId)> {
        loop {
            let span = self.spans.get(self.next_span)?;
            let file = NodeId(span.file);
            let flat = toc.flat_range(file);
            let end = span.offset.saturating_add(span.length).min(flat.end - flat.start);
            let offset = self.next_offset.unwrap_or(span.offset);
            let at = flat.start.saturating_add(offset);
            let index = (offset < end).then(|| ChunkIndex(toc.chunks_in(at..at + 1).start));
            let Some((index, chunk)) = index.and_then(|index| Some((index, toc.chunk(index)?)))
            else {
                self.next_span += 1;
                self.next_offset = None;
                continue;
            };
            let range = chunk.flat_range();
            let stop = range.end.min(flat.start + end);
            let piece = Piece {
                span: u32::try_from(self.next_span).unwrap_or(u32::MAX),
                offset,
                chunk: (!chunk.is_hole()).then_some(index),
                skip: u32::try_from(at - range.start).unwrap_or(u32::MAX),
                len: u32::try_from(stop - at).unwrap_or(u32::MAX),
            };
            return Some((piece, file));
        }
    }

    pub(super) fn front(&self) -> Option<Piece> {
        self.pieces.front().copied()
    }

    /// Takes `len` bytes off the first piece, and drops its chunk when nothing is left that needs it.
    pub(super) fn advance(&mut self, len: u32) {
        let Some(piece) = self.pieces.front_mut() else { return };
        piece.offset += u64::from(len);
        piece.skip = piece.skip.saturating_add(len);
        piece.len = piece.len.saturating_sub(len);
        if piece.len > 0 {
            return;
        }
        let chunk = piece.chunk;
        self.pieces.pop_front();
        let Some(Ok(place)) = chunk.map(|chunk| self.place(chunk)) else { return };
        let Some(slot) = self.chunks.get_mut(place) else { return };
        slot.users = slot.users.saturating_sub(1);
        if slot.users == 0 {
            self.bytes = self.bytes.saturating_sub(slot.len);
            self.chunks.remove(place);
        }
    }

    /// Where a chunk is, or would be.
    fn place(&self, chunk: ChunkIndex) -> Result<usize, usize> {
        self.chunks.binary_search_by_key(&chunk, |slot| slot.chunk)
    }

    fn slot(&mut self, chunk: ChunkIndex) -> Option<&mut Slot> {
        let place = self.place(chunk).ok()?;
        self.chunks.get_mut(place)
    }

    pub(super) fn state(&self, chunk: ChunkIndex) -> Option<&State> {
        self.chunks.get(self.place(chunk).ok()?).map(|slot| &slot.state)
    }

    pub(super) fn set(&mut self, chunk: ChunkIndex, state: State) {
        if let Some(slot) = self.slot(chunk) {
            slot.state = state;
        }
    }

    /// A file that has the chunk.
    pub(super) fn file(&self, chunk: ChunkIndex) -> Option<NodeId> {
        self.chunks.get(self.place(chunk).ok()?).map(|slot| slot.file)
    }

    /// The chunks to ask for, with their files, in blob order.
    pub(super) fn wanted(&self) -> Vec<(ChunkIndex, NodeId)> {
        let wanted = self.chunks.iter().filter(|slot| matches!(slot.state, State::Wanted));
        wanted.map(|slot| (slot.chunk, slot.file)).collect()
    }

    /// The chunks that were asked for and are not here, in blob order.
    pub(super) fn asked(&self) -> impl Iterator<Item = ChunkIndex> {
        let asked = self.chunks.iter().filter(|slot| matches!(slot.state, State::Asked));
        asked.map(|slot| slot.chunk)
    }
}

/// While the layer is asked, everything but what is to be fetched counts as present.
impl Presence for Window {
    fn has(&self, chunk: ChunkIndex) -> bool {
        !matches!(self.state(chunk), Some(State::Wanted))
    }
}
