//! Layers that no lazy layer can be made of, or none that is what it says.

use std::fs;
use std::path::PathBuf;

use lazystar_core::Digest;
use lazystar_core::tar::encode_header;
use lazystar_core::write::Format;
use lazystar_tests::layers::{file, gzip, hardlink, noise};
use tempfile::TempDir;

use super::{layout_ref, lies, options, partial_files, tar, to, verify, write_image};

#[tokio::test(flavor = "multi_thread")]
async fn bad_layers_are_errors_that_change_nothing() {
    let work = TempDir::new().unwrap();
    let good = tar(&[file("a", noise(100_000, 3)), file("b", b"b")]);
    let packed = gzip(&good);
    let zstd = zstd::bulk::compress(&good, 3).unwrap();
    let header = encode_header(&file("x", b"").entry).unwrap();
    let with_flag = |flag: u8| {
        let mut header = header.clone();
        header[156] = flag;
        let sum: u32 = (0..512)
            .map(|at| if (148..156).contains(&at) { 32 } else { u32::from(header[at]) })
            .sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header.resize(header.len() + 1024, 0);
        header
    };
    let mut not_utf8 = header.clone();
    not_utf8[0] = 0xff;
    let sum: u32 = (0..512)
        .map(|at| if (148..156).contains(&at) { 32 } else { u32::from(not_utf8[at]) })
        .sum();
    not_utf8[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("cut gzip", packed[..packed.len() / 2].to_vec(), "tar+gzip", "cannot read the input tar"),
        ("garbage after gzip", [&packed[..], b"garbage"].concat(), "tar+gzip", "not a gzip header"),
        ("cut zstd", zstd[..zstd.len() / 2].to_vec(), "tar+zstd", "cannot read the input tar"),
        (
            "garbage after zstd",
            [&zstd[..], b"garbage"].concat(),
            "tar+zstd",
            "cannot read the input",
        ),
        ("cut tar", good[..50_000].to_vec(), "tar", "the tar ends inside it"),
        ("sparse", with_flag(b'S'), "tar", "sparse files are not supported"),
        ("unknown type", with_flag(b'7'), "tar", "type '7' is not supported"),
        ("not UTF-8", not_utf8, "tar", "name is not UTF-8"),
        ("link to nothing", tar(&[hardlink("l", "nowhere")]), "tar", "no file of this layer"),
        ("no tar at all", noise(4096, 9), "tar", "wrong header checksum"),
        (
            "huge attributes",
            tar(&[file("x", b"").xattr("user.x", vec![b'x'; 2 << 20])]),
            "tar",
            "extension header is too large",
        ),
    ];
    let target = work.path().join("target");
    for (what, bytes, kind, why) in cases {
        let dir = work.path().join(what);
        let source = write_image(&dir, &[(bytes, kind, good.clone())]);
        let error = to(&source, &layout_ref(&target, "it"), &options(Format::Estargz)).await;
        let error = error.expect_err(what).to_string();
        assert!(error.starts_with("layer 1 of 1 (sha256:"), "{what}: {error}");
        assert!(error.contains(why), "{what}: {error}");
        assert!(!target.join("index.json").exists(), "{what}");
        assert_eq!(partial_files(&target), [""; 0].map(PathBuf::from), "{what}");
    }
    // A blob that is not what its digest says: it was damaged, or changed under us.
    let dir = work.path().join("changed");
    let source = write_image(&dir, &[(good.clone(), "tar", good.clone())]);
    let blob = dir.join("blobs/sha256").join(Digest::of(&good).hex());
    let mut changed = good.clone();
    changed[600] ^= 1;
    fs::write(blob, changed).unwrap();
    let error = to(&source, &layout_ref(&target, "it"), &options(Format::Estargz)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("changes while it is read"), "{error}");
    assert!(!target.join("index.json").exists());
}

/// No reader of tars looks there.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_the_end_of_a_tar_is_nothing() {
    let work = TempDir::new().unwrap();
    let good = tar(&[file("a", noise(100_000, 3)), file("b", b"b")]);
    let mut digests = Vec::new();
    for (name, more) in [("good", vec![]), ("more", noise(3000, 4)), ("another", good.clone())] {
        let tar = [good.clone(), more].concat();
        let source = write_image(&work.path().join(name), &[(gzip(&tar), "tar+gzip", tar)]);
        let target = layout_ref(&work.path().join("target"), name);
        let report = to(&source, &target, &options(Format::Estargz)).await.unwrap();
        assert_eq!(lies(&verify(&target).await), [""; 0], "{name}");
        digests.push(report.images[0].layers[0].digest.clone());
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}
