//! What daemon and mount process say to each other: one request and one reply a connection.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use lazystar_core::Digest;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::driver::reads::ReadFile;
use crate::snapshotter::labels::LayerSource;
use crate::snapshotter::lines::line;

/// What the daemon asks for.
#[derive(Debug, Deserialize, Serialize)]
pub enum Request {
    /// Who is there?
    Hello,
    /// Begin to serve the device, once.
    Start {
        /// Another process has served it before.
        resume: bool,
        /// What is shown from the start.
        layers: Vec<NumberedLayer>,
    },
    /// Show a layer, unless it is shown already.
    Open(NumberedLayer),
    /// Show a layer no longer, stop its fetches, and drop its content unless another one has the same.
    Close {
        /// The layer.
        number: u32,
    },
    /// What is shown?
    Layers {
        /// Of this layer alone.
        only: Option<u32>,
    },
    /// What is counted?
    Metrics,
    /// What was read of a layer, under whichever numbers it is shown?
    Reads {
        /// The digest of its blob.
        #[serde(with = "crate::as_text")]
        layer: Digest,
    },
    /// The device, as the ancillary message of [`Reply::Done`].
    Device,
    /// Nothing; the connection ends with the process.
    Watch,
    /// End; the mount stays for as long as somebody else holds the device.
    Stop,
}

/// What the mount process answers.
#[derive(Debug, Deserialize, Serialize)]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello(Identity),
    /// To [`Request::Open`]: the layer is shown; the digest of the manifest that it was found in.
    Opened {
        /// None when there is no manifest.
        #[serde(default, with = "crate::as_text::option")]
        manifest: Option<Digest>,
    },
    /// To [`Request::Layers`].
    Layers(Vec<ShownLayer>),
    /// To [`Request::Metrics`], as Prometheus reads it.
    Metrics(String),
    /// To [`Request::Reads`]: for each number that the layer is shown under, what was read there.
    Reads(Vec<Vec<ReadFile>>),
    /// It is done.
    Done,
    /// It could not be done, and why.
    Failed(String),
}

/// A layer and the number of its directory.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NumberedLayer {
    /// The number; never used for another layer.
    pub number: u32,
    /// Where it comes from.
    pub source: LayerSource,
}

/// A layer that is shown.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ShownLayer {
    /// Its number.
    pub number: u32,
    /// The digest of its table of contents.
    #[serde(with = "crate::as_text")]
    pub toc: Digest,
    /// Files, directories and the like in it.
    pub entries: u64,
    /// The size of its content, in bytes.
    pub size: u64,
    /// What of that is in the cache, in bytes on the disk.
    pub cached: u64,
}

/// Which program a process runs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Identity {
    /// Its version.
    pub version: String,
    /// Its file: inode, size, and time of change in nanoseconds.
    pub file: (u64, u64, i64),
}

impl Identity {
    /// That of this process.
    #[must_use]
    pub fn own() -> Self {
        let file = std::fs::metadata("/proc/self/exe");
        let file = file.map_or((0, 0, 0), |it| {
            (it.ino(), it.size(), it.mtime().wrapping_mul(1_000_000_000) + it.mtime_nsec())
        });
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), file }
    }
}

/// Writes a message with a descriptor beside it.
///
/// # Errors
/// When the connection breaks.
pub async fn write_with_fd<T: Serialize>(
    stream: &mut UnixStream,
    message: &T,
    fd: &OwnedFd,
) -> Result<()> {
    let line = line(message)?;
    let sent = stream.async_io(tokio::io::Interest::WRITABLE, || {
        let fds = [fd.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let sent = rustix::net::sendmsg(
            &*stream,
            &[IoSlice::new(&line)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        );
        Ok(sent?)
    });
    let sent = sent.await?;
    Ok(stream.write_all(&line[sent..]).await?)
}

/// Reads the reply to [`Request::Device`] and the descriptor beside it.
///
/// # Errors
/// When the connection breaks, or no descriptor comes.
pub async fn read_fd(stream: &UnixStream) -> Result<OwnedFd> {
    let received = stream.async_io(tokio::io::Interest::READABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut line = [0; 64];
        let mut parts = [IoSliceMut::new(&mut line)];
        rustix::net::recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok(fds.next())
    });
    received.await?.context("no descriptor came")
}
