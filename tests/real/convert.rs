//! Converted images as other software sees them, and images that a workload has put in order.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::containerd::DIGEST_OF_USR;
use crate::docker::in_docker;
use crate::interop::assert_shows;
use crate::rig::{Rig, Skip, need, need_fuse, need_root, run, shell, test};

/// Unpacks the image `it` of the layout `$1` into `$2`.
const UMOCI: &str = "umoci unpack --image \"$1:it\" \"$2\"";
/// The same for an image of one layer; umoci takes no zstd.
const ZSTD_AND_TAR: &str = "mkdir -p \"$2/rootfs\"; blob=$(ls -S \"$1\"/blobs/sha256/* | sed -n 1p); \
    zstd -qdc \"$blob\" | tar -x --xattrs --xattrs-include='*' --numeric-owner -p -C \"$2/rootfs\"";

/// Converts the image `name`:plain of the registry to `target` there.
fn convert(rig: &Rig, name: &str, target: &str, options: &[&str], work: &Path) -> Result<(), Skip> {
    let image = rig.image(&[&format!("{name}:plain")])?;
    let mut command = rig.lazystar(["convert", "--plain-http", "--cache-dir"]);
    command.arg(work.join("cache")).args(options);
    command.arg(format!("{}/{image}", rig.registry)).arg(format!("{}/{target}", rig.registry));
    run(command);
    Ok(())
}

fn verify(rig: &Rig, image: &str, work: &Path) -> String {
    let mut command = rig.lazystar(["verify", "--plain-http", "--cache-dir"]);
    command.arg(work.join("cache")).arg(image);
    run(command)
}

#[test]
fn skopeo_umoci_gzip_and_zstd_take_converted_images() {
    test("skopeo_umoci_gzip_and_zstd_take_converted_images", |rig| {
        need_root()?;
        need(&["skopeo", "umoci", "gzip", "zstd"])?;
        let work = rig.work();
        for (tag, options, tool, unpack) in [
            ("esgz", &[][..], "gzip", UMOCI),
            ("zstd", &["--format", "zstd-chunked"][..], "zstd -q", ZSTD_AND_TAR),
            ("lossless", &["--external-toc", "--keep-diff-id"][..], "gzip", UMOCI),
        ] {
            convert(rig, "debian", &format!("converted:{tag}"), options, work.path())?;
            let image = format!("{}/converted:{tag}", rig.registry);
            verify(rig, &image, work.path());
            let layout = work.path().join(tag);
            let mut copy = Command::new("skopeo");
            copy.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
            copy.arg(format!("docker://{image}")).arg(format!("oci:{}:it", layout.display()));
            run(copy);
            let test_all = "for blob in \"$1\"/blobs/sha256/*; do head -c 1 \"$blob\" | grep -q '{' || $2 -t \"$blob\"; done";
            run(shell(test_all, [layout.to_str().expect("the rig's path is UTF-8"), tool]));
            let bundle = work.path().join(format!("{tag}-bundle"));
            run(shell(unpack, [&layout, &bundle]));
            assert_shows(&rig.expected("debian:"), &bundle.join("rootfs"));
        }
        Ok(())
    });
}

/// containerd checks the DiffID while it unpacks; the reference's own reader checks the TOC, as its
/// client runs the image lazily.
#[test]
fn the_reference_runs_converted_images() {
    test("the_reference_runs_converted_images", |rig| {
        need_root()?;
        rig.file("forky")?;
        let work = rig.work();
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (tag, options, option) in
            [("esgz", &[][..], ""), ("zstd", &["--format", "zstd-chunked"][..], "--zstdchunked")]
        {
            convert(rig, "debian", &format!("converted:{tag}"), options, work.path())?;
            let image = format!("{}/converted:{tag}", rig.registry);
            let verified = verify(rig, &image, work.path());
            let mut digests =
                verified.split_whitespace().filter(|word| word.starts_with("sha256:"));
            let layer = digests.next_back().expect("it has a layer").to_owned();
            let script = "ctr images pull --plain-http \"$1\" >&2; ctr images check | grep complete >/dev/null; \
                          ctr images get-toc-digest $3 \"$2\"";
            let mut command = Command::new(package.join("rig/in-containerd"));
            command.args([script, &image, &layer, option]);
            let reference = run(command);
            let mut inspect = rig.lazystar(["inspect", "--plain-http", "--json", "--cache-dir"]);
            inspect.arg(work.path().join("cache")).arg(&image);
            let inspected: serde_json::Value =
                serde_json::from_str(&run(inspect)).expect("it is JSON");
            assert_eq!(inspected["layers"][0]["tocDigest"], reference.trim(), "{image}");
        }
        Ok(())
    });
}

