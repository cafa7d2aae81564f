//! What Lazystar packs is an ordinary image to everyone else.

use std::fs;
use std::path::Path;
use std::process::Command;

use lazystar_tests::tree::Tree;

use crate::rig::{need, need_root, run, shell, test};

/// What a packer adds to a layer and unpacking it as plain tar shows.
const ADDED: [&str; 3] = ["stargz.index.json", ".no.prefetch.landmark", ".prefetch.landmark"];

pub(crate) fn assert_shows(expected: &Tree, directory: &Path) {
    let mut found = Tree::of_directory(directory).expect("the directory reads");
    ADDED.iter().for_each(|name| found.forget(name));
    let differences = expected.differences(&found);
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences[..differences.len().min(20)].join("\n")
    );
}

#[test]
fn packed_blobs_are_plain_gzip_zstd_and_tar() {
    test("packed_blobs_are_plain_gzip_zstd_and_tar", |rig| {
        need_root()?;
        need(&["gzip", "zstd", "tar"])?;
        for (name, test_and_unpack) in [
            (
                "debian.esgz",
                "gzip -t \"$1\"; gzip -dc \"$1\" | tar -x --xattrs --xattrs-include='*' --numeric-owner -p -C \"$2\"",
            ),
            (
                "debian.zstdchunked",
                "zstd -qt \"$1\"; zstd -qdc \"$1\" | tar -x --xattrs --xattrs-include='*' --numeric-owner -p -C \"$2\"",
            ),
        ] {
            let blob = rig.file(name)?;
            let work = rig.work();
            run(shell(test_and_unpack, [blob.as_path(), work.path()]));
            assert_shows(&rig.expected("debian:"), work.path());
        }
        Ok(())
    });
}

#[test]
fn skopeo_and_umoci_unpack_the_same_tree() {
    test("skopeo_and_umoci_unpack_the_same_tree", |rig| {
        need_root()?;
        need(&["skopeo", "umoci"])?;
        let image = rig.image(&["debian:esgz"])?;
        let work = rig.work();
        let (layout, bundle) = (work.path().join("layout:it"), work.path().join("bundle"));
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
        copy.arg(format!("docker://{}/{image}", rig.registry))
            .arg(format!("oci:{}", layout.display()));
        run(copy);
        let mut unpack = Command::new("umoci");
        unpack.args(["unpack", "--image"]).arg(&layout).arg(&bundle);
        run(unpack);
        assert_shows(&rig.expected(&image), &bundle.join("rootfs"));
        Ok(())
    });
}

/// containerd checks the DiffID while it unpacks; the reference's own reader checks the TOC.
#[test]
fn containerd_and_the_reference_read_our_images() {
    test("containerd_and_the_reference_read_our_images", |rig| {
        need_root()?;
        rig.file("forky")?;
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (tag, option) in [("esgz", ""), ("zstdchunked", "--zstdchunked")] {
            let image = rig.image(&[&format!("debian:{tag}")])?;
            let blob = rig.file(&format!("debian.{tag}"))?;
            let digest = run(shell("sha256sum <\"$1\" | cut -d' ' -f1", [&blob]));
            let digest = format!("sha256:{}", digest.trim());
            let script = "ctr images pull --plain-http \"$1\" >&2; ctr images check | grep complete >/dev/null; \
                          ctr images get-toc-digest $3 \"$2\"";
            let mut command = Command::new(package.join("rig/in-containerd"));
            command.args([script, &format!("{}/{image}", rig.registry), &digest, option]);
            let reference = run(command);
            let ours = run(rig.lazystar(["toc-digest".as_ref(), blob.as_os_str()]));
            assert_eq!(ours.trim(), reference.trim(), "TOC digest of {image}");
        }
        Ok(())
    });
}

#[test]
fn packing_is_deterministic() {
    test("packing_is_deterministic", |rig| {
        let tar = rig.file("debian.tar")?;
        let work = rig.work();
        let blobs = ["one", "two"].map(|name| work.path().join(name));
        for blob in &blobs {
            run(rig.lazystar(["pack".as_ref(), tar.as_os_str(), "-o".as_ref(), blob.as_os_str()]));
        }
        let [one, two] = blobs.map(|blob| fs::read(blob).expect("the blob reads"));
        assert!(one == two, "two packings of one tar differ");
        Ok(())
    });
}
