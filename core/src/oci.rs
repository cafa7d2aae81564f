//! The documents of an image: indexes, manifests and configurations.
//!
//! Source: OCI image specification ("Image Manifest", "Image Index", "Content Descriptors", "Image
//! Configuration"); Docker's schema 2 has the same members.

mod value;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::toc::JsonError;
use value::Value;

/// What points at a blob or a document. Digests are not parsed: they may be of any algorithm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// The type of the content.
    pub media_type: String,
    /// The digest of the content.
    pub digest: String,
    /// The length of the content in bytes.
    pub size: u64,
    /// Annotations in the order of the document.
    pub annotations: Vec<(String, String)>,
    /// The platform that an entry of an index is for.
    pub platform: Option<Platform>,
}

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// The operating system, such as `linux`.
    pub os: String,
    /// The processor architecture as Go names it, such as `amd64`.
    pub architecture: String,
    /// The variant of the architecture, such as `v8`; may be empty.
    pub variant: String,
}

/// What the name of an image leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Several images, for different platforms.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest {
        /// Its configuration.
        config: Descriptor,
        /// Its layers, the bottom one first.
        layers: Vec<Descriptor>,
    },
}

/// How a container of an image is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What the image runs on.
    pub platform: Platform,
    /// Digests of the plain tars of the layers, the bottom one first.
    pub diff_ids: Vec<String>,
    /// The steps that made the image.
    pub history: Vec<Step>,
    /// The environment, each `NAME=value`.
    pub env: Vec<String>,
    /// The fixed part of the command.
    pub entrypoint: Vec<String>,
    /// The part of the command that is given unless the user gives another.
    pub cmd: Vec<String>,
    /// The directory to start in.
    pub working_dir: String,
    /// The user and group to run as.
    pub user: String,
    /// Labels in the order of the document.
    pub labels: Vec<(String, String)>,
}

/// A step of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The command.
    pub created_by: String,
    /// Whether it made no layer.
    pub empty_layer: bool,
}

/// Why a document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is not JSON.
    Json(JsonError),
    /// It is JSON of another shape; names the member.
    Shape(&'static str),
    /// It is some other kind of document, or one that could be read as two kinds.
    Unsupported,
    /// It has more bytes or values than any such document needs.
    TooLarge,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "the document is not valid JSON: {error}"),
            Self::Shape(member) => {
                write!(
                    f,
                    "the document is malformed: {member} is missing, twice or of the wrong type"
                )
            }
            Self::Unsupported => f.write_str("not an OCI or Docker (schema 2) image"),
            Self::TooLarge => f.write_str("larger than any such document needs to be"),
        }
    }
}

impl core::error::Error for DocumentError {}

impl From<JsonError> for DocumentError {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

impl Document {
    /// Parses a manifest or an index; which of the two it is, it says itself.
    ///
    /// # Errors
    /// If it is neither, or could be read as both: that would be an attempt to show different images
    /// to different tools.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = Value::parse(bytes)?;
        if document.get("schemaVersion")?.and_then(Value::number) != Some(2) {
            return Err(DocumentError::Unsupported);
        }
        let media_type = document.text("mediaType")?;
        let is_index = media_type.contains(".index.") || media_type.contains(".list.");
        match (document.get("manifests")?, document.get("layers")?) {
            (Some(manifests), None) if is_index || media_type.is_empty() => {
                Ok(Self::Index(manifests.list("manifests", descriptor)?))
            }
            (None, Some(layers)) if !is_index => Ok(Self::Manifest {
                config: descriptor(document.get("config")?.ok_or(DocumentError::Shape("config"))?)?,
                layers: layers.list("layers", descriptor)?,
            }),
            _ => Err(DocumentError::Unsupported),
        }
    }
}

impl Config {
    /// Parses the configuration of an image.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = Value::parse(bytes)?;
        let rootfs = document.get("rootfs")?.ok_or(DocumentError::Shape("rootfs"))?;
        let none = Value::Null;
        let run = document.get("config")?.unwrap_or(&none);
        let strings = |value: &Value, member: &'static str| match value.get(member)? {
            Some(list) => {
                list.list(member, |item| item.string().ok_or(DocumentError::Shape(member)))
            }
            None => Ok(Vec::new()),
        };
        let step = |step: &Value| {
            let empty_layer = step.get("empty_layer")?.is_some_and(|it| *it == Value::Bool(true));
            Ok(Step { created_by: step.text("created_by")?, empty_layer })
        };
        Ok(Self {
            platform: platform(&document)?,
            diff_ids: strings(rootfs, "diff_ids")?,
            history: match document.get("history")? {
                Some(history) => history.list("history", step)?,
                None => Vec::new(),
            },
            env: strings(run, "Env")?,
            entrypoint: strings(run, "Entrypoint")?,
            cmd: strings(run, "Cmd")?,
            working_dir: run.text("WorkingDir")?,
            user: run.text("User")?,
            labels: run.map("Labels")?,
        })
    }
}

