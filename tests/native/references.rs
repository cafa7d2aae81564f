//! Names of images.

use lazystar::oci::{Document, Index, Platform};
use lazystar::reference::{ImageRef, RegistryRef};

#[test]
fn short_names_are_written_out() {
    let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let cases = [
        ("golang", "docker.io/library/golang:latest"),
        ("golang:1.22", "docker.io/library/golang:1.22"),
        ("docker.io/golang", "docker.io/library/golang:latest"),
        ("index.docker.io/library/golang", "docker.io/library/golang:latest"),
        ("a/b", "docker.io/a/b:latest"),
        ("ghcr.io/a/b/c:x", "ghcr.io/a/b/c:x"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a:1", "localhost:5000/a:1"),
        ("Ghcr.IO/a", "ghcr.io/a:latest"),
        ("[::1]:5000/a_b/c--d/e__f.g:t", "[::1]:5000/a_b/c--d/e__f.g:t"),
        (&format!("r.io:1/a@sha256:{hex}"), &format!("r.io:1/a@sha256:{hex}")),
        (&format!("r.io:1/a:t@sha256:{hex}"), &format!("r.io:1/a:t@sha256:{hex}")),
        ("oci:/a/b", "oci:/a/b"),
        ("oci:b:tag", "oci:b:tag"),
        ("oci:b:docker.io/library/x:1", "oci:b:docker.io/library/x:1"),
        ("file:/x:y", "file:/x:y"),
    ];
    for (text, canonical) in cases {
        let reference: ImageRef = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(reference.to_string(), canonical);
        assert_eq!(canonical.parse(), Ok(reference), "{canonical}");
    }
    let hub: ImageRef = "golang".parse().unwrap();
    assert!(
        matches!(&hub, ImageRef::Registry(hub) if hub.endpoint() == "registry-1.docker.io" && hub.host() == "docker.io")
    );
}

#[test]
fn what_is_not_a_name_is_refused() {
    let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let long = "a".repeat(256);
    let cases = [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a:",
        "a:-x",
        "a:x y",
        "a@",
        "a@sha256:12",
        "a.b:99999/c",
        "a.b:0/c",
        "a.b:/c",
        "a.b:x/c",
        "-a.b/c",
        "a/../b",
        "a/.b",
        "a._b",
        "a___b",
        "a..b",
        "[::1/a",
        "[::x]/a",
        "oci:",
        "oci::t",
        "oci:d:",
        "file:",
        "a b",
        "a?b",
        "ghcr.io/a#b",
        "ghcr.io/",
        "https://ghcr.io/a",
        &long,
        &format!("a:{}", "t".repeat(129)),
        &format!("a@sha256:{}", hex.to_uppercase()),
        &format!("a@sha256:{hex}@sha256:{hex}"),
    ];
    for text in cases {
        assert!(text.parse::<ImageRef>().is_err(), "{text} was taken");
    }
    let url = "https://user:secret@ghcr.io/a".parse::<ImageRef>().unwrap_err();
    assert!(!format!("{url} {url:?}").contains("secret"));
}

fn entry(platform: &str, digit: char) -> String {
    let digest = digit.to_string().repeat(64);
    let mut parts = platform.split('/');
    let mut part = || parts.next().unwrap_or_default();
    let platform = match platform {
        "" => String::new(),
        _ => format!(
            r#","platform":{{"os":"{}","architecture":"{}","variant":"{}"}}"#,
            part(),
            part(),
            part()
        ),
    };
    format!(r#"{{"mediaType":"m","digest":"sha256:{digest}","size":1{platform}}}"#)
}

fn choice(wanted: &str, offers: &[&str]) -> Result<usize, String> {
    let entries: Vec<_> =
        offers.iter().zip('0'..='9').map(|(offer, digit)| entry(offer, digit)).collect();
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    let index: Index = serde_json::from_str(&index).unwrap();
    let wanted: Platform = wanted.parse().unwrap();
    let chosen = wanted.choose(&index).map_err(|error| error.to_string())?;
    Ok(index.manifests.iter().position(|entry| entry == chosen).unwrap())
}

#[test]
fn the_best_platform_is_chosen() {
    let all = [
        "unknown/unknown",
        "linux/amd64",
        "linux/arm/v6",
        "linux/arm/v7",
        "linux/arm64/v8",
        "windows/amd64",
        "linux/amd64/v3",
    ];
    assert_eq!(choice("linux/amd64", &all), Ok(1));
    assert_eq!(choice("linux/amd64/v2", &all), Ok(1));
    assert_eq!(choice("linux/amd64/v3", &all), Ok(6));
    assert_eq!(choice("linux/x86_64", &all), Ok(1));
    assert_eq!(choice("linux/arm", &all), Ok(3));
    assert_eq!(choice("linux/arm/v6", &all), Ok(2));
    assert_eq!(choice("linux/arm64", &all), Ok(4));
    assert_eq!(choice("linux/arm64/v8", &["linux/arm64"]), Ok(0));
    assert_eq!(choice("linux/s390x", &["", "unknown/unknown"]), Ok(0));
    let error = choice("linux/arm/v5", &all).unwrap_err();
    assert!(
        error.contains("linux/arm/v5")
            && error.contains("windows/amd64")
            && !error.contains("unknown"),
        "{error}"
    );
    for bad in ["", "linux", "linux/", "linux/a/b/c", "Linux/amd64", "linux/am d"] {
        assert!(bad.parse::<Platform>().is_err(), "{bad}");
    }
}

#[test]
fn documents_are_what_they_say() {
    let digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let descriptor =
        format!(r#"{{"mediaType":"m","digest":"{digest}","size":1,"annotations":null}}"#);
    let manifest =
        format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#);
    assert!(matches!(Document::parse(manifest.as_bytes(), ""), Ok(Document::Manifest(_))));
    let both = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[],"manifests":[]}}"#);
    let old = r#"{"schemaVersion":1,"fsLayers":[]}"#;
    let lying =
        format!(r#"{{"mediaType":"application/vnd.oci.image.index.v1+json",{}"#, &manifest[1..]);
    for bad in [&both, old, &lying, "", "[]", "{}", "null", &manifest[..manifest.len() - 1]] {
        assert!(Document::parse(bad.as_bytes(), "").is_err(), "{bad}");
    }
    assert!(Document::parse(&vec![b' '; (4 << 20) + 1], "").is_err());
}

proptest::proptest! {
    /// A text names an image or does not; the name that is printed names the same one.
    #[test]
    fn any_text_is_an_image_or_none(
        text in "(([a-zA-Z0-9.-]{1,9}|\\[[0-9a-f:]{0,9}\\])(:[0-9]{0,6})?/)?[a-zA-Z0-9._/-]{0,20}(:[a-zA-Z0-9._-]{0,9})?(@sha256:[0-9a-f]{62,65})?|.{0,40}"
    ) {
        if let Ok(reference) = text.parse::<RegistryRef>() {
            let again: RegistryRef = reference.to_string().parse().expect("it names an image");
            proptest::prop_assert_eq!(&again, &reference);
            let client = lazystar::registry::Client::default();
            let repository = lazystar::registry::Repository::new(&client, &reference, false);
            proptest::prop_assert!(repository.is_ok(), "{:?}", repository.err());
        }
    }
}