/// Docker takes them for ordinary images, and with Lazystar beside it for lazy ones.
#[test]
fn docker_runs_converted_images() {
    test("docker_runs_converted_images", |rig| {
        need_root()?;
        need_fuse()?;
        rig.file("forky/usr/sbin/dockerd")?;
        let work = rig.work();
        convert(rig, "debian", "converted:for-docker", &["--docker"], work.path())?;
        convert(rig, "debian", "converted:zstd", &["--format", "zstd-chunked"], work.path())?;
        let script = r#"
for image in debian:plain converted:for-docker converted:zstd; do
    docker pull --quiet "$1/$image" >&2
    docker run --rm --network host "$1/$image" sh -c "$2"
done
grep -c '"remote-snapshot-prepared":"true"' lazystar.log || true
"#;
        let mut contents = Vec::new();
        for (driver, lazily) in [("overlayfs", "0"), ("stargz", "2")] {
            let printed = in_docker(rig, driver, script, &[&rig.registry, DIGEST_OF_USR])?;
            let lines: Vec<_> = printed.lines().collect();
            let [plain, docker, zstd, lazy] = lines[..] else { panic!("{printed}") };
            assert!(plain == docker && plain == zstd, "{printed}");
            assert_eq!(lazy, lazily, "{driver}");
            contents.push(plain.to_owned());
        }
        assert_eq!(contents[0], contents[1]);
        Ok(())
    });
}

/// Three layers, and a program that reads one file of the first and one of the second.
const THREE_LAYERS: &str = r#"
cd "$1"
cat >accessor.c <<'C'
#include <fcntl.h>
#include <unistd.h>
int main(void) {
	const char *names[] = {"/a.txt", "/c.txt"};
	char byte;
	for (int at = 0; at < 2; at++) {
		int file = open(names[at], O_RDONLY);
		if (file < 0 || read(file, &byte, 1) != 1) return 1;
	}
	return 0;
}
C
mkdir layers
for name in a b c d e; do echo $name >$name.txt; done
cc -static -O1 -o accessor accessor.c
layer() { tar --owner=0 --group=0 --mtime=@1 --format=gnu -cf "layers/$1" "${@:2}"; }
layer 1 a.txt b.txt accessor
layer 2 c.txt d.txt
layer 3 e.txt
mkdir -p layout/blobs/sha256
put() { local digest; digest=$(sha256sum "$1" | cut -d' ' -f1); cp "$1" "layout/blobs/sha256/$digest"; echo "$digest"; }
layers= ids=
for number in 1 2 3; do
    digest=$(put layers/$number)
    layers+="${layers:+,}{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:$digest\",\"size\":$(stat -c %s layers/$number)}"
    ids+="${ids:+,}\"sha256:$digest\""
done
echo "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Cmd\":[\"/accessor\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[$ids]}}" >config
config=$(put config)
echo "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:$config\",\"size\":$(stat -c %s config)},\"layers\":[$layers]}" >manifest
manifest=$(put manifest)
echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:$manifest\",\"size\":$(stat -c %s manifest),\"annotations\":{\"org.opencontainers.image.ref.name\":\"three\"}}]}" >layout/index.json
echo '{"imageLayoutVersion":"1.0.0"}' >layout/oci-layout
"#;

/// The names in each layer of an image in a layout, in their order.
pub(crate) fn names(rig: &Rig, image: &str, layout: &Path, cache: &Path) -> Vec<Vec<String>> {
    let mut inspect = rig.lazystar(["inspect", "--json", "--cache-dir"]);
    inspect.arg(cache).arg(image);
    let inspected: serde_json::Value = serde_json::from_str(&run(inspect)).expect("it is JSON");
    let layers = inspected["layers"].as_array().expect("it has layers").iter();
    let names = layers.map(|layer| {
        let digest = layer["digest"].as_str().expect("it has a digest").replace(':', "/");
        let listed = run(shell("tar -tzf \"$1\"", [layout.join("blobs").join(digest)]));
        listed.lines().map(str::to_owned).collect()
    });
    names.collect()
}

