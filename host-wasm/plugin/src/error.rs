use std::fmt::Write as _;

use crate::types::{ErrorCode, Subject};

/// Why something failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The component refuses what it was given: a damaged or hostile image, or a path that is not
    /// there.
    #[error("{}", describe(.0))]
    Engine(ErrorCode),
    /// The component used up its time or memory, or trapped; the sandbox is of no use any more.
    #[error("the engine was stopped: {0}; the image is hostile, or larger than the limits allow")]
    Stopped(String),
    /// The component cannot be loaded.
    #[error("the component cannot be used: {0}; build it with host-wasm/build")]
    Component(String),
    /// Bytes could not be had; what the source says.
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// What was read could not be written.
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
    /// An entry cannot be put into a tar.
    #[error(transparent)]
    Tar(#[from] lazystar_core::tar::EncodeError),
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        Self::Engine(code)
    }
}

fn describe(code: &ErrorCode) -> String {
    match code {
        ErrorCode::NotLazy => "an ordinary layer, which cannot be read lazily".to_owned(),
        ErrorCode::Malformed(it) => it.message.clone(),
        ErrorCode::DigestMismatch(it) => {
            let mut text = match it.subject {
                Subject::TableOfContents => "the table of contents".to_owned(),
                Subject::File(id) => format!("a chunk of file {id}"),
                Subject::Document => "a document".to_owned(),
            };
            let (expected, actual) = (&it.expected, &it.actual);
            let _ = write!(text, " has digest {actual} instead of {expected}");
            if let Some(range) = it.blob_range {
                let _ =
                    write!(text, ", in {} bytes of the blob from {}", range.length, range.offset);
            }
            text + ": the registry served corrupt or altered data"
        }
        ErrorCode::LimitExceeded(it) => {
            format!("{}: more than the limit of {}", it.subject, it.maximum)
        }
        ErrorCode::NotFound => "no such file or directory in the image".to_owned(),
        ErrorCode::WrongKind => "a file where a directory is needed, or the reverse".to_owned(),
        ErrorCode::TooManyLinks => "too many levels of symbolic links".to_owned(),
        ErrorCode::Unverifiable(text)
        | ErrorCode::Protocol(text)
        | ErrorCode::Unsupported(text)
        | ErrorCode::Other(text) => text.clone(),
    }
}
