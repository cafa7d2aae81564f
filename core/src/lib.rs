//! The engine of Lazystar: reads stargz, eStargz and zstd:chunked layers without doing any I/O.
//!
//! Whoever has the bytes of a blob, be it from a registry, a file or a browser's `fetch`, is the
//! *host*. The engine says which bytes it wants, takes them in any order and split, and gives
//! verified content or an error that says whose fault it is. It has no clock, randomness, thread
//! or global state; the same inputs give the same outputs everywhere.
//!
//! Two layers. Values and functions: [`footer`], [`toc`], [`codec`], [`verify`], [`image`], and for
//! the other direction [`tar`] and [`write`](mod@write). Above them two small state machines:
//! [`Opener`](open::Opener) turns a blob into its table of contents, [`Layer`](layer::Layer) turns
//! reads into fetches and fetches into verified chunks.
//!
//! ```
//! use std::sync::Arc;
//!
//! use lazystar_core::codec::PortableCodec;
//! use lazystar_core::fetch::Priority;
//! use lazystar_core::layer::{FetchPolicy, Layer, Output, Presence};
//! use lazystar_core::open::{OpenOptions, OpenOutput, Opener};
//! use lazystar_core::tar::{Entry, Kind, encode_header};
//! use lazystar_core::toc::{ChunkIndex, Toc};
//! use lazystar_core::write::{Miniz, Options, Writer};
//!
//! // A blob, as a registry would have it.
//! let mut writer = Writer::new(Options::default(), Miniz::default())?;
//! let mut entry = Entry::new("greeting", Kind::Regular);
//! entry.size = 5;
//! let header = encode_header(&entry)?;
//! writer.append(entry, &header)?;
//! writer.data(b"hello")?;
//! let summary = writer.finish()?;
//! let blob = writer.take_output();
//! let bytes = |range: lazystar_core::ByteRange| &blob[range.start as usize..range.end as usize];
//!
//! // Its table of contents, checked against what the manifest says.
//! let options = OpenOptions { toc_digest: summary.toc_digest, ..OpenOptions::default() };
//! let mut opener = Opener::new(blob.len() as u64, options);
//! while let Some(output) = opener.poll_output() {
//!     match output {
//!         OpenOutput::Fetch(wanted) => {
//!             opener.handle_fetched(wanted.id, wanted.range.start, bytes(wanted.range));
//!         }
//!         OpenOutput::ExternalToc => unreachable!("it is in the blob"),
//!     }
//! }
//! let toc = Arc::new(opener.finish()?);
//!
//! // A file of it. This host stores nothing, so nothing is present.
//! struct Nothing;
//! impl Presence for Nothing {
//!     fn has(&self, _: ChunkIndex) -> bool {
//!         false
//!     }
//! }
//! let file = toc.lookup(Toc::ROOT, b"greeting").ok_or("no such file")?;
//! let mut layer = Layer::new(Arc::clone(&toc), FetchPolicy::default());
//! let mut content = vec![0; 5];
//! layer.read(toc.flat_range(file), Priority::Demand, &Nothing);
//! while let Some(output) = layer.poll_output() {
//!     match output {
//!         Output::Fetch(wanted) => {
//!             layer.handle_fetched(wanted.id, wanted.range.start, bytes(wanted.range));
//!         }
//!         Output::Decode(job) => {
//!             let member = job.run(&mut PortableCodec::default());
//!             for chunk in member.verified() {
//!                 let at = (chunk.flat() - toc.flat_range(file).start) as usize;
//!                 content[at..at + chunk.bytes().len()].copy_from_slice(chunk.bytes());
//!             }
//!             layer.handle_decoded(&member, Ok(()));
//!         }
//!         Output::Done { result, .. } => result?,
//!         Output::Raise(_) | Output::Abandon(_) => {}
//!     }
//! }
//! assert_eq!(content, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod codec;
pub mod digest;
pub mod fetch;
pub mod footer;
pub mod image;
pub mod layer;
pub mod limits;
pub mod oci;
pub mod open;
pub mod range;
pub mod tar;
pub mod time;
pub mod toc;
pub mod verify;
pub mod write;

pub use digest::Digest;
pub use limits::Limits;
pub use range::ByteRange;
pub use toc::Toc;
