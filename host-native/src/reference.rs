//! What a user writes to name an image.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use lazystar_core::Digest;

/// The host that requests for `docker.io` go to.
const DOCKER_HUB_ENDPOINT: &str = "registry-1.docker.io";
/// The name of Docker Hub in references.
const DOCKER_HUB: &str = "docker.io";
/// Longest repository name (OCI distribution specification, "Pulling manifests").
const MAX_REPOSITORY: usize = 255;
/// Longest tag (same place).
const MAX_TAG: usize = 128;

/// An image: in a registry, in an OCI layout directory, in an archive as `docker save` writes it, or a
/// single layer in a file.
///
/// Parses and prints `host/repository:tag@sha256:...`, `oci:DIR[:TAG]`, `docker-archive:FILE[:NAME]`
/// and `file:BLOB`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageRef {
    /// An image in a registry.
    Registry(RegistryRef),
    /// An image in an OCI layout directory; no tag means its only image.
    OciLayout {
        /// The directory that holds `index.json` and `blobs`.
        dir: PathBuf,
        /// The `org.opencontainers.image.ref.name` of the image.
        tag: Option<String>,
    },
    /// An image in an archive of `docker save`; no name means its only image.
    DockerArchive {
        /// The archive, a tar.
        path: PathBuf,
        /// The name of the image in it, as `repository:tag`.
        name: Option<String>,
    },
    /// One layer blob in a file.
    File(PathBuf),
}

/// The name of an image in a registry, with Docker's short forms written out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegistryRef {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl RegistryRef {
    /// The host as it is written in references: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host without its port.
    #[must_use]
    pub fn hostname(&self) -> &str {
        match self.host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => &self.host,
        }
    }

    /// The host that requests go to; differs from [`RegistryRef::host`] for Docker Hub.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        if self.host == DOCKER_HUB { DOCKER_HUB_ENDPOINT } else { &self.host }
    }

    /// The repository: `library/golang`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if the text had neither tag nor digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which wins over the tag.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Whether `text` can be a tag.
    #[must_use]
    pub fn is_tag(text: &str) -> bool {
        check_tag(text).is_ok()
    }

    /// The same repository with `tag` and no digest.
    ///
    /// # Errors
    /// If `tag` is not a tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag).map_err(|why| ReferenceError::new(tag, why))?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The registry `host` itself, with no repository of it named: that is empty then.
    ///
    /// # Errors
    /// If `host` is none, as references write it.
    pub fn of_host(host: &str) -> Result<Self, ReferenceError> {
        let is_named = host.contains(['.', ':', '[']) || host == "localhost";
        if !is_named || host.contains(['/', '@']) {
            let why = "write the name of a registry with a dot or a port, and nothing else";
            return Err(ReferenceError::new(host, why));
        }
        let image: Self = format!("{host}/any:any").parse()?;
        Ok(Self { repository: String::new(), tag: None, ..image })
    }

    /// A repository of the same registry, with neither tag nor digest.
    ///
    /// # Errors
    /// If `repository` is not the name of one.
    pub fn with_repository(&self, repository: &str) -> Result<Self, ReferenceError> {
        let repository = written_out(&self.host, repository);
        check_repository(&repository).map_err(|why| ReferenceError::new(&repository, why))?;
        Ok(Self { repository, tag: None, digest: None, ..self.clone() })
    }

    /// The same image in the registry of `other`.
    #[must_use]
    pub fn at_host_of(&self, other: &Self) -> Self {
        Self { host: other.host.clone(), ..self.clone() }
    }

    /// The same repository and tag with `digest`.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

/// Why a text does not name an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} does not name an image: {why}")]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

impl ReferenceError {
    fn new(text: &str, why: &'static str) -> Self {
        // A URL may carry a password in front of its host: do not repeat it.
        let text = if text.contains("://") { "..." } else { text };
        Self { text: text.to_owned(), why }
    }
}

