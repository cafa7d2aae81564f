//! `opener`: from a descriptor to the tables of a layer.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;

use lazystar_core::fetch::FetchId;
use lazystar_core::open::{OpenOptions, OpenOutput, Opener};
use lazystar_core::toc::Assurance;
use lazystar_core::{ByteRange, Digest, Limits, Toc};

use crate::bindings::exports::lazystar::engine::layers::{
    self, Descriptor, GuestOpener, Layer, Limit, OpenStep,
};
use crate::bindings::exports::lazystar::engine::types::{self, ErrorCode};
use crate::convert;
use crate::layer::OpenLayer;

const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Two writers, two names; both `offset:compressed:plain:type`.
const TOC_POSITIONS: [&str; 2] = [
    "io.containers.zstd-chunked.manifest-position",
    "io.github.containers.zstd-chunked.manifest-position",
];

/// What a layer may ask for: together it fits into an instance of 512 MiB, where running out of memory
/// would be a trap.
const LIMITS: Limits = Limits {
    toc_compressed_bytes: 32 << 20,
    toc_bytes: 256 << 20,
    entries: 1_000_000,
    text_bytes: 64 << 20,
    chunk_bytes: 32 << 20,
    member_bytes: 64 << 20,
    ..Limits::DEFAULT
};

/// The resource `opener`.
#[derive(Debug)]
pub(crate) struct LayerOpener(RefCell<Opening>);

#[derive(Debug)]
struct Opening {
    layer: Descriptor,
    least: Assurance,
    limits: Limits,
    state: State,
}

#[derive(Debug)]
enum State {
    Fresh,
    Running {
        opener: Box<Opener>,
        wanted: Option<Wanted>,
        /// Everything that was asked for.
        asked: ByteRange,
    },
    Done(Arc<Toc>),
    Failed(ErrorCode),
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Bytes(FetchId),
    ExternalToc,
}

impl Opening {
    fn start(&self) -> Result<State, ErrorCode> {
        let annotation = |name: &str| {
            let found = self.layer.annotations.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let toc_digest = match annotation(TOC_DIGEST).map(str::parse::<Digest>).transpose() {
            Ok(digest) => digest,
            Err(error) => {
                let message = alloc::format!("the annotation {TOC_DIGEST} is {error}");
                return Err(ErrorCode::Unverifiable(message));
            }
        };
        let position = TOC_POSITIONS.iter().find_map(|name| annotation(name));
        let options = OpenOptions {
            toc_digest,
            toc_start: position.and_then(|text| text.split(':').next()?.parse().ok()),
            unverified: self.least == Assurance::Unverified,
            limits: self.limits,
        };
        let size = self.layer.size;
        Ok(State::Running {
            opener: Box::new(Opener::new(size, options)),
            wanted: None,
            asked: ByteRange { start: size, end: size },
        })
    }

    fn poll(&mut self) -> Result<OpenStep, ErrorCode> {
        loop {
            let next = match &mut self.state {
                State::Fresh => self.start(),
                State::Done(_) => return Ok(OpenStep::Done),
                State::Failed(error) => return Err(error.clone()),
                State::Running { opener, wanted, asked } => {
                    match (opener.poll_output(), *wanted) {
                        (Some(OpenOutput::Fetch(request)), _) => {
                            asked.start = asked.start.min(request.range.start);
                            *wanted = Some(Wanted::Bytes(request.id));
                            if request.range.is_empty() {
                                // Nothing has to come, so no call would tell the opener.
                                opener.handle_fetched(request.id, request.range.start, &[]);
                            }
                            continue;
                        }
                        (Some(OpenOutput::ExternalToc), _) => {
                            *wanted = Some(Wanted::ExternalToc);
                            continue;
                        }
                        (None, _) if opener.is_done() => self.end(),
                        (None, Some(Wanted::ExternalToc)) => return Ok(OpenStep::ExternalToc),
                        (None, _) => {
                            let missing = opener.missing().into_iter().map(convert::byte_range);
                            return Ok(OpenStep::Need(missing.collect()));
                        }
                    }
                }
            };
            self.state = next.unwrap_or_else(State::Failed);
        }
    }

    /// The result of an opener that wants nothing more.
    fn end(&mut self) -> Result<State, ErrorCode> {
        let State::Running { opener, asked, .. } =
            core::mem::replace(&mut self.state, State::Fresh)
        else {
            return Ok(State::Fresh);
        };
        let toc =
            opener.finish().map_err(|error| convert::open_error(&error, asked, &self.limits))?;
        if rank(toc.assurance()) < rank(self.least) {
            let message = alloc::format!(
                "the layer's descriptor does not state the digest of its table of contents (annotation {TOC_DIGEST})"
            );
            return Err(ErrorCode::Unverifiable(message));
        }
        Ok(State::Done(Arc::new(toc)))
    }

    /// Fails once the options have been used.
    fn fresh(&mut self) -> Result<&mut Self, ErrorCode> {
        match self.state {
            State::Fresh => Ok(self),
            _ => Err(protocol("the opener was polled already")),
        }
    }
}

impl LayerOpener {
    pub(crate) fn into_layer(self) -> Result<OpenLayer, ErrorCode> {
        let mut opening = self.0.into_inner();
        match (opening.poll()?, opening.state) {
            (OpenStep::Done, State::Done(toc)) => {
                Ok(OpenLayer::new(toc, opening.limits.member_bytes))
            }
            _ => Err(protocol("the opener is not done")),
        }
    }
}

impl GuestOpener for LayerOpener {
    fn new(layer: Descriptor) -> Self {
        let least = Assurance::Verified;
        Self(RefCell::new(Opening { layer, least, limits: LIMITS, state: State::Fresh }))
    }

