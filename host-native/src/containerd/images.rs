//! Image records: names for content.

use std::collections::BTreeMap;

use super::{Containerd, PATIENCE, Result};
use crate::oci::Descriptor;
use crate::proto::services::images::v1 as api;
use crate::proto::types;

/// An image as containerd knows it.
#[derive(Clone, Debug)]
pub struct ImageRecord {
    /// Its name.
    pub name: String,
    /// Its index or manifest.
    pub target: Descriptor,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Containerd {
    fn images(
        &self,
    ) -> api::images_client::ImagesClient<
        tonic::service::interceptor::InterceptedService<tonic::transport::Channel, super::Scope>,
    > {
        api::images_client::ImagesClient::new(self.scoped())
            .max_decoding_message_size(super::MAX_MESSAGE)
    }

    /// The image `name`; `None` if there is none that could be used.
    ///
    /// # Errors
    /// When containerd does not tell.
    pub async fn image(&self, name: &str) -> Result<Option<ImageRecord>> {
        let request = api::GetImageRequest { name: name.to_owned() };
        let asked = async { self.images().get(request).await };
        let found = match self.call(&format!("find the image {name}"), PATIENCE, asked).await {
            Err(error) if error.is_not_found() => return Ok(None),
            found => found?.into_inner().image,
        };
        Ok(found.and_then(|image| {
            Some(ImageRecord {
                name: image.name,
                target: descriptor(image.target?)?,
                labels: image.labels.into_iter().collect(),
            })
        }))
    }

    /// The names of all images.
    ///
    /// # Errors
    /// When containerd does not tell.
    pub async fn image_names(&self) -> Result<Vec<String>> {
        let request = api::ListImagesRequest { filters: Vec::new() };
        let asked = async { self.images().list(request).await };
        let answer = self.call("list its images", PATIENCE, asked).await?.into_inner();
        Ok(answer.images.into_iter().map(|image| image.name).collect())
    }

    /// Gives content a name, which may have stood for something else.
    ///
    /// # Errors
    /// When containerd does not take it.
    pub async fn name_image(&self, image: &ImageRecord) -> Result<()> {
        let record = api::Image {
            name: image.name.clone(),
            labels: image.labels.clone().into_iter().collect(),
            target: Some(message(&image.target)),
        };
        let what = format!("record the image {}", image.name);
        let request = api::CreateImageRequest { image: Some(record.clone()) };
        let asked = async { self.images().create(request).await };
        match self.call(&what, PATIENCE, asked).await {
            Err(error) if error.already_exists() => {}
            done => return done.map(drop),
        }
        let request = api::UpdateImageRequest { image: Some(record), update_mask: None };
        let asked = async { self.images().update(request).await };
        self.call(&what, PATIENCE, asked).await.map(drop)
    }
}

/// A descriptor as the API writes it.
pub(super) fn message(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: descriptor.annotations.clone().into_iter().collect(),
    }
}

fn descriptor(message: types::Descriptor) -> Option<Descriptor> {
    Some(Descriptor {
        media_type: message.media_type,
        digest: message.digest.parse().ok()?,
        size: u64::try_from(message.size).ok()?,
        annotations: message.annotations.into_iter().collect(),
        platform: None,
        urls: Vec::new(),
    })
}
