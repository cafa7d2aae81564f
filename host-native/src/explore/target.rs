//! What a request for something in a registry names.

use axum::http::StatusCode;
use percent_encoding::percent_decode_str;

use super::refusal::Refusal;

/// What is asked of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The registry, as the page wrote it.
    pub(super) registry: String,
    pub(super) asked: Asked,
}

/// Which of the endpoints of the distribution API that read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Whether it is there.
    Api,
    /// Which repositories it has.
    Catalog,
    Tags {
        repository: String,
    },
    Manifest {
        repository: String,
        reference: String,
    },
    Blob {
        repository: String,
        digest: String,
    },
}

impl Target {
    /// Reads `HOST/v2/...`.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        let known = decoded.split_once('/').and_then(|(registry, rest)| {
            let rest = rest.strip_prefix("v2")?;
            let asked =
                if rest.is_empty() { Asked::Api } else { Asked::parse(rest.strip_prefix('/')?)? };
            Some(Self { registry: registry.to_owned(), asked })
        });
        known.ok_or_else(|| {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "LAZYSTAR_NO_ENDPOINT",
                "this is none of /registry/HOST/v2/, .../_catalog, .../REPOSITORY/tags/list, \
                 .../REPOSITORY/manifests/REFERENCE and .../REPOSITORY/blobs/DIGEST",
            )
        })
    }
}

impl Asked {
    fn parse(rest: &str) -> Option<Self> {
        match rest {
            "" => return Some(Self::Api),
            "_catalog" => return Some(Self::Catalog),
            _ => {}
        }
        let (before, last) = rest.rsplit_once('/')?;
        let (repository, kind) = before.rsplit_once('/')?;
        let repository = repository.to_owned();
        match kind {
            "tags" if last == "list" => Some(Self::Tags { repository }),
            "manifests" => Some(Self::Manifest { repository, reference: last.to_owned() }),
            "blobs" => Some(Self::Blob { repository, digest: last.to_owned() }),
            _ => None,
        }
    }

    pub(super) fn repository(&self) -> Option<&str> {
        match self {
            Self::Api | Self::Catalog => None,
            Self::Tags { repository }
            | Self::Manifest { repository, .. }
            | Self::Blob { repository, .. } => Some(repository),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_endpoints() {
        let of = |path: &str| {
            let target = Target::parse(path).ok()?;
            Some((target.registry, target.asked))
        };
        let repository = || "a/b".to_owned();
        for (path, registry, asked) in [
            ("ghcr.io/v2/", "ghcr.io", Asked::Api),
            ("ghcr.io/v2", "ghcr.io", Asked::Api),
            ("[::1]:5000/v2/_catalog", "[::1]:5000", Asked::Catalog),
            ("x%3A5000/v2/a/b/tags/list", "x:5000", Asked::Tags { repository: repository() }),
            (
                "x/v2/a/b/manifests/sha256%3A00",
                "x",
                Asked::Manifest { repository: repository(), reference: "sha256:00".to_owned() },
            ),
            (
                "x/v2/manifests/manifests/blobs/y",
                "x",
                Asked::Blob {
                    repository: "manifests/manifests".to_owned(),
                    digest: "y".to_owned(),
                },
            ),
        ] {
            assert_eq!(of(path), Some((registry.to_owned(), asked)), "{path}");
        }
        for bad in ["", "x", "x/", "x/v1/", "x/v2a", "x/v2/a", "x/v2/a/b", "x/v2/a/blobs/uploads/"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
