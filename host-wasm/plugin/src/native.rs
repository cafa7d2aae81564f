//! Images in registries, OCI layouts and files, through the sources of the `lazystar` crate.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use lazystar::image::{Image as NativeImage, ImageLayer, OpenOptions};
use lazystar::reference::ImageRef;
use tokio::runtime::Handle as Runtime;

use crate::engine::Engine;
use crate::error::Error;
use crate::image::Image;
use crate::layers::Descriptor;
use crate::sandbox::{Give, Source};
use crate::types::{Assurance, ByteRange};

/// Requests under way side by side.
const REQUESTS: usize = 8;

/// The blob of a layer, wherever the image is.
#[derive(Clone, Debug)]
pub struct NativeBlob {
    image: Arc<NativeImage>,
    layer: usize,
    runtime: Runtime,
}

impl Source for NativeBlob {
    fn fetch(&self, ranges: &[ByteRange], give: &mut Give<'_>) -> Result<(), Error> {
        let blob = &self.image.layers[self.layer].blob;
        let fetch = |range: ByteRange| async move {
            let end = range.offset.saturating_add(range.length);
            (range.offset, blob.fetch_all(range.offset..end).await)
        };
        self.runtime.block_on(async {
            let ranges = stream::iter(ranges.iter().copied());
            let mut answers = ranges.map(fetch).buffer_unordered(REQUESTS);
            while let Some((offset, bytes)) = answers.next().await {
                give(offset, &bytes.map_err(of_source)?)?;
            }
            Ok(())
        })
    }

    fn external_toc(&self) -> Result<Vec<u8>, Error> {
        let layer = self.image.layers[self.layer].descriptor.digest;
        let toc = self.runtime.block_on(self.image.external_toc(layer));
        Ok(toc.map_err(of_source)?.to_vec())
    }
}

/// Finds an image and opens all its layers. To be called outside of asynchronous code; requests run
/// on `runtime`.
///
/// # Errors
/// When the image is not there, or as [`Image::open`].
pub fn open(
    engine: &Engine,
    reference: &ImageRef,
    options: &OpenOptions,
    least: Assurance,
    runtime: &Runtime,
) -> Result<Image<NativeBlob>, Error> {
    let image = runtime.block_on(NativeImage::open(reference, options)).map_err(of_source)?;
    let image = Arc::new(image);
    let blob = |layer| NativeBlob { image: Arc::clone(&image), layer, runtime: runtime.clone() };
    let blobs = (0..image.layers.len()).map(blob);
    if let Some(digest) = image.manifest_digest {
        let digest = digest.to_string();
        return Image::open(engine, &image.manifest, Some(&digest), least, blobs.collect());
    }
    // A blob in a file, which has no manifest: whoever names it vouches for it.
    let least = if least == Assurance::Verified { Assurance::Consistent } else { least };
    let layers = image.layers.iter().map(descriptor).zip(blobs).collect();
    Image::of_layers(engine.sandbox()?, layers, least)
}

fn descriptor(layer: &ImageLayer) -> Descriptor {
    Descriptor {
        media_type: layer.descriptor.media_type.clone(),
        digest: layer.descriptor.digest.to_string(),
        size: layer.blob.size().unwrap_or(layer.descriptor.size),
        annotations: layer.descriptor.annotations.clone().into_iter().collect(),
    }
}

fn of_source(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Source(Box::new(error))
}
