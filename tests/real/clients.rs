//! Clients of containerd: `lazystar pull` and `fetch`, several namespaces, many pulls at once, containers that are
//! committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::containerd::{Containerd, DIGEST_OF_USR, container_name};
use crate::registry::Registry;
use crate::rig::{need, run, shell, test};

/// `lazystar pull` or `fetch` of an image.
fn lazystar(it: &Containerd<'_>, command: &str, namespace: &str, image: &str) -> Command {
    let socket = it.work.path().join("sock");
    let mut lazystar = it.rig.lazystar([command, "--json", "--namespace", namespace, "--address"]);
    lazystar.arg(socket).arg("--cache-dir").arg(it.work.path().join("client")).arg(image);
    lazystar
}

fn json(command: Command) -> Value {
    serde_json::from_str(&run(command)).expect("it prints JSON")
}

/// The blobs in containerd's content store, in bytes.
fn stored(it: &Containerd<'_>) -> u64 {
    let blobs = it.work.path().join("root/io.containerd.content.v1.content/blobs/sha256");
    let blobs = fs::read_dir(blobs).into_iter().flatten().flatten();
    blobs.map(|blob| blob.metadata().map_or(0, |blob| blob.len())).sum()
}

#[test]
fn lazystar_pulls_and_fetches_through_containerd() {
    test("lazystar_pulls_and_fetches_through_containerd", |rig| {
        need(&["skopeo"])?;
        let it = Containerd::start(rig)?;
        let image = rig.image(&["debian:ctr-esgz", "debian:esgz"])?;
        let name = it.name(&image);
        let pulled = json(lazystar(&it, "pull", "default", &name));
        let layers = pulled["layers"].as_array().expect("an image has layers");
        assert!(!layers.is_empty() && layers.iter().all(|it| it["lazy"] == true), "{pulled}");
        assert!(stored(&it) < 100_000, "{} bytes", stored(&it));
        let expected = it.run("stargz", &image, DIGEST_OF_USR);

        // Another namespace sees it when it pulls, too.
        let pulled = json(lazystar(&it, "pull", "other", &name));
        assert!(
            pulled["layers"].as_array().is_some_and(|it| it.iter().all(|it| it["lazy"] == true))
        );
        let container = container_name();
        let arguments =
            ["--namespace", "other", "run", "--rm", "--snapshotter=stargz", "--net-host"];
        let mut other = it.ctr(&arguments);
        other.args([&name, &container, "sh", "-c", DIGEST_OF_USR]);
        assert_eq!(run(other), expected);

        // An ordinary image is downloaded, and the reason told.
        let pulled = json(lazystar(&it, "pull", "default", &it.name("layers:plain")));
        for layer in pulled["layers"].as_array().expect("an image has layers") {
            assert_eq!((&layer["lazy"], &layer["downloaded"]), (&false.into(), &true.into()));
            assert!(
                layer["reason"].as_str().is_some_and(|it| it.contains("ordinary layer")),
                "{layer}"
            );
        }
        it.pull("layers:plain");
        let wanted = it.tree("overlayfs", "layers:plain");
        let differences = wanted.differences(&it.tree("stargz", "layers:plain"));
        assert!(differences.is_empty(), "{differences:?}");

        // What a lazy image lacks is fetched when it is to go elsewhere.
        let exported = it.work.path().join("exported.tar");
        let exported = exported.to_str().expect("the rig's path is UTF-8");
        let export = || it.ctr(&["images", "export", "--platform", "linux/amd64", exported, &name]);
        assert!(!export().output().is_ok_and(|it| it.status.success()), "its layers are not there");
        let fetched = json(lazystar(&it, "fetch", "default", &name));
        let blobs = fetched["blobs"].as_array().expect("an image has blobs");
        assert_eq!(
            blobs.iter().filter(|it| it["fetched"] == true).count(),
            layers.len(),
            "{fetched}"
        );
        let again = json(lazystar(&it, "fetch", "default", &name));
        assert!(!again.to_string().contains(r#""fetched":true"#), "{again}");
        run(export());
        run(shell("tar -tf \"$1\" | grep blobs/sha256/ >/dev/null", [exported]));
        assert_eq!(it.run("overlayfs", &image, DIGEST_OF_USR), expected, "under overlayfs");
        let elsewhere = Registry::start(&it.work.path().join("registry"), None)?;
        let pushed = format!("{}/pushed:1", elsewhere.address);
        run(it.ctr(&["images", "tag", &name, &pushed]));
        run(it.ctr(&["images", "push", "--plain-http", &pushed]));
        // Checks every digest on the way.
        let copied = format!("dir:{}", it.work.path().join("copied").display());
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
        copy.args([&format!("docker://{pushed}"), &copied]);
        run(copy);
        Ok(())
    });
}

#[test]
fn what_nobody_vouches_for_runs_when_that_is_allowed() {
    test("what_nobody_vouches_for_runs_when_that_is_allowed", |rig| {
        let (image, plain) = (rig.special("debian:stargz")?, rig.image(&["debian:plain"])?);
        let refused = Containerd::start(rig)?;
        let pulled = json(lazystar(&refused, "pull", "default", &refused.name(image)));
        let layer = &pulled["layers"][0];
        assert_eq!((&layer["lazy"], &layer["downloaded"]), (&false.into(), &true.into()));
        drop(refused);

        let top = r#"disabled_plugins = ["io.containerd.grpc.v1.cri"]"#;
        let it = Containerd::start_with(rig, top, &["--allow-unverified"])?;
        let mut pull = lazystar(&it, "pull", "default", &it.name(image));
        pull.arg("--allow-unverified");
        assert_eq!(json(pull)["layers"][0]["lazy"], true);
        run(lazystar(&it, "pull", "default", &it.name(&plain)));
        assert_eq!(it.run("stargz", image, DIGEST_OF_USR), it.run("stargz", &plain, DIGEST_OF_USR));
        Ok(())
    });
}

#[test]
fn an_interrupted_fetch_goes_on_and_damage_is_noticed() {
    test("an_interrupted_fetch_goes_on_and_damage_is_noticed", |rig| {
        let it = Containerd::start(rig)?;
        let image = rig.image(&["debian:ctr-esgz", "debian:esgz"])?;
        let name = it.name(&image);
        let pulled = json(lazystar(&it, "pull", "default", &name));
        let layer = &pulled["layers"][0];
        let (digest, size) =
            (layer["digest"].as_str().expect("text"), layer["size"].as_u64().expect("a size"));
        // What another attempt left: the right bytes, or wrong ones.
        let ingest = |from: &str, length: u64| {
            let reference = format!("lazystar-{digest}");
            let script = r#"head -c "$2" "$1" | timeout 20 "$3" --address "$4" content ingest --expected-size "$5" --expected-digest "$6" "$7""#;
            let (length, size) = (length.to_string(), size.to_string());
            let socket = it.work.path().join("sock");
            let socket = socket.to_str().expect("the rig's path is UTF-8");
            let ctr = it.client.to_str().expect("the rig's path is UTF-8");
            // It fails, since there is too little.
            let _ = shell(script, [from, &length, ctr, socket, &size, digest, &reference])
                .stderr(Stdio::null())
                .status();
        };
        ingest("/dev/zero", 100_000);
        let fetched = json(lazystar(&it, "fetch", "default", &name));
        assert!(fetched.to_string().contains(r#""fetched":true"#), "{fetched}");
        assert_eq!(stored(&it).min(size), size);
        Ok(())
    });
}

#[test]
fn a_container_on_a_lazy_image_is_committed() {
    test("a_container_on_a_lazy_image_is_committed", |rig| {
        let it = Containerd::start(rig)?;
        let image = rig.image(&["debian:ctr-esgz", "debian:esgz"])?;
        it.pull_lazily(&image);
        let (name, container) = (it.name(&image), container_name());
        let write = "echo written >/written; rm /usr/bin/dpkg; echo more >>/etc/hostname";
        let arguments =
            ["run", "--snapshotter=stargz", "--net-host", &name, &container, "sh", "-c", write];
        run(it.ctr(&arguments));
        let snapshots = |arguments: &[&str]| {
            let all: Vec<_> =
                ["snapshots", "--snapshotter=stargz"].iter().chain(arguments).copied().collect();
            it.ctr(&all)
        };
        run(snapshots(&["commit", "committed", &container]));
        let diff = it.work.path().join("diff.tar.gz");
        let file = fs::File::create(&diff).expect("the rig is writable");
        let mut command = snapshots(&["diff", "committed"]);
        assert!(command.stdout(file).status().expect("it runs").success());
        let listed = run(shell("tar -tzf \"$1\"", [&diff]));
        // /etc/hosts is where the host's is mounted.
        let of_us = |line: &&str| !line.ends_with('/') && *line != "etc/hosts";
        let changed: Vec<_> = listed.lines().filter(of_us).collect();
        assert_eq!(changed, ["etc/hostname", "usr/bin/.wh.dpkg", "written"], "{listed}");
        // It is a layer like any other.
        let target = it.work.path().join("mounted");
        fs::create_dir_all(&target).expect("the rig is writable");
        let target = target.to_str().expect("the rig's path is UTF-8");
        let mount = run(snapshots(&["prepare", "--target", target, "again", "committed"]));
        run(shell(mount.trim(), [""; 0]));
        let seen = |path: &str| Path::new(target).join(path);
        assert_eq!(fs::read_to_string(seen("written")).expect("it reads"), "written\n");
        assert!(!seen("usr/bin/dpkg").exists() && seen("usr/bin/dpkg-deb").exists());
        run(shell("umount \"$1\"", [target]));
        run(snapshots(&["rm", "again"]));
        Ok(())
    });
}

/// What is in a directory of a process.
fn listed(process: i32, directory: &str) -> impl Iterator<Item = PathBuf> {
    let listed = fs::read_dir(format!("/proc/{process}/{directory}"));
    listed.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

#[test]
fn thirty_pulls_at_once_leave_nothing_behind() {
    test("thirty_pulls_at_once_leave_nothing_behind", |rig| {
        let it = Containerd::start(rig)?;
        let wanted = [
            "layers:ctr-esgz",
            "layers:ctr-zstdchunked",
            "debian:ctr-esgz",
            "debian:ctr-zstdchunked",
            "layers:plain",
        ];
        let images: Vec<_> = wanted.iter().filter_map(|name| rig.image(&[name]).ok()).collect();
        let mounter = it.mount_process().expect("there is one").as_raw_nonzero().get();
        let daemon = i32::try_from(it.lazystar.id()).expect("a process id");
        let processes = [daemon, mounter];
        let threads = || processes.map(|process| listed(process, "task").count());
        // Sockets, and what else is open.
        let descriptors = || {
            processes.map(|process| {
                let targets = listed(process, "fd").filter_map(|fd| fs::read_link(fd).ok());
                let (sockets, others): (Vec<_>, Vec<_>) =
                    targets.partition(|target| target.to_string_lossy().starts_with("socket:"));
                [sockets.len(), others.len()]
            })
        };
        let before = descriptors();
        let pulls: Vec<_> = (0..30)
            .map(|number| {
                let (namespace, image) =
                    (format!("n{}", number % 10), it.name(&images[number % images.len()]));
                let mut pull = lazystar(&it, "pull", &namespace, &image);
                pull.stdout(Stdio::null()).stderr(Stdio::piped());
                (namespace, image, pull.spawn().expect("it runs"))
            })
            .collect();
        let mut pulled = Vec::new();
        for (namespace, image, pull) in pulls {
            let output = pull.wait_with_output().expect("it runs");
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{image} into {namespace}: {errors}");
            pulled.push((namespace, image));
        }
        pulled.sort();
        pulled.dedup();
        assert!(!it.mounts().is_empty());
        for (namespace, image) in &pulled {
            run(it.ctr(&["--namespace", namespace, "images", "rm", "--sync", image]));
        }
        it.wait_until("all snapshots are gone", || it.snapshot_dirs() == 0);
        let mounts = it.mounts();
        assert!(!mounts.iter().any(|mount| mount.contains("/snapshots/")), "{mounts:?}");
        // The client keeps this many idle connections to a registry, for up to three minutes.
        const KEPT: usize = 16;
        it.wait_until("all is closed", || {
            descriptors().iter().zip(before).all(|([sockets, others], before)| {
                *sockets <= before[0] + KEPT && (1..=before[1]).contains(others)
            })
        });
        // Idle threads of a pool end after 10 s.
        it.wait_until("all threads ended", || {
            threads().iter().zip([16, 32]).all(|(now, most)| *now <= most)
        });
        Ok(())
    });
}