fn descriptor(value: &Value) -> Result<Descriptor, DocumentError> {
    let digest = value.text("digest")?;
    if digest.is_empty() {
        return Err(DocumentError::Shape("digest"));
    }
    Ok(Descriptor {
        media_type: value.text("mediaType")?,
        digest,
        size: value.get("size")?.and_then(Value::number).ok_or(DocumentError::Shape("size"))?,
        annotations: value.map("annotations")?,
        platform: value.get("platform")?.map(platform).transpose()?,
    })
}

fn platform(value: &Value) -> Result<Platform, DocumentError> {
    Ok(Platform {
        os: value.text("os")?,
        architecture: value.text("architecture")?,
        variant: value.text("variant")?,
    })
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn parse(text: &str) -> Result<Document, DocumentError> {
        Document::parse(text.as_bytes())
    }

    #[test]
    fn a_manifest_gives_its_layers_with_all_annotations() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{DIGEST}","size":3}},
            "layers":[{{"mediaType":"l","digest":"{DIGEST}","size":4,"annotations":{{"z":"1","a":"\u00e9"}}}},
                      {{"digest":"sha512:00","size":5,"annotations":null,"urls":["x"]}}]}}"#
        );
        let layer = |size, annotations: &[(&str, &str)]| Descriptor {
            size,
            annotations: annotations.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ..Descriptor::default()
        };
        let of = |media_type: &str, digest: &str, it: Descriptor| Descriptor {
            media_type: media_type.into(),
            digest: digest.into(),
            ..it
        };
        let expected = Document::Manifest {
            config: of("c", DIGEST, layer(3, &[])),
            layers: Vec::from([
                of("l", DIGEST, layer(4, &[("z", "1"), ("a", "é")])),
                of("", "sha512:00", layer(5, &[])),
            ]),
        };
        assert_eq!(parse(&text), Ok(expected));
    }

    #[test]
    fn an_index_gives_its_platforms() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
            {{"digest":"{DIGEST}","size":1,"platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}},
            {{"digest":"{DIGEST}","size":2}}]}}"#
        );
        let Ok(Document::Index(manifests)) = parse(&text) else { panic!("{:?}", parse(&text)) };
        let arm =
            Platform { os: "linux".into(), architecture: "arm64".into(), variant: "v8".into() };
        assert_eq!(manifests[0].platform, Some(arm));
        assert_eq!((manifests[1].size, &manifests[1].platform), (2, &None));
    }

    #[test]
    fn what_could_be_two_things_is_neither() {
        let refused = [
            r#"{"schemaVersion":2,"layers":[],"manifests":[],"config":{}}"#,
            r#"{"schemaVersion":1,"layers":[]}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","layers":[]}"#,
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
        ];
        for text in refused {
            assert_eq!(parse(text), Err(DocumentError::Unsupported), "{text}");
        }
        for (member, text) in [
            ("layers", r#"{"schemaVersion":2,"layers":[],"layers":[]}"#),
            ("layers", r#"{"schemaVersion":2,"layers":3,"config":{"digest":"d","size":1}}"#),
            ("config", r#"{"schemaVersion":2,"layers":[]}"#),
            (
                "digest",
                r#"{"schemaVersion":2,"layers":[{"size":1}],"config":{"digest":"d","size":1}}"#,
            ),
            ("size", r#"{"schemaVersion":2,"manifests":[{"digest":"d","size":-1}]}"#),
            ("size", r#"{"schemaVersion":2,"manifests":[{"digest":"d","size":1.5}]}"#),
            (
                "annotations",
                r#"{"schemaVersion":2,"manifests":[{"digest":"d","size":1,"annotations":{"a":1}}]}"#,
            ),
            (
                "annotations",
                r#"{"schemaVersion":2,"manifests":[{"digest":"d","size":1,"annotations":{"a":"","a":""}}]}"#,
            ),
        ] {
            assert_eq!(parse(text), Err(DocumentError::Shape(member)), "{text}");
        }
        assert!(matches!(parse("{"), Err(DocumentError::Json(_))));
        assert_eq!(parse("[]"), Err(DocumentError::Unsupported));
        let many = format!("[{}1]", "1,".repeat(300_000));
        assert_eq!(parse(&many), Err(DocumentError::TooLarge));
    }

    #[test]
    fn a_configuration_says_how_to_run_it() {
        let text = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}},
            "history":[{{"created_by":"RUN x"}},{{"empty_layer":true}}],
            "config":{{"Env":["A=b"],"Cmd":["sh"],"Entrypoint":null,"WorkingDir":"/w","User":"1:2","Labels":{{"k":"v"}}}}}}"#
        );
        let config = Config::parse(text.as_bytes()).unwrap();
        assert_eq!(config.platform.architecture, "amd64");
        assert_eq!(config.diff_ids, [DIGEST]);
        assert_eq!(config.history.len(), 2);
        assert!(config.history[1].empty_layer && !config.history[0].empty_layer);
        assert_eq!((config.env, config.entrypoint), (Vec::from(["A=b".into()]), Vec::new()));
        assert_eq!((&*config.working_dir, &*config.user), ("/w", "1:2"));
        assert_eq!(config.labels, [("k".into(), "v".into())]);
        assert_eq!(Config::parse(b"{}"), Err(DocumentError::Shape("rootfs")));
        assert_eq!(Config::parse(br#"{"rootfs":{}}"#).unwrap().diff_ids, [""; 0]);
    }
}
