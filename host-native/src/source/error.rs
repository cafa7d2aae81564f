//! Why bytes could not be had.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Why a source did not give what was asked for.
///
/// `origin` is the host that answered, or the file: never a URL, since those of content delivery
/// networks hold signatures.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The source does not have it.
    #[error(
        "{origin} has no {what}; check the name of the image and that it was pushed completely"
    )]
    NotFound {
        /// Who said so.
        origin: String,
        /// What was asked for.
        what: String,
    },
    /// The source refuses, also after logging in with what is known.
    #[error(
        "{origin} denies access to {what} (status {status}); log in with `docker login {login}` or ask its owner for access"
    )]
    Denied {
        /// Who said so.
        origin: String,
        /// What was asked for.
        what: String,
        /// 401 or 403.
        status: u16,
        /// The registry to log in to.
        login: String,
    },
    /// The range is not within the blob.
    #[error(
        "{origin} has no bytes {start}..{end} of the blob: it is shorter than the image says; push the image again"
    )]
    RangeNotSatisfiable {
        /// Who said so.
        origin: String,
        /// The first byte asked for.
        start: u64,
        /// The byte after the last one asked for.
        end: u64,
    },
    /// Another range than the one asked for came.
    #[error(
        "{origin} answers a range request wrongly: {why}; the registry or a proxy before it is broken"
    )]
    WrongRange {
        /// Who did so.
        origin: String,
        /// How.
        why: String,
    },
    /// The blob became another one while it was read.
    #[error(
        "{origin} gives another blob than before (its ETag changed); push the image again if that goes on"
    )]
    Changed {
        /// Who did so.
        origin: String,
    },
    /// The connection was lost, again and again.
    #[error(
        "{origin} sent {got} of {expected} bytes and then broke off, also when asked again; check the network and the registry"
    )]
    Truncated {
        /// Who broke off.
        origin: String,
        /// Bytes that arrived.
        got: u64,
        /// Bytes asked for.
        expected: u64,
    },
    /// Nothing came for too long.
    #[error("{origin} did not answer within {}; check the network and the registry", seconds(*.after))]
    Timeout {
        /// Who is silent.
        origin: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// No connection.
    #[error("cannot reach {origin}: {cause}")]
    Unreachable {
        /// The host.
        origin: String,
        /// What the network layer says.
        cause: String,
    },
    /// It leads to an address that is not on the public internet, where that is not wanted.
    #[error(
        "{origin} leads to {address}, which is not an address on the public internet; if it is meant, name the host (--allow {origin}) or allow all such addresses (--allow-private)"
    )]
    NotPublic {
        /// The host.
        origin: String,
        /// Its address.
        address: IpAddr,
    },
    /// A status that is none of the above.
    #[error("{origin} answers with status {code}; {}", advice(*.code))]
    Status {
        /// Who said so.
        origin: String,
        /// The HTTP status.
        code: u16,
    },
    /// A registry that does not take something.
    #[error("{origin} refuses {what} (status {status}){said}")]
    Refused {
        /// Who said so.
        origin: String,
        /// What was to be written.
        what: String,
        /// The HTTP status.
        status: u16,
        /// Its own words, after a colon, if it has any.
        said: String,
    },
    /// An answer that the protocol does not allow.
    #[error("{origin} does not follow the registry protocol: {why}; check that it is a registry")]
    Protocol {
        /// Who did so.
        origin: String,
        /// How.
        why: String,
    },
    /// A file of this machine.
    #[error("cannot read {origin}: {cause}")]
    Io {
        /// The file.
        origin: String,
        /// What the system says.
        cause: Arc<io::Error>,
    },
}

impl FetchError {
    /// Whether the same request may succeed later without anybody doing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Changed { .. }
            | Self::Truncated { .. }
            | Self::Timeout { .. }
            | Self::Unreachable { .. } => true,
            Self::Status { code, .. } => is_transient_status(*code),
            _ => false,
        }
    }

    pub(crate) fn io(origin: &std::path::Path, cause: io::Error) -> Self {
        Self::Io { origin: origin.display().to_string(), cause: Arc::new(cause) }
    }
}

/// Whether a status tells of a passing condition: overload, a gateway without a backend.
pub(crate) const fn is_transient_status(code: u16) -> bool {
    matches!(code, 408 | 425 | 429 | 500 | 502..=504)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

const fn advice(code: u16) -> &'static str {
    match code {
        429 => "it limits the number of requests: log in, wait, or use a mirror",
        500.. => "it is overloaded or broken: try again later",
        _ => "check that it is a registry",
    }
}