#[test]
fn what_a_workload_reads_comes_first() {
    test("what_a_workload_reads_comes_first", |rig| {
        need_root()?;
        need_fuse()?;
        need(&["cc", "unshare"])?;
        let work = rig.work();
        run(shell(THREE_LAYERS, [work.path()]));
        let at = |name: &str| work.path().join(name);
        let (cache, layout) = (at("cache"), at("layout"));
        let image = |tag: &str| format!("oci:{}:{tag}", layout.display());
        let expected = [
            &["accessor", "a.txt", ".prefetch.landmark", "b.txt", "stargz.index.json"][..],
            &["c.txt", ".prefetch.landmark", "d.txt", "stargz.index.json"],
            &[".no.prefetch.landmark", "e.txt", "stargz.index.json"],
        ];
        let optimize = |to: &str, path: Option<&str>| {
            let mut command = rig.lazystar(["optimize", "--cache-dir"]);
            command.arg(&cache).arg("--record").arg(at("record.jsonl"));
            command.args([image("three"), image(to)]);
            if let Some(path) = path {
                command.env("PATH", path);
            }
            run(command);
            assert_eq!(names(rig, &image(to), &layout, &cache), expected, "{to}");
        };
        // By runc or crun, and where the PATH has neither, by namespaces and chroot.
        optimize("optimized", None);
        let tools = at("tools");
        fs::create_dir(&tools).expect("the rig is writable");
        for tool in ["unshare", "sh", "mount", "timeout"] {
            run(shell(
                "ln -s \"$(command -v \"$1\")\" \"$2\"",
                [tool, tools.to_str().expect("UTF-8")],
            ));
        }
        optimize("optimized-by-chroot", tools.to_str());

        // The record does the same, and so does that of a mount; without one nothing is hot.
        let convert = |to: &str, options: &[&str]| {
            let mut command = rig.lazystar(["convert", "--force", "--cache-dir"]);
            command.arg(&cache).args([image("three"), image(to)]).args(options);
            run(command);
            names(rig, &image(to), &layout, &cache)
        };
        let record = at("record.jsonl");
        let record = record.to_str().expect("the rig's path is UTF-8");
        assert_eq!(convert("again", &["--from-record", record]), expected);
        let plain = convert("plain", &[]);
        assert!(plain.iter().all(|names| names[0] == ".no.prefetch.landmark"), "{plain:?}");
        assert_eq!(plain[0][1..], ["a.txt", "b.txt", "accessor", "stargz.index.json"]);
        let recorded = at("mounted.jsonl");
        let options = ["--record".as_ref(), recorded.as_os_str()];
        let mounted = rig.try_mount(&image("plain"), work.path(), &options).expect("it mounts");
        run(shell(
            "cat \"$1\"/accessor \"$1\"/a.txt \"$1\"/c.txt >/dev/null",
            [&mounted.directory],
        ));
        mounted.unmount();
        let recorded = recorded.to_str().expect("the rig's path is UTF-8");
        // The process that serves the mount writes it once the mount is gone.
        for _ in 0..100 {
            if fs::metadata(recorded).is_ok_and(|it| it.len() > 0) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(convert("mounted", &["--from-record", recorded, record]), expected);
        Ok(())
    });
}

#[test]
fn a_full_disk_leaves_no_image() {
    test("a_full_disk_leaves_no_image", |rig| {
        need_root()?;
        let image = rig.image(&["layers:plain"])?;
        let work = rig.work();
        let script = "mount -t tmpfs -o size=1m tmpfs \"$4\"; \
                      if \"$1\" convert --plain-http --cache-dir \"$3\" \"$2\" \"oci:$4:it\"; then exit 9; fi; \
                      ls -A \"$4\" \"$4/blobs/sha256\"";
        let small = work.path().join("small");
        fs::create_dir(&small).expect("the rig is writable");
        let script = format!("exec unshare --mount bash -ec '{script}' bash \"$@\" 2>&1");
        let image = format!("{}/{image}", rig.registry);
        let cache = work.path().join("cache");
        let printed = run(shell(
            &script,
            [rig.binary().as_os_str(), image.as_ref(), cache.as_os_str(), small.as_os_str()],
        ));
        assert!(printed.contains("No space left on device"), "{printed}");
        assert!(!printed.contains("index.json") && !printed.contains("partial"), "{printed}");
        Ok(())
    });
}
