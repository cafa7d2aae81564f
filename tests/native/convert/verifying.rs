//! Verifying images that lie.

use std::fs;

use lazystar::oci::Descriptor;
use lazystar::pack::layout::Layout;
use lazystar_core::Digest;
use lazystar_core::write::Format;
use lazystar_tests::layers::{Item, file, symlink};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{layers, layout_ref, lies, options, to, verify, write_image};

#[tokio::test(flavor = "multi_thread")]
async fn verifying_tells_lies() {
    let work = TempDir::new().unwrap();
    let source = write_image(&work.path().join("source"), &layers());
    let ordinary = verify(&source).await;
    assert!(lies(&ordinary).iter().all(|lie| lie.contains("not lazily readable")), "{ordinary:?}");
    let dir = work.path().join("target");
    let target = layout_ref(&dir, "it");
    let report = to(&source, &target, &options(Format::Estargz)).await.unwrap();
    let path =
        |digest: &str| dir.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let manifest = fs::read(path(&report.digest)).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layout = Layout::create(&dir).unwrap();
    // Tells another story in the manifest, or with another blob, and asks what is wrong with it.
    let told = async |change: &dyn Fn(&mut Value), blob: Option<Vec<u8>>| {
        let mut manifest = manifest.clone();
        if let Some(blob) = blob {
            manifest["layers"][0]["size"] = blob.len().into();
            manifest["layers"][0]["digest"] = layout.put(&blob).unwrap().to_string().into();
        }
        change(&mut manifest);
        let text = manifest.to_string();
        layout.put(text.as_bytes()).unwrap();
        let media_type = manifest["mediaType"].as_str().unwrap();
        layout.tag(Descriptor::of(media_type, text.as_bytes()), "told").unwrap();
        let verified = verify(&layout_ref(&dir, "told")).await;
        verified.iter().flat_map(|layer| layer.lies.clone()).collect::<Vec<_>>()
    };
    let stargz = "containerd.io/snapshot/stargz/toc.digest";
    let expect = |lies: Vec<String>, what: &str| {
        assert!(lies.iter().any(|lie| lie.contains(what)), "{what}: {lies:?}");
    };
    assert_eq!(told(&|_| {}, None).await, [""; 0]);
    let other = Digest::of(b"other").to_string();
    expect(
        told(&|manifest| manifest["layers"][0]["annotations"][stargz] = other.clone().into(), None)
            .await,
        "its TOC has digest",
    );
    expect(
        told(
            &|manifest| {
                drop(manifest["layers"][0]["annotations"].as_object_mut().unwrap().remove(stargz))
            },
            None,
        )
        .await,
        "does not state the digest",
    );
    expect(
        told(
            &|manifest| {
                manifest["layers"][1]["annotations"]["io.containers.estargz.uncompressed-size"] =
                    "7".into()
            },
            None,
        )
        .await,
        "uncompressed bytes",
    );
    // The layers change places: each is right, but not where it is.
    let swapped =
        told(&|manifest| manifest["layers"].as_array_mut().unwrap().swap(0, 1), None).await;
    assert_eq!(
        swapped.iter().filter(|lie| lie.contains("its DiffID is")).count(),
        2,
        "{swapped:?}"
    );

    // Another tar under the same TOC, and another TOC over the same tar.
    let items = |content: &[u8], mode| vec![file("f", content).mode(mode), symlink("l", "f")];
    let options = lazystar_tests::layers::options(Format::EstargzExternalToc, 0, 0);
    let built = |items: &[Item]| lazystar_tests::layers::build(options, items);
    let (honest, other) = (built(&items(b"content", 0o644)), built(&items(b"CONTENT", 0o600)));
    let members = honest.blob.len() - 46;
    let blob = lazystar_tests::layers::estargz_by_hand(&honest.blob[..members], &other.toc);
    let state = |toc: &[u8]| {
        let digest = Digest::of(toc).to_string();
        move |manifest: &mut Value| {
            manifest["layers"][0]["annotations"] = json!({ stargz: digest });
        }
    };
    let lies = told(&state(&other.toc), Some(blob)).await;
    expect(lies.clone(), "wrong about the mode of \"f\"");
    expect(lies.clone(), "a chunk of \"f\" has digest");
    expect(lies, "wrong about the digest of \"f\"");
    let toc: String = String::from_utf8(honest.toc.clone()).unwrap();
    for (from, to, what) in [
        ("\"name\":\"l\"", "\"name\":\"m\"", "where its tar has \"l\""),
        ("\"offset\":", "\"offset\":1", "nothing can be decompressed from"),
        ("\"linkName\":\"f\"", "\"linkName\":\"g\"", "wrong about the target of \"l\""),
    ] {
        let toc = toc.replace(from, to);
        let blob = lazystar_tests::layers::estargz_by_hand(&honest.blob[..members], toc.as_bytes());
        expect(told(&state(toc.as_bytes()), Some(blob)).await, what);
    }
}
