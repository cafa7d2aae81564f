//! `oci`: digests of documents.

use alloc::string::ToString;
use alloc::vec::Vec;

use lazystar_core::Digest;
use lazystar_core::digest::DigestError;

use crate::Engine;
use crate::bindings::exports::lazystar::engine::oci::Guest;
use crate::bindings::exports::lazystar::engine::types::{self, ErrorCode, Subject};
use crate::convert;

impl Guest for Engine {
    fn digest_of(document: Vec<u8>) -> types::Digest {
        Digest::of(&document).to_string()
    }

    fn verify(document: Vec<u8>, expected: types::Digest) -> Result<(), ErrorCode> {
        let expected: Digest = expected.parse().map_err(|error: DigestError| match error {
            DigestError::UnsupportedAlgorithm => ErrorCode::Unsupported(error.to_string()),
            DigestError::Malformed => ErrorCode::Protocol(error.to_string()),
        })?;
        let actual = Digest::of(&document);
        if actual == expected {
            return Ok(());
        }
        Err(convert::digest_mismatch(Subject::Document, expected, actual, None))
    }
}
