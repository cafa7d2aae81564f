//! Media types of images.

/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// An OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's uncompressed layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker's layer compressed with gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker's layer compressed with zstd, as some tools write it.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// An uncompressed OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer compressed with gzip: legacy stargz and eStargz, too.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer compressed with zstd: zstd:chunked, too.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// What a client sends as `Accept` to get a manifest or an index.
pub const ACCEPT_MANIFEST: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Whether `media_type` is that of an index.
#[must_use]
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

/// Whether `media_type` is that of a manifest of one image.
#[must_use]
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// The media type of a layer that starts with `head`.
#[must_use]
pub fn of_layer(head: &[u8]) -> &'static str {
    match head {
        [0x1f, 0x8b, ..] => OCI_LAYER_GZIP,
        // A zstd frame, or one of the 16 kinds of skippable frames.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => OCI_LAYER_ZSTD,
        _ => OCI_LAYER,
    }
}

/// The same in Docker's terms.
#[must_use]
pub fn docker_of_layer(head: &[u8]) -> &'static str {
    match of_layer(head) {
        OCI_LAYER_GZIP => DOCKER_LAYER_GZIP,
        OCI_LAYER_ZSTD => DOCKER_LAYER_ZSTD,
        _ => DOCKER_LAYER,
    }
}

/// Whether `media_type` is that of a configuration of a runnable image.
#[must_use]
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// Whether `media_type` is that of a layer which registries are not to distribute.
#[must_use]
pub fn is_foreign(media_type: &str) -> bool {
    media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
}

/// Whether `media_type` is that of a layer: a tar, compressed or not.
#[must_use]
pub fn is_layer(media_type: &str) -> bool {
    let known = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    known.iter().any(|prefix| media_type.starts_with(prefix)) && media_type.contains(".tar")
}