impl FromStr for ImageRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |why| Err(ReferenceError::new(text, why));
        if let Some(rest) = text.strip_prefix("file:") {
            return if rest.is_empty() {
                fail("write the path of a layer after `file:`")
            } else {
                Ok(Self::File(PathBuf::from(rest)))
            };
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            // The first colon ends the directory, as in other tools, since the name of an image
            // in a layout may itself be a full reference.
            let (dir, tag) = match rest.split_once(':') {
                Some((dir, tag)) => (dir, Some(tag)),
                None => (rest, None),
            };
            if dir.is_empty() {
                return fail("write the directory of an OCI layout after `oci:`");
            }
            if tag.is_some_and(|tag| {
                tag.is_empty() || tag.chars().any(|c| c.is_control() || c.is_whitespace())
            }) {
                return fail("write a tag after the second colon, or leave the colon out");
            }
            return Ok(Self::OciLayout { dir: PathBuf::from(dir), tag: tag.map(str::to_owned) });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            // As other tools have it: the first colon ends the file's name.
            let (path, name) = match rest.split_once(':') {
                Some((path, name)) => (path, Some(name)),
                None => (rest, None),
            };
            if path.is_empty() || name == Some("") {
                return fail("write docker-archive:FILE, or docker-archive:FILE:NAME");
            }
            let path = PathBuf::from(path);
            return Ok(Self::DockerArchive { path, name: name.map(str::to_owned) });
        }
        text.parse().map(Self::Registry)
    }
}

impl FromStr for RegistryRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse_registry(text).map_err(|why| ReferenceError::new(text, why))
    }
}

fn parse_registry(text: &str) -> Result<RegistryRef, &'static str> {
    if text.contains("://") {
        return Err("write host/repository:tag without a scheme such as https://");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest
                .parse()
                .map_err(|_| "what follows `@` must be sha256: and 64 lower-case hex digits")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_start..].split_once(':') {
        Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag)),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (host, repository) = match name.split_once('/') {
        Some((first, repository)) if first.contains(['.', ':', '[']) || first == "localhost" => {
            check_host(first)?;
            (first.to_ascii_lowercase(), repository)
        }
        _ => (DOCKER_HUB.to_owned(), name),
    };
    let host = if matches!(host.as_str(), "index.docker.io" | DOCKER_HUB_ENDPOINT) {
        DOCKER_HUB.to_owned()
    } else {
        host
    };
    let repository = written_out(&host, repository);
    check_repository(&repository)?;
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(RegistryRef { host, repository, tag, digest })
}

/// The name of a repository with what Docker Hub's short names leave out.
fn written_out(host: &str, repository: &str) -> String {
    if host == DOCKER_HUB && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = if let Some(inner) = host.strip_prefix('[') {
        let (address, rest) =
            inner.split_once(']').ok_or("an IPv6 address needs a closing bracket")?;
        address
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| "what stands in brackets is not an IPv6 address")?;
        let port = if rest.is_empty() {
            None
        } else {
            Some(rest.strip_prefix(':').ok_or("a port follows a colon")?)
        };
        ("ipv6", port)
    } else {
        match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !name.split('.').all(label) {
        return Err("its host is not a domain name or an address");
    }
    match port {
        Some(port)
            if !port.bytes().all(|b| b.is_ascii_digit())
                || !matches!(port.parse::<u16>(), Ok(1..)) =>
        {
            Err("its port is not a number from 1 to 65535")
        }
        _ => Ok(()),
    }
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.len() > MAX_REPOSITORY {
        return Err("its repository is longer than 255 characters");
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("a repository is written in lower case");
    }
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let component = |component: &str| {
        let bytes = component.as_bytes();
        let ends =
            bytes.first().is_some_and(|b| word(*b)) && bytes.last().is_some_and(|b| word(*b));
        ends && bytes.split(|b| word(*b)).all(|between| {
            matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-')
        })
    };
    if repository.split('/').all(component) {
        Ok(())
    } else {
        Err("a repository is words of letters and digits, joined by one of . _ __ - and /")
    }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let legal =
        tag.bytes().enumerate().all(|(at, b)| word(b) || (at > 0 && matches!(b, b'.' | b'-')));
    if tag.is_empty() || tag.len() > MAX_TAG || !legal {
        return Err("a tag is 1 to 128 letters, digits, or . _ -, not starting with . or -");
    }
    Ok(())
}

impl fmt::Display for RegistryRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::OciLayout { dir, tag } => {
                write!(f, "oci:{}", dir.display())?;
                tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
            }
            Self::DockerArchive { path, name } => {
                write!(f, "docker-archive:{}", path.display())?;
                name.iter().try_for_each(|name| write!(f, ":{name}"))
            }
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}