    fn accept(&self, least: layers::Assurance) -> Result<(), ErrorCode> {
        self.0.borrow_mut().fresh()?.least = match least {
            types::Assurance::Verified => Assurance::Verified,
            types::Assurance::Consistent => Assurance::Consistent,
            types::Assurance::Unverified => Assurance::Unverified,
        };
        Ok(())
    }

    fn set_limit(&self, limit: Limit, maximum: u64) -> Result<(), ErrorCode> {
        let mut opening = self.0.borrow_mut();
        let limits = &mut opening.fresh()?.limits;
        match limit {
            Limit::TocCompressedBytes => limits.toc_compressed_bytes = maximum,
            Limit::TocBytes => limits.toc_bytes = maximum,
            Limit::Entries => limits.entries = u32::try_from(maximum).unwrap_or(u32::MAX),
            Limit::ChunkBytes => limits.chunk_bytes = maximum,
            Limit::MemberBytes => limits.member_bytes = maximum,
        }
        Ok(())
    }

    fn poll(&self) -> Result<OpenStep, ErrorCode> {
        self.0.borrow_mut().poll()
    }

    fn supply(&self, offset: u64, bytes: Vec<u8>) -> Result<(), ErrorCode> {
        let mut opening = self.0.borrow_mut();
        convert::supplied(offset, &bytes, opening.layer.size)?;
        if let State::Running { opener, wanted: Some(Wanted::Bytes(id)), .. } = &mut opening.state {
            opener.handle_fetched(*id, offset, &bytes);
        }
        Ok(())
    }

    fn supply_toc(&self, json: Vec<u8>) -> Result<(), ErrorCode> {
        match &mut self.0.borrow_mut().state {
            State::Running { opener, wanted: wanted @ Some(Wanted::ExternalToc), .. } => {
                opener.handle_external_toc(Ok(&json));
                *wanted = None;
                Ok(())
            }
            _ => Err(protocol("the table of contents was not asked for")),
        }
    }

    fn finish(this: layers::Opener) -> Result<Layer, ErrorCode> {
        this.into_inner::<Self>().into_layer().map(Layer::new)
    }
}

/// More is better.
fn rank(assurance: Assurance) -> u8 {
    match assurance {
        Assurance::Unverified => 0,
        Assurance::Consistent => 1,
        Assurance::Verified => 2,
    }
}

fn protocol(message: &str) -> ErrorCode {
    ErrorCode::Protocol(String::from(message))
}
