//! `oci`: digests and documents.

use alloc::string::ToString;
use alloc::vec::Vec;

use lazystar_core::Digest;
use lazystar_core::digest::DigestError;
use lazystar_core::oci::{Config, Descriptor, Document, DocumentError, Platform};

use crate::Engine;
use crate::bindings::exports::lazystar::engine::layers;
use crate::bindings::exports::lazystar::engine::oci::{self, Guest};
use crate::bindings::exports::lazystar::engine::types::{self, ErrorCode, Subject};
use crate::convert;

/// What is read of a document: what it says must fit into one call.
const MAX_DOCUMENT: usize = 1 << 20;

impl Guest for Engine {
    fn digest_of(document: Vec<u8>) -> types::Digest {
        Digest::of(&document).to_string()
    }

    fn verify(document: Vec<u8>, expected: types::Digest) -> Result<(), ErrorCode> {
        verify(&document, &expected)
    }

    fn parse(
        document: Vec<u8>,
        expected: Option<types::Digest>,
    ) -> Result<oci::Document, ErrorCode> {
        check(&document, expected.as_deref())?;
        Ok(match Document::parse(&document).map_err(document_error)? {
            Document::Index(manifests) => {
                oci::Document::Index(manifests.into_iter().map(index_entry).collect())
            }
            Document::Manifest { config, layers } => oci::Document::Manifest(oci::Manifest {
                config: descriptor(config),
                layers: layers.into_iter().map(descriptor).collect(),
            }),
        })
    }

    fn parse_configuration(
        document: Vec<u8>,
        expected: Option<types::Digest>,
    ) -> Result<oci::Configuration, ErrorCode> {
        check(&document, expected.as_deref())?;
        let config = Config::parse(&document).map_err(document_error)?;
        let steps = config.history.into_iter();
        Ok(oci::Configuration {
            platform: platform(config.platform),
            diff_ids: config.diff_ids,
            history: steps
                .map(|step| oci::HistoryStep {
                    created_by: step.created_by,
                    empty_layer: step.empty_layer,
                })
                .collect(),
            env: config.env,
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            working_dir: config.working_dir,
            user: config.user,
            labels: config.labels,
        })
    }
}

fn verify(document: &[u8], expected: &str) -> Result<(), ErrorCode> {
    let expected: Digest = expected.parse().map_err(|error: DigestError| match error {
        DigestError::UnsupportedAlgorithm => ErrorCode::Unsupported(error.to_string()),
        DigestError::Malformed => ErrorCode::Protocol(error.to_string()),
    })?;
    let actual = Digest::of(document);
    if actual == expected {
        return Ok(());
    }
    Err(convert::digest_mismatch(Subject::Document, expected, actual, None))
}

fn check(document: &[u8], expected: Option<&str>) -> Result<(), ErrorCode> {
    if document.len() > MAX_DOCUMENT {
        return Err(convert::limit_exceeded("bytes in a document".into(), MAX_DOCUMENT as u64));
    }
    expected.map_or(Ok(()), |expected| verify(document, expected))
}

fn document_error(error: DocumentError) -> ErrorCode {
    let message = error.to_string();
    match error {
        DocumentError::Unsupported => ErrorCode::Unsupported(message),
        DocumentError::TooLarge => convert::limit_exceeded("values in a document".into(), 200_000),
        _ => convert::malformed(None, message),
    }
}

fn descriptor(descriptor: Descriptor) -> layers::Descriptor {
    let Descriptor { media_type, digest, size, annotations, .. } = descriptor;
    layers::Descriptor { media_type, digest, size, annotations }
}

fn index_entry(mut entry: Descriptor) -> oci::IndexEntry {
    let platform = entry.platform.take().map(platform);
    oci::IndexEntry { manifest: descriptor(entry), platform }
}

fn platform(platform: Platform) -> oci::Platform {
    let Platform { os, architecture, variant } = platform;
    oci::Platform { os, architecture, variant }
}
