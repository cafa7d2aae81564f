//! An image with everything that belongs to it, for whoever copies it.

use bytes::Bytes;
use lazystar_core::Digest;

use super::{ImageError, OpenOptions, Place};
use crate::oci::{Descriptor, Document, MAX_CONFIG, check_size};
use crate::reference::ImageRef;
use crate::source::Blob;

/// An image of whatever platforms, as it was signed.
#[derive(Debug)]
pub struct Source {
    place: Place,
    /// What its reference names: an index or a manifest.
    pub top: Descriptor,
    /// The bytes of that.
    pub bytes: Bytes,
}

impl Source {
    /// Finds what `reference` names.
    ///
    /// # Errors
    /// If the image is not there or not readable.
    pub async fn open(reference: &ImageRef, options: &OpenOptions) -> Result<Self, ImageError> {
        let place = Place::of(reference, options)?;
        let (digest, bytes, media_type) = place.top(&options.platform).await?;
        let top = Document::parse(&bytes, &media_type)?.descriptor(digest, &bytes, &media_type);
        Ok(Self { place, top, bytes })
    }

    /// The manifest or index that `descriptor` points at, verified.
    ///
    /// # Errors
    /// If it is not there or not what the descriptor says.
    pub async fn document(&self, descriptor: &Descriptor) -> Result<Bytes, ImageError> {
        self.place.manifest(descriptor).await
    }

    /// The configuration that `descriptor` points at, verified.
    ///
    /// # Errors
    /// If it is not there or not what the descriptor says.
    pub async fn config(&self, descriptor: &Descriptor) -> Result<Bytes, ImageError> {
        check_size("image configuration", descriptor.size, MAX_CONFIG)?;
        self.place.config(descriptor).await
    }

    /// The blob that `descriptor` points at; its bytes are for the caller to verify.
    ///
    /// # Errors
    /// If it is not there, which a registry tells only when it is read.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Blob, ImageError> {
        self.place.blob(descriptor)
    }

    /// The blob or document with `digest` of an image on this machine, if it is there. Nothing is
    /// known of a registry's but what a descriptor says.
    ///
    /// # Errors
    /// If it is there, and cannot be read.
    pub fn find(&self, digest: Digest) -> Result<Option<Blob>, ImageError> {
        self.place.find(digest)
    }
}
